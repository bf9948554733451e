"""The plots of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from sensebind.fusion.core.errors import SensebindError

BLUE, GREY, RED = "#1c5bce", "#9aa2ad", "#bd3112"
LATENCY_LEGEND = {"stamp": "onset error", "report": "reporting delay"}


class PlotError(SensebindError):
    """A plot cannot be drawn; the message names the package to install."""


def require_matplotlib() -> None:
    """Raise `PlotError` if matplotlib is not installed. Call it before long work."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise PlotError("plots need matplotlib: pip install 'sensebind[report]'") from error


def plot(metrics: Mapping[str, Any], path: str | Path) -> None:
    """Write the result of `compute_metrics` as one PNG: F1 of each detector and label, latency, reliability.

    Raises `PlotError` if matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = metrics["detectors"]
    names = list(runs)
    labels = sorted({label for run in runs.values() for label in run["labels"]})
    figure = Figure(figsize=(13, 5.2 + 0.26 * max(len(labels), 8)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=(4.2, 1.5 + 0.26 * max(len(labels), 8)))
    _bars(figure.add_subplot(grid[0, 0]), runs, names, metrics["best_single"])
    _reliability(figure.add_subplot(grid[0, 1]), metrics["calibration"])
    _types(figure, figure.add_subplot(grid[1, 0]), runs, names, labels)
    _latency(figure.add_subplot(grid[1, 1]), runs[names[0]]["labels"], names[0])
    count = len(metrics["recordings"])
    size = f"{count} recording{'s' if count != 1 else ''}, {metrics['seconds'] / 60:.1f} min"
    figure.suptitle(f"Events against the truth: {size}, space {metrics['space']}", fontsize=11)
    figure.savefig(path, dpi=110)


def _bars(axes: Any, runs: Mapping[str, Any], names: list[str], best: str | None) -> None:
    at = np.arange(len(names))
    values = {
        "event-based F1": [runs[n]["overall"]["event"]["f1"] or 0.0 for n in names],
        "segment-based F1": [runs[n]["overall"]["segment"]["f1"] or 0.0 for n in names],
        "PSDS 1": [runs[n]["overall"]["psds1"] or 0.0 for n in names],
    }
    for k, (name, heights) in enumerate(values.items()):
        bars = axes.bar(at + (k - 1) * 0.27, heights, 0.25, label=name, color=(BLUE, "#77a3ee", GREY)[k])
        if k == 0:
            axes.bar_label(bars, [f"{h:.2f}" for h in heights], fontsize=8)
    axes.set_xticks(at, [fill(f"{n} (best single)" if n == best else n, 13) for n in names], fontsize=8)
    axes.set_ylim(0, 1.08)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper right")
    axes.set_title("All labels together", fontsize=10)


def _reliability(axes: Any, calibration: Mapping[str, Any]) -> None:
    bins = [b for b in calibration["bins"] if b["segments"]]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    sizes = [14 + 22 * np.log10(b["segments"]) for b in bins]
    axes.scatter([b["score"] for b in bins], [b["fraction_present"] for b in bins], s=sizes, color=BLUE, zorder=3)
    for b in bins:
        at = b["score"], b["fraction_present"]
        axes.annotate(f"{b['segments']}", at, (5, -9), textcoords="offset points", fontsize=7)
    axes.set(
        xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), xlabel="mean score of a segment", ylabel="fraction of correct segments"
    )
    axes.spines[["top", "right"]].set_visible(False)
    error = calibration["ece"]
    axes.set_title(f"Calibration: error {'–' if error is None else f'{error:.3f}'}", fontsize=10)


def _types(figure: Any, axes: Any, runs: Mapping[str, Any], names: list[str], labels: list[str]) -> None:
    table = np.array(
        [[_nan_if_none(runs[n]["labels"].get(label, {}).get("event", {}).get("f1")) for n in names] for label in labels]
    ).reshape(len(labels), len(names))
    image = axes.imshow(np.ma.masked_invalid(table), vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for i in range(len(labels)):
        for j in range(len(names)):
            if np.isfinite(table[i, j]):
                dark = table[i, j] > 0.6
                axes.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=8, color="w" if dark else "k")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_title("Event-based F1 by label", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8)


def _latency(axes: Any, types: Mapping[str, Any], name: str) -> None:
    shown = {label: t for label, t in types.items() if t["onset_latency_s"]["stamp"]["n"]}
    for at, t in enumerate(shown.values()):
        for row, (which, colour) in enumerate((("stamp", BLUE), ("report", RED))):
            spread = t["onset_latency_s"][which]
            height = at + (row - 0.5) * 0.28
            axes.plot([spread["median"], spread["p90"]], [height, height], color=colour, linewidth=2)
            axes.scatter(
                [spread["median"]], [height], color=colour, s=22, label=LATENCY_LEGEND[which] if at == 0 else None
            )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(shown)), list(shown), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("seconds after the true onset: median to 90th percentile")
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"Onset latency, {name}", fontsize=10)


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else value
