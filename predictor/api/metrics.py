"""The metrics in Prometheus' text format, https://prometheus.io/docs/instrumenting/exposition_formats/."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from predictor import __version__
from predictor.config import Config
from predictor.prediction import MODES, OUTCOMES
from predictor.store.metrics import BUCKETS, REASONS, Histogram, Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MODEL = ("model", "model_version")


def render(snapshot: Snapshot, config: Config) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families([*_counters(snapshot), *_times(snapshot), *_now(snapshot, config)]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _counters(snapshot: Snapshot) -> Iterator[Metric]:
    """All values of all labels from the start: a rate needs a zero before the first one."""
    get = snapshot.counts.get
    text = "Predictions that have ended, by how they ended."
    ended = CounterMetricFamily("predictor_predictions", text, labels=("mode", "outcome"))
    for mode in MODES:
        for outcome in OUTCOMES:
            ended.add_metric((mode, outcome), get(f"predictions {mode} {outcome}", 0))
    yield ended
    text = "Requests for predictions that were refused."
    rejected = CounterMetricFamily("predictor_rejected", text, labels=("reason",))
    for reason in REASONS:
        rejected.add_metric((reason,), get(f"rejected {reason}", 0))
    yield rejected
    text = "Predictions that were requeued because their worker had died."
    yield CounterMetricFamily("predictor_recovered", text, value=get("recovered", 0))
    text = "Attempts to deliver a webhook."
    attempts = CounterMetricFamily("predictor_webhook_attempts", text, labels=("outcome",))
    for outcome in ("succeeded", "failed"):
        attempts.add_metric((outcome,), get(f"webhook {outcome}", 0))
    yield attempts


def _times(snapshot: Snapshot) -> Iterator[Metric]:
    text = "Run times of predictions."
    runs = HistogramMetricFamily("predictor_run_seconds", text, labels=("mode",))
    for mode in MODES:
        _add(runs, (mode,), snapshot.histogram(f"run {mode}"))
    yield runs
    text = "Times from the submit of a prediction to the run that ended it."
    waits = HistogramMetricFamily("predictor_queue_wait_seconds", text, labels=())
    _add(waits, (), snapshot.histogram("wait"))
    yield waits


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    total, buckets = 0, []
    for bound, count in zip((*map(float, BUCKETS), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((str(bound), total))
    family.add_metric(labels, buckets, histogram.seconds)


def _now(snapshot: Snapshot, config: Config) -> Iterator[Metric]:
    text = "Predictions that wait for a worker."
    yield GaugeMetricFamily("predictor_queue_depth", text, snapshot.queued)
    text = "Age of the oldest prediction that waits."
    yield GaugeMetricFamily("predictor_queue_oldest_seconds", text, snapshot.oldest)
    text = "Predictions that run on workers."
    yield GaugeMetricFamily("predictor_running", text, snapshot.running)
    workers, slots = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for each in snapshot.workers:
        workers[each.model, each.model_version] += 1
        slots[each.model, each.model_version] += each.slots
    here = config.model, config.model_version
    for name, text, found in (
        ("predictor_workers", "Workers that are alive.", workers),
        ("predictor_slots", "Predictions that the workers which are alive run at once.", slots),
    ):
        family = GaugeMetricFamily(name, text, labels=_MODEL)
        for labels in {here, *found}:
            family.add_metric(labels, found[labels])
        yield family
    text = "Version of the api that was asked, and its model."
    info = GaugeMetricFamily("predictor_build_info", text, labels=("version", *_MODEL))
    info.add_metric((__version__, *here), 1)
    yield info
