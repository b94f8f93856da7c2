"""Looks through the indexes of runs for those of a workflow, or with a text in their id: where they are, not here.

To fetch many to keep a few takes several times as long. A script looks at a piece of one index at a time, so that
nobody else waits for more than a millisecond or two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from redis import Redis
from redis.exceptions import NoScriptError

from status.keys import Keys
from status.scripts import digest, source
from status.states import State

#: Runs of one index that are looked at while Redis does nothing else.
AT_ONCE = 1000


class Place(NamedTuple):
    """Where a run is in the order of listings, which is: the newest first."""

    submitted_ms: float
    run_id: str


class Piece(NamedTuple):
    """What a listing has found next.

    Attributes:
        places: Of the runs, the newest first.
        reached: No run behind this one has been looked at; None: there is none.
    """

    places: list[Place]
    reached: Place | None


@dataclass(slots=True)
class _Index:
    name: str
    runs: str  #: the stem of its runs' keys
    reached: Place
    over: bool = False


class Search:
    """Looks for runs.

    Args:
        redis: A client with `decode_responses=True`.
        states: Of the runs that are wanted; `workflow` and `text` ('' is any) likewise.
        before: Begins behind this place.
        size: So many runs of each index are looked at first, then more and more.
    """

    def __init__(
        self, redis: Redis, keys: Keys, states: Iterable[State], workflow: str, text: str, *, before: Place, size: int
    ) -> None:
        self._redis = redis
        self._asked = (text.lower(), workflow)
        self._size = max(1, size)
        self._given = before
        self._found: set[Place] = set()
        self._indexes = [
            _Index(keys.state(shard, state), keys.runs(shard), before)
            for state in states
            for shard in range(keys.shards)
        ]

    def pieces(self) -> Iterator[Piece]:
        """What is found, a piece at a time, until all has been looked at."""
        while open_ := [index for index in self._indexes if not index.over]:
            self._look(open_)
            reached = max((index.reached for index in open_ if not index.over), default=None)
            # What one index has beyond that may be older than what another is yet to give. In two indexes, a run has
            # changed its state between two looks.
            ready = {place for place in self._found if reached is None or place >= reached}
            self._found -= ready
            yield Piece(sorted((place for place in ready if place < self._given), reverse=True), reached)
            self._given = reached or self._given

    def _look(self, indexes: list[_Index]) -> None:
        for index, answer in zip(indexes, self._ask(indexes), strict=True):
            score, run_id, *found = answer
            self._found |= {Place(float(at), one) for at, one in zip(found[::2], found[1::2], strict=True)}
            index.over = not score
            index.reached = Place(float(score), run_id) if score else index.reached
        self._size = min(self._size * 2, AT_ONCE)

    def _ask(self, indexes: list[_Index]) -> list[list[str]]:
        pipe = self._redis.pipeline(transaction=False)
        for index in indexes:
            score, run_id = index.reached
            pipe.evalsha(
                digest("search"), 1, index.name, f"{score:.0f}", run_id, str(self._size), *self._asked, index.runs
            )
        try:
            return list(pipe.execute())
        except NoScriptError:  # a new server, or another one
            self._redis.script_load(source("search"))
            return self._ask(indexes)
