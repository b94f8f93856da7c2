"""Where sagas write their log: the configured database of this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from canvas import undoing
from saga import database
from saga.log import Begin, Entry, EntryState, Move, SagaLog
from status import here
from status.errors import ConfigError, LogUnavailable
from status.models import Entered
from status.places import places, without_password


def write_log(changes: Sequence[Begin | Move]) -> None:
    """Write all changes or none; repeating it changes nothing.

    Raises:
        LogUnavailable: The database does not take them now.
    """
    with reachable():
        SagaLog().write(changes)


@contextmanager
def reachable() -> Iterator[None]:
    """Say plainly that the database of the log can't be used.

    Raises:
        LogUnavailable: It is gone, locked, read-only or full.
    """
    try:
        yield
    except (SQLAlchemyError, ConfigError, OSError) as error:
        # Opened anew next time: a connection that found the file read-only, or another file, stays so.
        database.dispose()
        cause = getattr(error, "orig", None) or error
        raise LogUnavailable(
            f"the saga log at {without_password(places().database_url)} is not reachable: {_one_line(cause)}; "
            "nothing is lost, it goes on when the log is back"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class _LateUndos:
    """Undos that no workflow waits for: of actions that succeeded too late."""

    def begins(self, key: str) -> bool:
        write_log([Move(key=key, state=EntryState.UNDOING)])
        with reachable():
            entry = SagaLog().find(key)
        return entry is not None and entry.state is EntryState.UNDONE

    def ended(self, key: str, why: str) -> None:
        state = EntryState.UNDO_FAILED if why else EntryState.UNDONE
        write_log([Move(key=key, state=state, error=why or None)])


undoing.logs.append(_LateUndos())


def _owed(run_id: str) -> list[str]:
    """The names of a run's entries that may still have to be undone."""
    with reachable():
        return [entry.name for entry in SagaLog().of_run(run_id) if entry.state.owed]


here.owed.append(_owed)


def _entered(run_id: str) -> list[Entered]:
    database.check_there()
    with reachable():
        return [_shown(entry) for entry in SagaLog().of_run(run_id)]


def _shown(entry: Entry) -> Entered:
    return Entered(
        key=entry.key,
        saga=entry.saga,
        name=entry.name,
        state=entry.state.value,
        undo=str(entry.undo.get("task", "")),
        place=str(entry.undo.get("undoes") or "").rpartition("/")[2],
        error=entry.error,
        owed=entry.state.owed,
    )


here.entered.append(_entered)
