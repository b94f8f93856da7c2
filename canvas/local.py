"""Local steps: run by their turn as a function is, where nobody would notice the difference.

What Celery's tracer does for a task it does for those who listen: signals, hooks of the task's class, events for
monitors, spans. With none of them there, a local step needs no message, no request and no tracer, which together cost
several times what a short step does. With one of them there it goes by the tracer, as any step in place.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery import Task, signals
from celery.app import trace

from canvas import tracing
from canvas.perform import Here, attempt_local
from canvas.telling import is_watched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from canvas.step import Step
    from status.ahead import Finish
    from status.records import PartRef

logger = logging.getLogger("celeriac")

#: Celery's own, in which workers say what they have run.
_tracer = logging.getLogger(trace.__name__)

HEARD = (
    signals.before_task_publish,
    signals.after_task_publish,
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
)
HOOKS = ("before_start", "on_success", "on_failure")


def unheard(step: Step[Any, Any]) -> bool:
    """Whether nobody listens to what a step's tracer would tell, and it is local."""
    if not step.local or is_watched() or tracing.on() or any(signal.receivers for signal in HEARD):
        return False
    return _has_no_hooks(type(step))  # type: ignore[arg-type]  # classes are hashable


@cache
def _has_no_hooks(kind: Hashable) -> bool:
    return all(getattr(kind, hook) is getattr(Task, hook) for hook in HOOKS)


def run(step: Step[Any, Any], ref: PartRef, spec: Mapping[str, Any], here: Here) -> Finish:
    """Run it, and log it as a worker does."""
    start_s = monotonic()
    finish = attempt_local(step, ref, spec, here)
    if finish.kind != "done":
        what = "to be made again" if finish.kind == "retry" else "failed"
        logger.warning("%s: %s, %s", ref.step_id, what, finish.line)
    elif _tracer.isEnabledFor(logging.INFO):
        shown = finish.outcome[1 : 1 + step.resultrepr_maxsize]  # as much as Celery's tracer shows
        said = {"id": ref.message_id, "name": step.name, "return_value": shown, "args": "", "kwargs": ""}
        _tracer.info(trace.LOG_SUCCESS, said | {"runtime": monotonic() - start_s})
    return finish
