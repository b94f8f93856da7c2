"""`python -m bench.growth`: what becomes of speed as runs and workers grow, and what a run weighs in Redis.

The order of W1 on celeriac, with so many ended runs in Redis; then with so many worker processes; each amount on a
Valkey of its own, measured in turn. The ended runs are copies of real ones, with their places in the indexes. Where
many are copied, orders are made until Valkey's memory has settled, and what they cost until then is told too.
Exit codes as `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench import page, plot
from bench.__main__ import FAILURES
from bench.copies import fill
from bench.stage import Crew, Stage, on_stage
from bench.w1_orders import Orders
from bench.weights import weigh_finished, weigh_running, weigh_sleeping
from bench.workload import Size

#: Of the machine's free memory, what may be filled: the rest is for the append-only file's copy, and for others.
SHARE_OF_MEMORY = 0.6
#: A finished run and its places in the indexes, for the guess whether so many fit.
BYTES_A_RUN = 9000
#: Orders after a filling, to each run that was filled in, before anything is measured. When Valkey's table of keys
#: doubles, the old one's buckets are left as small holes all over its memory: 39,000 of 80 bytes, at a million runs.
#: glibc's allocator gives these out in turn, each far from the last, until what stays in Redis has filled them.
SETTLING = 0.01


def by_amount(
    crews: Mapping[int, Crew], size: Size, prepare: Callable[[Stage, int], int], say: Callable[[str], None]
) -> dict[str, dict[str, float | None]]:
    """The order's figures for each amount of something, its stages measured in turn.

    Args:
        prepare: Makes the amount, and says how many orders come before any that is measured.

    Raises:
        ChildFailed: A process did not start, or died.
        Unfinished: Some orders were not done in time.
    """
    orders, seen = Orders(), {amount: [] for amount in crews}  # type: ignore[var-annotated]
    used: dict[int, float] = {}
    unsettled: dict[int, float | None] = {}
    with (
        tempfile.TemporaryDirectory(prefix="celeriac-growth-") as folder,
        on_stage(list(crews.values()), Path(folder), packages=("ours",)) as stages,
    ):
        sides = {amount: stages[crew.name].side("ours") for amount, crew in crews.items()}
        for amount, crew in crews.items():
            stages[crew.name].to_front()
            orders.warm_up(stages[crew.name], sides[amount], size)
            lots = prepare(stages[crew.name], amount) // size.amounts["orders"]
            unsettled[amount] = _settle(stages[crew.name], sides[amount], size, lots, say)
            used[amount] = int(stages[crew.name].redis.info("memory")["used_memory"]) / 2**20
        for turn in range(size.pairs):
            # To and fro: whoever is always first would always meet what the last one left behind.
            for amount, crew in list(crews.items())[:: -1 if turn % 2 else 1]:
                stage = stages[crew.name]
                stage.to_front()
                stage.settle(size.wait_s)
                seen[amount].append(orders.turn(stage, sides[amount], size, f"turn-{turn}"))
                say(f"{amount:>9,} {turn + 1}/{size.pairs}: {seen[amount][-1]['orders_per_s'][0]:.1f} orders/s")
    return {str(amount): _row(turns, used[amount], unsettled[amount]) for amount, turns in seen.items()}


def _settle(stage: Stage, side: Any, size: Size, lots: int, say: Callable[[str], None]) -> float | None:
    """Make so many lots of orders; the most that one cost Valkey, in ms of CPU an order. None without any."""
    seen: list[float] = []
    for number in range(lots):
        lot = Orders().lot(stage, side, size, f"before-{number}")
        seen.append(round(lot["valkey_cpu_s_per_100"][0] * 10, 2))
        say(f"settling {number + 1}/{lots}: {seen[-1]:.2f} ms of Valkey's CPU an order")
    return max(seen, default=None)


def _row(
    turns: Sequence[Mapping[str, Sequence[float]]], used_mib: float, unsettled_ms: float | None
) -> dict[str, float | None]:
    middle = {name: statistics.median(statistics.median(turn[name]) for turn in turns) for name in turns[0]}
    return {
        "orders_per_s": round(middle["orders_per_s"], 2),
        "p50_ms": round(middle["latency_ms"], 2),
        "cpu_s_per_100": round(middle["cpu_s_per_100"], 3),
        "valkey_ms": round(middle["valkey_cpu_s_per_100"] * 10, 2),
        "valkey_ms_unsettled": unsettled_ms,
        "valkey_busy": round(middle["valkey_cpu_s_per_100"] * middle["orders_per_s"] / 100, 3),
        "used_mib": round(used_mib, 1),
    }


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure all of it."""

    def say(line: str) -> None:
        console.print(line, highlight=False)

    size = Size(
        pairs=options.turns,
        wait_s=180,
        amounts={"orders": options.orders, "singles": options.singles, "warm_up": min(options.orders, 100)},
    )
    fitting, too_many = _fitting(options.runs)
    for runs in too_many:
        say(f"{runs:,} runs do not fit into this machine's memory: left out")
    found: dict[str, Any] = {}
    say("ended runs in Redis")
    by_runs = {runs: Crew(name=f"runs-{runs}", module="order") for runs in fitting}
    found["by_runs"] = by_amount(by_runs, size, lambda stage, runs: _filled(stage, runs, say), say)
    found["left_out_runs"] = list(too_many)
    say("worker processes (-P solo)")
    by_workers = {n: Crew(name=f"workers-{n}", module="order", pool="solo", concurrency=n) for n in options.workers}
    found["by_workers"] = by_amount(by_workers, size, lambda *_: 0, say)
    say("bytes of a run")
    with tempfile.TemporaryDirectory(prefix="celeriac-growth-") as folder:
        found["bytes_per_run"] = {
            "has finished an order of 14 steps": weigh_finished(Path(folder), options.weighed),
            "is at the last steps of it": weigh_running(Path(folder), options.weighed),
            "sleeps": weigh_sleeping(Path(folder), options.weighed),
        }
    few, many = min(fitting), max(fitting)
    found["ratio_runs"] = round(
        found["by_runs"][str(many)]["orders_per_s"] / found["by_runs"][str(few)]["orders_per_s"], 3
    )
    found["measured"] = {"turns": options.turns, "orders": options.orders, "pool": "prefork -c 2, and -P solo"}
    return found


def _filled(stage: Stage, runs: int, say: Callable[[str], None]) -> int:
    fill(stage, runs, say)
    return int(runs * SETTLING)


def _fitting(amounts: Sequence[int]) -> tuple[list[int], list[int]]:
    room = psutil.virtual_memory().available * SHARE_OF_MEMORY
    fitting: list[int] = []
    for runs in sorted(set(amounts)):
        room -= runs * BYTES_A_RUN
        if room > 0 or not fitting:
            fitting.append(runs)
    return fitting, [runs for runs in sorted(set(amounts)) if runs not in fitting]


def main() -> int:
    options = _options()
    # A SIGTERM ends the processes as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = run(options, Console())
    except FAILURES as failed:
        print(f"growth: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("growth: stopped", file=sys.stderr)
        return 130
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n")
    plot.growth(found, out.with_suffix(".png"))
    if out == page.GROWTH:
        page.update()
    print(json.dumps(found, indent=2))
    print(f"written to {os.path.relpath(out)} and {os.path.relpath(out.with_suffix('.png'))}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=(__doc__ or "").partition(":")[2])
    parser.add_argument("--runs", type=_numbers(5_000_000), default=[100, 10_000, 1_000_000], metavar="100,10000")
    parser.add_argument("--workers", type=_numbers(64), default=[1, 2, 4], metavar="1,2,4")
    parser.add_argument("--orders", type=int, default=300, help="in each turn")
    parser.add_argument("--singles", type=int, default=30, help="one after the other, in each turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--weighed", type=int, default=300, help="runs of each kind that are weighed")
    parser.add_argument("--quick", action="store_true", help="100 and 2,000 runs, 1 and 2 workers, fewer orders")
    parser.add_argument("--out", type=Path, default=page.GROWTH)
    options = parser.parse_args()
    if options.quick:
        few = {"runs": [100, 2000], "workers": [1, 2], "orders": 60, "singles": 10, "turns": 1, "weighed": 50}
        chosen = {name for name in few if getattr(options, name) != parser.get_default(name)}
        vars(options).update({name: value for name, value in few.items() if name not in chosen})
    if min(options.orders, options.singles, options.turns, options.weighed) < 1:
        parser.error("--orders, --singles, --turns and --weighed must be at least 1")
    return options


def _numbers(at_most: int) -> Callable[[str], list[int]]:
    def parse(text: str) -> list[int]:
        numbers = [int(part.replace("_", "")) for part in text.split(",")]
        if not all(1 <= number <= at_most for number in numbers):
            raise argparse.ArgumentTypeError(f"must be from 1 to {at_most}, got {text}")
        return numbers

    return parse


if __name__ == "__main__":
    sys.exit(main())
