"""Steps in place without Celery's tracer, where nobody would notice the difference.

What the tracer does for a task it does for those who listen: signals, hooks of the task's class, events for monitors,
spans. With none of them there, a step in place needs no message and no tracer, which together cost several times what a
short step does; it is claimed, recorded and logged as any other. With one of them there it goes by the tracer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from time import monotonic
from types import FunctionType
from typing import TYPE_CHECKING, Any, assert_never

from celery import Task, signals
from celery._state import _task_stack  # type: ignore[attr-defined]  # the stubs leave it out
from celery.app import trace
from celery.app.task import Context
from celery.loaders.base import BaseLoader
from celery.utils.saferepr import saferepr
from kombu.utils.encoding import safe_repr

from canvas import engine as engines
from canvas import tracing
from canvas.outcomes import Again, Done, Failed, Outcome
from canvas.perform import Attempt, Here, current_of, perform, policy_of
from canvas.settling import finish_of, write_here
from canvas.telling import is_watched

if TYPE_CHECKING:
    from celery import Celery

    from canvas.step import Step
    from canvas.workflow import Workflow
    from status.records import PartRef

#: Celery's own, in which workers say what they have run.
logger = logging.getLogger(trace.__name__)

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
#: Those that a step or a workflow has of its own accord.
OWN_HOOKS = ("__call__", "on_retry", "after_return")

OWN_MODULES = ("canvas.step", "canvas.workflow")

OF_TASKS = frozenset((*HOOKS, *OWN_HOOKS))

LOADERS_HOOKS = ("on_task_init", "on_process_cleanup")

#: Classes of tasks -> whether they have no hooks.
_plain: dict[type[Any], bool] = {}


def nobody_listens(app: Celery) -> bool:
    """Whether nobody in this process listens to what the tracer would tell of any step."""
    if is_watched() or tracing.on() or any(signal.receivers for signal in HEARD):
        return False
    loader = type(app.loader)
    if any(getattr(loader, hook) is not getattr(BaseLoader, hook) for hook in LOADERS_HOOKS):
        return False
    # Sentry and New Relic put their own in its place.
    made: Any = trace.build_tracer
    return type(made) is FunctionType and made.__code__.co_filename == trace.__file__


def is_plain(step: Step[Any, Any], spec: Mapping[str, Any]) -> bool:
    """Whether a step has no hooks and keeps no errors, and this call of it no log, for which the tracer is needed."""
    if spec.get("log") or step.store_errors_even_if_ignored or not _has_no_hooks(type(step)):
        return False
    return OF_TASKS.isdisjoint(vars(step))  # and nobody has given it one later


def is_plain_turn(workflow: Workflow[Any, Any]) -> bool:
    """Whether a workflow's turns have no hooks and no limits, for which a message is needed."""
    task: Any = workflow
    limits = task.rate_limit or task.time_limit or task.soft_time_limit
    return not limits and _has_no_hooks(type(task)) and OF_TASKS.isdisjoint(vars(task))


def _has_no_hooks(kind: type[Any]) -> bool:
    if kind not in _plain:
        own = next(base for base in kind.__mro__ if base.__module__ in OWN_MODULES)
        _plain[kind] = all(getattr(kind, hook) is getattr(Task, hook) for hook in HOOKS) and all(
            getattr(kind, hook) is getattr(own, hook) for hook in OWN_HOOKS
        )
    return _plain[kind]


def run(
    step: Step[Any, Any], ref: PartRef, spec: Mapping[str, Any], workflow: str, here: Here, *, where: str = ""
) -> None:
    """Run a step that a turn of `workflow` asks for, and do with what came of it as `here` has it.

    Args:
        where: The worker's node name.
    """
    start_s, began_ms = monotonic(), here.now_ms()
    args, kwargs = spec.get("args", []), spec.get("kwargs", {})
    policy = policy_of(step, spec.get("retry"))
    current = current_of(step, ref, args, kwargs, here.grant, key=spec.get("key"))
    with nullcontext() if step.local else _AsTask(step, ref, spec, where):
        outcome = perform(step, args, kwargs, current, policy)
        _log(step, ref, spec["label"], outcome, monotonic() - start_s)
    finish = finish_of(spec["label"], Attempt(ref, here.token, began_ms, outcome), here.gives, here.wanted)
    write_here(engines.of(step.app), here, finish, workflow)


class _AsTask:
    """What `celery.current_task` and the step's `request` are for the code of a step."""

    def __init__(self, step: Step[Any, Any], ref: PartRef, spec: Mapping[str, Any], where: str) -> None:
        self._step, self._ref, self._spec, self._where = step, ref, spec, where

    def __enter__(self) -> None:
        ref, spec = self._ref, self._spec
        request = Context(
            id=ref.message_id,
            correlation_id=ref.message_id,
            task=self._step.name,
            shadow=spec["label"] if spec["label"] != self._step.name else None,
            root_id=ref.run_id,
            parent_id=ref.run_id,
            group=f"{ref.run_id}/{ref.n}",
            group_index=int(ref.p.rstrip("u")),
            args=spec.get("args", []),
            kwargs=spec.get("kwargs", {}),
            argsrepr="(…)",
            kwargsrepr="{…}",
            retries=ref.attempt - 1,
            timelimit=[None, None],
            hostname=self._where,
            delivery_info={"exchange": "", "routing_key": spec["queue"], "priority": 0, "redelivered": False},
            reply_to="",
            headers={},
            lang="py",
            stamps={},
            ignore_result=True,
            is_eager=False,
            called_directly=False,
        )
        _task_stack.push(self._step)
        self._step.request_stack.push(request)

    def __exit__(self, *_: object) -> None:
        self._step.request_stack.pop()
        _task_stack.pop()


def _log(step: Step[Any, Any], ref: PartRef, label: str, outcome: Outcome, runtime_s: float) -> None:
    """As the tracer does."""
    if type(outcome) is Done and not logger.isEnabledFor(logging.INFO):
        return
    said: dict[str, Any] = {"id": ref.message_id, "name": label, "args": "", "kwargs": ""}
    match outcome:
        case Done(value):
            shown = saferepr(value, step.resultrepr_maxsize)
            logger.info(trace.LOG_SUCCESS, said | {"return_value": shown, "runtime": runtime_s})
        case Again(error):
            logger.info(trace.LOG_RETRY, said | {"exc": safe_repr(error)})
        case Failed(error):
            expected = isinstance(error, step.throws)
            policy = trace.log_policy_expected if expected else trace.log_policy_unexpected
            said |= {"exc": safe_repr(error), "description": policy.description}
            logger.log(
                policy.severity, policy.format, said, exc_info=error if policy.traceback else None, extra={"data": said}
            )
        case _:
            assert_never(outcome)
