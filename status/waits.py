"""What a run waits for, in a few words: for those whose patience has ended first."""

from __future__ import annotations

from collections.abc import Iterable

from status.models import RunStatus, StepStatus
from status.states import State, StepState


def waits_for(run: RunStatus) -> str:
    """What keeps a run from its end, as far as its status tells; '' if it has ended."""
    if run.finished:
        return ""
    look = f"`celery -A APP runs show {run.run_id}` says whether a worker listens there"
    waiting = [step for step in run.steps if step.state in {StepState.WAITING, StepState.RETRYING}]
    noted = next((step.waits for step in waiting if step.waits), None)
    queued = next((step for step in waiting if step.queue and step.state == StepState.WAITING), None)
    if noted:
        return noted
    if run.error is not None:
        return f"it is parked: {run.error.message}"
    if run.state is State.PENDING:
        return f"no worker has taken it up yet, and {look}"
    if queued is not None:
        return f"nobody has begun {queued.name} on queue {queued.queue!r} yet, and {look}"
    return _what_goes_on(run.steps)


def _what_goes_on(steps: Iterable[StepStatus]) -> str:
    promises = [step.promise for step in steps if step.promise and step.state == StepState.WAITING]
    if promises:
        return f"it waits for promise {promises[0]!r}"
    at_it = [step for step in steps if step.state in {StepState.RUNNING, StepState.RETRYING}]
    return f"{at_it[0].name} is {at_it[0].state}" if at_it else ""
