"""Errors and events of a run in words, with the secrets in them hidden."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from status.errors import ErrorInfo
from status.masking import Mask
from status.models import Event

#: A longer input or result is cut: nobody reads a megabyte on a page.
SHOWN_CHARS = 20_000

#: An event is a line.
EVENT_CHARS = 500


def cut(text: str) -> str:
    """A text that is not too long for a page; what is left out is said."""
    left = len(text) - SHOWN_CHARS
    return text if left <= 0 else f"{text[:SHOWN_CHARS]}\n… {left:,} more characters"


def error_json(error: ErrorInfo, mask: Mask) -> dict[str, Any]:
    """An error with its causes, the outermost first."""
    return {
        "step": error.step,
        "type": error.error_type.rpartition(".")[2],
        "message": cut(mask.text(error.message)),
        "code": error.code,
        "attempts": error.attempts,
        "traceback": cut(mask.text(error.traceback)),
        "cause": error_json(error.cause, mask) if error.cause else None,
    }


def event_json(event: Event, mask: Mask) -> dict[str, Any]:
    """An event; `by` is the operator who asked for what happened, or ''."""
    detail = mask.value(dict(event.detail))
    return {
        "at_ms": round(event.at.timestamp() * 1000),
        "kind": event.kind,
        "name": mask.text(event.name),
        "detail": mask.text(_told(event.kind, detail))[:EVENT_CHARS],
        "by": str(detail.get("by", "")),
    }


def _told(kind: str, detail: Mapping[str, Any]) -> str:
    """What an event says; an error's traceback is told elsewhere."""
    match detail:
        case {"detail": str(text)} if len(detail) == 1:
            told = text
        case {"message": message, "error_type": str(error_type)}:
            told = f"{error_type.rpartition('.')[2]}: {message}"
        case {"progress": float() | int() as progress} if kind == "run.status":
            told = f"{progress:.0%}"
        case {"by": by}:
            told = f"by {by}" + (f": {detail['reason']}" if detail.get("reason") else "")
        case {"saga": saga}:
            told = f"saga {saga}" + (f": {detail['error']}" if detail.get("error") else "")
        case _:
            told = json.dumps(detail, ensure_ascii=False) if detail else ""
    return told
