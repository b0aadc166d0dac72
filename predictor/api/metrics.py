"""The metrics in Prometheus' text format."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, product

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from predictor import __version__
from predictor.config import Config
from predictor.prediction import MODES, OUTCOMES
from predictor.store.metrics import BOUNDS, REASONS, Snapshot, WorkerInfo

__all__ = ["CONTENT_TYPE", "render"]

_MODEL = ("model", "model_version")


def render(snapshot: Snapshot, config: Config) -> bytes:
    return generate_latest(_Families(snapshot, config))


class _Families(Collector):
    """All values of all labels from the start: a rate needs a zero before the first one."""

    def __init__(self, snapshot: Snapshot, config: Config) -> None:
        self._now, self._here = snapshot, (config.model, config.model_version)

    def collect(self) -> Iterator[Metric]:
        text = "Predictions that have ended, by how they ended."
        yield self._counter("predictions", text, mode=MODES, outcome=OUTCOMES)
        yield self._counter("rejected", "Requests that were refused.", reason=REASONS)
        yield self._counter("recovered", "Predictions that were requeued as their worker died.")
        text = "Attempts to deliver a webhook."
        yield self._counter("webhook_attempts", text, outcome=("succeeded", "failed"))
        yield self._histogram("run", "Run times of predictions.", mode=MODES)
        text = "Times from the submit of a prediction to the run that ended it."
        yield self._histogram("queue_wait", text)
        for name, text, value in (
            ("queue_depth", "Predictions that wait for a worker.", self._now.queued),
            ("queue_oldest_seconds", "Age of the oldest that waits.", self._now.oldest),
            ("running", "Predictions that run on workers.", self._now.running),
        ):
            yield GaugeMetricFamily(f"predictor_{name}", text, value)
        yield self._of_workers("workers", "Workers that are alive.", lambda _: 1)
        text = "Predictions that the workers which are alive run at once."
        yield self._of_workers("slots", text, lambda worker: worker.slots)
        text = "Version of the api that was asked, and its model."
        info = GaugeMetricFamily("predictor_build_info", text, labels=("version", *_MODEL))
        info.add_metric((__version__, *self._here), 1)
        yield info

    def _count(self, *name: str) -> int:
        return self._now.counts.get(" ".join(name), 0)

    def _counter(self, name: str, text: str, **labels: Sequence[str]) -> Metric:
        family = CounterMetricFamily(f"predictor_{name}", text, labels=tuple(labels))
        for values in product(*labels.values()):
            family.add_metric(values, self._count(name, *values))
        return family

    def _histogram(self, name: str, text: str, **labels: Sequence[str]) -> Metric:
        family = HistogramMetricFamily(f"predictor_{name}_seconds", text, labels=tuple(labels))
        for values in product(*labels.values()):
            counts = accumulate(self._count(name, *values, bound) for bound in BOUNDS)
            buckets = list(zip(BOUNDS, counts, strict=True))
            family.add_metric(values, buckets, self._count(name, *values, "us") / 1e6)
        return family

    def _of_workers(self, name: str, text: str, of: Callable[[WorkerInfo], int]) -> Metric:
        family = GaugeMetricFamily(f"predictor_{name}", text, labels=_MODEL)
        found = Counter[tuple[str, str]]({self._here: 0})
        for worker in self._now.workers:
            found[worker.model, worker.model_version] += of(worker)
        for labels, value in found.items():
            family.add_metric(labels, value)
        return family
