"""How sagas look on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from canvas.service import step_name
from saga.log import Entry, EntryState
from saga.owed import UNKNOWN, SagaOwes
from status.cli_text import dumps, length


def list_json(found: Sequence[SagaOwes]) -> str:
    """A line of JSON: {"sagas": [...]}."""
    return dumps({"sagas": [asdict(one) | {"since": one.since.isoformat()} for one in found]})


def list_page(found: Sequence[SagaOwes], *, only_open: bool) -> str:
    """A table, a line a saga."""
    if not found:
        return "no saga owes anything" if only_open else "the saga log is empty"
    rows = [("RUN", "SAGA", "RUN IS", "SINCE", "OWED", "NEWEST FIRST")]
    for one in found:
        owed = f"{len(one.owed)} of {one.entries}"
        rows.append((one.run_id, one.saga, _state(one.run_state), _ago(one.since), owed, ", ".join(one.owed)))
    return _table(rows)


def show_json(entries: Sequence[Entry], state: str | None) -> str:
    """A line of JSON: {"run_id": …, "run_state": …, "entries": [...]}."""
    return dumps(
        {
            "run_id": entries[0].run_id,
            "workflow": entries[0].workflow,
            "run_state": state,
            "entries": [_entry_json(entry) for entry in entries],
        }
    )


def show_page(entries: Sequence[Entry], state: str | None) -> str:
    """The entries of a run, as they were entered."""
    first = entries[0]
    rows = [("#", "SAGA", "STEP", "UNDO", "STATE", "CHANGED", "GAVE")]
    for entry in entries:
        said = _said(entry)
        state_text = f"{entry.state} (owed)" if entry.state.owed else str(entry.state)
        undo = step_name(str(entry.undo.get("task", "?")))
        rows.append((str(entry.seq), entry.saga, entry.name, undo, state_text, _ago(entry.updated_at), said[:80]))
    return f"run {first.run_id} ({first.workflow}) is {_state(state)}\n\n{_table(rows)}"


def _entry_json(entry: Entry) -> dict[str, Any]:
    return asdict(entry) | {
        "state": entry.state.value,
        "owed": entry.state.owed,
        "created_at": entry.created_at.isoformat(),
        "updated_at": entry.updated_at.isoformat(),
    }


def _said(entry: Entry) -> str:
    if not entry.error:
        return entry.value or ""
    # Of one that an operator has settled: who, and why.
    return entry.error if entry.state in {EntryState.SKIPPED, EntryState.ABORTED} else f"error: {entry.error}"


def _state(state: str | None) -> str:
    if state is None:
        return "not in Redis"
    return "unknown (no Redis)" if state == UNKNOWN else state


def _ago(moment: datetime) -> str:
    return f"{length((datetime.now(UTC) - moment).total_seconds())} ago"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
