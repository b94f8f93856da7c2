"""A child that does not outlive the process that started it, whatever ends that process.

Linux only (`PR_SET_PDEATHSIG`). Elsewhere a child outlives a `kill -9` of its starter; everything
softer is covered by the starter itself.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

#: From <sys/prctl.h>: the signal the kernel sends to a process when the *thread* that forked it ends.
PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int) -> Callable[[], None] | None:
    """A `preexec_fn` after which the child gets `signum` when the thread that starts it ends.

    Give it to `Popen` in a thread that lives as long as the child should: a thread that starts a
    child and returns would end the child at once.

    Returns:
        None where the kernel can't do it, which is what `Popen` takes for "nothing to do".
    """
    if sys.platform != "linux":
        return None
    # Looked up here: the child, forked from a process with threads, must neither import nor load
    # anything, because another thread may have held the lock that this needs.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent_pid = os.getpid()

    def before_exec() -> None:
        if prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        # The parent may have died between fork and prctl; then the kernel has nothing to send.
        if os.getppid() != parent_pid:
            os._exit(1)

    return before_exec
