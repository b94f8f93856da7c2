"""Makes the message of an undo that is owed because its action succeeded too late for anyone to use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from status.records import PartRef

#: Told of each such undo that ended: the key it was given as `log`, and why it gave up ('' if it did not).
listeners: list[Callable[[str, str], None]] = []


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
