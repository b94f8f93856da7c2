"""Gives a promise of a run its value, from any process."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from status import here
from status.errors import ConfigError, ErrorInfo, PayloadError, StoreUnavailable
from status.models import error_to_json
from status.records import check_run_id
from status.states import Answer

#: What a rejected promise says its error is.
REJECTED = "Rejected"

#: A name is shown in tables and kept with each run.
NAME_LIMIT = 200


def check_name(name: object, of: str = "promise") -> str:
    """Give the name of a promise (or of what else the outside speaks to) back if it is one.

    Raises:
        ConfigError: It is empty, too long, or no text.
    """
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LIMIT or not name.isprintable():
        raise ConfigError(f"the name of a {of} is 1 to {NAME_LIMIT} printable characters, got {name!r:.80}")
    return name


def json_text(value: Any, what: str = "a promise's value", instead: str = "the promise's own resolve()") -> str:
    """A value as JSON.

    Raises:
        PayloadError: It is more than JSON can carry.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise PayloadError(
            f"{what} must be JSON ({error}), got {value!r:.80}: give plain values, or use {instead}, which knows its "
            "type"
        ) from error
    return text


def resolve(run_id: str, name: str, text: str, *, by: str = "") -> Answer:
    """Give a promise a value, as JSON text.

    Args:
        by: The operator who says so, for the history; '': a program.

    Raises:
        ConfigError: Run id or name is malformed.
        StoreUnavailable: Redis does not answer; ask again, with the same value.
    """
    return _settle(run_id, name, "v" + text, by)


def reject(run_id: str, name: str, error: str, code: int, *, by: str = "") -> Answer:
    """Let a promise fail; raises as `resolve` does."""
    if not isinstance(code, int) or isinstance(code, bool):
        raise ConfigError(f"the code of a rejected promise is a whole number, got {code!r}")
    return _settle(run_id, name, "e" + error_to_json(ErrorInfo(name, REJECTED, str(error), code)), by)


def _settle(run_id: str, name: str, outcome: str, by: str) -> Answer:
    store = here.store()
    try:
        answer, ending = store.resolve(check_run_id(run_id), check_name(name), outcome, token=uuid4().hex, by=by)
    except RedisError as error:
        raise StoreUnavailable(
            f"promise {name!r} of run {run_id}: Redis at {here.where()} does not answer ({error}); whether it has its "
            "value now is not known: ask again, it takes the first"
        ) from error
    here.follow(run_id, ending)
    return answer
