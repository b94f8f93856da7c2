"""Undoes what a run owes that is no longer there to do it: Redis was wiped, or the run ended with undos left.

The work is a run of its own, `RUN:resume`, so that it survives what other runs survive. What is to be undone is
read once, from the log in SQL; each undo has the idempotency key that it had in the first run, so that one that
ran there, unknown to the log, finds its receipt.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any

from celery import current_app

from canvas import CompensationFailed, ConfigError, Join, Retry, Run, RunHandle, StepFailed, step, workflow
from canvas.waitables import Recipe
from saga.log import Entry as Row
from saga.log import EntryState, SagaLog
from saga.rollback import make_undo
from saga.saga import Entry, Saga
from saga.strategy import Strategy
from saga.undo import Undo
from saga.writing import reachable
from status import here
from status.errors import RunNotFound
from status.models import RunStatus

#: A run id longer than this is shortened in that of its resume.
ID_LIMIT = 170


@dataclass(frozen=True)
class Owed:
    """An entry that is to be undone."""

    key: str
    saga: str
    name: str
    outcome: str
    undo: dict[str, Any]


class NothingOwed(ConfigError):  # noqa: N818
    """The log has nothing of this run that is to be undone."""


@dataclass(frozen=True)
class Resumed:
    """What `resume` has done.

    Attributes:
        started: Whether this call started it; else it runs already.
    """

    handle: RunHandle[int]
    entries: int
    started: bool


def owed_by(run_id: str) -> list[Row]:
    """What a run has left to undo, newest first.

    Raises:
        LogUnavailable: The database does not answer.
    """
    with reachable():
        return [row for row in reversed(SagaLog().of_run(run_id)) if row.state.owed]


@step(name="saga.owed", retry=Retry(None, first_s=1, max_s=10))
def read_owed(run_id: str) -> list[Owed]:
    """What is to be undone, as the log has it now."""
    return [
        Owed(key=row.key, saga=row.saga, name=row.name, outcome=_outcome(row), undo=dict(row.undo))
        for row in owed_by(run_id)
    ]


@workflow(name="saga.resume")
async def resume_run(run: Run, owed_by_run: str) -> int:
    """Undo what a run owes, newest first, one at a time; gives how many undos succeeded."""
    gave_up: dict[str, str] = {}
    for owed in await read_owed.s(owed_by_run):
        strategy = Strategy(owed.undo.get("strategy", Strategy.COMPENSATE_ALL))
        if owed.saga in gave_up and strategy is not Strategy.BEST_EFFORT:
            continue
        error = await UndoOwed(run, owed, strategy)
        if error is not None:
            gave_up[owed.saga] = f"undo {owed.name}: {error}"
    if gave_up:
        raise CompensationFailed(f"run {owed_by_run}: " + "; ".join(gave_up.values()))
    return run.undone


class UndoOwed(Join[StepFailed | None]):
    """The undo of one entry of another run."""

    def __init__(self, run: Run, owed: Owed, strategy: Strategy) -> None:
        super().__init__(Recipe("undo", "all", (), lambda _: None))
        self._run, self._owed, self._strategy = run, owed, strategy

    def __await__(self) -> Generator[Any, Any, StepFailed | None]:
        undo, owed = self._owed.undo, self._owed
        task = current_app.tasks.get(undo["task"])
        if task is None:
            raise CompensationFailed(
                f"undo {owed.name}: no step {undo['task']} is known to the worker that resumes: let one serve "
                "saga.resume that has it, then resume again"
            )
        saga = Saga(self._run, owed.saga, retry=Retry.from_timing(undo["retry"]) if undo.get("retry") else None)
        bound = Undo(task, undo["takes_value"], tuple(undo["args"]), undo["kwargs"], {"queue": undo["queue"]})
        entry = Entry(owed.key, owed.name, bound, undoes=undo.get("undoes"))
        return (yield from make_undo(saga, entry, owed.outcome, self._strategy))


def resume(run_id: str) -> Resumed:
    """Start the run that undoes what `run_id` owes; again while it runs, or when nothing is left, starts nothing.

    Raises:
        NothingOwed: There is nothing to undo.
        ConfigError: The run is alive, and undoes what it owes itself.
        LogUnavailable: The database does not answer.
    """
    owed = owed_by(run_id)
    if not owed:
        raise NothingOwed(f"run {run_id} owes no undo: `runs saga list --open` has those that do")
    status = status_of(run_id)
    if status is not None and not status.finished:
        raise ConfigError(
            f"run {run_id} is {status.state}: it undoes what it owes itself; if it must not go on, "
            f"`runs cancel {run_id}`"
        )
    for n in count(1):
        own_id = _id_of(run_id, n)
        there = status_of(own_id)
        if there is None:
            return Resumed(resume_run.submit(run_id, run_id=own_id), len(owed), started=True)
        if not there.finished:
            return Resumed(resume_run.handle(own_id), len(owed), started=False)
    raise AssertionError


def status_of(run_id: str) -> RunStatus | None:
    """The run as Redis has it, or None."""
    try:
        return here.reader().status(run_id)
    except RunNotFound:
        return None


def _id_of(run_id: str, n: int) -> str:
    short = (
        run_id if len(run_id) <= ID_LIMIT else f"{run_id[: ID_LIMIT - 12]}{sha256(run_id.encode()).hexdigest()[:12]}"
    )
    return f"{short}:resume" if n == 1 else f"{short}:resume.{n}"


def _outcome(row: Row) -> str:
    if row.value is not None:
        return "v" + row.value
    return "e" if row.state is EntryState.FAILED else "u"
