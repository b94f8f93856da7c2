"""The functions by which anybody looks at runs, from any process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from status import channels, here, operating, promises
from status.models import Event, Page, RunStatus
from status.states import State


def get_status(run_id: str) -> RunStatus:
    """A run as it stands, with its steps.

    Raises:
        RunNotFound: No run has that id.
    """
    return here.reader().status(run_id)


def list_runs(
    *, workflow: str | None = None, state: State | str | None = None, limit: int = 50, cursor: str | None = None
) -> Page:
    """Some of the runs, newest first; `cursor` of the page before asks for the next.

    Raises:
        ConfigError: `limit` is not from 1 to 1000, or there is no such state or cursor.
    """
    return here.reader().page(workflow=workflow, state=state, limit=limit, cursor=cursor)


def watch(run_id: str, timeout_s: float | None = None) -> Iterator[Event]:
    """The run's events from the first on, then as they happen; ends with the run.

    Raises:
        RunNotFound: No run has that id.
        TimedOut: `timeout_s` is over and the run is not.
    """
    return here.reader().watch(run_id, timeout_s)


def history(run_id: str) -> tuple[Event, ...]:
    """What has happened to a run, oldest first; of a long one, about the last 1,000 events.

    Raises:
        RunNotFound: No run has that id.
    """
    return here.reader().history(run_id)


def cancel(run_id: str, reason: str = "", *, abandon: bool = False) -> None:
    """Ask a run to stop: `Cancelled` is thrown, once, at its pending await. A run that has ended stays as it is.

    A run that is parked, as the code does not fit it, notes the cancel and answers it once the code fits.

    A process that knows a Celery app tells the workers at once; any other leaves that to their sweep, which
    takes a few seconds.

    Args:
        abandon: End it as it stands: its workflow is not asked, and nothing is undone. It is `cancelled`, or
            `compensation_failed` if it has entered anything in a saga, which is then owed.

    Raises:
        RunNotFound: No run has that id.
        ConfigError: `abandon` in a process that knows no app, and so no sagas.
    """
    if abandon:
        owed = operating.owed_of(run_id)
        here.wake(run_id, operating.abandon(here.store(), run_id, reason, owed).stop)
        return
    by_app = here.canceller()
    if by_app is not None:
        by_app(run_id, reason)
    else:
        here.store().cancel(run_id, reason, token=uuid4().hex)


def retry(run_id: str) -> None:
    """Take a run that failed, timed out or was cancelled up again, from the step that failed.

    What had succeeded stays as it is, the failed step's siblings included. Messages that the forgotten awaits had
    received are received anew. Its time limit begins anew. A run that is
    parked looks at once whether the code fits now.

    Raises:
        RunNotFound: No run has that id.
        RetryRefused: It goes on, did not fail, has begun to undo, or some of its stopped steps still run.
    """
    operating.retry(here.store(), run_id)
    here.wake(run_id)


def resolve_promise(run_id: str, name: str, value: Any) -> str:
    """Give a promise of a run its value, as JSON; where its type is known, `promise.resolve` checks the value too.

    Returns:
        `accepted`, now or when it is awaited; `late`: it has a value already, or the run has ended; `unknown`.

    Raises:
        PayloadError: The value is not JSON.
        ConfigError: The run id or the name is malformed.
        StoreUnavailable: Redis does not answer.
    """
    return promises.resolve(run_id, name, promises.json_text(value))


def reject_promise(run_id: str, name: str, error: str, *, code: int = 500) -> str:
    """Let a promise of a run fail: who awaits it sees `StepFailed` with this message and code.

    Returns:
        As `resolve_promise` does.

    Raises:
        ConfigError: The run id, the name or the code is malformed.
        StoreUnavailable: Redis does not answer.
    """
    return promises.reject(run_id, name, error, code)


def send(run_id: str, channel: str, value: Any) -> str:
    """Send a message to a channel of a run, as JSON; where its type is known, `channel.send` checks the value too.

    Returns:
        `accepted`: it is received now or later, after those before it; `late`: the run has ended; `unknown`.

    Raises:
        PayloadError: The value is not JSON.
        ConfigError: The run id or the name is malformed.
        StoreUnavailable: Redis does not answer; whether the run has the message is not known.
    """
    return channels.send(run_id, channel, channels.json_text(value))
