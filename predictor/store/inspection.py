"""What an operator should know of a store: what it is like, what it holds, what its user may do."""

import time
from collections.abc import Iterator
from contextlib import suppress
from statistics import median
from timeit import repeat
from typing import Any, Final, NamedTuple

from redis.exceptions import NoPermissionError, ResponseError

from predictor.config import Config
from predictor.errors import UnsuitableStore
from predictor.store import keys
from predictor.store.connection import blocking_client, check_server
from predictor.store.metrics import read_workers
from predictor.store.retry import STORE_ERRORS, describe

_SILENCE = 1.0  # seconds until the store is taken for unreachable
_SLOW, _APART, _OVERDUE = 0.01, 1.0, 60.0  # seconds: of a command, of two clocks, of a webhook
_FULL = 0.8  # of a limit
#: What the processes and the scripts send, in a form without effect: K is of another type.
_COMMANDS: Final = """SET K 1 PX 1000|EXISTS K|TYPE K|GET K|MGET K|GETRANGE K 0 1|STRLEN K|PTTL K
DECR K|HSET K a 1|HGET K a|HMGET K a|HGETALL K|HKEYS K|HLEN K|HINCRBY K a 1|HDEL K a
ZADD K 1 a|ZREM K a|ZREMRANGEBYSCORE K 0 0|ZCOUNT K 0 0|ZSCORE K a|ZRANK K a|ZCARD K|ZRANGE K 0 0
ZRANGEBYSCORE K 0 0|LPUSH K a|RPUSH K a|RPUSHX K a|LRANGE K 0 0|BLPOP K 0.1|PEXPIRE K 1000
WAIT 0 0|TIME|INFO|PSETEX K 1000 1|DEL K|EVAL return 0|EVALSHA a 0|SCRIPT LOAD return|PUBLISH C a
SUBSCRIBE C|UNSUBSCRIBE C"""


class Finding(NamedTuple):
    name: str
    status: str  # ok, error, or warning: predictions succeed meanwhile
    found: str
    advice: str = ""  # what to do about it, unless all is well


def error_if(is_wrong: bool, name: str, found: str, advice: str) -> Finding:
    return Finding(name, "error", found, advice) if is_wrong else Finding(name, "ok", found)


def warning_if(is_wrong: bool, name: str, found: str, advice: str) -> Finding:
    return error_if(is_wrong, name, found, advice)._replace(status="warning" if is_wrong else "ok")


def inspect(config: Config, url: str) -> Iterator[Finding]:
    """Look at the store. Changes nothing."""
    client = blocking_client(url, socket_timeout=_SILENCE, socket_connect_timeout=_SILENCE)
    for look in (_server, _rights, _contents):
        try:
            yield from look(client, config)
        except STORE_ERRORS as error:
            advice = "See that it runs; check PREDICTOR_REDIS_URL, and the rights of its user."
            yield Finding("store", "error", f"it does not answer ({describe(error)})", advice)
            if not isinstance(error, NoPermissionError):
                return


def _server(client: Any, config: Config) -> Iterator[Finding]:
    info = client.info()
    kind = "valkey" if "valkey_version" in info else "redis"
    found = f"{kind} {info[f'{kind}_version']}, {info['role']}"
    is_unfit = info["role"] == "slave" or bool(info["cluster_enabled"])
    try:
        check_server(info)
        advice = "Use a primary, of no cluster; with Sentinel: redis+sentinel://."
        yield error_if(is_unfit, "store", found, advice)
    except UnsuitableStore as error:
        yield Finding("store", "error", found, str(error))
    # Not PING, which is refused if writes fail.
    took = median(repeat(client.time, number=1, repeat=9))
    found = f"TIME takes {1000 * took:.2f} ms"
    yield warning_if(took > _SLOW, "latency", found, "See SLOWLOG GET, or move it nearer.")
    used, most = info["used_memory"], info["maxmemory"] or info.get("total_system_memory", 0)
    found = f"{used >> 20} of {most >> 20} MiB used{'' if info['maxmemory'] else '; no maxmemory'}"
    advice = "Raise maxmemory, or lower PREDICTOR_RESULT_TTL."
    yield error_if(0 < _FULL * most < used, "memory", found, advice)
    found = f"appendonly {'yes' if info['aof_enabled'] else 'no'}"
    with suppress(ResponseError):  # this user may not
        found += f", appendfsync {client.config_get('appendfsync')['appendfsync']}"
    advice = "Set appendonly yes: a crash of the store loses predictions."
    yield warning_if(not info["aof_enabled"], "persistence", found, advice)
    failed = [name for name, value in info.items() if name.endswith("_status") and value == "err"]
    found = f"failed: {', '.join(failed) or 'none'}"
    yield error_if(bool(failed), "writes", found, "See the store's log: its disk may be full.")
    count, wanted = info["connected_slaves"], config.wait_replicas
    advice = "Start replicas, or lower PREDICTOR_WAIT_REPLICAS."
    yield error_if(count < wanted, "replicas", f"{count}; {wanted} must confirm", advice)
    before, (seconds, us) = time.time(), client.time()
    apart = seconds + us / 10**6 - (before + time.time()) / 2
    found, advice = f"{apart:+.3f} s from this machine's", "Run an NTP client on both machines."
    yield warning_if(abs(apart) > _APART, "clock", found, advice)


def _rights(client: Any, _: Config) -> Iterator[Finding]:
    commands = [text.split() for text in _COMMANDS.replace("\n", "|").split("|")]
    names = {"K": keys.PROBE, "C": keys.EVENTS}
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*(names.get(word, word) for word in command))
        replies = zip(commands, pipe.execute(raise_on_error=False), strict=True)
    lacks = [c[0] for c, reply in replies if isinstance(reply, NoPermissionError)]
    advice, found = "Give its user the rights of the line in README.", ", ".join(lacks) or "none"
    yield error_if(bool(lacks), "rights", f"missing: {found}", advice)


def _contents(client: Any, config: Config) -> Iterator[Finding]:
    (seconds, us), now = client.time(), time.time()
    alive = client.zrangebyscore(keys.WORKERS, 1000 * seconds + us / 1000, "+inf")
    workers = read_workers(alive)
    mine, slots = (config.model, config.model_version), sum(each.slots for each in workers)
    others = {(each.model, each.model_version) for each in workers} - {mine}
    runs = "".join(f"; {' '.join(each).strip()} is run" for each in sorted(others))
    advice = "Restart those that run another model or version."
    advice = advice if workers else "Start one: arq predictor.worker.Settings"
    found = f"{len(workers)} with {slots} slots{runs}"
    yield warning_if(bool(others) or not workers, "workers", found, advice)
    depth = client.zcard(keys.QUEUE) - client.zcard(keys.LEASES)
    first = [score / 1000 for _, score in client.zrange(keys.QUEUE, 0, 0, withscores=True)]
    oldest = max(0.0, now - min(first, default=now))
    is_long = 0 < _FULL * config.queue_limit < depth or oldest > config.timeout
    found = f"{depth} queued, the oldest due for {oldest:.0f} s"
    yield warning_if(is_long, "queue", found, "Start more workers, or see why they are slow.")
    late = client.zcount(keys.DELIVERIES, 0, 1000 * (now - _OVERDUE))
    found = f"{client.zcard(keys.DELIVERIES)} webhooks to deliver, {late} overdue"
    advice = "Start python -m predictor.webhooks, with PREDICTOR_WEBHOOK_SECRETS."
    yield warning_if(late > 0, "deliveries", found, advice)
