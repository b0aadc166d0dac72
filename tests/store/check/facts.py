"""What the model knows of a prediction."""

import math
from dataclasses import dataclass, field


class Violation(AssertionError):
    """The scripts did what they must not do, or did not do what they must."""


def demand(true: object, what: str) -> None:
    """Raise Violation unless `true`."""
    if not true:
        raise Violation(what)


@dataclass
class Mark:
    """A time of which the store keeps a score; it moves with the clock when that is set back."""

    #: as the store has it, ms since 1970
    score: float
    #: the same time by a clock that is never set back, ms
    real: float
    #: ms by which the clock was set back since, and the store has not yet met it
    outstanding: float = 0
    #: ms by which this may be late: what nobody could know, or is let be
    slack: float = 0

    def repaired(self, unknown: float) -> None:
        """The store has met all that is outstanding but for `unknown` ms."""
        self.slack += min(self.outstanding, unknown)
        self.outstanding = 0

    def late_by(self, now: float, elapsed: float) -> float:
        """Ms by which the store's score is behind the time that it stands for."""
        return (self.score - now) - (self.real - elapsed)


@dataclass
class Run:
    """A worker that holds a prediction."""

    worker: str
    token: str
    verdict: str
    #: it was given among suspects
    is_apart: bool
    #: end of the lease
    lease: Mark
    #: ms since 1970 after which its in-progress key is gone
    alive_until: int
    #: its lease ran out once
    was_lost: bool = False

    def is_alive(self, now_ms: int) -> bool:
        """Whether clients read that it runs."""
        return now_ms <= self.alive_until


@dataclass
class Fact:
    """A prediction."""

    id: str
    job: str
    #: its submit
    turn: Mark
    queue_ttl: float
    cancel_after: float | None
    key: str
    fingerprint: str
    has_webhook: bool
    #: when its `cancel_after` is over
    deadline: Mark | None = None
    run: Run | None = None
    #: the run that ended its worker, of a suspect that waits
    last_token: str | None = None
    tries: int | None = None
    tries_until: int = 0
    requeued: int = 0
    #: somebody asked for it to end
    is_marked: bool = False
    is_suspect: bool = False
    #: how many may share its next worker; 0: it is given up
    group: int | None = None
    #: whether it was alone when it last ended its worker
    was_alone: bool = False
    #: whether a client was told that its time is over
    said_late: bool = False
    #: kind and data of each event
    events: list[tuple[str, str]] = field(default_factory=list)
    #: whether its state does not tell them
    keeps_events: bool = False
    has_progress: bool = False
    #: which run said how many events
    said: tuple[str, int] = ("", 0)
    result: str | None = None
    #: how it ended, as metrics name it
    outcome: str = ""
    #: ms since 1970 after which a result is gone
    known_until: int = 0
    is_erased: bool = False
    #: ms since 1970 after which a webhook is gone; -1: no end
    webhook_until: int = -1
    webhook_state: str = ""
    #: when it was last asked for
    since: str = "0"
    #: when its webhook is due
    due: Mark | None = None

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.result is None and not self.is_erased

    @property
    def marks(self) -> list[Mark]:
        """All of its times that the store keeps as scores."""
        found = [self.turn, self.run and self.run.lease, self.due, self.deadline]
        return [mark for mark in found if mark]

    @property
    def place(self) -> float:
        """Its score in the queue."""
        if self.run:
            return self.run.lease.score
        return math.inf if self.is_suspect else self.turn.score

    def forget(self, now_ms: int) -> None:
        """What has run out is gone, though the clock may be set back."""
        if self.run and not self.run.is_alive(now_ms):
            self.run.alive_until, self.run.was_lost = 0, True
        if self.webhook_until >= 0:
            self.has_webhook = self.has_webhook_at(now_ms)
        if not self.is_known(now_ms):
            self.known_until = 0
        self.tries = self.tries_at(now_ms)

    def tries_at(self, now_ms: int) -> int | None:
        """How often it was started, as far as that is kept."""
        return self.tries if now_ms <= self.tries_until else None

    def runs(self, now_ms: int) -> bool:
        """Whether it runs, so that the queue's time to live does not end it."""
        return bool(self.run and self.run.verdict != "expired" and self.run.is_alive(now_ms))

    def is_late(self, now: float, now_ms: int) -> bool:
        """Whether its time is over."""
        if self.cancel_after is not None and self.turn.score + self.cancel_after - now <= 0:
            return True
        return self.turn.score + self.queue_ttl - now <= 0 and not self.runs(now_ms)

    def is_known(self, now_ms: int) -> bool:
        """Whether a client can read it."""
        return self.is_active or (not self.is_erased and now_ms <= self.known_until)

    def has_webhook_at(self, now_ms: int) -> bool:
        """Whether its webhook is kept."""
        is_kept = self.webhook_until < 0 or now_ms <= self.webhook_until
        return self.has_webhook and not self.is_erased and is_kept
