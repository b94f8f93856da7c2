"""Where sagas write their log: the configured database of this process."""

from __future__ import annotations

from collections.abc import Sequence

from canvas import undoing
from saga.log import Begin, EntryState, Move, SagaLog


def write_log(changes: Sequence[Begin | Move]) -> None:
    """Write all changes or none; repeating it changes nothing."""
    SagaLog().write(changes)


def _late_undo_ended(key: str, why: str) -> None:
    """An undo that no workflow waits for has ended: an action that succeeded too late was undone."""
    state = EntryState.UNDO_FAILED if why else EntryState.UNDONE
    write_log([Move(key=key, state=state, error=why or None)])


undoing.listeners.append(_late_undo_ended)
