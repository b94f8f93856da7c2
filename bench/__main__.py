"""`python -m bench`: the 14-step order in stock Celery and on celeriac, in pairs in turn, medians.

Exit codes: 0 measured, 1 something did not start or finish, 2 wrong options, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from bench.measure import Plan, Turn, measure, medians, on_stage
from status.errors import OrchestrationError

LATEST = Path(__file__).parent / "results" / "latest.json"
QUICK = {"pairs": 3, "orders": 60, "singles": 15, "warm_up": 10, "wait_s": 60.0}
FULL = {"pairs": 5, "orders": 300, "singles": 50, "warm_up": 40, "wait_s": 180.0}
#: The order in stock canvas, on celeriac, and on celeriac as a saga.
SIDES = ("stock", "ours", "ours_saga")
TITLES = {"stock": "stock", "ours": "ours", "ours_saga": "as a saga"}
#: What is told in one line; ChildFailed and Unfinished are RuntimeErrors.
FAILURES = (RuntimeError, ImportError, redis.RedisError, OrchestrationError)
#: Each row of the table: the figure, what it is, and whether more is better.
ROWS = [
    ("orders_per_s", "orders/s, all at once", True),
    ("p50_ms", "p50 of one order on an idle system, ms", False),
    ("cpu_s_per_100", "CPU s for 100 orders, workers and client", False),
    ("valkey_cpu_s_per_100", "CPU s for 100 orders, Valkey", False),
    ("redis_commands_per_order", "Redis commands an order, in scripts too", False),
    ("redis_reads_per_order", "Redis reads an order (round trips)", False),
]


def main() -> int:
    options = _options()
    plan = _plan(options)
    # A SIGTERM ends the processes as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    try:
        results = run(plan, console)
    except FAILURES as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        return 130
    console.print(table(results["w1"]))
    out = options.out or (LATEST if plan.sides == SIDES else None)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=2) + "\n")
        print(f"written to {os.path.relpath(out)}")
    return 0


def run(plan: Plan, console: Console) -> dict[str, Any]:
    """Measure, and give what goes into the file.

    Raises:
        ChildFailed: Valkey or the worker did not start, or died.
        Unfinished: Orders were not completed in time.
    """
    turns: dict[str, list[Turn]] = {side: [] for side in plan.sides}
    with tempfile.TemporaryDirectory(prefix="celeriac-bench-") as folder, on_stage(plan, Path(folder)) as stage:
        for side, turn in measure(stage, plan):
            turns[side].append(turn)
            number = f"{len(turns[side])}/{plan.pairs}"
            console.print(f"{side:>9} {number}: {turn.orders_per_s:6.1f} orders/s, p50 {turn.p50_ms:6.1f} ms")
        machine = machine_facts(plan, stage.valkey_version())
    w1: dict[str, Any] = {side: medians(theirs) for side, theirs in turns.items()}
    if plan.sides == SIDES:
        stock, ours, saga = (w1[side] for side in SIDES)
        w1["ratio"] = round(ours["orders_per_s"] / stock["orders_per_s"], 3)
        w1["latency_ratio"] = round(ours["p50_ms"] / stock["p50_ms"], 3)
        w1["saga_ratio"] = round(saga["orders_per_s"] / stock["orders_per_s"], 3)
    return {"w1": w1, "machine": machine}


def machine_facts(plan: Plan, valkey_version: str) -> dict[str, Any]:
    packages = ["celery", "kombu", "redis", "hiredis"]
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "valkey": valkey_version,
        **{name: version(name) for name in packages},
        "pool": f"{plan.pool} -c {plan.concurrency}",
        "pairs": plan.pairs,
        "orders_per_turn": plan.orders,
    }


def table(w1: dict[str, Any]) -> Table:
    sides = [side for side in SIDES if side in w1]
    shown = Table("14-step order, medians", title="stock Celery canvas and celeriac, same workers")
    for side in sides:
        shown.add_column(TITLES[side], justify="right")
    others = sides[1:] if len(sides) == len(SIDES) else []
    for side in others:
        shown.add_column(f"{TITLES[side]} to stock", justify="right")
    for figure, title, more_is_better in ROWS:
        values = [w1[side][figure] for side in sides]
        ratios = [_ratio(values[0], w1[side][figure], more_is_better=more_is_better) for side in others]
        shown.add_row(title, *(f"{value:.1f}" for value in values), *ratios)
    return shown


def _ratio(stock: float, ours: float, *, more_is_better: bool) -> str:
    if stock == 0:
        return "-"
    better = ours >= stock if more_is_better else ours <= stock
    return f"[{'green' if better else 'red'}]{ours / stock:.2f}[/]"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; the full run takes a few")
    parser.add_argument("--only", choices=SIDES, help="one side; no file unless --out is given")
    parser.add_argument("--pool", default="prefork", choices=["prefork", "solo", "threads"])
    parser.add_argument("--concurrency", type=_count, default=2, help="of the worker; default 2")
    parser.add_argument("--pairs", type=_count)
    parser.add_argument("--orders", type=_count, help="submitted at once, in each turn")
    parser.add_argument("--out", type=Path, help="default bench/results/latest.json")
    return parser.parse_args()


def _plan(options: argparse.Namespace) -> Plan:
    amounts: dict[str, Any] = dict(QUICK if options.quick else FULL)
    amounts |= {key: value for key in ("pairs", "orders") if (value := getattr(options, key))}
    sides = (options.only,) if options.only else SIDES
    return Plan(sides=sides, pool=options.pool, concurrency=options.concurrency, **amounts)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError(f"must be from 1 to 100000, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
