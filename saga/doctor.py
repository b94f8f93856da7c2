"""The doctor's look at the saga log: whether it can be written, and what it says is left to undo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from saga import database
from saga.log import EntryState
from saga.schema import saga_log
from status.doctor_words import Finding, error, many, ok, some, warning
from status.errors import ConfigError
from status.places import places, without_password

if TYPE_CHECKING:
    from status.doctor import Visit


def look(_visit: Visit) -> Iterator[Finding]:
    """All about the saga log."""
    where = without_password(places().database_url)
    if database.is_missing(places().database_url):
        yield ok("saga.log", f"{where} is made when the first saga begins")
        return
    try:
        left, failed = _failed_undos()
    except (SQLAlchemyError, ConfigError, OSError) as failure:
        yield error(
            "saga.log", f"{where} does not answer ({_first_line(failure)})", "start it, or correct DATABASE_URL"
        )
        return
    yield ok("saga.log", f"{where}: {many(left, 'undo')} may still be needed")
    yield from failures(failed)


def failures(runs: list[str]) -> Iterator[Finding]:
    """Undos that gave up."""
    if runs:
        yield warning(
            "saga.undo_failed",
            f"the log has undos that gave up, of {many(len(runs), 'run')} ({some(runs)}): their effects are left",
            "`runs saga show ID` says which; `runs saga retry ID` tries them again; `skip`, `abort`: see its --help",
        )


def _failed_undos() -> tuple[int, list[str]]:
    """How many entries are not settled, and the runs with an undo that gave up."""
    owed = [state.value for state in EntryState if state.owed]
    with database.reading(database.engine()) as connection:
        left = connection.execute(
            select(func.count()).select_from(saga_log).where(saga_log.c.state.in_(owed))
        ).scalar_one()
        rows = connection.execute(
            select(saga_log.c.run_id).where(saga_log.c.state == EntryState.UNDO_FAILED.value).distinct().limit(1000)
        )
        return left, [row.run_id for row in rows]


def _first_line(failure: Exception) -> str:
    return str(failure).partition("\n")[0]
