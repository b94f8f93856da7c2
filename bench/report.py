"""Results as a table for the terminal, and as the file that `docs/speed.md` is made from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.workload import Figure, Workload

RESULTS = Path(__file__).parent / "results"
LATEST = RESULTS / "latest.json"


def machine(valkey: str) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "valkey": valkey,
        **{name: version(name) for name in ("celery", "kombu", "redis", "hiredis")},
    }


def older_names(w1: dict[str, Any]) -> dict[str, Any]:
    """W1 with its ratios where they have always been."""
    ratios = w1.get("ratios", {})
    if "ours" in ratios:
        w1["latency_ratio"] = ratios["ours"]["p50_ms"]
    if "ours_saga" in ratios:
        w1["saga_ratio"] = ratios["ours_saga"]["orders_per_s"]
    if "ours_local" in ratios:
        w1["local_ratio"] = ratios["ours_local"]["orders_per_s"]
    if "ours" in w1 and "stock_alone" in w1:
        w1["alone_ratio"] = round(w1["ours"]["orders_per_s"] / w1["stock_alone"]["orders_per_s"], 3)
    return w1


def write(path: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """Put results into a file; other workloads that it has stay as they are. Gives all that is in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else {}
    merged: dict[str, Any] = before | dict(results)
    path.write_text(json.dumps({name: merged[name] for name in sorted(merged, key=_order)}, indent=2) + "\n")
    return merged


def _order(name: str) -> tuple[bool, str]:
    return name == "machine", name


def table(workload: Workload, result: Mapping[str, Any]) -> Table:
    """One workload's figures, a row each; beside a figure its ratio to stock."""
    shown = Table(workload.title, title=f"medians of {result['measured']['pairs']} turns each")
    there = [part for part in workload.parts if part.name in result]
    for part in there:
        shown.add_column(part.title, justify="right", no_wrap=True)
    for figure in workload.figures:
        shown.add_row(figure.title, *(_cell(figure, result, part.name) for part in there))
    return shown


def _cell(figure: Figure, result: Mapping[str, Any], side: str) -> str:
    shown = text(figure, result[side].get(figure.name))
    ratio = result.get("ratios", {}).get(side, {}).get(figure.name)
    return shown if ratio is None else f"{shown} {_coloured(figure, ratio)}"


def text(figure: Figure, value: float | None) -> str:
    """A figure as people read it."""
    return "–" if value is None else f"{value:,.{figure.digits}f}"


def _coloured(figure: Figure, ratio: float) -> str:
    better = ratio >= 1 if figure.better == "more" else ratio <= 1
    return f"[{'green' if better else 'red'}]{ratio:.2f}×[/]"
