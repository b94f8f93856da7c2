"""`python -m bench --profile`: where the CPU time of a step goes, by package and by function.

Worker and client are sampled while the orders of W1 are done. The stacks are kept in `.data/profile.collapsed`, which
https://www.speedscope.app and flamegraph.pl read.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from bench import sampling
from bench.stage import ROOT, Crew, Stage, on_stage
from bench.workload import Choice, Workload, chosen_parts, chosen_size

OUT = ROOT / ".data" / "profile.collapsed"
STEPS = 14
#: Functions in a table.
SHOWN = 22
OURS = ("canvas", "status", "saga", "tasks")

Stack = tuple[str, ...]
Stacks = Counter[Stack]


def profile(workload: Workload, choice: Choice, console: Console) -> None:
    """Run the workload's orders on each chosen side, and print where the time went.

    Raises:
        ChildFailed: A process did not start, or died.
        Unfinished: Some orders were not done in time.
    """
    size = chosen_size(workload, choice)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("")
    for part in chosen_parts(workload, replace(choice, sides=choice.sides or ("ours",))):
        crew = replace(part.crew, packages=(part.package,))
        roles, cpu_s = _sampled(crew, part.package, size.amounts["orders"], size.wait_s)
        steps = size.amounts["orders"] * STEPS
        for role, stacks in roles.items():
            _keep(f"{part.name} {role}", stacks)
            console.print(_by_package(f"{part.name}: {role}", stacks, cpu_s[role] * 1e6 / steps))
        merged = sum(roles.values(), Counter[Stack]())
        console.print(_by_function(f"{part.name}: all processes, functions by themselves", _selves(merged)))
        console.print(_by_function(f"{part.name}: celeriac's functions with what they call", _inclusive(merged)))
    console.print(f"stacks are in {os.path.relpath(OUT)}", highlight=False)


def _sampled(crew: Crew, package: str, orders: int, wait_s: float) -> tuple[dict[str, Stacks], dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="celeriac-profile-") as folder:
        seen = Path(folder) / "seen"
        seen.mkdir()
        os.environ["BENCH_PROFILE"] = str(seen)
        with on_stage([crew], Path(folder)) as stages:
            stage = stages[crew.name]
            side = stage.side(package)
            stage.complete(side, [f"warm-{n}" for n in range(40)], wait_s)
            processes = _processes(stage)
            before = _cpu_s(processes)
            _tell(processes, sampling.START)
            sampling.start()
            stage.complete(side, [f"profiled-{n}" for n in range(orders)], wait_s)
            sampling.stop(seen)
            _tell(processes, sampling.STOP)
            after = _cpu_s(processes)
            stage.until(lambda: _written(seen) > len(processes), "not all processes wrote what they saw", 20)
        roles = {
            "client": _read(seen, [os.getpid()]),
            "worker's main process": _read(seen, [pid for pid, role in processes.items() if role == "main"]),
            "its pool processes": _read(seen, [pid for pid, role in processes.items() if role == "pool"]),
        }
        cpu = {
            "client": after["client"] - before["client"],
            "worker's main process": after["main"] - before["main"],
            "its pool processes": after["pool"] - before["pool"],
        }
        return {role: stacks for role, stacks in roles.items() if stacks}, cpu


def _processes(stage: Stage) -> dict[int, str]:
    found = {}
    for worker in stage.workers:
        found[worker.pid] = "main"
        found |= {child.pid: "pool" for child in psutil.Process(worker.pid).children()}
    return found


def _tell(processes: Iterable[int], signum: int) -> None:
    for pid in processes:
        os.kill(pid, signum)


def _written(folder: Path) -> int:
    return sum(1 for path in folder.iterdir() if path.suffix != ".new")


def _cpu_s(processes: Mapping[int, str]) -> dict[str, float]:
    used = {"main": 0.0, "pool": 0.0}
    for pid, role in processes.items():
        times = psutil.Process(pid).cpu_times()
        used[role] += times.user + times.system
    own = psutil.Process().cpu_times()
    return used | {"client": own.user + own.system}


def _read(folder: Path, pids: Iterable[int]) -> Stacks:
    stacks: Stacks = Counter()
    for pid in pids:
        for line in (folder / str(pid)).read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            stacks[tuple(_short(frame) for frame in stack.split(";"))] += int(count)
    return stacks


def _short(frame: str) -> str:
    """`package/path.py:function` from the file's whole path."""
    path, _, function = frame.rpartition(":")
    for above in ("site-packages/", "lib-dynload/", f"{ROOT}/"):
        _, found, below = path.partition(above)
        if found:
            return f"{below}:{function}"
    parts = Path(path).parts
    return f"python/{parts[-1]}:{function}" if parts else f"python/{function}"


def _package(frame: str) -> str:
    return frame.partition("/")[0] if "/" in frame else frame.partition(":")[0]


def _keep(name: str, stacks: Stacks) -> None:
    with OUT.open("a") as out:
        for stack, count in stacks.items():
            out.write(f"{name};{';'.join(stack)} {count}\n")


def _selves(stacks: Stacks) -> Counter[str]:
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        found[stack[-1]] += count
    return found


def _inclusive(stacks: Stacks) -> Counter[str]:
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        for frame in {frame for frame in stack if _package(frame) in OURS}:
            found[frame] += count
    found[""] = sum(stacks.values())
    return found


def _by_package(title: str, stacks: Stacks, us_a_step: float) -> Table:
    found: Counter[str] = Counter()
    for frame, count in _selves(stacks).items():
        found[_package(frame)] += count
    total = sum(found.values())
    shown = Table("package", title=f"{title}, {us_a_step:,.0f} µs of CPU a step, {total:,} samples")
    shown.add_column("share", justify="right")
    shown.add_column("µs a step", justify="right")
    for package, count in found.most_common(12):
        name = f"[bold]{package}[/]" if package in OURS else package
        shown.add_row(name, f"{count / total:.1%}", f"{count / total * us_a_step:,.0f}")
    return shown


def _by_function(title: str, found: Counter[str]) -> Table:
    total = found.pop("", 0) or sum(found.values())
    shown = Table("function", title=title)
    shown.add_column("share", justify="right")
    for frame, count in found.most_common(SHOWN):
        shown.add_row(frame, f"{count / total:.1%}")
    return shown


def refuse(choice: Choice) -> str:
    """Why this can't be profiled; empty if it can."""
    if choice.pool == "threads":
        return "--profile looks at main threads alone: not with --pool threads"
    if not hasattr(signal, "SIGRTMIN"):
        return "--profile needs Linux"
    return ""
