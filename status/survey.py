"""What the runs of a Redis are up to, counted and sampled, without changing anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from redis import Redis

from status.keys import Keys
from status.models import error_from_json
from status.reading import Reader
from status.states import FINAL, State, StepState

#: The oldest runs of each state and shard are looked at, this many; where there are more, numbers are "at least".
SAMPLE = 25

#: Of runs that wait for other code, and of rollbacks that stopped, this many are named.
NAMED = 50

_UNFINISHED = tuple(state for state in State if state not in FINAL)

#: States in which the engine itself owes the run the next thing: a turn, or an open await.
_MOVING = tuple(state for state in _UNFINISHED if state is not State.SUSPENDED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfinished:
    """A run that has not ended.

    Attributes:
        waits_on: The queues on which its steps wait.
    """

    run_id: str
    workflow: str
    state: State
    waits_on: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """The runs, as they were at one moment.

    Attributes:
        counts: How many there are in each state.
        sample: Some of those that have not ended, the oldest.
        parked: Run id -> why it waits for other code. All of them, up to `NAMED` a shard.
        undo_failed: Ids of runs whose rollback stopped.
        stuck: Ids of sampled runs that nothing would ever move on.
    """

    counts: Mapping[State, int]
    sample: tuple[Unfinished, ...] = ()
    parked: Mapping[str, str]
    undo_failed: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()

    @property
    def unfinished(self) -> int:
        """How many have not ended."""
        return sum(self.counts.get(state, 0) for state in _UNFINISHED)

    @property
    def is_complete(self) -> bool:
        """Whether the sample has all of them."""
        return len(self.sample) >= self.unfinished


def survey(redis: Redis, keys: Keys) -> Survey:
    """Look at the runs. Two round trips, and one for each run that seems stuck.

    Raises:
        RedisError: It does not answer.
    """
    places = [(state, shard) for state in _UNFINISHED for shard in range(keys.shards)]
    pipe = redis.pipeline(transaction=False)
    for state, shard in places:
        pipe.zrange(keys.state(shard, state), 0, SAMPLE - 1)
    oldest = pipe.execute()
    ids = list(dict.fromkeys(run_id for rows in oldest for run_id in rows))
    rows = _read(redis, keys, ids)
    return Survey(
        counts=Reader(redis, keys).counts(),
        sample=tuple(run for run, _ in rows),
        parked=_parked(redis, keys),
        undo_failed=tuple(_newest(redis, keys, State.COMPENSATION_FAILED)),
        stuck=tuple(
            run.run_id
            for run, suspicious in rows
            if suspicious and run.state in _MOVING and _is_stuck(redis, keys, run.run_id)
        ),
    )


def _read(redis: Redis, keys: Keys, ids: Iterable[str]) -> list[tuple[Unfinished, bool]]:
    """Runs, each with whether it seems that nothing is due for it."""
    wanted = list(ids)
    pipe = redis.pipeline(transaction=False)
    for run_id in wanted:
        pipe.hmget(keys.run(run_id), ["workflow", "state", "open"])
        pipe.hgetall(keys.steps(run_id))
        pipe.zscore(keys.due(keys.shard_of(run_id)), run_id)
    answers = iter(pipe.execute())
    found = []
    for run_id, (workflow, state, awaits), steps, due in zip(wanted, answers, answers, answers, strict=False):
        if workflow and state not in FINAL:
            run = Unfinished(run_id=run_id, workflow=workflow, state=State(state), waits_on=waits_on(steps))
            found.append((run, due is None and not awaits))
    return found


def waits_on(steps: Mapping[str, str]) -> frozenset[str]:
    """The queues on which steps wait, from a run's steps hash."""
    idle = {StepState.WAITING, StepState.RETRYING}
    return frozenset(
        text.partition("|")[0]
        for place, text in steps.items()
        if not place.endswith(":s") and steps.get(f"{place}:s", StepState.WAITING).partition("|")[0] in idle
    ) - {""}


def _is_stuck(redis: Redis, keys: Keys, run_id: str) -> bool:
    """Whether nothing would ever move it on. Asked in one transaction: between two looks a run may go on."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.hmget(keys.run(run_id), ["state", "open"])
        pipe.zscore(keys.due(keys.shard_of(run_id)), run_id)
        (state, awaits), due = pipe.execute()
    return bool(state in _MOVING and not awaits and due is None)


def _parked(redis: Redis, keys: Keys) -> dict[str, str]:
    """Runs that wait for other code, with why: those that are suspended, and still owed a turn."""
    pipe = redis.pipeline(transaction=False)
    for shard in range(keys.shards):
        pipe.zinter([keys.state(shard, State.SUSPENDED), keys.due(shard)])
    ids = [run_id for rows in pipe.execute() for run_id in rows[:NAMED]]
    pipe = redis.pipeline(transaction=False)
    for run_id in ids:
        pipe.hget(keys.run(run_id), "error")
    errors = cast("list[str | None]", pipe.execute()) if ids else []
    return {run_id: _why(text) for run_id, text in zip(ids, errors, strict=True) if text}


def _why(text: str) -> str:
    error = error_from_json(text)
    return f"{error.error_type.rpartition('.')[2]}: {error.message}"


def _newest(redis: Redis, keys: Keys, state: State) -> Iterator[str]:
    pipe = redis.pipeline(transaction=False)
    for shard in range(keys.shards):
        pipe.zrange(keys.state(shard, state), 0, NAMED - 1, desc=True)
    for rows in pipe.execute():
        yield from rows


def waiting_runs(found: Survey, turn_queue: Mapping[str, str]) -> Counter[str]:
    """How many of the sampled runs wait on each queue.

    Args:
        turn_queue: The queue of each workflow's turns.
    """
    counter: Counter[str] = Counter()
    for run in found.sample:
        queues = set(run.waits_on)
        if run.state is State.PENDING and run.workflow in turn_queue:
            queues.add(turn_queue[run.workflow])
        counter.update(queues)
    return counter
