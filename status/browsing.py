"""Pages through many runs: newest first, by state, workflow and part of the id, each page within a time.

An index has a run's id, its state and when it was submitted, nothing else. So a page of a state is read from the
indexes alone; for a workflow, or a part of an id, runs are looked through (`searching.py`), newest first, until the
page is full or its time is up. Then the cursor says where to look on.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple, cast

from redis import Redis

from status.errors import ConfigError
from status.keys import Keys
from status.reading import decode_cursor, encode_cursor
from status.records import RUN_ID
from status.searching import Piece, Place, Search
from status.states import FINAL, State

#: What a listing shows of a run. Its input, result and metadata may be long, and stay where they are.
SHOWN = ("workflow", "state", "phase", "progress", "submitted_ms", "updated_ms", "finished_ms", "error", "parent")

#: Runs that are looked through at a time.
CHUNK = 1000

#: So long a page may look through runs: with the rest of an answer well below what a person notices. Then it goes on.
BUDGET_S = 0.1

#: What a listing may call the states of runs that have not ended, all at once.
UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Row:
    """A run as a listing shows it. Times are in ms since 1970."""

    run_id: str
    workflow: str
    state: State
    phase: str
    progress: float
    submitted_ms: int
    updated_ms: int
    finished_ms: int | None
    error: str  #: its message; of a run that has not ended: why it is parked
    parent: str  #: the step that it is a child of, or ''

    @property
    def place(self) -> Place:
        """Where it is in the order of listings."""
        return Place(float(self.submitted_ms), self.run_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which runs a listing has.

    Attributes:
        state: A state, `unfinished`, or '' for all.
        workflow: Its name, or '' for all.
        text: A part of the run id; case does not count.

    Raises:
        ConfigError: There is no such state.
    """

    state: str = ""
    workflow: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        if self.state not in {"", UNFINISHED, *State}:
            raise ConfigError(f"no state is called {self.state!r:.40}: there are {UNFINISHED}, {', '.join(State)}")

    @property
    def states(self) -> tuple[State, ...]:
        """The states that it has runs of."""
        if self.state == UNFINISHED:
            return tuple(state for state in State if state not in FINAL)
        return (State(self.state),) if self.state else tuple(State)

    @property
    def looks_through(self) -> bool:
        """Whether no index has just these."""
        return bool(self.workflow or self.text)

    def has(self, row: Row) -> bool:
        """Whether a run is one of them."""
        return row.state in self.states and self.workflow in ("", row.workflow) and self.has_id(row.run_id)

    def has_id(self, run_id: str) -> bool:
        """Whether the id of a run is that of one of them."""
        return self.text.lower() in run_id.lower()


@dataclass(frozen=True, slots=True)
class Listing:
    """Some runs.

    Attributes:
        rows: Newest first.
        cursor: Asks for what follows; None: there is nothing.
        looked_ms: When the last run that was looked at was submitted; None: all were.
    """

    rows: tuple[Row, ...]
    cursor: str | None
    looked_ms: float | None


class Browser:
    """Lists runs.

    Args:
        redis: A client with `decode_responses=True`.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    def page(
        self, wanted: Wanted, *, limit: int = 50, cursor: str | None = None, budget_s: float = BUDGET_S
    ) -> Listing:
        """Some of the runs that are wanted.

        Args:
            limit: So many at most.
            budget_s: No more runs are looked through after this time; at least one chunk is.

        Raises:
            ConfigError: `limit` or `cursor` is malformed.
        """
        if not 1 <= limit <= 1000:
            raise ConfigError(f"limit must be from 1 to 1000, got {limit}")
        before = Place(*decode_cursor(cursor))
        rows = [] if cursor else self._exactly(wanted)
        first = {row.run_id for row in rows}
        end_s = monotonic() + budget_s
        for some, reached in self._pieces(wanted, before, limit):
            for row in self._matching(wanted, some, limit):
                if len(rows) == limit:
                    break
                rows += [] if row.run_id in first else [row]
                before = row.place
            if len(rows) < limit:
                if reached is None:
                    break
                before = reached
            if len(rows) == limit or monotonic() >= end_s:
                return Listing(tuple(rows), encode_cursor(before), before.submitted_ms)
        return Listing(tuple(rows), None, None)

    def _pieces(self, wanted: Wanted, before: Place, limit: int) -> Iterator[Piece]:
        """The places of what may be wanted, the newest first; what is looked through there, is looked through."""
        if wanted.looks_through:
            search = Search(
                self._redis, self._keys, wanted.states, wanted.workflow, wanted.text,
                before=before, size=CHUNK // self._keys.shards,
            )  # fmt: skip
            yield from search.pieces()
            return
        places = self.places(wanted, before)
        while some := list(islice(places, limit)):
            yield Piece(some, some[-1])

    def places(self, wanted: Wanted, before: Place | None = None) -> Iterator[Place]:
        """The places of the runs in the states that are wanted, whatever their workflow and id; newest first."""
        names = [self._keys.state(shard, state) for state in wanted.states for shard in range(self._keys.shards)]
        per_index = CHUNK // self._keys.shards if wanted.looks_through else 8
        return _Merged(self._redis, names, before or Place(float("inf"), ""), per_index).places()

    def rows(self, run_ids: Sequence[str]) -> dict[str, Row]:
        """Runs as they are now; those that are not there any more are left out."""
        pipe = self._redis.pipeline(transaction=False)
        for run_id in run_ids:
            pipe.hmget(self._keys.run(run_id), SHOWN)
        found = zip(run_ids, pipe.execute() if run_ids else [], strict=True)
        return {run_id: _row(run_id, dict(zip(SHOWN, values, strict=True))) for run_id, values in found if values[0]}

    def of_workflow(self, workflow: str, run_ids: Sequence[str]) -> list[str]:
        """Those of the runs that are of this workflow; '' is any."""
        if not workflow or not run_ids:
            return list(run_ids)
        pipe = self._redis.pipeline(transaction=False)
        for run_id in run_ids:
            pipe.hget(self._keys.run(run_id), "workflow")
        return [run_id for run_id, found in zip(run_ids, pipe.execute(), strict=True) if found == workflow]

    def _matching(self, wanted: Wanted, places: Sequence[Place], at_once: int) -> Iterator[Row]:
        for start in range(0, len(places), at_once):
            at = {place.run_id: place for place in places[start : start + at_once]}
            # An index may speak of the run that had this id before, or of the state it was in a moment ago.
            rows = self.rows(list(at)).items()
            yield from (row for run_id, row in rows if wanted.has(row) and row.place == at[run_id])

    def _exactly(self, wanted: Wanted) -> list[Row]:
        """The run whose id was given as a whole: it is found at once, however old it is."""
        if not RUN_ID.fullmatch(wanted.text):
            return []
        return [row for row in self.rows([wanted.text]).values() if wanted.has(row)]


@dataclass(slots=True)
class _Source:
    """One index, and what was read of it and not yet given."""

    name: str
    before: Place
    size: int
    read: list[Place] = field(default_factory=list)
    over: bool = False


class _Head(NamedTuple):
    """The next place of an index, and which index that is. The newest sorts first, as heaps want it."""

    place: Place
    at: int

    def __lt__(self, other: tuple[Any, ...]) -> bool:
        return bool(self.place > other[0])


class _Merged:
    """Several indexes as one, read a piece at a time."""

    def __init__(self, redis: Redis, names: Iterable[str], before: Place, size: int) -> None:
        self._redis = redis
        self._sources = [_Source(name, before, size) for name in names]

    def places(self) -> Iterator[Place]:
        self._fill(self._sources)
        heap = [_Head(source.read[-1], at) for at, source in enumerate(self._sources) if source.read]
        heapq.heapify(heap)
        given = None
        while heap:
            place, at = heapq.heappop(heap)
            source = self._sources[at]
            source.read.pop()
            if not source.read and not source.over:
                self._fill([source])
            if source.read:
                heapq.heappush(heap, _Head(source.read[-1], at))
            if place != given:  # a run that changes its state between two looks is seen twice
                yield place
            given = place

    def _fill(self, sources: Iterable[_Source]) -> None:
        empty = [source for source in sources if not source.over and not source.read]
        while empty:
            pipe = self._redis.pipeline(transaction=False)
            for source in empty:
                pipe.zrange(
                    source.name, cast("Any", source.before.submitted_ms), cast("Any", "-inf"),
                    desc=True, byscore=True, withscores=True, offset=0, num=source.size,
                )  # fmt: skip
            for source, answer in zip(empty, pipe.execute(), strict=True):
                found = [Place(float(score), run_id) for run_id, score in answer]
                source.over = len(found) < source.size
                source.read = [place for place in reversed(found) if place < source.before]
                if source.read:
                    source.before = source.read[0]
                # All of these may be of one ms, and have been given; else a few hundred at a time are best.
                source.size = source.size * 2 if not source.read else min(source.size * 2, CHUNK)
            empty = [source for source in empty if not source.over and not source.read]


def _row(run_id: str, run: Mapping[str, str | None]) -> Row:
    error = run["error"]
    return Row(
        run_id=run_id,
        workflow=run["workflow"] or "",
        state=State(run["state"] or ""),
        phase=run["phase"] or "",
        progress=float(run["progress"] or 0),
        submitted_ms=int(run["submitted_ms"] or 0),
        updated_ms=int(run["updated_ms"] or 0),
        finished_ms=int(run["finished_ms"]) if run["finished_ms"] else None,
        error=str(json.loads(error).get("message", "")) if error else "",
        parent=run["parent"] or "",
    )
