"""The chart of the README: Predictor, its peers and the floors, side by side."""

from pathlib import Path

from matplotlib import pyplot
from matplotlib.axes import Axes

from tests.bench.systems import PREDICTOR
from tests.bench.work import NO_WORK, SYNC_WORK, WAITING, Results

_OURS, _OTHERS, _TEXT = "#2f6fde", "#b8bec8", "#7d8590"  # legible on white and on dark


def draw(results: Results, file: Path) -> None:
    """Write an SVG of predictions per second, async and sync."""
    asynchronous = {
        system: results.median(NO_WORK, system, "rate") for system in results.systems(NO_WORK)
    }
    for system in results.systems(WAITING):
        asynchronous[f"{system}, Prefer: wait"] = results.median(WAITING, system, "rate")
    synchronous = {
        system: results.median(SYNC_WORK, system, "rate") for system in results.systems(SYNC_WORK)
    }
    pyplot.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "bench", "text.color": _TEXT}
    heights = [len(asynchronous), len(synchronous)]
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(8, 0.36 * sum(heights) + 1.2), height_ratios=heights, layout="constrained"
    )
    _bars(above, "Async predictions a second, from submit to result, 64 clients", asynchronous)
    _bars(below, "Sync predictions a second, 32 connections", synchronous)
    figure.savefig(file, transparent=True, metadata={"Date": None})


def _bars(axes: Axes, title: str, rates: dict[str, float]) -> None:
    names = sorted(rates, key=lambda name: rates[name])
    colors = [_OURS if name.startswith(PREDICTOR.name) else _OTHERS for name in names]
    bars = axes.barh(names, [rates[name] for name in names], color=colors)
    axes.bar_label(bars, fmt="{:,.0f}", padding=4, color=_TEXT)
    axes.set_title(title, loc="left", fontsize=10, color=_TEXT)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=_TEXT)
    axes.xaxis.set_visible(False)
