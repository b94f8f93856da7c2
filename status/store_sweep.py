"""Timers and the sweep, as part of the `Store`, and what the endings of parts have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from redis import Redis

from status.journals import Journal, Journals
from status.keys import Keys
from status.records import (
    DeadClaim,
    Ending,
    Grant,
    Lease,
    Owed,
    OwedNews,
    OwedPart,
    OwedStop,
    OwedTurn,
    PartRef,
    Publishable,
    RunRecord,
    Timer,
    claims_of,
    mapping,
)
from status.scripts import Scripts

#: How long a worker that stopped sweeping keeps others from it. A second sweeper does no harm, a second without one
#: is a second more until a dead worker's steps run again.
SWEEPER_LEASE_MS = 1500


class SweepTransitions:
    """The transitions that put back on its way what got lost, and let timers do what they are for."""

    redis: Redis
    keys: Keys
    journals: Journals
    _scripts: Scripts

    def _call(self, name: str, run_id: str, *args: Any) -> Any:
        raise NotImplementedError

    def count_resent(self, run_id: str, what: str) -> None:
        """Count a message that was lost and has been sent again; `what` is `turn` or `message`."""
        self._call("resent", run_id, what)

    def due_timers(self, shards: Sequence[int], limit: int = 10) -> tuple[list[Timer], dict[int, int], int]:
        """The timers of these shards that are due, in one round trip.

        Few at a time: most often none is, and each look reads some that are not.

        Returns:
            The timers; for each shard that has more, when the next is due; and Redis' clock: both in ms.
        """
        pipe = self.redis.pipeline(transaction=False)
        pipe.time()
        for shard in shards:
            pipe.zrange(self.keys.timers(shard), 0, limit, withscores=True)
        (seconds, micros), *answers = pipe.execute()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        due: list[Timer] = []
        next_ms: dict[int, int] = {}
        for shard, rows in zip(shards, answers, strict=True):
            for member, at_ms in rows[:limit]:
                if at_ms <= now_ms:
                    due.append(Timer.parse(member))
                else:
                    next_ms[shard] = int(at_ms)
                    break
            else:
                if len(rows) > limit:
                    next_ms[shard] = int(rows[limit][1])
        return due, next_ms, now_ms

    def fire(self, timer: Timer, *, token: str) -> Ending:
        """Do what a timer is for, once. See `fire.lua`; `expired` asks for a cancel of the run."""
        answer = self._call("fire", timer.run_id, timer.kind, timer.n, timer.p, timer.nonce, token)
        return self._ending(timer.run_id, int(timer.n or 0), answer)

    def sweep(self, shard: int, worker: str, limit: int = 500) -> list[str] | None:
        """Raise a shard's tick and name what is due; None if another worker sweeps it."""
        k = self.keys
        keys = (k.lease(shard), k.tick(shard), k.due(shard), k.raised(shard), k.grace(shard), k.running(shard))
        answer = self._scripts.call("sweep", keys, (worker, SWEEPER_LEASE_MS, limit))
        return list(answer[1:]) if answer[0] else None

    def repair(self, run_id: str, n: str = "", p: str = "", *, asks_queues: bool = False) -> Owed:
        """What would put a due thing back on its way; `asks_queues`: who calls publishes only what is lost."""
        answer = self._call("repair", run_id, n, p, "1" if asks_queues else "")
        match answer[0]:
            case "turn":
                return OwedTurn(workflow=answer[2], since_ms=int(answer[1]), first=answer[3] == "1", queue=answer[4])
            case "waiting":
                part = next(self._publishable(run_id, int(n), answer[3]))
                return OwedPart(part=part, queue=answer[2], since_ms=int(answer[1]))
            case "stop":
                return OwedStop(claims_of(answer[1])[0])
            case "tell":
                return OwedNews()
            case "claimed":
                return DeadClaim(PartRef(run_id, int(n), p, answer[1], 0))
        return None

    def _ending(
        self, run_id: str, n: int, answer: Sequence[Any], known: Journal | None = None, asked_s: float = 0.0
    ) -> Ending:
        code, stop, part, *more = answer
        if not (stop or part or more):
            return _plain(code)
        start = tuple(self._publishable(run_id, n, part))
        if code != "decided":
            grant = Grant("granted", int(more[0][0]), int(more[0][1])) if more else None
            return Ending(code, claims_of(stop), start, grant=grant)
        run, fields = map(mapping, more[:2]) if more else ({}, {})
        if not run:
            return Ending(code, claims_of(stop), start, entries=fields)
        journal = self.journals.read(run_id, run, fields, known if len(more) > 2 else None)
        at, _, lease = run.get("turn", "").rpartition("|")[0].rpartition("|")
        # Who ends the last part takes the turn, and comes first.
        mine = lease == run["decider"] and at == f"{run['seen']}|{run['decider']}"
        record = RunRecord(
            run_id, run, journal, lease=Lease.heard(lease, int(run["updated_ms"]), asked_s) if mine else None
        )
        return Ending(code, claims_of(stop), start, record, journal)

    @staticmethod
    def _publishable(run_id: str, n: int, part: Sequence[str]) -> Iterator[Publishable]:
        if part:
            p, attempt, spec, nonce, undoes = part
            yield Publishable(PartRef(run_id, n, p, nonce, int(attempt)), spec, undoes)


@lru_cache  # most endings ask for nothing
def _plain(code: str) -> Ending:
    return Ending(code)
