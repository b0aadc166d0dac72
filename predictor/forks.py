"""Processes that a model forks."""

import functools
import os
import signal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@functools.cache
def disown_forks() -> None:
    """From now on, what is forked from this process has none of its handling of signals.

    It would share the wake-up descriptor of the event loop, and tell that one of its own signals:
    even in its first moment, so that signals are held back until it is free of them.
    """
    owner = os.getpid()
    release = functools.partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _SIGNALS)

    def disown() -> None:
        if os.getppid() == owner:  # and not in what a forked process forks
            signal.set_wakeup_fd(-1)
            for signum in _SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
        release()

    hold = functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK, _SIGNALS)
    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=disown)
