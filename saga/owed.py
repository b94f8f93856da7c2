"""What sagas owe, for people: read from the log in SQL; of Redis it is asked only whether the run is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from redis.exceptions import RedisError

from saga import database
from saga.log import Entry, SagaLog
from saga.resume import status_of
from saga.writing import reachable
from status import here
from status.errors import OrchestrationError

#: As a run's state, where Redis does not answer; None: it answers, and has no such run.
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class SagaOwes:
    """A saga of a run.

    Attributes:
        owed: The names of the entries that are not undone, newest first.
        since: When its first open entry began; if none is open, its first entry.
        run_state: Of the run in Redis; None if it is not there.
    """

    run_id: str
    workflow: str
    saga: str
    entries: int
    owed: tuple[str, ...]
    since: datetime
    run_state: str | None


def sagas(*, only_open: bool, limit: int) -> list[SagaOwes]:
    """Sagas in the log: those that owe something, oldest first; or all, newest first.

    Raises:
        LogUnavailable: The database does not answer.
        ConfigError: There is none.
    """
    database.check_there()
    with reachable():
        log = SagaLog()
        run_ids = log.run_ids(only_open=only_open, limit=limit)
        rows = log.of_runs(run_ids)
    by_saga: dict[tuple[str, str], list[Entry]] = {}
    for row in rows:
        by_saga.setdefault((row.run_id, row.saga), []).append(row)
    states = _states(run_ids)
    place = {run_id: at for at, run_id in enumerate(run_ids)}
    found = [_owes(entries, states[run_id]) for (run_id, _), entries in by_saga.items()]
    found.sort(key=lambda one: place[one.run_id])
    return [one for one in found if one.owed or not only_open]


def entries_of(run_id: str) -> list[Entry]:
    """The entries of a run, in the order they were entered.

    Raises:
        LogUnavailable: The database does not answer.
        ConfigError: There is none.
    """
    database.check_there()
    with reachable():
        return SagaLog().of_run(run_id)


def run_state(run_id: str) -> str | None:
    """The run's state in Redis; None: it is not there."""
    return _states([run_id])[run_id]


def _states(run_ids: Iterable[str]) -> dict[str, str | None]:
    try:
        here.check()
        found = {run_id: status_of(run_id) for run_id in run_ids}
    except (OrchestrationError, RedisError):
        return dict.fromkeys(run_ids, UNKNOWN)
    return {run_id: status.state.value if status else None for run_id, status in found.items()}


def _owes(entries: list[Entry], state: str | None) -> SagaOwes:
    owed = [entry for entry in entries if entry.state.owed]
    first = entries[0]
    return SagaOwes(
        run_id=first.run_id,
        workflow=first.workflow,
        saga=first.saga,
        entries=len(entries),
        owed=tuple(entry.name for entry in reversed(owed)),
        since=min(entry.created_at for entry in owed or entries),
        run_state=state,
    )
