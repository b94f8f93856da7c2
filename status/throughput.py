"""How many runs were started in each minute of the last hour, and how many end now: the figures of a sparkline."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, cast

from redis import Redis

from status.keys import Keys
from status.states import FINAL, State

BUCKETS = 60
BUCKET_MS = 60_000

#: Over so long the rate of runs that end is taken.
RATE_MS = 10_000


class Throughput:
    """Counts runs by when they were submitted, which the indexes know; minutes that are over are counted once.

    Args:
        redis: A client with `decode_responses=True`.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._counted: dict[int, int] = {}
        self._ended: deque[tuple[float, int]] = deque()

    def started(self, now_ms: float, counts: Mapping[State, int]) -> list[int]:
        """Runs that were started in each of the last `BUCKETS` minutes, the oldest first; the last is not over yet."""
        last = int(now_ms // BUCKET_MS)
        wanted = range(last - BUCKETS + 1, last + 1)
        self._counted = {at: number for at, number in self._counted.items() if at in wanted}
        # The two newest may still grow: a run's time is that of Redis, not ours.
        missing = [at for at in wanted if at not in self._counted or at >= last - 1]
        states = [state for state in State if counts.get(state)]
        pipe = self._redis.pipeline(transaction=False)
        for at in missing:
            for state in states:
                for shard in range(self._keys.shards):
                    name = self._keys.state(shard, state)
                    pipe.zcount(name, cast("Any", at * BUCKET_MS), cast("Any", f"({(at + 1) * BUCKET_MS}"))
        answers = pipe.execute() if states else []
        each = len(states) * self._keys.shards
        for place, at in enumerate(missing):
            self._counted[at] = sum(answers[place * each : (place + 1) * each])
        return [self._counted[at] for at in wanted]

    def ended_per_s(self, now_ms: float, counts: Mapping[State, int]) -> float | None:
        """Runs that end in a second, over the last few; None: it was not watched for long enough."""
        self._ended.append((now_ms, sum(counts.get(state, 0) for state in FINAL)))
        while self._ended[0][0] < now_ms - RATE_MS:
            self._ended.popleft()
        (since_ms, before), (_, after) = self._ended[0], self._ended[-1]
        if now_ms - since_ms < RATE_MS / 5:
            return None
        # What Redis forgets of finished runs makes this less, never more than nothing.
        return max(0, after - before) * 1000 / (now_ms - since_ms)
