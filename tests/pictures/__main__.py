"""Makes the pictures: a service, the people who use it, a browser and a terminal."""

import argparse
import asyncio
import base64
import contextlib
import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright, expect
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from predictor.client import AsyncClient
from tests.page.conftest import CHROMIUM, OPTIONS
from tests.processes import Processes

HERE = Path(__file__).parent
_DESK, _PHONE, _TERMINAL = (1280, 840), (390, 844), (100, 12)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="that the service is in use")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--to", type=Path, default=HERE, help="a folder")
    given = parser.parse_args()
    expect.set_options(timeout=30_000)
    asyncio.run(_take(given.seconds, given.port, given.to))


async def _take(seconds: float, port: int, folder: Path) -> None:
    """Write light.webp, dark.webp, phone.webp and terminal.svg."""
    with tempfile.TemporaryDirectory() as temporary, _service(Path(temporary), port) as url:
        async with AsyncClient(url) as client, _used(client), _browser() as browser:
            is_enough = threading.Event()
            top = asyncio.create_task(asyncio.to_thread(_top, url, is_enough))
            try:
                await _desk(browser, url, seconds, folder)
                await _phone(browser, url, folder)
            finally:
                is_enough.set()
            (folder / "terminal.svg").write_text(_drawn(await top))


@contextlib.contextmanager
def _service(folder: Path, port: int) -> Iterator[str]:
    with Processes(folder, "") as started:
        settings = {"model": "assistant:answer", "concurrency": 6, "PYTHONPATH": HERE}
        process = started.start("predictor", "--port", str(port), **settings)
        started.client(port, process)
        yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def _used(client: AsyncClient) -> AsyncIterator[None]:
    """The service, while others use it: at times more than it can do at once."""

    async def submit() -> None:
        for number in itertools.count():
            text = f"Question {number}" if number % 17 else " "
            await client.submit({"prompt": text, "words": 20 + 7 * number % 50})
            await asyncio.sleep(0.15 if number // 40 % 2 else 1)

    task = asyncio.create_task(submit())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@contextlib.asynccontextmanager
async def _browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        yield await playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)


async def _desk(browser: Browser, url: str, seconds: float, folder: Path) -> None:
    page = await _opened(browser, url, _DESK)
    await asyncio.sleep(seconds)
    for words, prompt in ((4, "Is it safe to restart?"), (5, " "), (6, "Who else is waiting?")):
        await _run(page, "async", prompt, words)
    await _run(page, "async", "What if I never come back?", 180)
    rows = page.locator("#rows tr")
    await expect(rows).to_have_count(4)  # or `first` would be another, which ends meanwhile
    await rows.first.get_by_role("button", name="Cancel").click()
    await _run(page, "async", "How long will it take?", 200)
    await expect(rows).to_have_count(5)
    await expect(rows.first.locator(".badge")).to_have_text("running", timeout=60_000)
    for words in (120, 150):
        await _run(page, "async", "What happens if a worker dies?", words)
    await _run(page, "stream", "What happens if a worker dies?", 25)
    await expect(page.locator("#answer .badge")).to_have_text("succeeded")
    await page.evaluate("document.activeElement.blur()")
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        await _picture(page, folder / f"{scheme}.webp")


async def _phone(browser: Browser, url: str, folder: Path) -> None:
    page = await _opened(browser, url, _PHONE)
    await _run(page, "sync", "Does it work on a phone?", 20)
    await expect(page.locator("#answer .badge")).to_have_text("succeeded")
    await _picture(page, folder / "phone.webp")


async def _opened(browser: Browser, url: str, size: tuple[int, int]) -> Page:
    viewport: Any = {"width": size[0], "height": size[1]}
    page = await browser.new_page(viewport=viewport, device_scale_factor=2)
    await page.goto(url)
    return page


async def _run(page: Page, mode: str, prompt: str, words: int) -> None:
    await page.get_by_label("prompt").fill(prompt)
    await page.get_by_label("words").fill(str(words))
    await page.locator(f".modes label:has(input[value={mode}])").click()
    await page.get_by_role("button", name="Run", exact=True).click()


async def _picture(page: Page, path: Path) -> None:
    session: Any = await page.context.new_cdp_session(page)
    options = {"format": "webp", "quality": 80}  # a third of a PNG
    shot = await session.send("Page.captureScreenshot", options)
    path.write_bytes(base64.b64decode(shot["data"]))  # noqa: ASYNC240 (nothing else runs)


def _top(url: str, is_enough: threading.Event) -> str:
    """What `predictor top` has written to a terminal."""
    master, terminal = pty.openpty()
    columns, lines = _TERMINAL
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
    command = [sys.executable, "-m", "predictor", "top", "--url", url, "--interval", "1"]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, env=environment)
    os.close(terminal)
    written, is_told = b"", False
    with contextlib.suppress(OSError):  # it has ended
        while piece := os.read(master, 65536):
            written += piece
            if is_enough.is_set() and not is_told:
                is_told = os.write(master, b"q") == 1
    process.wait(10)
    os.close(master)
    return written.decode()


def _drawn(written: str) -> str:
    """The last whole screen, as SVG that loads no fonts."""
    screens = re.split(r"\x1b\[H|\x1b\[\?1049[hl]", written)
    last = max(enumerate(screens), key=lambda each: (len(each[1]) > 500, each[0]))[1]
    columns, lines = _TERMINAL
    console = Console(record=True, width=columns, height=lines, file=io.StringIO())
    console.print(Text.from_ansi(last.replace("\r\n", "\n")), end="")
    svg = console.export_svg(title="predictor top", theme=MONOKAI)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    main()
