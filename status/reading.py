"""Reads runs without changing them: status, listing, history, watching."""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, cast

from redis import Redis

from status.decoding import events_of, rows_of, run_status_of, steps_of
from status.errors import ConfigError, ErrorInfo, RunNotFound, TimedOut
from status.keys import Keys
from status.models import Event, Page, RunStatus, error_from_json
from status.states import FINAL, State
from status.waits import waits_for

#: One blocking read lasts at most this long, so that a lost connection is noticed.
BLOCK_MS = 5000


#: State, result (JSON, or '') and error of a run.
Ended = tuple[State, str, ErrorInfo | None]


class Reader:
    """The status of runs.

    Args:
        redis: A client with `decode_responses=True`.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys

    def status(self, run_id: str) -> RunStatus:
        """A run with its steps.

        Raises:
            RunNotFound: There is no such run.
        """
        pipe = self.redis.pipeline(transaction=False)
        pipe.hgetall(self.keys.run(run_id))
        pipe.hgetall(self.keys.steps(run_id))
        pipe.hgetall(self.keys.journal(run_id))
        run, steps, journal = pipe.execute()
        if not run.get("workflow"):
            raise RunNotFound(run_id)
        return run_status_of(run_id, run, steps_of(run_id, steps, journal))

    def result(self, run_id: str) -> Ended:
        """State, result (JSON) and error of a run.

        Raises:
            RunNotFound: There is no such run.
        """
        answer = self.redis.hmget(self.keys.run(run_id), ["state", "result", "error"])
        state, result, error = cast("list[str | None]", answer)
        if not state:
            raise RunNotFound(run_id)
        return State(state), result or "", error_from_json(error) if error else None

    def page(
        self,
        *,
        workflow: str | None = None,
        state: State | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Some of the runs, newest first.

        Raises:
            ConfigError: `limit`, `state` or `cursor` is malformed.
        """
        if not 1 <= limit <= 1000:
            raise ConfigError(f"limit must be from 1 to 1000, got {limit}")
        states = [_state(state)] if state else list(State)
        before = decode_cursor(cursor)
        runs: list[RunStatus] = []
        while len(runs) < limit:
            found = self._before(states, before, limit)
            if not found:
                return Page(tuple(runs), None)
            for place, status in zip(found, self._briefly([run_id for _, run_id in found]), strict=True):
                before = place
                if status is not None and _is_listed(status, place, states, workflow):
                    runs.append(status)
                if len(runs) == limit:
                    break
        return Page(tuple(runs), encode_cursor(before))

    def counts(self) -> dict[State, int]:
        """How many runs are in each state."""
        pipe = self.redis.pipeline(transaction=False)
        wanted = [(state, shard) for state in State for shard in range(self.keys.shards)]
        for state, shard in wanted:
            pipe.zcard(self.keys.state(shard, state))
        totals = dict.fromkeys(State, 0)
        for (state, _), number in zip(wanted, pipe.execute(), strict=True):
            totals[state] += number
        return totals

    def history(self, run_id: str) -> tuple[Event, ...]:
        """What happened to a run, oldest first; of a long one, about the last 1,000 events.

        Raises:
            RunNotFound: There is no such run.
        """
        rows = cast("list[tuple[str, dict[str, str]]]", self.redis.xrange(self.keys.events(run_id)))
        if not rows and not self.redis.exists(self.keys.run(run_id)):
            raise RunNotFound(run_id)
        return tuple(event for row in rows for event in events_of(run_id, *row))

    def wait(self, run_id: str, timeout_s: float | None = None) -> Ended:
        """How the run has ended, once it has: state, result (JSON) and error.

        Raises:
            RunNotFound: There is no such run.
            TimedOut: `timeout_s` is over and the run is not.
        """
        end = None if timeout_s is None else monotonic() + timeout_s
        # From the start of the stream: the run may end between the look at its state and the one at this.
        at = "0-0"
        while True:
            found = self.result(run_id)
            if found[0] in FINAL:
                return found
            left_ms = BLOCK_MS if end is None else int((end - monotonic()) * 1000)
            if left_ms <= 0:
                what = waits_for(self.status(run_id))
                raise TimedOut(
                    f"run {run_id} had not ended after {timeout_s} s; it goes on{': ' if what else ''}{what}"
                )
            answer = self.redis.xread({self.keys.end(run_id): at}, block=min(left_ms, BLOCK_MS))
            for _, rows in rows_of(answer):
                at = rows[-1][0]  # of a former end, if the run goes on after all

    def watch(self, run_id: str, timeout_s: float | None = None) -> Iterator[Event]:
        """Events from the first, then as they happen; ends with the run.

        Raises:
            RunNotFound: There is no such run.
            TimedOut: `timeout_s` is over and the run is not.
        """
        if not self.redis.exists(self.keys.run(run_id)):
            raise RunNotFound(run_id)
        return self.watch_many([run_id], timeout_s)

    def watch_many(self, run_ids: Iterable[str], timeout_s: float | None = None) -> Iterator[Event]:
        """Events of several runs, each run's in order; ends with the last of them.

        Raises:
            TimedOut: `timeout_s` is over and a run is not.
        """
        names = {self.keys.events(run_id): run_id for run_id in run_ids}
        at = dict.fromkeys(names, "0-0")
        end = None if timeout_s is None else monotonic() + timeout_s
        while at:
            left_ms = BLOCK_MS if end is None else int((end - monotonic()) * 1000)
            if left_ms <= 0:
                raise TimedOut(
                    f"{len(at)} run(s) had not ended after {timeout_s} s, the first is {names[next(iter(at))]}"
                )
            answer = self.redis.xread(cast("Any", at), count=500, block=min(left_ms, BLOCK_MS))
            for stream, rows in rows_of(answer):
                for row_id, fields in rows:
                    at[stream] = row_id
                    yield from events_of(names[stream], row_id, fields)
                    if fields["k"].removeprefix("run.") in FINAL:
                        del at[stream]
                        break
            if not answer:
                self._drop_expired(at)

    def _drop_expired(self, at: dict[str, str]) -> None:
        for stream in list(at):
            if not self.redis.exists(stream):
                del at[stream]

    def _before(self, states: Sequence[State], before: tuple[float, str], limit: int) -> list[tuple[float, str]]:
        """The newest `limit` runs that come after `before` in the listing: (submitted ms, run id)."""
        pipe = self.redis.pipeline(transaction=False)
        for state in states:
            for shard in range(self.keys.shards):
                name = self.keys.state(shard, state)
                # All of the same ms, of which the cut below leaves the rest; then older ones.
                pipe.zrange(name, cast("Any", before[0]), cast("Any", before[0]), byscore=True, withscores=True)
                pipe.zrange(
                    name, cast("Any", f"({before[0]}"), cast("Any", "-inf"),
                    desc=True, byscore=True, withscores=True, offset=0, num=limit,
                )  # fmt: skip
        # A run that changes its state between two of these looks is seen twice.
        rows = {(score, run_id) for answer in pipe.execute() for run_id, score in answer if (score, run_id) < before}
        return heapq.nlargest(limit, rows)

    def _briefly(self, run_ids: Sequence[str]) -> list[RunStatus | None]:
        pipe = self.redis.pipeline(transaction=False)
        for run_id in run_ids:
            pipe.hgetall(self.keys.run(run_id))
        return [
            run_status_of(run_id, run) if run.get("workflow") else None
            for run_id, run in zip(run_ids, pipe.execute(), strict=True)
        ]


def _is_listed(status: RunStatus, place: tuple[float, str], states: Sequence[State], workflow: str | None) -> bool:
    # An index may speak of the run that had this id before, or of the state it was in a moment ago.
    same = round(status.started_at.timestamp() * 1000) == place[0]
    return same and status.state in states and workflow in (None, status.workflow)


def _state(state: str) -> State:
    try:
        return State(state)
    except ValueError as error:
        raise ConfigError(f"no state is called {state!r}: there are {', '.join(State)}") from error


def encode_cursor(place: tuple[float, str]) -> str:
    """What asks for the page after a place: when a run was submitted, ms, and its id."""
    return base64.urlsafe_b64encode(f"{place[0]:.0f}|{place[1]}".encode()).decode()


def decode_cursor(cursor: str | None) -> tuple[float, str]:
    """What `encode_cursor` was given; before the first of all, for None.

    Raises:
        ConfigError: It is malformed.
    """
    if cursor is None:
        return float("inf"), ""
    try:
        score, _, run_id = base64.urlsafe_b64decode(cursor).decode().partition("|")
        return float(score), run_id
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"cursor {cursor!r} is not one that a listing gave") from error
