"""The undo that is owed because its action succeeded too late for anyone to use it: its message, and its log.

No workflow waits for such an undo, so the worker that runs it says itself how it ended.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Protocol

from canvas.outcomes import Again, Done, Failed, Outcome, describe
from status.errors import LogUnavailable
from status.records import PartRef

logger = logging.getLogger("celeriac")

#: How long an undo that is done waits for the log before it is made again, and how long until then.
PATIENCE_S, AGAIN_S = 20.0, 15.0


class Log(Protocol):
    """Where such undos are noted. Both raise LogUnavailable."""

    def begins(self, key: str) -> bool:
        """It is about to run. Returns whether it was done before."""
        ...

    def ended(self, key: str, why: str) -> None:
        """It has ended; `why` it gave up, '' if it did not."""
        ...


#: Who keeps a log of them; none if no saga is in use.
logs: list[Log] = []


def undo_message(spec: dict[str, Any], ref: PartRef, outcome: str) -> dict[str, Any]:
    """The spec of the undo of a part.

    Args:
        spec: Of the action; its `undo` has task, args, kwargs, queue, label, takes_value and retry.
        ref: Of the undo: its part is that of the action with a `u`.
        outcome: Of the action: `v` + JSON, or unknown.
    """
    undo = dict(spec["undo"])
    if undo.pop("takes_value", False):
        value = json.loads(outcome[1:]) if outcome[:1] == "v" else None
        undo["args"] = [value, *undo.get("args", [])]
    undo["undoes"] = ref._replace(p=ref.p.rstrip("u")).idempotency_key
    return undo


def logged(key: str | None, undo: Callable[[], Outcome]) -> Outcome:
    """Run an undo, and note before its outcome is recorded that it ran: who dies in between repeats the note alone.

    Args:
        key: Of its entry in the log; None: it has none, or a workflow notes it.
        undo: Runs it.
    """
    if not key:
        return undo()
    try:
        if any(log.begins(key) for log in logs):
            return Done(None, "null")
        outcome = undo()
        if not isinstance(outcome, Again):
            _note(key, outcome)
    except LogUnavailable as error:
        # Not its failure: it waits for the log, however often.
        return Again(error, describe(error), AGAIN_S)
    return outcome


def _note(key: str, outcome: Done | Failed) -> None:
    why = "" if isinstance(outcome, Done) else outcome.info.message[:200]
    end_s, wait_s = monotonic() + PATIENCE_S, 0.05
    while True:
        try:
            for log in logs:
                log.ended(key, why)
        except LogUnavailable as error:
            if monotonic() + wait_s > end_s:
                raise
            logger.warning("%s: its undo is done and not noted, trying again in %.2f s: %s", key, wait_s, error)
            sleep(wait_s)
            wait_s = min(wait_s * 2, 2.0)
        else:
            return
