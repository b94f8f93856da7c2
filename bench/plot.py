"""Draws what was measured, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.workload import Figure, Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, OTHERS = "#0b7a75", "#9aa5b1"
#: Legible on a page of 800 pixels, and well under 200 KiB.
DPI = 110


def overview(results: Mapping[str, Any], workloads: Sequence[Workload], out: Path) -> None:
    """A panel for each workload: its first figure, a bar for each side."""
    there = [workload for workload in workloads if workload.name in results]
    _draw(out, [lambda axes, w=workload: _bars(axes, w, results[w.name]) for workload in there], across=2)


def _bars(axes: Axes, workload: Workload, result: Mapping[str, Any]) -> None:
    figure = workload.figures[0]
    parts = [part for part in workload.parts if part.name in result]
    values = [result[part.name][figure.name] for part in parts]
    colours = [OURS if part.name.startswith("ours") else OTHERS for part in parts]
    bars = axes.barh([part.title for part in parts], values, color=colours)
    axes.bar_label(bars, [f"{value:,.{figure.digits}f}" for value in values], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.18)
    axes.set_title(f"{workload.title}\n{_what(figure)}", fontsize=9, loc="left")


def _what(figure: Figure) -> str:
    return f"{figure.title} ({figure.better} is better)"


def growth(results: Mapping[str, Any], out: Path) -> None:
    """Orders a second by runs in Redis and by workers, and the bytes of a run."""
    _draw(
        out,
        [
            lambda axes: _line(axes, results["by_runs"], "runs in Redis", log=True),
            lambda axes: _line(axes, results["by_workers"], "worker processes", log=False),
            lambda axes: _bytes(axes, results["bytes_per_run"]),
        ],
        across=3,
    )


def _line(axes: Axes, rows: Mapping[str, Any], what: str, *, log: bool) -> None:
    points = sorted((int(number), row["orders_per_s"]) for number, row in rows.items())
    numbers, values = [number for number, _ in points], [value for _, value in points]
    axes.plot(numbers, values, marker="o", color=OURS)
    if log:
        axes.set_xscale("log")
    else:
        axes.set_xticks(numbers)
    axes.set_ylim(0, max(values) * 1.2)
    axes.set_xlabel(what, fontsize=8)
    axes.set_title(f"orders/s by {what}", fontsize=9, loc="left")


def _bytes(axes: Axes, rows: Mapping[str, float]) -> None:
    bars = axes.barh(list(rows), [value / 1024 for value in rows.values()], color=OURS)
    axes.bar_label(bars, [f"{value / 1024:.1f}" for value in rows.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(rows.values()) / 1024 * 1.2)
    axes.set_title("KiB of Redis for a run", fontsize=9, loc="left")


def _draw(out: Path, panels: Sequence[Any], *, across: int) -> None:
    # Slow to import, and nobody who only measures needs it; drawn without a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure as Canvas  # noqa: PLC0415

    down = -(-len(panels) // across)
    canvas = Canvas(figsize=(9, 2.1 * down + 0.2), dpi=DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    for number, panel in enumerate(panels, 1):
        axes = canvas.add_subplot(down, across, number)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        panel(axes)
    # Without the version and the time, the same figures give the same file.
    canvas.savefig(out, metadata={"Software": None})
