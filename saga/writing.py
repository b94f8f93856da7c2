"""Where sagas write their log: the configured database of this process."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from canvas import undoing
from saga.log import Begin, EntryState, Move, SagaLog
from status import here
from status.errors import StoreUnavailable


def write_log(changes: Sequence[Begin | Move]) -> None:
    """Write all changes or none; repeating it changes nothing."""
    SagaLog().write(changes)


def _late_undo_ended(key: str, why: str) -> None:
    """An undo that no workflow waits for has ended: an action that succeeded too late was undone."""
    state = EntryState.UNDO_FAILED if why else EntryState.UNDONE
    write_log([Move(key=key, state=state, error=why or None)])


def _owed(run_id: str) -> list[str]:
    """The names of a run's entries that may still have to be undone."""
    try:
        return [entry.name for entry in SagaLog().of_run(run_id) if entry.state.owed]
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"the saga log can't be read, so what {run_id} owes is not known: {error}") from error


here.owed.append(_owed)
undoing.listeners.append(_late_undo_ended)
