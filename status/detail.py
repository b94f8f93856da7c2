"""All about one run, as a page shows it: its awaits with their parts, attempts and times, what happened, what it says.

Values of steps stay where they are: there may be thousands, of a megabyte each. What is shown is masked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from status.decoding import events_of
from status.detail_awaits import awaits_of, failed_places, numbers_of
from status.detail_text import cut, error_json, event_json
from status.errors import RunNotFound
from status.keys import Keys
from status.masking import HIDDEN, Mask
from status.models import Event, error_from_json
from status.operating import RETRIED, has_undone
from status.states import FINAL, State

#: Timers of an open await are looked up for at most so many of its parts.
TIMED_PARTS = 500


@dataclass(slots=True)
class Raw:
    """What Redis has of a run.

    Attributes:
        journal: The entries of its awaits, and the outcomes of the parts that failed.
        join: Of the open await.
        timers: Timer -> when it is due, ms.
    """

    run_id: str
    run: Mapping[str, str]
    steps: Mapping[str, str]
    late: Mapping[str, str]
    promises: Mapping[str, str]
    events: Sequence[Event]
    now_ms: int
    journal: dict[str, str] = field(default_factory=dict)
    join: dict[str, str] = field(default_factory=dict)
    timers: dict[str, float] = field(default_factory=dict)

    @property
    def open(self) -> str:
        """The number of the await that is open, or ''."""
        return self.run.get("open", "")


class Details:
    """Reads runs as a whole.

    Args:
        redis: A client with `decode_responses=True`.
        mask: Hides secrets.
        names: Given a workflow, the names of its arguments, where they are known.
    """

    def __init__(
        self, redis: Redis, keys: Keys, mask: Mask, names: Callable[[str], Sequence[str]] = lambda _: ()
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._mask = mask
        self._names = names

    def of(self, run_id: str) -> dict[str, Any]:
        """A run as JSON values; times are in ms since 1970.

        Raises:
            RunNotFound: There is no such run.
        """
        raw = self._read(run_id)
        awaits = awaits_of(raw, self._mask)
        state = State(raw.run["state"])
        return {
            "id": run_id,
            "now_ms": raw.now_ms,
            "head": self._head(raw, state),
            "phases": _phases(raw.events),
            "awaits": awaits,
            "promises": _promises(raw, self._mask),
            "events": [event_json(event, self._mask) for event in raw.events],
            "can": _can(raw, state, [one["fp"] for one in awaits]),
        }

    def step(self, run_id: str, place: str) -> dict[str, Any]:
        """What came of a part: its value, or its error with the traceback; None for what it has not.

        Raises:
            RunNotFound: There is no such run.
        """
        pipe = self._redis.pipeline(transaction=False)
        pipe.exists(self._keys.run(run_id))
        pipe.hget(self._keys.journal(run_id), place)
        pipe.hget(self._keys.late(run_id), place)
        there, outcome, late = pipe.execute()
        if not there:
            raise RunNotFound(run_id)
        text = outcome or late or ""
        has_error = text[:1] in {"e", "u"} and len(text) > 1
        return {
            "place": place,
            "value": self._json(text[1:]) if text[:1] == "v" else None,
            "error": error_json(error_from_json(text[1:]), self._mask) if has_error else None,
            "late": not outcome and bool(late),
        }

    def _read(self, run_id: str) -> Raw:
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(self._keys.run(run_id))
        pipe.hgetall(self._keys.steps(run_id))
        pipe.hgetall(self._keys.late(run_id))
        pipe.hgetall(self._keys.promises(run_id))
        pipe.xrange(self._keys.events(run_id))
        pipe.time()
        run, steps, late, promises, rows, (now_s, now_us) = pipe.execute()
        if not run.get("workflow"):
            raise RunNotFound(run_id)
        events = [event for row in rows for event in events_of(run_id, *row)]
        raw = Raw(run_id, run, steps, late, promises, events, now_s * 1000 + now_us // 1000)
        self._read_awaits(raw)
        return raw

    def _read_awaits(self, raw: Raw) -> None:
        """The journal's entries, and what is open. Not the whole journal: that has all values in it."""
        numbers = numbers_of(raw)
        fields = [*map(str, numbers), *(f"{n}:order" for n in numbers), *failed_places(raw.steps)]
        names = ("policy", "size", "need", "nonce", "fp", "ok", "bad", "window", "timeout")
        pipe = self._redis.pipeline(transaction=False)
        for at in range(0, len(fields), 1000):
            pipe.hmget(self._keys.journal(raw.run_id), fields[at : at + 1000])
        if raw.open:
            pipe.hmget(self._keys.join(raw.run_id, int(raw.open)), names)
        answers = pipe.execute()
        join = answers.pop() if raw.open else ()
        found = [value for answer in answers for value in answer]
        raw.journal = {name: value for name, value in zip(fields, found, strict=True) if value is not None}
        raw.join = {name: value for name, value in zip(names, join, strict=False) if value is not None}
        if raw.join:
            self._read_timers(raw)

    def _read_timers(self, raw: Raw) -> None:
        n, nonce = raw.open, raw.join["nonce"]
        idle = [
            at.removeprefix(f"{n}.")
            for at in raw.steps
            if at.startswith(f"{n}.") and ":" not in at and _is_idle(raw.steps.get(f"{at}:s", ""))
        ][:TIMED_PARTS]
        wanted = [("join", "")] + [(kind, p) for p in idle for kind in ("sleep", "start", "retry")]
        members = [f"{kind}|{raw.run_id}|{n}|{p}|{nonce}" for kind, p in wanted]
        timers = self._keys.timers(self._keys.shard_of(raw.run_id))
        scores = self._redis.zmscore(timers, members)
        raw.timers = {
            f"{kind}.{p}": score for (kind, p), score in zip(wanted, scores, strict=True) if score is not None
        }

    def _head(self, raw: Raw, state: State) -> dict[str, Any]:
        run = raw.run
        error = error_from_json(run["error"]) if run.get("error") else None
        return {
            "workflow": run["workflow"],
            "state": state,
            "final": state in FINAL,
            "parked": error is not None and state not in FINAL,
            "phase": run.get("phase", ""),
            "progress": float(run.get("progress") or 0),
            "metadata": self._mask.value(json.loads(run.get("meta") or "{}")),
            "parent": run.get("parent") or None,
            "parent_run": (run.get("parent") or "").rpartition("/")[0] or None,
            "submitted_ms": int(run["submitted_ms"]),
            "updated_ms": int(run["updated_ms"]),
            "finished_ms": int(run["finished_ms"]) if run.get("finished_ms") else None,
            "deadline_ms": int(run["deadline_ms"]) if run.get("deadline_ms") else None,
            "generation": int(run.get("gen") or 0),
            "input": self._input(run["workflow"], run.get("input", "")),
            "result": self._json(run.get("result", "")),
            "error": error_json(error, self._mask) if error else None,
        }

    def _input(self, workflow: str, text: str) -> str:
        """The arguments by their names, as far as these are known: a secret is known by its name."""
        try:
            args, kwargs = json.loads(text)
        except ValueError:
            return self._json(text) or ""
        names = [*self._names(workflow)][: len(args)]
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        rest = args[len(names) :]
        return self._pretty(named if named and not rest else [*args, kwargs] if kwargs else args)

    def _json(self, text: str) -> str | None:
        if not text:
            return None
        try:
            return self._pretty(json.loads(text))
        except ValueError:
            return cut(self._mask.text(text))

    def _pretty(self, value: Any) -> str:
        return cut(json.dumps(self._mask.value(value), indent=2, ensure_ascii=False))


def _is_idle(state: str) -> bool:
    return state == "" or state.startswith(("waiting|", "retrying|"))


def _phases(events: Sequence[Event]) -> list[dict[str, Any]]:
    phases: list[dict[str, Any]] = []
    for event in events:
        if event.kind != "run.status" or "progress" not in event.detail:
            continue
        if not phases or phases[-1]["name"] != event.name:
            phases.append({"name": event.name, "at_ms": round(event.at.timestamp() * 1000)})
    return phases


def _promises(raw: Raw, mask: Mask) -> list[dict[str, Any]]:
    """The promises that have their value."""
    found = []
    for name, kept in raw.promises.items():
        _token, n, outcome = kept.split("|", 2)
        good = outcome[:1] == "v"
        said = mask.json(outcome[1:]) if good else error_from_json(outcome[1:]).message
        said = HIDDEN if good and mask.hides(name) else said
        found.append({"name": name, "good": good, "said": mask.text(said)[:500], "n": n or None})
    return found


def _can(raw: Raw, state: State, fingerprints: Sequence[str]) -> dict[str, bool]:
    """What an operator may ask for, as far as can be seen from here."""
    final = state in FINAL
    parked = not final and bool(raw.run.get("error"))
    return {
        "cancel": not final,
        "abandon": parked,
        "retry": parked or (state in RETRIED and not has_undone(fingerprints)),
    }
