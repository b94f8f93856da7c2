"""Orders of 14 steps while processes are killed, stopped and cut off: `make chaos`.

Each seed is one run of celeriac and one of the stock implementation, with the same faults: a worker is killed
(SIGKILL) every 2 s, its parent alone or with all its children, and started again; pool children and the client are
killed; a worker is stopped for 6 s; Valkey is killed twice; connections are cut.

The last line is JSON over all seeds, of celeriac: `runs` (of a seed), `completed` (the fewest of a seed; every effect
must be there and the customer charged once), `stuck` (confirmed orders that had not ended when the wait was over),
`bodies_twice` (step bodies that began for a step that had begun before), `effects_twice` (effects recorded in SQL for
a step that had one), each a sum over the seeds, and `worst_recovery_s`: the longest time from a fault until an order
that was open at it had its next effect recorded, or had ended, over all faults, orders and seeds. If a later fault hit
the same order before it got so far (its message lay with that worker, or Redis went) the clock starts anew there; the
table shows the time from the first of such faults too. In stock Celery orders that never end are left out of it.

Exit codes: 0 the bar is met (all completed, none stuck, no effect twice, recovery within 8 s), 1 it is not,
2 wrong options, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.children import ChildFailed
from chaos.audit import Verdict, audit
from chaos.stage import Plan, play

LATEST = Path(__file__).parent.parent / "bench" / "results" / "chaos.json"
RECOVERY_S = 8.0
SIDES = {"ours_saga": "celeriac", "stock": "stock Celery"}


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, width=120)
    seeds = [options.seed] if options.seed is not None else list(range(1, options.seeds + 1))
    plan = Plan(
        seed=0, orders=options.orders, orders_per_s=options.rate, workers=options.workers, rest=options.rest,
        wait_s=options.wait,
    )  # fmt: skip
    verdicts: dict[str, dict[int, Verdict]] = {side: {} for side in options.sides}
    try:
        for seed in seeds:
            for side in options.sides:
                verdicts[side][seed] = _run(side, replace(plan, seed=seed), console, keep=options.keep)
    except ChildFailed as failed:
        print(f"chaos: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("chaos: stopped", file=sys.stderr)
        return 130
    ours = list(verdicts["ours_saga"].values())
    console.print(table(verdicts))
    _write(options.out, verdicts, plan)
    print(json.dumps(summary(ours)))
    return 0 if all(map(meets_the_bar, ours)) else 1


def _run(side: str, plan: Plan, console: Console, *, keep: Path | None) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="celeriac-chaos-") as name:
        folder = Path(name)
        title = f"{SIDES[side]:>12}, seed {plan.seed}"
        ending = play(side, plan, folder, lambda line: console.print(f"{title}: {line}"))
        verdict = audit(side, plan.orders, folder, ending)
        if keep is not None:
            shutil.copytree(folder, keep / f"{side}-{plan.seed}", dirs_exist_ok=True)
            lines = [f"{one.at_ms} {one.fault.at_s} {one.fault.kind} {one.whom}\n" for one in ending.happened]
            (keep / f"{side}-{plan.seed}" / "faults.log").write_text("".join(lines))
    console.print(
        f"{title}: {verdict.completed}/{verdict.runs} completed, {verdict.stuck} stuck,"
        f" {verdict.bodies_twice} bodies and {verdict.effects_twice} effects twice,"
        f" worst recovery {verdict.worst_recovery_s:.1f} s ({verdict.worst_at})"
    )
    for line in verdict.wrong:
        console.print(f"{title}: {line}")
    return verdict


def meets_the_bar(verdict: Verdict) -> bool:
    return (
        verdict.completed == verdict.runs
        and verdict.stuck == 0
        and verdict.effects_twice == 0
        and verdict.worst_recovery_s <= RECOVERY_S
    )


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The last line: the fewest completed and the worst recovery of a seed, the rest summed up."""
    return {
        "runs": verdicts[0].runs,
        "completed": min(one.completed for one in verdicts),
        "stuck": sum(one.stuck for one in verdicts),
        "bodies_twice": sum(one.bodies_twice for one in verdicts),
        "effects_twice": sum(one.effects_twice for one in verdicts),
        "worst_recovery_s": max(one.worst_recovery_s for one in verdicts),
    }


def table(verdicts: dict[str, dict[int, Verdict]]) -> Table:
    shown = Table(title="Orders of 14 steps under faults")
    for name in (
        "",
        "seed",
        "faults",
        "completed",
        "stuck",
        "bodies twice",
        "effects twice",
        "worst recovery",
        "from first fault",
    ):
        shown.add_column(name, justify="left" if not name else "right")
    for side, by_seed in verdicts.items():
        for seed, one in by_seed.items():
            color = "green" if meets_the_bar(one) else "red"
            shown.add_row(
                SIDES[side],
                str(seed),
                str(sum(one.faults.values())),
                f"[{color}]{one.completed}/{one.runs}[/]",
                str(one.stuck),
                str(one.bodies_twice),
                str(one.effects_twice),
                f"{one.worst_recovery_s:.1f} s",
                f"{one.from_first_s:.1f} s",
            )
        shown.add_section()
    return shown


def _write(out: Path, verdicts: dict[str, dict[int, Verdict]], plan: Plan) -> None:
    machine = {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}
    results: dict[str, Any] = {
        "summary": {side: summary(list(by_seed.values())) for side, by_seed in verdicts.items()},
        "seeds": {side: {seed: asdict(one) for seed, one in by_seed.items()} for side, by_seed in verdicts.items()},
        "plan": {**asdict(plan), "seed": None},
        "machine": machine,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=_count, default=5, help="how many, from 1 on; default 5")
    which.add_argument("--seed", type=int, help="this one alone, to repeat it")
    parser.add_argument("--orders", type=_count, default=200, help="of a seed and side; default 200")
    parser.add_argument("--rate", type=float, default=5.0, help="orders submitted a second; default 5")
    parser.add_argument("--workers", type=_count, default=4, help="with two pool children each; default 4")
    parser.add_argument("--rest", default="10-120", help="ms that a body takes, shortest-longest; default 10-120")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds after the last fault; default 60")
    parser.add_argument("--ours", dest="sides", action="store_const", const=["ours_saga"], help="without stock Celery")
    parser.add_argument("--keep", type=Path, help="copy books and logs of each run into this folder")
    parser.add_argument("--out", type=Path, default=LATEST, help="default bench/results/chaos.json")
    parser.set_defaults(sides=list(SIDES))
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"must be from 1 to 10000, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
