"""Looks, every few ms of CPU time, at what this process does. Said by signals, so that the bench says when.

Sampled and not traced: a tracer makes short functions dearer than they are. What C code takes counts for the
Python function that called it. Only the main thread is looked at; that is where solo and prefork run tasks.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

#: Of CPU time. The kernel rounds it up to its own tick, mostly 4 ms.
EVERY_S = 0.001
START, STOP = signal.SIGRTMIN + 1, signal.SIGRTMIN + 2

_stacks: Counter[tuple[CodeType, ...]] = Counter()


def install(folder: Path) -> None:
    """Let this process, and those it forks, obey the two signals; what was seen goes to `folder/<pid>`."""
    signal.signal(signal.SIGPROF, _look)
    signal.signal(START, lambda *_: start())
    signal.signal(STOP, lambda *_: stop(folder))


def start() -> None:
    """From now on."""
    _stacks.clear()
    signal.signal(signal.SIGPROF, _look)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)


def stop(folder: Path) -> None:
    """Until now: a line for each stack, outermost first, and how often it was seen (as flame graphs are made from)."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    lines = (
        f"{';'.join(f'{code.co_filename}:{code.co_qualname}' for code in reversed(stack))} {count}"
        for stack, count in _stacks.items()
    )
    written = folder / f"{os.getpid()}.new"
    written.write_text("\n".join(lines))
    written.rename(folder / str(os.getpid()))


def _look(_signum: int, frame: FrameType | None) -> None:
    stack = []
    while frame is not None:
        stack.append(frame.f_code)
        frame = frame.f_back
    _stacks[tuple(stack)] += 1
