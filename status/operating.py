"""What an operator does to a run: take it up again where it failed, or end it as it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

from status import here
from status.errors import (
    Cancelled,
    CompensationFailed,
    ConfigError,
    ErrorInfo,
    RetryRefused,
    RunNotFound,
    qualified_name,
)
from status.models import error_from_json, error_to_json
from status.records import Ending, RunRecord
from status.rounds import Round
from status.states import FINAL, State
from status.store import Store

#: How an await ended that did not go well.
BAD_VERDICTS = frozenset({"failed", "lost", "timed_out", "cancelled"})

#: The verdict that an error comes from which no part of a join has raised.
VERDICT_OF = {
    "status.errors.AllFailed": "lost",
    "status.errors.QuorumFailed": "lost",
    "status.errors.TimedOut": "timed_out",
    "status.errors.Cancelled": "cancelled",
}

#: The runs that can be taken up again.
RETRIED = frozenset({State.FAILED, State.TIMED_OUT, State.CANCELLED})


def retry(store: Store, run_id: str, *, by: str = "") -> None:
    """Take a run up again from the await that failed; a parked one looks again at its code.

    Args:
        by: The operator who asks, for the history; '': a program.

    Raises:
        RunNotFound: There is no such run.
        RetryRefused: It goes on, did not fail, has begun to undo, some of its steps still run, or a child of it that
            has an id of its own is to be retried first.
    """
    token = uuid4().hex
    while True:
        record = store.load(run_id)
        if record is None:
            raise RunNotFound(run_id)
        state = State(record.fields["state"])
        if state in FINAL:
            _refuse_undone(record, state)
        n = failed_await(record)
        if state in FINAL:
            _refuse_before_its_child(store, record, n)
        ended_ms = record.fields.get("finished_ms", "")
        answer = store.retry(run_id, n, finished_ms=ended_ms, token=token, by=by)
        if answer != "moved":
            return


def _refuse_undone(record: RunRecord, state: State) -> None:
    if state not in RETRIED:
        raise RetryRefused(f"run {record.run_id} is {state}: {_INSTEAD[state]}")
    if has_undone(str(entry["fp"]) for entry in _entries(record.journal).values()):
        raise RetryRefused(
            f"run {record.run_id} is {state} and has begun to undo what it did: submit it anew, with another run id"
        )


def has_undone(fingerprints: Iterable[str]) -> bool:
    """Whether a run whose awaits are these has begun to undo what it did."""
    return any(fingerprint.partition("(")[0] in {"settle", "undo"} for fingerprint in fingerprints)


def _refuse_before_its_child(store: Store, record: RunRecord, n: int) -> None:
    """A child with an id of its own is not made anew, it would end as it has ended; another gets a new id."""
    steps = cast("dict[str, str]", store.redis.hgetall(store.keys.steps(record.run_id)))
    parts = {place: steps[place] for place in steps if re.fullmatch(rf"{n}\.\d+", place)}
    ended = _ended_children(store, record, parts)
    entry = _entries(record.journal).get(n)
    enough_of = entry is not None and str(entry["fp"]).startswith(("race", "quorum"))
    if not ended or (enough_of and len(ended) < len(parts)):
        return
    child, state = min(ended.items())
    remedy = f"`runs retry {child}` first, then `runs retry {record.run_id}`"
    if state not in RETRIED:
        remedy = "that can't be taken up again: submit both anew, with other run ids"
    raise RetryRefused(
        f"run {record.run_id} waits for its child {child}, which has an id of its own and is {state}: {remedy}"
    )


def _ended_children(store: Store, record: RunRecord, parts: Mapping[str, str]) -> dict[str, State]:
    """The children with an id of their own that have not succeeded, and how they ended.

    Args:
        parts: Place -> as the timeline has it, with `>` and the child's id in the place of a queue.
    """
    ended = {}
    for place, text in parts.items():
        child = text.partition("|")[0].removeprefix(">")
        own = text.startswith(">") and not re.fullmatch(rf".*@{re.escape(place)}(-r\d+)?", child)
        there = store.load(child) if own and not record.journal.get(place, "").startswith("v") else None
        if there is not None and there.fields["state"] in FINAL - {State.COMPLETED}:
            ended[child] = State(there.fields["state"])
    return ended


_INSTEAD = {
    State.COMPLETED: "nothing of it failed; submit it anew, with another run id",
    State.COMPENSATED: "what it did is undone; submit it anew, with another run id",
    State.COMPENSATION_FAILED: (
        "what it did is not all undone: `runs saga retry ID` tries that again; then submit it anew, with another run id"
    ),
}


def failed_await(record: RunRecord) -> int:
    """The await that a run failed at; if it failed by itself, the one that it would have asked for next."""
    entries = _entries_of_this_round(record)
    after = max(entries, default=Round.of(record.fields).first - 1) + 1
    error = error_from_json(record.fields["error"]) if record.fields.get("error") else None
    chain = list(error) if error else []
    for link in chain:
        for n in sorted(entries, reverse=True):
            if link.step is not None and _raised(record.journal, n, link):
                return n
    if entries and entries[after - 1]["v"] in BAD_VERDICTS:
        return after - 1
    for link in chain:
        found = [n for n, entry in entries.items() if entry["v"] == VERDICT_OF.get(link.error_type)]
        if found:
            return max(found)
    return after


def _entries(journal: Mapping[str, str]) -> dict[int, dict[str, Any]]:
    return {int(place): json.loads(text) for place, text in journal.items() if place.isdigit()}


def _entries_of_this_round(record: RunRecord) -> dict[int, dict[str, Any]]:
    first = Round.of(record.fields).first
    return {n: entry for n, entry in _entries(record.journal).items() if n >= first}


def _raised(journal: Mapping[str, str], n: int, error: ErrorInfo) -> bool:
    """Whether a part of await `n` ended with this error."""
    outcomes = [text for place, text in journal.items() if place.partition(".")[0] == str(n) and not place.isdigit()]
    if error.error_type == "status.errors.StepTimeout" and "t" in outcomes:
        return True
    raised = (error_from_json(text[1:]) for text in outcomes if text[:1] in {"e", "u"} and len(text) > 1)
    return any((one.error_type, one.message) == (error.error_type, error.message) for one in raised)


def without_failed_undo(record: RunRecord) -> tuple[State, ErrorInfo | None]:
    """How a run would have ended, and with which error, had every undo of it succeeded."""
    state = State(record.fields["state"])
    error = error_from_json(record.fields["error"]) if record.fields.get("error") else None
    if state not in {State.COMPENSATION_FAILED, State.FAILED}:
        return state, error
    trace = error.traceback if error else ""
    while error is not None and error.error_type == qualified_name(CompensationFailed) and error.cause:
        error = error.cause
    if error is not None and not error.traceback:
        error = replace(error, traceback=trace)
    if error is None or error.error_type != qualified_name(Cancelled):
        return State.COMPENSATED, error
    return (State.TIMED_OUT if error.code == 408 else State.CANCELLED), error


def abandon(store: Store, run_id: str, reason: str, owed: Sequence[str], *, by: str = "") -> Ending:
    """End a run as it stands, without asking its workflow.

    Args:
        owed: What it entered in sagas and nobody has undone. If there is any, the run ends as
            `compensation_failed`, for an operator; else as `cancelled`.
        by: The operator who asks, for the history; '': a program.

    Raises:
        RunNotFound: There is no such run.
    """
    state = State.COMPENSATION_FAILED if owed else State.CANCELLED
    left = f"; not undone: {', '.join(owed)}" if owed else ""
    message = f"abandoned{': ' if reason else ''}{reason}{left}"
    error = ErrorInfo(None, qualified_name(Cancelled), message, 409)
    return store.abandon(run_id, reason, token=uuid4().hex, state=state, error=error_to_json(error), by=by)


def owed_of(run_id: str) -> Sequence[str]:
    """What a run entered in sagas and nobody has undone.

    Raises:
        ConfigError: This process knows no app, so it can't know of sagas.
    """
    if here.canceller() is None:
        raise ConfigError(
            "to abandon a run its app must be known, for its sagas: celery -A APP runs cancel ID --abandon"
        )
    return [name for ask in here.owed for name in ask(run_id)]
