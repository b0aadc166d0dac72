"""Pages of other origins: what they may send, and read."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from predictor.api import headers
from predictor.api.responses import error_response

_SENT = {str(field.alias) for kind in headers.RequestHeaders.__subclasses__()
         for field in kind.model_fields.values()}  # fmt: skip
_READ = {each.name for each in vars(headers).values() if isinstance(each, headers.Header)}


class Cors(CORSMiddleware):
    def __init__(self, app: ASGIApp, origins: list[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("DELETE", "GET", "HEAD", "POST"),
            allow_headers={"Authorization", "X-Request-ID", *_SENT},
            expose_headers=sorted({"X-Request-ID", *_READ}),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        kept = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
        return error_response(response.status_code, f"{bytes(response.body).decode()}.", kept)
