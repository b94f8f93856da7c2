"""Follows many runs at once, whose number changes meanwhile: what a live board stands on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from status.decoding import events_of, rows_of
from status.models import Event
from status.reading import Reader


class Follower:
    """Reads what happens to some runs, from a place in each one's events on.

    `Reader.watch_many` is the simpler way where all runs are known from the start.
    """

    def __init__(self, reader: Reader) -> None:
        self._redis = reader.redis
        self._keys = reader.keys
        self._at: dict[str, str] = {}
        self._runs: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._at)

    def follow(self, run_id: str, *, from_start: bool) -> None:
        """Read of this run, too, from its first event on or from the next one."""
        stream = self._keys.events(run_id)
        if stream in self._at:
            return
        last = [] if from_start else cast("list[tuple[str, Any]]", self._redis.xrevrange(stream, count=1))
        self._at[stream] = last[0][0] if last else "0-0"
        self._runs[stream] = run_id

    def follow_many(self, run_ids: Iterable[str]) -> None:
        """Read of these runs, too, from their next events on; in one round trip."""
        wanted = {self._keys.events(run_id): run_id for run_id in run_ids}
        new = [stream for stream in wanted if stream not in self._at]
        pipe = self._redis.pipeline(transaction=False)
        for stream in new:
            pipe.xrevrange(stream, count=1)
        for stream, last in zip(new, pipe.execute() if new else [], strict=True):
            self._at[stream] = last[0][0] if last else "0-0"
            self._runs[stream] = wanted[stream]

    def forget(self, run_id: str) -> None:
        """Read of this run no more."""
        stream = self._keys.events(run_id)
        self._at.pop(stream, None)
        self._runs.pop(stream, None)

    def read(self, timeout_s: float) -> list[Event]:
        """What has happened since the last call; waits if nothing has. Empty: nothing did in `timeout_s` seconds."""
        if not self._at:
            return []
        # 0 ms would mean to wait for ever.
        answer = self._redis.xread(cast("Any", self._at), count=500, block=max(1, round(timeout_s * 1000)))
        events = []
        for stream, rows in rows_of(answer):
            self._at[stream] = rows[-1][0]
            events += [event for row in rows for event in events_of(self._runs[stream], *row)]
        return events


def unsettled(reader: Reader, run_ids: Iterable[str]) -> list[str]:
    """Those of the runs that have work left although they may have ended.

    A loser of a race that could not be stopped goes on after its run's end, and if it succeeds after all its
    undo follows.
    """
    wanted = list(run_ids)
    pipe = reader.redis.pipeline(transaction=False)
    for run_id in wanted:
        pipe.hget(reader.keys.run(run_id), "loose")
    return [run_id for run_id, loose in zip(wanted, pipe.execute(), strict=True) if int(loose or 0) > 0]
