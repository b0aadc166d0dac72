"""Tells whoever started this process that it is ready, as systemd defines it in sd_notify(3)."""

import contextlib
import os
import socket


def notify_ready() -> None:
    """Send READY=1 to the socket that NOTIFY_SOCKET names, if it does."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to, contextlib.suppress(OSError):
        to.connect(address)
        to.send(f"READY=1\nMAINPID={os.getpid()}".encode())
