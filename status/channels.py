"""Sends a message to a channel of a run, from any process."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError

from status import here, promises
from status.errors import StoreUnavailable
from status.records import check_run_id
from status.senders import senders
from status.states import Answer


def check_name(name: object) -> str:
    """Give the name of a channel back if it is one.

    Raises:
        ConfigError: It is empty, too long, or no text.
    """
    return promises.check_name(name, "channel")


def json_text(value: Any) -> str:
    """A message as JSON.

    Raises:
        PayloadError: It is more than JSON can carry.
    """
    return promises.json_text(value, "a message", "the channel's own send()")


def send(run_id: str, channel: str, text: str) -> Answer:
    """Send a message, as JSON text.

    Raises:
        ConfigError: Run id or name is malformed.
        StoreUnavailable: Redis does not answer; whether the run has the message is not known.
    """
    store = here.store()
    check_run_id(run_id)
    check_name(channel)
    try:
        with senders.token() as token:
            answer, ending = store.send(run_id, channel, "v" + text, token=token)
    except RedisError as error:
        raise StoreUnavailable(
            f"channel {channel!r} of run {run_id}: Redis at {here.where()} does not answer ({error}); whether the run "
            "has the message is not known: give messages a key of their own if you send this one again"
        ) from error
    here.follow(run_id, ending)
    return answer
