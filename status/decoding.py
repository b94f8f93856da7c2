"""Turns what Redis holds of a run into what a reader gets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from status.models import Event, RunStatus, StepStatus, error_from_json, moment
from status.passages import PASSED, told
from status.states import State, StepState


def rows_of(answer: Any) -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """The rows of XREAD, in the shape of either protocol version."""
    if isinstance(answer, dict):
        for stream, chunks in answer.items():
            yield (
                stream,
                [row for chunk in chunks for row in (chunk if isinstance(chunk[0], list | tuple) else [chunk])],
            )
    else:
        yield from answer or ()


def events_of(run_id: str, row_id: str, fields: Mapping[str, str]) -> Iterator[Event]:
    """What a row of the events tells of: one thing, or all that happened on a way through several awaits."""
    detail = fields.get("d", "")
    if fields["k"] == PASSED:
        for when, kind, name, its_detail in told(detail):
            yield Event(run_id, when, kind, name, _detail(its_detail))
        return
    at = moment(row_id.partition("-")[0])
    assert at is not None  # noqa: S101 — a stream id always has a time
    yield Event(run_id, at, fields["k"], fields.get("n", ""), _detail(detail))


def _detail(text: str) -> Mapping[str, Any]:
    if not text:
        return {}
    if text.startswith("{"):
        # Not everything that looks so is ours: the reason of a cancel is anybody's.
        with contextlib.suppress(ValueError):
            return cast("Mapping[str, Any]", json.loads(text))
    return {"detail": text}


def run_status_of(run_id: str, run: Mapping[str, str], steps: tuple[StepStatus, ...] = ()) -> RunStatus:
    """The run hash."""
    submitted = moment(run["submitted_ms"])
    updated = moment(run["updated_ms"])
    assert submitted is not None and updated is not None  # noqa: S101, PT018 — written by submit
    return RunStatus(
        run_id=run_id,
        workflow=run["workflow"],
        state=State(run["state"]),
        phase=run.get("phase", ""),
        progress=float(run.get("progress", 0)),
        metadata=json.loads(run.get("meta") or "{}"),
        error=error_from_json(run["error"]) if run.get("error") else None,
        started_at=submitted,
        updated_at=updated,
        finished_at=moment(run.get("finished_ms")),
        steps=steps,
        parent=run.get("parent") or None,
        round=int(run.get("round") or 1),
    )


def steps_of(run_id: str, steps: Mapping[str, str], journal: Mapping[str, str]) -> tuple[StepStatus, ...]:
    """The steps hash, and the errors that the journal has of them."""
    places = sorted((place for place in steps if ":" not in place), key=_place)
    return tuple(_step(run_id, place, steps, journal) for place in places)


def _place(place: str) -> tuple[int, int, str]:
    n, _, p = place.partition(".")
    return int(n), int(p.rstrip("u")), p


def _step(run_id: str, place: str, steps: Mapping[str, str], journal: Mapping[str, str]) -> StepStatus:
    queue, _, name = steps[place].partition("|")
    state, attempt, started_ms, finished_ms = (steps.get(f"{place}:s") or f"{StepState.WAITING}|1||").split("|")
    outcome = journal.get(place, "")
    error = error_from_json(outcome[1:]) if outcome[:1] in {"e", "u"} and len(outcome) > 1 else None
    queue = queue.removeprefix(">*")  # of a stock canvas, whose queues Celery knows
    child = queue[1:] if queue.startswith(">") else None
    return StepStatus(
        step_id=f"{run_id}/{place}",
        name=name,
        state=state,
        attempt=int(attempt),
        queue="" if child else queue,
        started_at=moment(started_ms),
        finished_at=moment(finished_ms),
        error=error,
        waits=_waits(state, int(attempt), steps.get(f"{place}:w")),
        child_run_id=child,
    )


def _waits(state: str, attempt: int, note: str | None) -> str | None:
    """Why a step that nobody has begun has not begun, where a worker has said so of the attempt to run next."""
    if note is None or state not in {StepState.WAITING, StepState.RETRYING}:
        return None
    of_attempt, _, why = note.partition("|")
    return why if int(of_attempt) == attempt + (state == StepState.RETRYING) else None
