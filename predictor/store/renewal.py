"""Keeps a worker's leases from running out, whatever its event loop is doing."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import redis
from redis.commands.core import Script

from predictor.prediction import PredictionId
from predictor.store import keys
from predictor.store.claims import Claims, give_back_arguments
from predictor.store.connection import blocking_client
from predictor.store.patience import TROUBLE, Patience, describe
from predictor.store.scripts import script

logger = logging.getLogger(__name__)


class Renewal:
    """A thread with a connection of its own that renews all that `claims` holds.

    A model that holds the event loop keeps its leases; one that holds the interpreter's lock for
    longer than a lease loses them, and its predictions run again.
    """

    def __init__(
        self,
        url: str,
        claims: Claims,
        patience: Patience,
        on_over: Callable[[Iterable[PredictionId]], None],
    ) -> None:
        """`on_over` is called, in the thread, with ids that need not go on."""
        self._url = url
        self._claims = claims
        self._patience = patience
        self._on_over = on_over
        self._lease = claims.terms.lease
        self._told = keys.TOLD + claims.terms.worker
        self._even_if_full = False
        self._stopping = threading.Event()

    def start(self, *, even_if_full: bool) -> None:
        """Begin to renew; `even_if_full` as in `script`."""
        self._even_if_full = even_if_full
        client = blocking_client(
            self._url, socket_timeout=self._lease / 3 + 1, socket_connect_timeout=1
        )
        renew = client.register_script(script("renew", even_if_full=even_if_full))
        threading.Thread(target=self._work, args=(client, renew), daemon=True).start()

    def stop(self) -> None:
        """Renew no more."""
        self._stopping.set()

    def hand_back(self, also_delete: str) -> None:
        """From a thread, now: return all that is held to the queue, and remove a key."""
        client = blocking_client(self._url, socket_timeout=0.5, socket_connect_timeout=0.5)
        try:
            client.delete(also_delete, self._told)
            if held := list(self._claims.held.values()):
                give_back = client.register_script(
                    script("give_back", even_if_full=self._even_if_full)
                )
                give_back(*give_back_arguments(self._claims.terms, held))
        except TROUBLE as error:
            logger.warning("not given back (%s): the leases will run out", describe(error))

    def _work(self, client: "redis.Redis", renew: Script) -> None:
        due = time.monotonic() + self._lease / 3
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                # Waiting for word of a cancel is all the pause there is between two renewals.
                told: Any = client.execute_command("BLPOP", self._told, max(0.01, due - began))
                if told:
                    self._on_over([PredictionId(told[1].decode(errors="replace"))])
                now = time.monotonic()
                self._patience.noticed(now - due, self._lease / 4)
                if now >= due:
                    self._renew(renew)
                    due = now + self._lease / 3
            except TROUBLE as error:
                logger.debug("leases not renewed (%s); trying again", describe(error))
                self._patience.last_trouble = time.monotonic()
                due = time.monotonic()
                self._stopping.wait(min(0.3, self._lease / 10))

    def _renew(self, renew: Script) -> None:
        held = list(self._claims.held.values())
        if not held:
            return
        began = time.monotonic()
        over = renew(
            keys=[keys.QUEUE, keys.LEASES, keys.TURNS, keys.CANCELS],
            args=[
                keys.IN_PROGRESS,
                round(self._lease * 1000),
                *(part for claim in held for part in (claim.id, claim.token, claim.turn)),
            ],
        )
        self._patience.noticed(time.monotonic() - began, self._lease / 4)
        if over:
            self._on_over([PredictionId(id_.decode()) for id_ in over])
