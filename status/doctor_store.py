"""What the doctor says of the runs: whether they are swept, and which of them need a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING

from redis import Redis

from status import here
from status.doctor_keys import scan_keys
from status.doctor_words import Finding, error, info, many, ok, some, warning
from status.errors import LogUnavailable
from status.keys import Keys
from status.survey import Survey

if TYPE_CHECKING:
    from status.doctor import Visit

#: A sweep raises a tick once a second; a busy machine may be late.
WATCH_S = 2.5
LOOK_EVERY_S = 0.1

#: What is due is looked at within a tick, and then put off. Left for longer, the sweep has not got to it.
LATE_TICKS = 15
LATE_TIMER_S = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A shard, as it was watched for a moment.

    Attributes:
        sweeper: Who holds its lease, or ''.
        moved: Whether its tick was raised meanwhile.
        waiting: How much is due or on the timers.
        late: Entries of `due` that the sweep should have looked at long ago.
        late_timers: Those that should have fired.
    """

    number: int
    sweeper: str = ""
    moved: bool = False
    waiting: int = 0
    late: int = 0
    late_timers: int = 0


def look(visit: Visit) -> Iterator[Finding]:
    """All about the runs."""
    shards = watch_shards(visit.redis, visit.keys, limit_s=WATCH_S)
    yield counts(visit.survey)
    yield sweep(shards)
    yield from backlog(shards)
    yield from parked(visit.survey.parked)
    yield from undo_failed(still_owing(visit.survey.undo_failed))
    yield from stuck(visit.survey)
    yield from scan_keys(visit.redis)


def watch_shards(redis: Redis, keys: Keys, *, limit_s: float) -> list[Shard]:
    """Watch the ticks until all have moved that should, or the time is up."""
    before, end_s = _ticks(redis, keys), monotonic() + limit_s
    while True:
        now = _ticks(redis, keys)
        moved = [was != is_now for was, is_now in zip(before, now, strict=True)]
        if all(moved) or monotonic() >= end_s:
            return _shards(redis, keys, moved)
        sleep(LOOK_EVERY_S)


def _ticks(redis: Redis, keys: Keys) -> list[int]:
    pipe = redis.pipeline(transaction=False)
    for shard in range(keys.shards):
        pipe.get(keys.tick(shard))
    return [int(text or 0) for text in pipe.execute()]


def _shards(redis: Redis, keys: Keys, moved: list[bool]) -> list[Shard]:
    seconds, _ = redis.time()
    ticks = _ticks(redis, keys)
    pipe = redis.pipeline(transaction=False)
    for number, tick in enumerate(ticks):
        pipe.get(keys.lease(number))
        pipe.zcard(keys.due(number))
        pipe.zcard(keys.timers(number))
        pipe.zcount(keys.due(number), "-inf", tick - LATE_TICKS)
        pipe.zcount(keys.timers(number), "-inf", (seconds - LATE_TIMER_S) * 1000)
    answers = pipe.execute()
    return [
        Shard(
            number=number,
            sweeper=(lease or "").rpartition("~")[0],
            moved=moved[number],
            waiting=due + timers,
            late=late,
            late_timers=late_timers,
        )
        for number, (lease, due, timers, late, late_timers) in enumerate(zip(*[iter(answers)] * 5, strict=True))
    ]


def counts(found: Survey) -> Finding:
    """How many runs there are."""
    told = ", ".join(f"{number:,} {state}" for state, number in found.counts.items() if number)
    return ok("runs", told or "there are none yet")


def sweep(shards: list[Shard]) -> Finding:
    """Whether somebody looks after what is unfinished."""
    still = [shard for shard in shards if not shard.moved]
    waiting = sum(shard.waiting for shard in still)
    if not still:
        return ok("runs.sweep", f"{many(len(shards), 'shard')} swept by {_sweepers(shards)}")
    numbers = some((f"{shard.number:02}" for shard in still), 8)
    seen = (
        "nobody sweeps: no tick was raised"
        if len(still) == len(shards)
        else f"the tick of shard {numbers} stands still"
    )
    remedy = "start a worker of this app: each of them sweeps"
    if waiting:
        return error(
            "runs.sweep", f"{seen} while {many(waiting, 'thing')} there wait{_s(waiting)}", _remedy(still, remedy)
        )
    return info("runs.sweep", f"{seen}; nothing there waits for it", _remedy(still, remedy))


def _remedy(still: list[Shard], remedy: str) -> str:
    holders = {shard.sweeper for shard in still} - {""}
    return f"see the log of {some(holders)}, which holds the lease" if holders else remedy


def _sweepers(shards: list[Shard]) -> str:
    return some({shard.sweeper for shard in shards if shard.sweeper} or {"a worker that has just let go"})


def backlog(shards: list[Shard]) -> Iterator[Finding]:
    """What the sweep, where there is one, should have come to."""
    # Where a tick stands still nothing becomes late by it; `sweep` has said so.
    late = sum(shard.late for shard in shards if shard.moved)
    timers = sum(shard.late_timers for shard in shards if shard.moved)
    for number, what in ((late, "thing that is due was"), (timers, "timer that is due was")):
        if number:
            plural = what if number == 1 else what.replace(" that is due was", "s that are due were")
            yield error(
                "runs.overdue",
                f"{number:,} {plural} not looked at for long: the sweep fails, or can't keep up",
                "see the workers' logs for errors of celeriac",
            )


def parked(reasons: Mapping[str, str]) -> Iterator[Finding]:
    """Runs that wait for other code; a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for run_id, reason in reasons.items():
        by_reason.setdefault(" ".join(reason.split()), []).append(run_id)
    for reason, ids in sorted(by_reason.items()):
        yield warning(
            "runs.parked",
            f"{many(len(ids), 'run')} parked ({some(ids)}): {reason}",
            f"start workers with code that fits: they go on by themselves; or `runs cancel {min(ids)} --abandon`",
        )


def still_owing(ids: Sequence[str]) -> list[str]:
    """Of runs whose rollback stopped, those of which it is not known that nothing is owed any more."""
    try:
        return [run_id for run_id in ids if not any(settled(run_id) for settled in here.settled)]
    except LogUnavailable:  # the look at the log says so
        return list(ids)


def undo_failed(ids: Sequence[str]) -> Iterator[Finding]:
    """Runs whose rollback stopped at an undo that gave up."""
    if ids:
        yield warning(
            "runs.undo_failed",
            f"{many(len(ids), 'run')} ended with something that is not undone ({some(ids)})",
            "`runs saga show ID` says what is still owed; `runs saga retry ID` tries its undo again; `skip`, `abort`: "
            "see its --help",
        )


def stuck(found: Survey) -> Iterator[Finding]:
    """Runs that nothing would move on: there should be none, ever."""
    if found.stuck:
        yield error(
            "runs.stuck",
            f"{many(len(found.stuck), 'run')} with nothing due and no open await ({some(found.stuck)})",
            "this is a bug of celeriac, or keys were deleted: keep `runs show ID --json`, cancel the run",
        )


def _s(number: int) -> str:
    return "s" if number == 1 else ""
