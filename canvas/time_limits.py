"""Keeps Celery's soft time limit to the body of the step that it is for.

The pool's parent sends the process a signal when a message has had its time, and the handler raises, wherever the
process is. But more is done with a step's message than its body: the claim before it; after it the outcome is written
down, and the process goes on with what this leads to, be it items of a batch or the turn, with steps of its own. An
exception in there would lose the outcome, or be taken for the workflow's. So outside of the body nothing is raised.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery._state import _task_stack  # type: ignore[attr-defined]  # the stubs leave it out


class _Now:
    """What this process does, for the handler of a signal."""

    spared: Any = None  #: the task whose message it works on, if that is a step's; not while its body runs
    to_begin: Any = None  #: that task, until its body begins
    too_late = False  #: its time was up before that


_now = _Now()


def spare(task: Any) -> None:
    """Raise nothing while this process works on the present message of `task`, but in its body."""
    _now.spared, _now.to_begin, _now.too_late = task, task, False
    # Billiard sets its own when the process has begun, after all that others may call there.
    if SIG_SOFT_TIMEOUT is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(SIG_SOFT_TIMEOUT) is soft_timeout_sighandler:
        signal.signal(SIG_SOFT_TIMEOUT, _time_is_up)


def body_is_over() -> None:
    """Whether it has run or not: no body that begins in this message from here on has a limit."""
    _now.to_begin, _now.too_late = None, False


def spare_nothing() -> None:
    """What is worked on is a task like any other, or nothing."""
    _now.spared = None
    body_is_over()


def _time_is_up(signum: int, frame: Any) -> None:
    # A message that is over may not have said so; then its task is not on the stack any more.
    if _now.spared is None or _now.spared not in (_task_stack.stack or ()):
        soft_timeout_sighandler(signum, frame)
    _now.too_late = True


class body_of:  # noqa: N801  # reads as a function
    """Around the body of a step.

    Raises:
        SoftTimeLimitExceeded: The time of its message was up before it began.
    """

    def __init__(self, task: Any) -> None:
        # Steps that run in place later have no limit of their own, and this very one may be among them.
        self._limited = _now.to_begin is task
        self._task = task

    def __enter__(self) -> None:
        if not self._limited:
            return
        # From here on the handler raises; what it has noted before is looked at then.
        _now.to_begin = _now.spared = None
        if _now.too_late:
            _now.spared = self._task
            raise SoftTimeLimitExceeded

    def __exit__(self, *_: object) -> None:
        if self._limited:
            _now.spared = self._task
