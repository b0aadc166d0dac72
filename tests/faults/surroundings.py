"""What a store stands on, where a test can do something to it: its clock, its disk, its links."""

import contextlib
import math
import select
import shlex
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_CLOCK = Path(__file__).with_name("clock.c")


class Unavailable(Exception):
    """This machine does not let a test have that."""


class Clock:
    """The wall clock of one process, which can be set while it runs."""

    def __init__(self, folder: Path) -> None:
        """Raises Unavailable."""
        self._library = folder / "clock.so"
        self._file = folder / "clock"
        self._file.write_bytes(bytes(8))
        compile_ = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_CLOCK)]
        try:
            subprocess.run(compile_, capture_output=True, text=True, check=True)
        except OSError as error:
            raise Unavailable(f"no C compiler: {error}") from None
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"the clock does not compile: {error.stderr}") from None

    def wrap(self, command: Path) -> Path:
        """A command that does the same, by this clock."""
        wrapper = self._library.with_name("wrapper")
        library, file, name = (shlex.quote(str(p)) for p in (self._library, self._file, command))
        wrapper.write_text(
            f'#!/bin/sh\nLD_PRELOAD={library} CLOCK_FILE={file} exec {name} "$@"\n',
            encoding="utf-8",
        )
        wrapper.chmod(0o700)
        return wrapper

    @property
    def ahead(self) -> float:
        """Seconds that it is ahead of the machine's."""
        moved: int = struct.unpack("=q", self._file.read_bytes())[0]
        return moved / 10**6

    def step(self, seconds: float) -> None:
        """Set it forward, or back."""
        moved = struct.pack("=q", round((self.ahead + seconds) * 10**6))
        with self._file.open("r+b") as file:
            file.write(moved)


class Disk:
    """A small one, mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave room for nothing."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(2**16)):
                pass

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount one at `folder`, for so long. Raises Unavailable."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, capture_output=True, text=True, check=True)
    except OSError as error:
        raise Unavailable(str(error)) from None
    except subprocess.CalledProcessError as error:
        raise Unavailable(error.stderr.strip()) from None
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Link:
    """Between processes and the store, by a Unix socket of its own; it may be slow, or stall."""

    def __init__(self, target: str, path: Path, pace: float = math.inf) -> None:
        """`pace`: bytes a second that each direction of each connection passes."""
        self.pace = pace
        self.url = f"unix://{path}"
        self._target = target.removeprefix("unix://")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._there, self._back = threading.Event(), threading.Event()
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self.resume()
        self._server.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        self.resume()

    def stall(self, *, there: bool = True, back: bool = True) -> None:
        """Pass nothing in these directions, and say nothing about it, until `resume`."""
        if there:
            self._there.clear()
        if back:
            self._back.clear()

    def resume(self) -> None:
        self._there.set()
        self._back.set()

    def cut(self) -> None:
        """Close all connections; what is on its way is lost."""
        for connection in list(self._connections):
            _shut(connection)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                upstream = socket.socket(socket.AF_UNIX)
                try:
                    upstream.connect(self._target)
                except OSError:
                    upstream.close()
                    client.close()
                    continue
                self._connections |= {client, upstream}
                ways = ((client, upstream, self._there), (upstream, client, self._back))
                for way in ways:
                    threading.Thread(target=self._pump, args=way, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_open: threading.Event) -> None:
        with source:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    is_open.wait()
                    target.sendall(data)
                    time.sleep(len(data) / self.pace)
            self._connections.discard(source)
            _shut(source)
            _shut(target)


class Certificates:
    """An authority, and what it has signed for `names`: `name`.pem, key and certificate."""

    def __init__(self, folder: Path, *names: str) -> None:
        """Raises Unavailable."""
        self.folder, self.authority = folder, folder / "authority.pem"
        self._make(self.authority, "-x509", "-subj", "/CN=authority")
        for name in names:
            given = "-CA", str(self.authority), "-CAkey", str(self.authority)
            self._make(folder / f"{name}.pem", "-x509", *given, "-subj", f"/CN={name}",
                       "-addext", f"subjectAltName=DNS:{name}")  # fmt: skip

    def _make(self, file: Path, *options: str) -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        usage = ["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]  # Python 3.13 asks
        command = ["openssl", "req", *key, *usage, "-days", "2", *options]
        made = file.with_suffix(".key"), file.with_suffix(".crt")
        try:
            subprocess.run([*command, "-keyout", made[0], "-out", made[1]], capture_output=True,
                           check=True)  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"openssl: {error}") from None
        file.write_bytes(b"".join(part.read_bytes() for part in made))


class Tls(socketserver.ThreadingTCPServer):
    """TLS on a port of this machine, before a store with a Unix socket."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, target: str, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Plain)
        self.target = target.removeprefix("unix://")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, *_: object) -> None:
        """A client that does not like the certificate breaks off."""


class _Plain(socketserver.BaseRequestHandler):
    server: Tls

    def handle(self) -> None:
        with (
            self.server.context.wrap_socket(self.request, server_side=True) as client,
            socket.socket(socket.AF_UNIX) as store,
        ):
            store.connect(self.server.target)
            while True:
                ready = [client] if client.pending() else select.select([client, store], [], [])[0]
                for source, target in ((client, store), (store, client)):
                    if source in ready:
                        if not (data := source.recv(65536)):
                            return
                        target.sendall(data)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
