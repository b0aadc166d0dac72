"""What all processes share: logs, exit status 78, threads, waits, ready and stop signals."""

import asyncio
import contextlib
import contextvars
import functools
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, TypeVar

from predictor import errors
from predictor.config import Config, misspelled
from predictor.logs import configure_logging, is_json

logger = logging.getLogger(__name__)

T = TypeVar("T")
IdleThreads = list[SimpleQueue[Callable[[], None]]]
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_OPEN = "PREDICTOR_API_KEYS is not set: whoever can reach"


def start_logging(config: Config, *, prints: bool = False) -> None:
    """Log as `config` says; `prints`: what is printed, too. Warns of names that are no settings."""
    configure_logging(config.log_format, config.log_level, prints=prints)
    for name, meant in misspelled():
        logger.warning("%s is no setting; did you mean %s?", name, meant)


@contextlib.contextmanager
def ends_if_misconfigured(*, is_client: bool = False) -> Iterator[None]:
    """Turn an error of the configuration into one line on standard error and exit status 78."""
    try:
        yield
    except (errors.ConfigError, errors.UnsuitableStore) as error:
        if not (is_client or logging.getLogger().handlers):  # the settings cannot be read
            configure_logging(os.environ.get("PREDICTOR_LOG_FORMAT", ""), "info")
        if is_json():
            logging.getLogger("predictor").error("%s", error)  # noqa: TRY400 (one line)
        else:
            print(f"predictor: {error}", file=sys.stderr if is_client else sys.__stderr__)
        sys.exit(os.EX_CONFIG)


def call_in_thread(call: Callable[[], T], idle: IdleThreads | None = None) -> asyncio.Future[T]:
    """Call in a daemon thread, which goes on if the future is canceled.

    `idle`: threads that are reused; what a model keeps in `threading.local` stays there. No
    ThreadPoolExecutor: a call that never returns would delay the exit of the process.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    future: asyncio.Future[T] = loop.create_future()
    is_new, waiting = not idle, idle.pop() if idle else SimpleQueue()

    def work() -> None:
        try:
            settle = functools.partial(future.set_result, context.run(call))
        except BaseException as error:
            settle = functools.partial(future.set_exception, error)
        if idle is not None:
            idle.append(waiting)  # first: the next call may come at once
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: future.cancelled() or settle())

    waiting.put(work)
    if is_new:
        threading.Thread(target=_serve, args=(waiting, idle is None), daemon=True).start()
    return future


def _serve(waiting: SimpleQueue[Callable[[], None]], is_once: bool) -> None:
    waiting.get()()  # kept in no variable: its result may be large
    while not is_once:
        waiting.get()()


async def is_set_within(seconds: float, event: asyncio.Event) -> bool:
    with contextlib.suppress(TimeoutError):  # asyncio.wait_for may swallow a cancel in Python 3.11
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def notify_ready() -> None:
    """Send READY=1 to the socket that NOTIFY_SOCKET names, if it does."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        path = "\0" + address[1:] if address.startswith("@") else address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to, contextlib.suppress(OSError):
            to.sendto(f"READY=1\nMAINPID={os.getpid()}".encode(), path)


def exposure() -> str:
    """What an operator should know if this process listens where other machines can reach it."""
    hosts = []
    for path in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            listener = socket.socket(fileno=int(path.name))  # fails for what is no socket
            stack.callback(listener.detach)
            is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if is_listening and listener.family != socket.AF_UNIX:
                address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
                hosts += [] if address.is_loopback else [str(address)]
    return f"{_OPEN} {', '.join(hosts)} can make and read predictions" if hosts else ""


def warn_if_exposed() -> None:
    if text := exposure():
        logging.getLogger(__name__).warning(text)


def on_stop(call: Callable[[], object], *, instead: bool = False) -> None:
    """Call `call` in the handler of SIGTERM and SIGINT, before or `instead` of what is set now.

    Outside of the main thread, where no signal arrives, this does nothing.
    """
    if threading.current_thread() is threading.main_thread():
        for signum in _SIGNALS:
            if instead:
                asyncio.get_running_loop().remove_signal_handler(signum)
            before = None if instead else signal.getsignal(signum)
            signal.signal(signum, functools.partial(_handle, call, before))
        _disown_forks()


def _handle(call: Callable[[], object], before: Any, signum: int, frame: FrameType | None) -> None:
    call()
    if callable(before):
        before(signum, frame)


@functools.cache
def _disown_forks() -> None:
    """Reset signal handling in processes that are forked from this one; signals wait meanwhile.

    A child would otherwise write its signals to the wake-up descriptor of this process's loop.
    """
    owner = os.getpid()
    hold = functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK, _SIGNALS)
    release = functools.partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _SIGNALS)

    def disown() -> None:
        if os.getppid() == owner:  # not in a grandchild
            signal.set_wakeup_fd(-1)
            for signum in _SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=disown)
