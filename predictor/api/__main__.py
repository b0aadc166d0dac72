"""`python -m predictor.api DRAIN FD…`: an api on sockets that its parent has bound and shares."""

import socket
import sys

import uvicorn

from predictor.process import notify_ready


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        notify_ready()


def _serve(drain: int, fds: list[int]) -> None:
    """Serve until SIGTERM, and then for up to `drain` seconds.

    Not by `uvicorn --fd`, whose copy of the socket stays open while it drains: clients would be
    queued there instead of refused.
    """
    config = uvicorn.Config(
        "predictor.main:app",
        http="predictor.api.protocol:Protocol",
        server_header=False,
        log_config=None,
        ws="none",
        timeout_graceful_shutdown=drain,
    )
    config.load_app()  # here: an error of the configuration ends the process in order
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for listener in sockets:
        listener.set_inheritable(False)  # or a program that the model starts would keep it open
    _Server(config).run(sockets)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), list(map(int, sys.argv[2:])))
