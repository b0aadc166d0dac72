"""The tables, in Markdown, and how far each figure is to be trusted."""

from importlib.metadata import version
from importlib.util import find_spec

from tests.bench.work import (
    ALONE,
    ALONE_WAITING,
    FINISHED,
    MEMORY,
    NO_WORK,
    QUEUED,
    READY,
    SLOW,
    SLOW_WAITING,
    SYNC_WORK,
    WAITING,
    Results,
)

_UNTRUSTED = 0.15  # of a median: rounds that lie further apart tell little

#: The columns of each table: work, figure, heading, format.
_ASYNC = (
    (NO_WORK, "rate", "per s", "{:,.0f}"),
    (NO_WORK, "cpu", "CPU ms", "{:.2f}"),
    (WAITING, "rate", "waiting: per s", "{:,.0f}"),
    (WAITING, "cpu", "waiting: CPU ms", "{:.2f}"),
    (SLOW, "rate", "50 ms model: per s", "{:,.0f}"),
    (SLOW_WAITING, "rate", "50 ms, waiting: per s", "{:,.0f}"),
    (ALONE, "p50", "one client: p50 ms", "{:.2f}"),
    (ALONE_WAITING, "p50", "one client, waiting: p50 ms", "{:.2f}"),
    (MEMORY, "api", "MB: front", "{:.0f}"),
    (MEMORY, "worker", "worker", "{:.0f}"),
)
_SYNC = (
    (SYNC_WORK, "rate", "per s", "{:,.0f}"),
    (SYNC_WORK, "cpu", "CPU ms", "{:.3f}"),
    (SYNC_WORK, "p50", "p50 ms", "{:.1f}"),
    (SYNC_WORK, "p99", "p99 ms", "{:.1f}"),
)
_ALONE = (
    (QUEUED, "bytes", "store bytes, queued", "{:,.0f}"),
    (FINISHED, "bytes", "store bytes, finished", "{:,.0f}"),
    (READY, "seconds", "start to ready, s", "{:.2f}"),
)


def table(results: Results) -> str:
    """Medians of the rounds; `?` behind one whose rounds lie further apart than 15 %."""
    tables = [
        ("Async predictions", NO_WORK, _ASYNC),
        ("Sync predictions", SYNC_WORK, _SYNC),
        ("Predictor alone", QUEUED, _ALONE),
    ]
    packages = ("fastapi", "uvicorn", "redis", "arq", "saq", "taskiq", "taskiq-redis", "mosec")
    installed = [name for name in packages if find_spec(name.replace("-", "_"))]
    parts = [", ".join(f"{name} {version(name)}" for name in installed)]
    for title, work, columns in tables:
        rows = [[title, *(heading for _, _, heading, _ in columns)], ["---"] * (len(columns) + 1)]
        rows += [
            [system, *(_cell(results, system, *column) for column in columns)]
            for system in results.systems(work)
        ]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts)


def _cell(results: Results, system: str, work: str, figure: str, _heading: str, layout: str) -> str:
    if not results.values(work, system, figure):
        return ""
    is_wide = results.spread(work, system, figure) > _UNTRUSTED
    return layout.format(results.median(work, system, figure)) + (" ?" if is_wide else "")


def stolen(before: object, after: object) -> str:
    """How much of the machine's time others took."""
    total = sum(after) - sum(before)  # type: ignore[call-overload]
    share = (getattr(after, "steal", 0) - getattr(before, "steal", 0)) / total
    return f"{share:.1%} of the time was stolen by other machines"
