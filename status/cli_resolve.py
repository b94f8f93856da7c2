"""`celery runs resolve` and `send`: a person gives a promise its value, or sends a message."""

from __future__ import annotations

import json
from typing import Any

from status import api, channels, cli_show, here, promises
from status.cli_plain import Refused
from status.errors import PayloadError, RunNotFound
from status.models import CHANNEL, PROMISE, RunStatus
from status.states import Answer


def resolve_promise(run_id: str, name: str, value: str | None, reject: str | None, code: int | None) -> str:
    """Resolve or reject a promise; says what became of it.

    Args:
        value: JSON.
        reject: A message, in its place.
        code: Of a rejection; None: not given.

    Raises:
        Refused: Value and message are both given, or neither; or it came too late.
        PayloadError: The value is not JSON, or does not fit the promise.
        RunNotFound: There is no such run.
    """
    if (value is None) == (reject is None):
        raise Refused(f"give {name!r} a value as JSON, or --reject MESSAGE; one of them")
    if code is not None and reject is None:
        raise Refused("--code belongs to --reject MESSAGE: a value has no code")
    awaited = cli_show.awaited_promises(api.get_status(run_id))
    if reject is not None:
        answer = promises.reject(run_id, name, reject, 500 if code is None else code)
    else:
        text = promises.json_text(_checked(value or ""))
        here.check_value(run_id, PROMISE + promises.check_name(name), text)
        answer = promises.resolve(run_id, name, text)
    if answer is Answer.UNKNOWN:
        raise RunNotFound(run_id)
    if answer is Answer.LATE:
        raise Refused(_why_late(run_id, name))
    # An answer may come before the question; but it may also have the wrong name.
    early = f"; it waits for {', '.join(map(repr, awaited))} now" if awaited and name not in awaited else ""
    return f"{name} of {run_id} is {'resolved' if reject is None else 'rejected'}{early}"


def send_message(run_id: str, channel: str, value: str) -> str:
    """Send a message to a channel; says what became of it.

    Args:
        value: JSON.

    Raises:
        Refused: The run has ended.
        PayloadError: The value is not JSON, or does not fit the channel.
        RunNotFound: There is no such run.
    """
    run = api.get_status(run_id)
    text = channels.json_text(_checked(value))
    here.check_value(run_id, CHANNEL + channels.check_name(channel), text)
    answer = channels.send(run_id, channel, text)
    if answer is Answer.UNKNOWN:
        raise RunNotFound(run_id)
    if answer is Answer.LATE:
        raise Refused(_ended(api.get_status(run_id)))
    # It may come before the run asks for it; but it may also have the wrong name.
    awaited = cli_show.awaited_channels(run)
    early = (
        f"; it waits for a message on {', '.join(map(repr, awaited))} now" if awaited and channel not in awaited else ""
    )
    return f"{channel} of {run_id} has the message{early}"


def _checked(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PayloadError(f"{text!r:.80} is not JSON ({error}): text needs its quotes, as '\"yes\"'") from error


def _why_late(run_id: str, name: str) -> str:
    run = api.get_status(run_id)
    if run.finished:
        return _ended(run)
    return f"promise {name!r} of run {run_id} has its value already, and the first one stays: nothing was changed"


def _ended(run: RunStatus) -> str:
    return f"run {run.run_id} has ended already, it is {run.state}: nothing was changed"
