"""The page at `/`: files that know nothing of this service; what they show, they ask it for."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

_FOLDER: Final = Path(__file__).parent / "static"
_HEADERS: Final = {"Cache-Control": "no-cache"}


def add_page(app: FastAPI) -> None:
    """Serve the page at `/`, and its files below `/page`."""

    async def page(_: Request) -> FileResponse:
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS)

    app.add_route("/", page, methods=["GET"], include_in_schema=False)
    app.mount("/page", StaticFiles(directory=_FOLDER), name="page")
