"""The saga log: which undo is owed for what. It outlives Redis.

A row is written before its action is published, and its state only moves forward, so that a turn that is
replayed, late or stale writes nothing new and takes nothing back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, Insert, RowMapping, Select, bindparam, func, select, update

from saga import database
from saga.schema import insert_or_ignore, saga_log
from status.errors import ConfigError


class EntryState(StrEnum):
    """Where an entry is, in the order of life."""

    BEGUN = "begun"  #: the undo is known; the action may run at any moment
    UNKNOWN = "unknown"  #: the action's worker died: it may have had its effect
    FAILED = "failed"  #: the action failed
    DONE = "done"  #: the action succeeded; `value` is what it gave
    KEPT = "kept"  #: the saga ended well; a part that succeeds later is still undone
    UNDOING = "undoing"  #: the undo was published
    UNDO_FAILED = "undo_failed"  #: the undo gave up; an operator is needed
    UNDONE = "undone"  #: final
    SKIPPED = "skipped"  #: final: nothing to undo, or an operator said so
    ABORTED = "aborted"  #: final: not undone; an operator ended the rollback

    @property
    def rank(self) -> int:
        """A state gives way to one of higher rank only."""
        return _RANK[self]

    @property
    def owed(self) -> bool:
        """Whether an undo may still be needed."""
        return self not in {EntryState.KEPT, EntryState.UNDONE, EntryState.SKIPPED, EntryState.ABORTED}


# KEPT is below UNDOING: a stale turn that says "ended well" must not hide an undo that is owed.
_RANK = {
    EntryState.BEGUN: 0,
    EntryState.UNKNOWN: 1,
    EntryState.FAILED: 2,
    EntryState.DONE: 2,
    EntryState.KEPT: 3,
    EntryState.UNDOING: 4,
    EntryState.UNDO_FAILED: 5,
    EntryState.UNDONE: 6,
    EntryState.SKIPPED: 6,
    EntryState.ABORTED: 6,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Begin:
    """Something begins that may have to be undone.

    Attributes:
        key: From run, generation, saga and entry, so that a replay writes the same one.
        name: The safe step's name.
        seq: The order of entering, by a counter: undos run from the highest down.
        undo: What to call: task name, args, kwargs and queue, as JSON.
    """

    key: str
    run_id: str
    workflow: str
    saga: str
    name: str
    seq: int
    undo: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """An entry moves on to `state`, unless it is that far already. A key that never began: nothing happens.

    Attributes:
        value: JSON text of what the action gave; None leaves what is there.
        error: Why it failed; None leaves what is there.
    """

    key: str
    state: EntryState
    value: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A row of the log."""

    key: str
    run_id: str
    workflow: str
    saga: str
    name: str
    seq: int
    undo: Mapping[str, Any]
    state: EntryState
    value: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime


class SagaLog:
    """Writes and reads the log.

    Args:
        where: An engine (with the saga's tables), a database URL, or None for the configured database.
        now: The clock; its moments have a time zone.
    """

    def __init__(
        self, where: Engine | str | None = None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._engine = where if isinstance(where, Engine) else database.engine(where)
        self._now = now

    def write(self, changes: Sequence[Begin | Move]) -> None:
        """Write all changes or none, in one transaction. Repeating it changes nothing.

        Raises:
            ConfigError: An undo is not JSON.
        """
        if not changes:
            return
        now = self._now()
        begins = [_begin_row(change, now) for change in changes if isinstance(change, Begin)]
        moves = [_move_row(change, now) for change in changes if isinstance(change, Move)]
        with self._engine.begin() as connection:
            # An entry begins before it moves, so begins go first whatever their place in `changes`.
            if begins:
                connection.execute(_begin_statement(connection.dialect), begins)
            if moves:
                connection.execute(_MOVE, moves)

    def of_run(self, run_id: str) -> list[Entry]:
        """All entries of a run in the order they were entered."""
        of_run = select(saga_log).where(saga_log.c.run_id == run_id)
        return self._read(of_run.order_by(saga_log.c.seq, saga_log.c.key))

    def find(self, key: str) -> Entry | None:
        """One entry, if there is one."""
        return next(iter(self._read(select(saga_log).where(saga_log.c.key == key))), None)

    def open(self, limit: int = 100) -> list[Entry]:
        """What is owed, oldest first: entries that are neither undone, skipped nor kept."""
        query = select(saga_log).where(_OWED)
        return self._read(query.order_by(saga_log.c.created_at, saga_log.c.seq, saga_log.c.key).limit(limit))

    def run_ids(self, *, only_open: bool, limit: int) -> list[str]:
        """The runs in the log: those that owe something, oldest first; or all, newest first."""
        began = func.min(saga_log.c.created_at)
        query = select(saga_log.c.run_id).group_by(saga_log.c.run_id).limit(limit)
        query = query.where(_OWED).order_by(began) if only_open else query.order_by(began.desc())
        with database.reading(self._engine) as connection:
            return [str(run_id) for run_id in connection.scalars(query)]

    def of_runs(self, run_ids: Sequence[str]) -> list[Entry]:
        """All entries of these runs, each run's in the order they were entered."""
        found: list[Entry] = []
        for at in range(0, len(run_ids), _MOST_IN):
            some = select(saga_log).where(saga_log.c.run_id.in_(run_ids[at : at + _MOST_IN]))
            found += self._read(some.order_by(saga_log.c.run_id, saga_log.c.seq, saga_log.c.key))
        return found

    def _read(self, query: Select[Any]) -> list[Entry]:
        with database.reading(self._engine) as connection:
            return [_entry(row) for row in _rows(connection, query)]


#: What may have to be undone.
_OWED = saga_log.c.state.in_([state.value for state in EntryState if state.owed])

#: SQLite takes 999 parameters, if it is old.
_MOST_IN = 500


_MOVE = (
    update(saga_log)
    .where(saga_log.c.key == bindparam("of_key"), saga_log.c.rank < bindparam("to_rank"))
    .values(
        state=bindparam("to_state"),
        rank=bindparam("to_rank"),
        value=func.coalesce(bindparam("to_value", type_=saga_log.c.value.type), saga_log.c.value),
        error=func.coalesce(bindparam("to_error", type_=saga_log.c.error.type), saga_log.c.error),
        updated_at=bindparam("at"),
    )
)


_BEGIN: dict[str, Insert] = {}


def _begin_statement(dialect: Dialect) -> Insert:
    # Kept: making a statement anew costs more than running it.
    if dialect.name not in _BEGIN:
        _BEGIN[dialect.name] = insert_or_ignore(dialect, saga_log)
    return _BEGIN[dialect.name]


def _rows(connection: Connection, query: Select[Any]) -> Sequence[RowMapping]:
    return connection.execute(query).mappings().all()


def _begin_row(begin: Begin, now: datetime) -> dict[str, Any]:
    try:
        undo = json.dumps(begin.undo, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the undo of {begin.saga}/{begin.name} is not JSON ({error}): give task, args, kwargs and queue "
            "as strings, numbers, lists and dicts"
        ) from error
    return {
        "key": begin.key,
        "run_id": begin.run_id,
        "workflow": begin.workflow,
        "saga": begin.saga,
        "name": begin.name,
        "seq": begin.seq,
        "undo": undo,
        "state": EntryState.BEGUN.value,
        "rank": EntryState.BEGUN.rank,
        "value": None,
        "error": None,
        "created_at": now,
        "updated_at": now,
    }


def _move_row(move: Move, now: datetime) -> dict[str, Any]:
    state = EntryState(move.state)
    return {
        "of_key": move.key,
        "to_state": state.value,
        "to_rank": state.rank,
        "to_value": move.value,
        "to_error": move.error,
        "at": now,
    }


def _entry(row: RowMapping) -> Entry:
    shown = {name: row[name] for name in row if name != "rank"}
    return Entry(**{**shown, "undo": json.loads(row["undo"]), "state": EntryState(row["state"])})
