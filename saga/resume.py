"""Undoes what a run owes that is no longer there to do it: Redis was wiped, or the run ended with undos left.

The work is a run of its own, `RUN:resume`, so that it survives what other runs survive. It first notes who wants it,
and what is not to be undone; then it reads once, from the log in SQL, what is. Each undo has the idempotency key that
it had in the first run, so that one that ran there, unknown to the log, finds its receipt. At last it gives the first
run the end that it would have had, if nothing is owed any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any

from celery import current_app

from canvas import CompensationFailed, ConfigError, Join, Retry, Run, RunHandle, StepFailed, step, workflow
from canvas.service import known, step_name
from canvas.waitables import Recipe
from saga.instruction import PATIENCE, Instruction, close, instruct, instruction
from saga.log import Entry as Row
from saga.log import EntryState, SagaLog
from saga.rollback import make_undo
from saga.saga import Entry, Saga
from saga.strategy import Strategy
from saga.undo import Undo
from saga.writing import reachable
from status import here
from status.errors import RunConflict, RunNotFound
from status.models import RunStatus
from status.records import RunRecord
from status.states import FINAL

#: A run id longer than this is shortened in that of its resume.
ID_LIMIT = 170

_UNDOER = re.compile(r"(?P<run>.+):resume(\.\d+)?")


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
        entries: How many entries the run owes.
        started: Whether this call started it; else it was there already.
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


@step(name="saga.owed", retry=PATIENCE)
def read_owed(run_id: str) -> list[Owed]:
    """What is to be undone, as the log has it now."""
    return [
        Owed(key=row.key, saga=row.saga, name=row.name, outcome=_outcome(row), undo=dict(row.undo))
        for row in owed_by(run_id)
    ]


@workflow(name="saga.resume")
async def resume_run(run: Run, owed_by_run: str, given: Instruction) -> int:
    """Undo what a run owes, newest first, one at a time; gives how many undos succeeded."""
    await instruct.s(owed_by_run, given, run.id)
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
    await close.s(owed_by_run)
    return run.undone


class UndoOwed(Join[StepFailed | None]):
    """The undo of one entry of another run."""

    def __init__(self, run: Run, owed: Owed, strategy: Strategy) -> None:
        super().__init__(Recipe("undo", "all", (), lambda _: None))
        self._run, self._owed, self._strategy = run, owed, strategy

    def __await__(self) -> Generator[Any, Any, StepFailed | None]:
        undo, owed = self._owed.undo, self._owed
        name = step_name(undo["task"])
        # By its name alone, where it lives in another code base.
        task = current_app.tasks.get(name) or known.get(name)
        if task is None:
            raise CompensationFailed(
                f"undo {owed.name}: no step {name} is known to the worker that resumes: let one serve "
                "saga.resume that has it, then resume again"
            )
        saga = Saga(self._run, owed.saga, retry=Retry.from_timing(undo["retry"]) if undo.get("retry") else None)
        bound = Undo(task, undo["takes_value"], tuple(undo["args"]), undo["kwargs"], {"queue": undo["queue"]})
        entry = Entry(owed.key, owed.name, bound, undoes=undo.get("undoes"))
        return (yield from make_undo(saga, entry, owed.outcome, self._strategy))


def resume(run_id: str, *, by: str | None = None, reason: str = "", token: str | None = None) -> Resumed:
    """Start the run that undoes what `run_id` owes; again while it runs, or when nothing is left, starts nothing.

    Args:
        by: Who wants it; None: the user of this process.
        token: The same one again is the same call; None: a new one.

    Raises:
        NothingOwed: There is nothing to undo.
        ConfigError: The run is alive, and undoes what it owes itself; or some of its stopped steps still run.
        LogUnavailable: The database does not answer.
    """
    given = instruction("resume", by=by, reason=reason, token=token)
    return earlier(run_id, given) or start(run_id, given, len(check_owes(run_id)))


def check_owes(run_id: str) -> list[Row]:
    """What a run owes, newest first, if nobody is about to undo it.

    Raises:
        NothingOwed: There is nothing to undo.
        ConfigError: The run is alive, or some of its stopped steps still run.
        LogUnavailable: The database does not answer.
    """
    owed = owed_by(run_id)
    if not owed:
        raise NothingOwed(f"run {run_id} owes no undo: `runs saga list --open` has those that do")
    record = here.store().load(run_id)
    if record is not None and record.fields["state"] not in FINAL:
        raise ConfigError(
            f"run {run_id} is {record.fields['state']}: it undoes what it owes itself; if it must not go on, "
            f"`runs cancel {run_id}`"
        )
    if record is not None and int(record.fields.get("loose") or 0) > 0:
        raise ConfigError(
            f"run {run_id}: {record.fields['loose']} of its stopped steps still run: try again when they have ended"
        )
    return owed


def earlier(run_id: str, given: Instruction) -> Resumed | None:
    """The run that carries this instruction out, if it was given before."""
    for own_id, record in undoers(run_id):
        if _token_of(record) == given.token:
            return Resumed(resume_run.handle(own_id), 0, started=False)
    return None


def start(run_id: str, given: Instruction, entries: int) -> Resumed:
    """Start the run that carries an instruction out; while another such run goes on, give that one."""
    n = 1
    while True:
        own_id = _id_of(run_id, n)
        there = here.store().load(own_id)
        if there is not None and there.fields["state"] in FINAL:
            n += 1
        elif there is not None:
            return Resumed(resume_run.handle(own_id), entries, started=_token_of(there) == given.token)
        else:
            # A conflict: another instruction has come first, this moment; that run is the one then.
            with suppress(RunConflict):
                return Resumed(resume_run.submit(run_id, given, run_id=own_id), entries, started=True)


def undoers(run_id: str) -> Iterator[tuple[str, RunRecord]]:
    """The runs that undo, or have undone, what a run owed, oldest first."""
    for n in count(1):
        own_id = _id_of(run_id, n)
        record = here.store().load(own_id)
        if record is None:
            return
        yield own_id, record


def _settled(run_id: str) -> bool:
    """Whether the log knows a run and nothing of it is owed; a run that undoes is as the one it undoes for."""
    with reachable():
        log = SagaLog()
        found = log.of_run(run_id) or log.of_run(owner_of(run_id) or "")
    return bool(found) and not any(entry.state.owed for entry in found)


here.settled.append(_settled)


def owner_of(undoer: str) -> str | None:
    """The run for which this one undoes; None: its id is of no such run."""
    found = _UNDOER.fullmatch(undoer)
    return found["run"] if found else None


def _token_of(undoer: RunRecord) -> str:
    args: list[Any] = json.loads(undoer.fields["input"])[0]
    return str(args[1]["token"]) if len(args) > 1 else ""


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
