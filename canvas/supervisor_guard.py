"""A process of its own that cleans up behind a supervisor that was killed.

It is told of each process group that starts (`+pid`) and ends (`-pid`), on its standard input. The end
of that input is the end of the supervisor: whatever still lives then gets a little time and is killed.
The kernel's own signal at a parent's death (PR_SET_PDEATHSIG) reaches a worker, but neither its pool's
children nor a thread that is busy, and it exists on Linux alone.

Started as a script, so it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

#: They are not children of this process: there is nothing to wait for but to look.
LOOK_EVERY_S = 0.05


def main(grace_s: float) -> None:
    """Listen until the supervisor is gone, then see to it that its groups are, after `grace_s` seconds."""
    groups: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            groups.add(pid)
        else:
            groups.discard(pid)
    if sys.platform != "linux":  # there the kernel has sent it already, to those who asked for it
        _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while groups and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
        groups = {group for group in groups if _lives(group)}
    _signal(groups, signal.SIGKILL)


def _signal(groups: Iterable[int], signum: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError):  # it went by itself, which is as good
            os.killpg(group, signum)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(float(sys.argv[1]))
