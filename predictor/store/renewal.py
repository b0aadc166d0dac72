"""Keeps a worker's leases from running out, whatever its event loop is doing."""

import logging
import threading

import redis

from predictor.store import keys
from predictor.store.claims import Claim, Claims
from predictor.store.connection import blocking_client
from predictor.store.scripts import script

logger = logging.getLogger(__name__)


class Renewal:
    """A thread with a connection of its own that renews all that `claims` holds.

    A model that holds the event loop keeps its leases; one that holds the interpreter's lock for
    longer than a lease loses them, and its predictions run again.
    """

    def __init__(self, url: str, claims: Claims, *, lease: float) -> None:
        """`lease`: seconds; renewed at a third of it."""
        self._claims = claims
        self._lease = lease
        self._redis = blocking_client(
            url, socket_timeout=lease / 3, socket_connect_timeout=lease / 3
        )
        self._script = self._redis.register_script(script("renew"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lease-renewal", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._lease)
        self._redis.close()

    def _work(self) -> None:
        pause = self._lease / 3
        while not self._stop.wait(pause):
            pause = self._lease / 3
            held = list(self._claims.held.values())
            if not held:
                continue
            try:
                self._renew(held)
            except (redis.RedisError, OSError) as error:
                logger.warning("leases not renewed (%s); trying again", type(error).__name__)
                pause = min(0.5, self._lease / 10)

    def _renew(self, held: list[Claim]) -> None:
        self._script(
            keys=[keys.QUEUE, keys.LEASES, keys.TURNS],
            args=[
                keys.IN_PROGRESS,
                round(self._lease * 1000),
                *(part for claim in held for part in (claim.id, claim.token, claim.turn)),
            ],
        )
