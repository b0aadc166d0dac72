"""What each script must do: a model in Python, which follows every call."""

import json
import math
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from predictor.prediction import OUTCOMES
from predictor.store import keys
from tests.store.check.facts import Fact, Mark, Run, demand
from tests.store.check.server import Call, Server, uses_clock

_DAY_MS = 86_400_000


class Given(NamedTuple):
    """What a claim says of one prediction."""

    id: str
    turn: float
    tries: int
    job: str
    token: str
    verdict: str

    @classmethod
    def read(cls, reply: list[Any]) -> "Given":
        """From the script's answer."""
        id_, turn, job, token, verdict = (each.decode() for each in reply)
        return cls(id_, float(turn), int(token.split(":")[-2]), job, token, verdict)


class Model:
    """All predictions of one history."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.facts: dict[str, Fact] = {}
        self._past: dict[str, Fact] = {}
        #: what the store says that a worker holds: worker → id → token
        self.held: dict[str, dict[str, str]] = {}
        #: whose an idempotency key is
        self.keys: dict[str, str] = {}
        #: the latest time that the scripts have seen: ms since 1970, and by `elapsed`
        self.latest: tuple[float, float] | None = None
        #: ms by which the clock was set back since then
        self.outstanding = 0.0
        #: tokens of runs that their workers have given back, though the store may not know it yet
        self.let_go: set[str] = set()
        #: ms that it could not make good
        self.unknown = 0.0
        #: ms that a run may take
        self.longest_run = 0
        self.counts: Counter[str] = Counter()
        self.log: deque[str] = deque(maxlen=2000)

    # What happens to time.

    @property
    def now(self) -> float:
        """The store's clock, ms."""
        return self.server.now

    @property
    def now_ms(self) -> int:
        """The same, for times to live."""
        return self.server.now_ms

    def mark(self, ms: float) -> Mark:
        """The time that will be in `ms`."""
        return Mark(self.now + ms, self.server.elapsed + ms)

    def set_clock(self, by_us: int) -> None:
        """The clock is set forward, or back."""
        self.note(f"the clock is set by {by_us / 1000} ms")
        self.server.set_clock(by_us)
        back = max(0, -by_us) / 1000
        self.outstanding += back
        for fact in self.facts.values():
            fact.said_late &= not back
            for mark in fact.marks:
                mark.outstanding += back

    def put_off(self, id_: str, score: float) -> None:
        """A deliverer has a webhook due later."""
        fact = self.fact(id_)
        if fact.due:
            ahead = score - self.now
            fact.due = Mark(score, self.server.elapsed + ahead)

    def prune(self) -> None:
        """Forget what nobody can ask for, but for some that are asked for all the same."""
        held = {id_ for held in self.held.values() for id_ in held}
        gone = [
            id_
            for id_, fact in self.facts.items()
            if not fact.is_known(self.now_ms)
            and not fact.has_webhook_at(self.now_ms)
            and not (fact.due or id_ in held)
        ]
        for id_ in gone[:-5]:
            self._past[id_] = self.facts.pop(id_)

    def fact(self, id_: str) -> Fact:
        """What is, or was, known of a prediction."""
        return self.facts.get(id_) or self._past[id_]

    def note(self, what: str) -> None:
        """Remember what happened."""
        self.log.append(f"{self.server.clock_us % 10**12 / 1000:.3f} {what}")

    def on_call(self, call: Call) -> None:
        """A script ran."""
        self.note(str(call))
        for fact in self.facts.values():
            fact.forget(self.now_ms)
        self.counts[call.name] += 1
        if uses_clock(call.name):
            self._clock()
        getattr(self, f"_{call.name}")(call)

    def _clock(self) -> None:
        now, latest = self.now, self.latest
        is_back = latest is not None and latest[0] - now > 500
        if latest and is_back:
            self._step_back(latest[0] - now, self.server.elapsed - latest[1])
        if latest is None or is_back or now - latest[0] > 100:
            for fact in self.facts.values():
                for mark in fact.marks:
                    mark.repaired(mark.outstanding)
            self.latest = (now, self.server.elapsed)
            self.outstanding = 0

    def _step_back(self, step: float, unknown: float) -> None:
        """All times move back, and nothing waits longer than if the clock had not been set.

        `unknown`: ms that passed since the scripts last saw the clock, which nobody can know.
        """
        self.counts["step back"] += 1
        self.unknown += unknown
        now, elapsed = self.now, self.server.elapsed
        for fact in self.facts.values():
            for mark in fact.marks:
                mark.score -= step
                mark.repaired(unknown)
                late = mark.late_by(now, elapsed)
                is_early = late < -501 and mark is not fact.due
                demand(
                    late <= mark.slack + 1 and not is_early,
                    f"{mark} of {fact.id} is {late} ms late",
                )
            if fact.run and (left := fact.run.alive_until - self.now_ms) > 0:
                fact.run.alive_until = self.now_ms + max(1, math.floor(left - step))

    # What each script must do.

    def _submit(self, call: Call) -> None:
        what, id_ = call.reply[0].decode(), call.reply[1].decode()
        self.counts[f"submit: {what}"] += 1
        twin = self._known_twin(call.key)
        known = self.facts.get(call.id)
        if twin:
            same = twin.fingerprint == call.fingerprint
            expected = ("replayed" if twin.id != call.id else "accepted") if same else "mismatch"
            demand(what == expected, f"submit: {what}, not {expected}, of the twin of {twin.id}")
            demand(not same or id_ == twin.id, f"submit: {id_} is not the twin {twin.id}")
            return
        if known and known.is_known(self.now_ms):
            demand((what, id_) == ("accepted", call.id), f"submit: {what} {id_} of a known id")
            return
        waiting = sum(fact.is_active and not fact.run for fact in self.facts.values())
        is_full = 0 < int(call.limit) <= waiting
        expected = "full" if is_full else "accepted"
        demand(what == expected, f"submit: {what}, not {expected}; {waiting} wait")
        if not is_full:
            self._accept(call)

    def _known_twin(self, key: str) -> Fact | None:
        fact = self.facts.get(self.keys.get(key, ""))
        return fact if fact and fact.is_known(self.now_ms) else None

    def _accept(self, call: Call) -> None:
        cancel_after = float(call.cancel_after) if call.cancel_after else None
        fact = Fact(
            call.id,
            call.job,
            self.mark(0),
            float(call.queue_ttl),
            cancel_after,
            call.key,
            call.fingerprint,
            bool(call.webhook),
            None if cancel_after is None else self.mark(cancel_after),
            events=[("status", '{"status":"queued"}')],
        )
        if call.key:
            self.keys[call.key] = call.id
        self.facts[call.id] = fact

    def _claim(self, call: Call) -> None:
        demand(all(len(each) == 5 for each in call.reply[3:]), f"claim: {call.reply}")
        given = [Given.read(each) for each in call.reply[3:]]
        ids = [each.id for each in given]
        if call.is_repeat == "1":
            self._repeat_claim(call, given)
            return
        if call.may_recover == "1" and self.now - float(call.sent_at) < float(call.lease) / 4:
            self._recover(call)
        is_kept, most = call.reply[1] == 1, int(call.most)
        demand(len(ids) <= most, f"claim: {len(ids)} given, {most} asked for")
        if is_kept:
            self._serve_suspects(call, [self.fact(id_) for id_ in ids])
        else:
            line = [fact.id for fact in self._due(most) if not fact.run]
            apart = [run for run in self._runs_of(call.worker) if run.is_apart]
            demand(not (line and apart), f"claim: {line} beside {apart}")
            demand(ids == line, f"claim: {ids} given, {line} are due")
        for each in given:
            self._take(call, each, is_apart=is_kept)
        left = [fact.id for fact in self._due(len(self.facts)) if not fact.run]
        demand(call.reply[2] == 1 or not left, f"claim: {left} are due, too")

    def _repeat_claim(self, call: Call, given: list[Given]) -> None:
        """What the worker holds it gets again, with new leases, and nothing else."""
        held = self.held.get(call.worker, {})
        mine = {}
        for id_, token in held.items():
            fact = self.fact(id_)
            if fact.run and fact.run.token == token:
                verdict, lease = self._verdict(fact), int(call.lease)
                mine[id_] = (fact.turn.score, token, verdict)
                fact.run.lease = self.mark(lease)
                if verdict != "expired":
                    fact.run.alive_until = self.now_ms + lease
        found = {each.id: (each.turn, each.token, each.verdict) for each in given}
        demand(found == mine, f"claim repeated: {found}, not {mine}")
        apart = [
            run for run in self._runs_of(call.worker) if run.is_apart and run.token in held.values()
        ]
        demand(call.reply[1] == 1 or not apart, f"claim repeated: {apart} not said to be suspects")

    def _due(self, most: int) -> list[Fact]:
        """What is due first, or was when its lease ran out."""
        found = [
            (fact.run.lease.score if fact.run else fact.turn.score, fact.id)
            for fact in self.facts.values()
            if fact.is_active and (fact.run or not fact.is_suspect)
        ]
        return [self.fact(id_) for score, id_ in sorted(found) if score <= self.now][:most]

    def _serve_suspects(self, call: Call, given: list[Fact]) -> None:
        suspects = [fact for fact in self.facts.values() if fact.is_active and fact.is_suspect]
        demand(suspects, "claim: a worker is kept for suspects, and there are none")
        kept = self.server.get(keys.QUARANTINE)
        demand(kept == call.worker, f"claim: {kept} is kept for suspects, not {call.worker}")
        if given:
            running = [fact for fact in self.facts.values() if fact.is_active and fact.run]
            demand(all(fact.is_suspect for fact in given), "claim: suspects and others together")
            groups = [fact.group or 1 for fact in given]
            demand(len(given) <= min(groups), f"claim: {len(given)} suspects of groups {groups}")
            mine = self._runs_of(call.worker)
            demand(not mine, f"claim: suspects for {call.worker}, which has {mine}")
            for run in (fact.run for fact in running if fact.run):
                # A run whose lease was lost for a while, and taken again, may have company.
                is_kept = run.is_alive(self.now_ms) and not run.was_lost
                is_over = self.now - began(run.token) > self.longest_run
                demand(
                    not (run.is_apart and is_kept) or is_over or run.token in self.let_go,
                    f"claim: suspects for {call.worker} beside {run}",
                )

    def _runs_of(self, worker: str) -> list[Run]:
        found = [fact.run for fact in self.facts.values() if fact.runs(self.now_ms)]
        return [
            run for run in found if run and run.worker == worker and run.token not in self.let_go
        ]

    def _take(self, call: Call, given: Given, *, is_apart: bool) -> None:
        id_, fact, now_ms = given.id, self.fact(given.id), self.now_ms
        demand(given.turn == fact.turn.score, f"claim: turn {given.turn} of {id_}, {fact.turn}")
        demand(given.job == fact.job, f"claim: another job for {id_}")
        expected = self._verdict(fact)
        demand(given.verdict == expected, f"claim: {given.verdict!r} of {id_}, not {expected!r}")
        tries = fact.tries_at(now_ms) or 0
        if expected == "":
            tries += 1
            fact.tries, fact.tries_until = tries, now_ms + _DAY_MS
            fact.events.append(("status", f'{{"status":"running","try":{tries}}}'))
        if expected == "given_up":
            demand(fact.was_alone or call.max_tries == "1", f"{id_} is given up, was not alone")
            self.counts["given up"] += 1
        demand(given.tries == tries, f"claim: try {given.tries} of {id_}, not {tries}")
        token = f"{call.worker}:{tries}:{int(self.now)}"
        demand(given.token == token, f"claim: token {given.token}, not {token}")
        lease = int(call.lease)
        until = now_ms + lease if expected != "expired" else 0
        fact.run = Run(call.worker, token, expected, is_apart, self.mark(lease), until)
        fact.is_suspect, fact.last_token = False, None
        self.counts["given apart" if is_apart else "given"] += 1
        self.held.setdefault(call.worker, {})[id_] = token

    def _verdict(self, fact: Fact) -> str:
        if fact.is_late(self.now, self.now_ms):
            return "expired"
        if fact.is_marked:
            return "canceled"
        return "given_up" if fact.group == 0 else ""

    def _recover(self, call: Call) -> None:
        companies = {worker: len(held) for worker, held in self.held.items()}
        for fact in self.facts.values():
            run = fact.run
            if not (fact.is_active and run and run.lease.score < float(f"{self.now:.14g}")):
                continue
            deaths = self._tries_or(fact, 1)
            if run.worker == call.worker:
                deaths = max(0, deaths - 1)  # it lives
                fact.tries, fact.tries_until = deaths, self.now_ms + _DAY_MS
                self.counts["recovered by itself"] += 1
            else:
                self.counts["recovered"] += 1
                if not run.verdict:
                    fact.was_alone = companies[run.worker] == 1
            most = int(call.max_tries)
            self._put_back(fact, deaths, most, max(1, most - 1), companies[run.worker])

    def _tries_or(self, fact: Fact, otherwise: int) -> int:
        tries = fact.tries_at(self.now_ms)
        return otherwise if tries is None else tries

    def _put_back(self, fact: Fact, strikes: int, most: int, suspicious: int, company: int) -> None:
        assert fact.run
        token, fact.run, fact.keeps_events = fact.run.token, None, True
        if strikes >= most and (company == 1 or most == 1):
            fact.group = 0
            return
        if strikes >= suspicious:
            fact.group = company if fact.group is None else max(1, company // 2)
        if fact.group:  # once a suspect it stays one
            fact.is_suspect, fact.last_token = True, token
            self.counts["set apart"] += 1

    def _requeue(self, call: Call) -> None:
        back = 0
        for id_, token in zip(call.rest[::2], call.rest[1::2], strict=True):
            fact = self.fact(id_)
            run = fact.run
            if not (fact.is_active and run and run.token == token):
                continue
            back += 1
            fact.requeued += int(call.company) > 0
            strikes = fact.requeued if int(call.company) > 0 else 0
            self.held[call.worker].pop(id_, None)
            if strikes >= int(call.most):
                fact.was_alone = call.company == "1"
            self._put_back(fact, strikes, int(call.most), int(call.suspicious), int(call.company))
            self._uncount(fact, 1)
            fact.events.append(("status", '{"status":"queued"}'))
        demand(call.reply == back, f"requeue: {call.reply} went back, not {back}")

    def _uncount(self, fact: Fact, least: int) -> None:
        tries = self._tries_or(fact, 0) - 1
        fact.tries = tries if tries >= least else None

    def _renew(self, call: Call) -> None:
        over, lease = set(), int(call.lease)
        self.longest_run = int(call.longest_run)
        for id_, token in list(self.held.get(call.worker, {}).items()):
            fact = self.fact(id_)
            run = fact.run
            is_overdue = self.now - int(token.rpartition(":")[2]) > float(call.longest_run)
            if not fact.is_active:
                del self.held[call.worker][id_]
                over.add(id_)
            elif not run or run.token != token:
                # Its worker lives: the lease that it lost was not a death.
                del self.held[call.worker][id_]
                if not is_overdue and self._tries_or(fact, 0) > 0:
                    fact.tries = self._tries_or(fact, 0) - 1
                    fact.group = fact.group or None  # it is not to be given up for that
                self.counts["uncounted"] += 1
            else:
                is_late = fact.is_late(self.now, self.now_ms)
                if not is_overdue:
                    self.counts["taken again"] += not run.is_alive(self.now_ms)
                    run.lease = self.mark(lease)
                    run.alive_until = run.alive_until if is_late else self.now_ms + lease
                if is_late or fact.is_marked:
                    over.add(id_)
        said = {id_.decode() for id_ in call.reply}
        demand(said == over, f"renew: {said} need not go on, not {over}")

    def _finish(self, call: Call) -> None:
        fact = self.fact(call.id)
        if not fact.is_active:
            is_same = fact.result == call.result and fact.is_known(self.now_ms)
            demand(call.reply == is_same, f"finish: {call.reply} of the ended {fact.id}")
            return
        late = fact.is_late(self.now, self.now_ms)
        if late and call.ended.split()[0] not in {"timed_out", "expired"}:
            demand(call.reply == -1, f"finish: {call.reply} of {fact.id}, whose time is over")
            return
        demand(call.reply == 1, f"finish: {call.reply} of the active {fact.id}")
        self.held.get(call.worker, {}).pop(fact.id, None)
        self._end(fact, call, call.result)

    def _end(self, fact: Fact, call: Call, result: str | None) -> None:
        """`result`: None where the script fills it in."""
        stored = self.server.get(keys.RESULT + fact.id)
        demand(result in (None, stored), f"{call.name}: another result of {fact.id}")
        told = json.loads(stored)
        if result is None:
            expected = (int(fact.turn.score), self._tries_or(fact, 0), int(self.now), fact.id)
            found = (told["et"], told["t"], told["ft"], told["id"])
            demand(
                found == expected, f"{call.name}: {found} in the result of {fact.id}, {expected}"
            )
        is_late = not told["s"] and told["r"]["code"] in {"timed_out", "expired"}
        demand(is_late or not fact.said_late, f"{fact.id} was said to be late; now {told['r']}")
        how = "succeeded" if told["s"] else told["r"]["code"]
        self.counts[how] += 1
        fact.outcome = how if how in OUTCOMES else "failed"
        fact.result, fact.run, fact.tries, fact.is_suspect = stored, None, None, False
        fact.is_marked = False
        fact.known_until = self.now_ms + int(call.result_ttl)
        fact.events.append(("completed", ""))
        if fact.has_webhook:
            fact.webhook_state, fact.since = "pending", str(int(self.now))
            fact.webhook_until = self.now_ms + int(call.result_ttl) + keys.DELIVERY_TTL
            fact.due = self.mark(0)

    def _emit(self, call: Call) -> None:
        fact, written = self.fact(call.id), 0
        run = fact.run
        if run and run.is_alive(self.now_ms):
            is_replaced = run.token != call.run
        else:
            is_replaced = fact.said[0] != call.run and began(fact.said[0]) >= began(call.run)
        if fact.is_active and not is_replaced:
            last = fact.said[1] if fact.said[0] == call.run else 0
            said = zip(call.rest[::2], call.rest[1::2], strict=True)
            for number, event in enumerate(said, int(call.number)):
                if number > last:
                    demand(event not in fact.events, f"emit: {event} of {fact.id} twice")
                    fact.events.append(event)
                    fact.has_progress = event[0] == "progress" or (fact.has_progress and last > 0)
                    last, written = number, written + 1
            fact.said, fact.keeps_events = (call.run, last), True
        demand(call.reply == written, f"emit: {call.reply} written, not {written}")

    def _cancel(self, call: Call) -> None:
        fact = self.fact(call.id)
        what = call.reply and call.reply[0].decode()
        self.counts[f"cancel: {what}"] += 1
        if not fact.is_active:
            expected = "done" if fact.is_known(self.now_ms) else None
            demand(what == expected, f"cancel: {what} of {fact.id}, not {expected}")
            demand(not what or call.reply[1].decode() == fact.result, "cancel: another result")
        elif fact.is_late(self.now, self.now_ms):
            demand(what == "late", f"cancel: {what} of {fact.id}, whose time is over")
            self._end(fact, call, None)
        elif fact.run and fact.run.is_alive(self.now_ms):
            demand(what == "canceling", f"cancel: {what} of the running {fact.id}")
            fact.is_marked = True
        else:
            demand(what == "canceled", f"cancel: {what} of the waiting {fact.id}")
            self._end(fact, call, None)

    def _erase(self, call: Call) -> None:
        fact = self.fact(call.id)
        is_late = isinstance(call.reply, list)
        what = "late" if is_late else call.reply and call.reply.decode()
        expected: str | None
        if fact.is_active and not fact.is_late(self.now, self.now_ms):
            expected = "active"
        else:
            is_there = fact.is_known(self.now_ms) or fact.has_webhook_at(self.now_ms)
            expected = "erased" if is_there else None
            if fact.is_active:
                expected = "late"
                is_tried = self._tries_or(fact, 0) > 0
                fact.outcome = "timed_out" if is_tried else "expired"
            fact.is_erased = True
            fact.run = fact.due = None
        demand(what == expected, f"erase: {what} of {fact.id}, not {expected}")

    def _expire(self, call: Call) -> None:
        active = [fact for fact in self.facts.values() if fact.is_active]
        timed = [(fact.deadline.score, fact.id) for fact in active if fact.deadline]
        found = [id_ for score, id_ in sorted(timed) if score <= self.now]
        found += [fact.id for fact in sorted(active, key=lambda fact: (fact.place, fact.id))]
        free = (fact for fact in active if fact.has_webhook or not fact.run)
        late = (
            each for each in free if each.is_late(self.now - 1000 * bool(each.run), self.now_ms)
        )
        ids = {fact.id for fact in late}
        expected = [id_ for id_ in dict.fromkeys(found) if id_ in ids]
        given = [id_.decode() for id_, _, _ in call.reply]
        demand(given == expected, f"expire: {given} ended, not {expected}")
        self.counts["expire: late"] += len(given)
        for id_ in given:
            self._end(self.facts[id_], call, None)

    def _read(self, call: Call) -> None:
        fact, reply = self.fact(call.id), call.reply
        state = reply and reply[0].decode()
        self.counts[f"read: {state}"] += 1
        is_alive = bool(fact.run and fact.run.is_alive(self.now_ms))
        if not fact.is_active:
            expected = "done" if fact.is_known(self.now_ms) else None
        elif fact.is_late(self.now, self.now_ms):
            expected = "late"
        else:
            expected = "running" if is_alive else "queued"
        demand(
            expected == "late" or not (fact.said_late and fact.is_active),
            f"read: {fact.id} was said to be late, but is {expected}",
        )
        demand(state == expected, f"read: {state} of {fact.id}, not {expected}")
        if state == "done":
            demand(reply[2].decode() == fact.result, f"read: another result of {fact.id}")
        elif state:
            demand(float(reply[3]) == fact.turn.score, f"read: turn {reply[3]} of {fact.id}")
            demand(int(reply[5]) == self._tries_or(fact, 0), f"read: tries {reply[5]} of {fact.id}")
            fact.said_late |= state == "late"

    def _deliver(self, call: Call) -> None:
        lease = float(call.lease)
        for id_ in call.rest:
            if self.fact(id_).due:
                self.fact(id_).due = self.mark(lease)
        due = sorted((fact.due.score, fact.id) for fact in self.facts.values() if fact.due)
        expected = []
        for _, id_ in [each for each in due if each[0] <= self.now][: int(call.most)]:
            fact = self.fact(id_)
            is_there = fact.has_webhook_at(self.now_ms)
            fact.due = self.mark(lease) if is_there else None
            if is_there:
                expected.append((id_, fact.result, fact.since))
        given = [
            (id_.decode(), result.decode(), since.decode())
            for id_, _, result, _, _, _, since in call.reply[1:]
        ]
        self.counts["delivered"] += len(given)
        demand(given == expected, f"deliver: {given} given, {expected} are due")

    def _record(self, call: Call) -> None:
        fact = self.fact(call.id)
        if not fact.has_webhook_at(self.now_ms):
            fact.due = None
        elif call.since != fact.since:
            fact.due = fact.due and self.mark(0)
        elif fact.webhook_state == "pending" or (call.state == "delivered" != fact.webhook_state):
            fact.webhook_state = call.state
            fact.due = self.mark(float(call.pause)) if call.pause and fact.due else None
            if call.ttl:
                fact.webhook_until = self.now_ms + int(call.ttl)

    def _redeliver(self, call: Call) -> None:
        fact = self.fact(call.id)
        if not fact.has_webhook_at(self.now_ms):
            expected = None
        elif fact.is_active:
            expected = b"active"
        else:
            expected = b"due"
            fact.webhook_state, fact.since = "pending", str(int(self.now))
            fact.webhook_until = max(
                fact.webhook_until, self.now_ms + int(call.result_ttl) + keys.DELIVERY_TTL
            )
            fact.due = self.mark(0)
        demand(call.reply == expected, f"redeliver: {call.reply} of {fact.id}, not {expected!r}")


def began(token: str) -> int:
    """When a run began, ms since 1970; 0 for none."""
    return int(token.rpartition(":")[2] or 0)


def pairs(flat: Iterable[str]) -> list[tuple[str, str]]:
    """Of a hash, or a sorted set with its scores, as the server lists them."""
    found = list(flat)
    return list(zip(found[::2], found[1::2], strict=True))
