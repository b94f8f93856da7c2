"""Writes what was measured into the papers: the blocks between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.

`python -m bench.page` does it anew, from `bench/results/`. A test sees that nobody has typed into a block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import plot
from bench.report import LATEST, RESULTS, text
from bench.stage import ROOT
from bench.workload import Workload
from bench.workloads import WORKLOADS

GROWTH = RESULTS / "growth.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "speed.md")
_BLOCK = re.compile(r"(<!-- bench:(?P<name>[\w-]+) -->\n).*?(<!-- /bench:(?P=name) -->)", re.DOTALL)
_MISSING = "Not measured yet.\n"

#: Of W1, what the README shows.
SHORT_SIDES = ("stock", "ours", "ours_local", "ours_saga")
SHORT_FIGURES = ("orders_per_s", "p50_ms", "cpu_s_per_100", "valkey_cpu_s_per_100")


def render(page: str, results: Mapping[str, Any], growth: Mapping[str, Any]) -> str:
    """A page with its blocks as they should be."""
    blocks: dict[str, Callable[[], str]] = {
        "machine": lambda: _machine(results),
        "short": lambda: _workload(results, WORKLOADS["w1"], SHORT_SIDES, SHORT_FIGURES),
        "picture": lambda: (
            _picture("Each workload's first figure, stock and celeriac", "latest") if results else _MISSING
        ),
        "growth": lambda: _growth(growth),
        **{name: lambda name=name: _workload(results, WORKLOADS[name]) for name in WORKLOADS},  # type: ignore[misc]
    }
    return _BLOCK.sub(lambda found: found[1] + blocks[found["name"]]() + found[3], page)


def load(path: Path) -> dict[str, Any]:
    """Results, or nothing where nothing was measured."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def update() -> None:
    """Write the blocks of all pages, and the pictures, anew."""
    results, growth = load(LATEST), load(GROWTH)
    for page in PAGES:
        page.write_text(render(page.read_text(), results, growth))
    if results:
        plot.overview(results, list(WORKLOADS.values()), LATEST.with_suffix(".png"))
    if growth:
        plot.growth(growth, GROWTH.with_suffix(".png"))


def _machine(results: Mapping[str, Any]) -> str:
    found = results.get("machine")
    if not found:
        return _MISSING
    names = ("python", "celery", "kombu", "redis", "valkey")
    versions = ", ".join(f"{name} {found[name]}" for name in names if name in found)
    return f"Measured on {found['cores']} cores ({found['architecture']}): {versions}.\n"


def _workload(
    results: Mapping[str, Any], workload: Workload, sides: Sequence[str] = (), figures: Sequence[str] = ()
) -> str:
    found = results.get(workload.name)
    if not found:
        return _MISSING
    parts = [part for part in workload.parts if part.name in found and (not sides or part.name in sides)]
    rows = [["", *(part.title for part in parts)], ["---", *("---:" for _ in parts)]]
    for figure in workload.figures:
        if figures and figure.name not in figures:
            continue
        values = [found[part.name].get(figure.name) for part in parts]
        if any(value is not None for value in values):
            rows.append([figure.title, *(text(figure, value) for value in values)])
    return f"{_how(found.get('measured', {}))}{_table(rows)}"


def _how(measured: Mapping[str, Any]) -> str:
    if not measured:
        return "\n"
    amounts = {
        name: value for name, value in measured.items() if name not in {"ratio_of", "pairs", "workers", "by_turn"}
    }
    crews = sorted(set(measured["workers"].values()))
    told = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in amounts.items())
    return f"\nMedians of {measured['pairs']} turns each; {told}; workers: {'; '.join(crews)}.\n\n"


def _growth(found: Mapping[str, Any]) -> str:
    if not found:
        return _MISSING
    rows = [["runs in Redis", "orders/s", "one order, p50 ms", "Valkey's CPU, ms an order", "Redis, MiB"], ["---:"] * 5]
    for runs, row in sorted(found["by_runs"].items(), key=lambda item: int(item[0])):
        figures = (row["orders_per_s"], row["p50_ms"], row["valkey_ms"])
        rows.append([f"{int(runs):,}", *(f"{figure:.1f}" for figure in figures), f"{row['used_mib']:,.0f}"])
    workers = [["worker processes", "orders/s", "CPU s for 100 orders", "busy CPUs of Valkey"], ["---:"] * 4]
    for number, row in sorted(found["by_workers"].items(), key=lambda item: int(item[0])):
        busy = f"{row['valkey_busy']:.2f}"
        workers.append([number, f"{row['orders_per_s']:.1f}", f"{row['cpu_s_per_100']:.2f}", busy])
    sizes = [["a run that", "bytes of Redis"], ["---", "---:"]]
    sizes += [[kind, f"{value:,.0f}"] for kind, value in found["bytes_per_run"].items()]
    shown = _picture("Orders a second by runs in Redis and by workers; what a run weighs", "growth")
    return "\n".join(("", *map(_table, (rows, workers, sizes)), shown))


def _picture(what: str, name: str) -> str:
    return f"![{what}](../bench/results/{name}.png)\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


if __name__ == "__main__":
    update()
