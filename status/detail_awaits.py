"""The awaits of a run and their parts, as the timeline and the graph draw them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from status.errors import ErrorInfo
from status.masking import Mask
from status.models import PROMISE, error_from_json
from status.states import StepState

if TYPE_CHECKING:
    from status.detail import Raw

#: What the first word of a fingerprint says of the policy of its join.
POLICIES = {
    "await": "all", "fan_out_fail": "all", "fan_out": "settle", "race": "first", "settle": "settled", "undo": "all",
    "map_concurrent": "all", "race_promise_with_timeout": "all",
}  # fmt: skip

#: Parts that no worker makes, by how the timeline calls them.
OUTSIDE = {PROMISE: "promise", "channel ": "channel", "sleep": "sleep"}

HOW = {"e": "failed", "t": "timed out", "l": "lost"}


def numbers_of(raw: Raw) -> list[int]:
    """The numbers of all awaits: those with steps, those that something happened to, and the open one."""
    found = {int(place.partition(".")[0]) for place in raw.steps if ":" not in place}
    found |= {int(event.name) for event in raw.events if event.kind.startswith("join.") and event.name.isdigit()}
    found |= {int(raw.open)} if raw.open else set()
    return sorted(found)


def failed_places(steps: Mapping[str, str]) -> list[str]:
    """The parts that failed: of these alone the outcome is told with the run."""
    bad = (f"{StepState.FAILED}|", f"{StepState.RETRYING}|")
    return [place.removesuffix(":s") for place, text in steps.items() if place.endswith(":s") and text.startswith(bad)]


def awaits_of(raw: Raw, mask: Mask) -> list[dict[str, Any]]:
    """All awaits in their order, each with its parts."""
    places: dict[int, list[str]] = {}
    for place in raw.steps:
        if ":" not in place:
            places.setdefault(int(place.partition(".")[0]), []).append(place)
    opened = {
        int(event.name): (round(event.at.timestamp() * 1000), str(event.detail.get("detail", "")))
        for event in raw.events
        if event.kind == "join.opened" and event.name.isdigit()
    }
    before_ms = int(raw.run["submitted_ms"])
    awaits = []
    for n in numbers_of(raw):
        entry = json.loads(raw.journal.get(str(n), "null"))
        if entry is None and str(n) != raw.open:
            continue  # forgotten by a retry of the run
        one = _await(raw, n, entry, opened.get(n, (before_ms, "")))
        parts = [_part(raw, place, one, mask) for place in sorted(places.get(n, ()), key=_in_order)]
        awaits.append({**one, "parts": parts})
        before_ms = one["decided_ms"] or before_ms
    return awaits


def _await(raw: Raw, n: int, entry: Mapping[str, Any] | None, opened: tuple[int, str]) -> dict[str, Any]:
    fp = str(entry["fp"]) if entry else raw.join.get("fp") or opened[1]
    kind = fp.partition("(")[0]
    numbers = str(entry.get("n", "")).partition("|") if entry else ("", "", "")
    is_open = entry is None
    need = kind.removeprefix("quorum-") if kind.startswith("quorum-") else ""
    return {
        "n": n,
        "fp": fp,
        "kind": "quorum" if need else kind,
        "policy": "quorum" if need else POLICIES.get(kind) or raw.join.get("policy", "") if is_open else _policy(kind),
        "need": int(need) if need.isdigit() else None,
        "open": is_open,
        "verdict": entry["v"] if entry else None,
        "by": _winners(raw, n, entry) if entry else [],
        "opened_ms": opened[0],
        "decided_ms": int(entry["at"]) if entry else None,
        "limit_ms": raw.timers.get("join.") if is_open else None,
        "size": _int(raw.join.get("size")) if is_open else None,
        "ok": _int(raw.join.get("ok")) if is_open else _int(numbers[0]),
        "bad": _int(raw.join.get("bad")) if is_open else _int(numbers[2]),
    }


def _policy(kind: str) -> str:
    return "quorum" if kind.startswith("quorum-") else POLICIES.get(kind, "all")


def _winners(raw: Raw, n: int, entry: Mapping[str, Any]) -> list[str]:
    """The parts that decided a race or a quorum."""
    if entry["v"] == "won":
        return [str(entry["i"])]
    order = raw.journal.get(f"{n}:order", "")
    return order.split(",") if order and entry["v"] == "all" else []


def _part(raw: Raw, place: str, one: Mapping[str, Any], mask: Mask) -> dict[str, Any]:
    queue, _, name = raw.steps[place].partition("|")
    state, attempt, started, finished = (raw.steps.get(f"{place}:s") or f"{StepState.WAITING}|1||").split("|")
    p = place.partition(".")[2]
    error = _error(raw, place)
    child = queue[1:] if queue.startswith(">") else None
    tries = _tries(raw.steps.get(f"{place}:h", ""))
    return {
        "place": place,
        "p": p,
        "name": mask.text(name if queue else name.removeprefix(PROMISE).removeprefix("channel ")),
        "kind": _kind(one["kind"], p, name, queue, child),
        "queue": "" if child else queue,
        "state": state,
        "attempt": int(attempt),
        "tries": tries,
        "start_ms": _int(started),
        "end_ms": _int(finished),
        "due_ms": _due(raw, p) if one["open"] else None,
        "child": child,
        "won": p in one["by"],
        "undoes": f"{one['n']}.{p.removesuffix('u')}" if p.endswith("u") else None,
        "late": raw.late.get(place, " ")[0] == "v",
        "error": f"{error.error_type.rpartition('.')[2]}: {mask.text(error.message)}"[:500] if error else None,
        "waits": _note(raw.steps.get(f"{place}:w"), state),
    }


def _kind(of: str, p: str, name: str, queue: str, child: str | None) -> str:
    if child:
        return "child"
    if of == "undo" or p.endswith("u"):
        return "undo"
    outside = next((kind for prefix, kind in OUTSIDE.items() if name.startswith(prefix)), "")
    return "step" if queue or not outside else outside


def _tries(text: str) -> list[dict[str, Any]]:
    """The attempts before the last, as `_run.lua` keeps them."""
    rows = (line.split("|") for line in text.splitlines())
    return [
        {"attempt": int(attempt), "start_ms": int(start), "end_ms": int(end), "how": HOW.get(how, how)}
        for attempt, start, end, how in rows
    ]


def _due(raw: Raw, p: str) -> float | None:
    times: Iterable[float | None] = (raw.timers.get(f"{kind}.{p}") for kind in ("sleep", "start", "retry"))
    return next((at for at in times if at is not None), None)


def _error(raw: Raw, place: str) -> ErrorInfo | None:
    outcome = raw.journal.get(place) or raw.late.get(place, "")
    return error_from_json(outcome[1:]) if outcome[:1] in {"e", "u"} and len(outcome) > 1 else None


def _note(note: str | None, state: str) -> str | None:
    """Why nobody has begun it, if a worker has said so."""
    return note.partition("|")[2] if note and state in {StepState.WAITING, StepState.RETRYING} else None


def _in_order(place: str) -> tuple[int, str]:
    p = place.partition(".")[2]
    return int(p.removesuffix("u")), p


def _int(text: str | None) -> int | None:
    return int(float(text)) if text else None
