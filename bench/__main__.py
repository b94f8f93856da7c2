"""`python -m bench`: stock Celery and celeriac at the same work, in turn, in the same run; medians.

\b
w1  orders of 14 steps: orders/s, latency, CPU
w2  fan-out and fan-in of 100, 1,000 and 10,000 no-ops
w3  a batch of 2,000 steps of 10 ms, 50 at once; 10,000 no-op items beside raw tasks
w4  a race of 50 ms and 5 s, and when the loser's slot is free again
w5  an order that fails late, and what undoing it costs
w6  a worker is killed in the middle of 200 orders

Exit codes: 0 measured, 1 something did not start or finish, 2 wrong options, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import redis
from rich.console import Console

from bench import page, plot, profiling, report
from bench.workload import Choice, Workload, chosen_parts, measure
from bench.workloads import WORKLOADS
from status.errors import OrchestrationError

#: What a quick run measures, unless it is told.
QUICKLY = ("w1",)
SIDES = sorted({part.name for workload in WORKLOADS.values() for part in workload.parts})
AMOUNTS = sorted({name for workload in WORKLOADS.values() for name in workload.sizes.full.amounts})
#: What goes into the file that the docs are made from, if no other was named.
WRITTEN = (Choice(), Choice(size="quick"))
#: What is told in one line; ChildFailed and Unfinished are RuntimeErrors.
FAILURES = (RuntimeError, ImportError, redis.RedisError, OrchestrationError)


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    choice = _choice(options)
    only = options.only or (QUICKLY if choice.size == "quick" else tuple(WORKLOADS))
    workloads = [WORKLOADS[name] for name in only]
    for workload in workloads:
        if not chosen_parts(workload, choice):
            parser.error(f"--sides {','.join(choice.sides or ())}: {workload.name} has none of them")
    if options.profile and (why_not := profiling.refuse(choice)):
        parser.error(why_not)
    # A SIGTERM ends the processes as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.profile:
            profiling.profile(WORKLOADS["w1"], choice, Console())
            return 0
        out = options.out or (report.LATEST if choice in WRITTEN else None)
        run(workloads, choice, Console(), out)
    except FAILURES as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        return 130
    return 0


def run(workloads: list[Workload], choice: Choice, console: Console, out: Path | None) -> None:
    """Measure one after the other; what was measured is in the file, whatever becomes of the next.

    Raises:
        ChildFailed: Valkey or a worker did not start, or died.
        Unfinished: Some work was not done in time.
    """
    for workload in workloads:
        found = measure(workload, choice, lambda line: console.print(line, highlight=False, soft_wrap=True))
        machine = report.machine(found.pop("valkey"))
        if workload.name == "w1":
            found = report.older_names(found)
        console.print(report.table(workload, found))
        if out is not None:
            # In a tiny run there is nothing to see.
            _keep({workload.name: found, "machine": machine}, out, picture=choice.size != "tiny")


def _keep(results: dict[str, Any], out: Path, *, picture: bool) -> None:
    merged = report.write(out, results)
    if out == report.LATEST:
        page.update()
    elif picture:
        plot.overview(merged, list(WORKLOADS.values()), out.with_suffix(".png"))
    print(f"written to {os.path.relpath(out)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=textwrap.dedent(__doc__ or "").replace("\b\n", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=_names(WORKLOADS), metavar="W1,W2", help="these workloads; default all")
    parser.add_argument(
        "--quick", action="store_const", const="quick", dest="size", default="full", help="w1 in under a minute"
    )
    parser.add_argument(
        "--size",
        choices=["full", "quick", "tiny"],
        default="full",
        help="how much is done: full takes some minutes; tiny only shows that it works",
    )
    parser.add_argument(
        "--sides", type=_names(SIDES), metavar="A,B", help=f"these of {', '.join(SIDES)}; no file unless --out"
    )
    parser.add_argument("--pool", choices=["prefork", "solo", "threads"], help="where the workload lets it be chosen")
    parser.add_argument("--concurrency", type=_count, help="of each worker, where it can be chosen")
    parser.add_argument("--pairs", type=_count, help="how often each side has its turn")
    for name in AMOUNTS:
        users = ", ".join(w.name for w in WORKLOADS.values() if name in w.sizes.full.amounts)
        parser.add_argument(f"--{name.replace('_', '-')}", type=_count, help=f"of {users}; default as --size says")
    parser.add_argument(
        "--profile", action="store_true", help="no figures: where the CPU time of w1's steps goes; with --sides, ours"
    )
    parser.add_argument("--out", type=Path, help="default bench/results/latest.json, if nothing but --size is chosen")
    return parser


def _choice(options: argparse.Namespace) -> Choice:
    amounts = {name: value for name in AMOUNTS if (value := getattr(options, name))}
    return Choice(
        size=options.size,
        sides=options.sides,
        pool=options.pool,
        concurrency=options.concurrency,
        pairs=options.pairs,
        amounts=amounts or None,
    )


def _names(known: Any) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return names

    return parse


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError(f"must be from 1 to 100000, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
