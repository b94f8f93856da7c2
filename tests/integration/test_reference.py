"""Random workflows, in random order, with everything lost, doubled and late, against a plain interpreter.

The store is real, and so are turns, the sweep and the timers; a broker and workers are played by `World`,
which does one random thing after the other. What a run gives must follow from nothing but the order in
which the outcomes of its steps were recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canvas import (
    AllFailed,
    Cancelled,
    Part,
    Run,
    StepFailed,
    fan_out,
    fan_out_fail,
    promise,
    quorum,
    race,
    step,
    workflow,
)
from canvas.engine import Engine
from canvas.outcomes import describe, encode_error
from canvas.pulse import Sweeper
from canvas.turn import take_turn
from core import current_app
from leaks import keys_without_end
from simulation.plans import DELAY_S, Join, Plan, message, value
from simulation.reference import Asked, Ended, Entry, NotYet, Reference
from status.reading import Reader
from status.records import PartRef, RunRecord, Timer, TurnTaken
from status.settings import Settings
from status.states import FINAL
from status.store import Store

RUN = "r"
#: Random things to do before the world turns kind, and what it then needs at most.
TROUBLE, KIND = 60, 400
#: The kind of part that the world outside ends.
PROMISE = "promise"


# --- what is run -----------------------------------------------------------------------


@step(name="reference.do")
def do(n: int, p: int) -> int:
    raise AssertionError("steps are played by the world")


@workflow(name="reference.flow")
async def flow(run: Run, plan: list[Join]) -> list[Any]:
    said: list[Any] = []
    for n, join in enumerate(plan):
        run.update_status(phase=f"join {n}")
        try:
            said.append(await _await(n, join))
        except (StepFailed, AllFailed) as error:
            errors = error.errors if isinstance(error, AllFailed) else (error,)
            said.append([type(error).__name__, [[one.index, one.message] for one in errors]])
        except Cancelled as error:
            said.append(["Cancelled", error.reason])
    run.update_status(phase="end")
    return said


def _part(n: int, p: int, join: Join) -> Part[int]:
    if join.step(p) == PROMISE:
        return promise(f"{n}.{p}", int)
    return do.s(n, p).after(DELAY_S) if join.delayed[p] else do.s(n, p)


async def _await(n: int, join: Join) -> Any:
    parts = [_part(n, p, join) for p in range(len(join.good))]
    match join.kind:
        case "await":
            return await parts[0]
        case "fan_out_fail":
            return list(await fan_out_fail(*parts))
        case "fan_out":
            result = await fan_out(*parts)
            return [list(result.results), [[p, error.message] for p, error in result.bad]]
        case "race":
            won = await race(*parts)
            return [won.index, won.value]
        case _:
            return [list(one) for one in await quorum(join.need, *parts)]


# --- the world -------------------------------------------------------------------------


@dataclass
class Body:
    """A step that a worker runs."""

    ref: PartRef
    token: str
    asleep: bool = False  #: it is stopped longer than its lease, and will wake up


@dataclass
class World:
    """Broker, workers and sweep; each does what the random numbers say."""

    app: Celery
    store: Store
    plan: list[Join]
    random: Random
    cancels: bool
    inbox: list[PartRef | str] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    asleep: list[Body] = field(default_factory=list)
    said: list[tuple[PartRef, str, str, str, dict[str, Any]]] = field(default_factory=list)
    old: list[RunRecord] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    started_early: set[tuple[int, str]] = field(default_factory=set)
    tokens: int = 0
    resolved: set[tuple[int, int]] = field(default_factory=set)
    heard: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.engine = Engine(self.app, self.store)
        self.engine.publisher = self  # type: ignore[assignment]
        self.sweeper = Sweeper(self.engine, "world")
        self.sweeper.backlog = self  # type: ignore[assignment]
        self.shard = self.store.keys.shard_of(RUN)

    # --- as the engine sees it: a publisher, and a backlog that always says "lost" ------

    def steps(self, messages: Any, _workflow: str) -> None:
        rows = list(messages)
        if self.random.random() < 0.15:
            del rows[self.random.randrange(len(rows) + 1) :]  # killed between publishes
        self.inbox += [ref for ref, _ in rows]

    def turn(self, run_id: str, *_: Any, **__: Any) -> None:
        if self.random.random() > 0.15:
            self.inbox.append(run_id)

    def is_lost(self, *_: Any) -> bool:
        return True

    # --- what may happen ----------------------------------------------------------------

    def run(self) -> None:
        self.store.submit(
            RUN,
            workflow=flow.name,
            input_json=flow.write_input((self.plan,), {}),
            digest="d",
            token=self.token(),
        )
        self.inbox.append(RUN)
        for _ in range(TROUBLE):
            if self.state in FINAL:
                break
            self.random.choice(self.deeds())()
        for _ in range(KIND):
            if self.state in FINAL:
                break
            self.be_kind()
        assert self.state == "completed", f"stuck: {self.state}, due {self.due()}"
        self.drain()

    def deeds(self) -> list[Any]:
        deeds = [self.deliver] * 6 + [self.finish] * 6
        deeds += [self.lose, self.kill, self.suspend, self.wake, self.say_again, self.fire, self.fire, self.resolve]
        deeds += [self.stale_turn, self.remember, self.sweep, self.flush_scripts]
        return [*deeds, self.cancel] if self.cancels else deeds

    def token(self) -> str:
        self.tokens += 1
        return f"t{self.tokens}"

    def deliver(self, *, twice: float = 0.25) -> None:
        if not self.inbox:
            return
        at = self.random.randrange(len(self.inbox))
        taken = self.inbox[at]
        if self.random.random() >= twice:
            del self.inbox[at]
        if isinstance(taken, str):
            self.take()
        else:
            self.begin(taken)

    def take(self, record: RunRecord | None = None) -> None:
        with suppress(TurnTaken):  # by whoever has ended the last part, and may have died since
            take_turn(self.engine, RUN, record)
        self.hear()

    def hear(self) -> None:
        """Write down which promises have got to their await: at once, or when it was opened."""
        now = self.store.load(RUN)
        assert now is not None
        for n, p in self.promises():
            outcome = now.journal.get(f"{n}.{p}")
            if outcome and (n, p) not in self.heard:
                self.heard.add((n, p))
                self.log.append(Ended(n, p, outcome[0]))

    def promises(self) -> list[tuple[int, int]]:
        return [(n, p) for n, join in enumerate(self.plan) for p in range(len(join.good)) if join.step(p) == PROMISE]

    def resolve(self) -> None:
        """The promise of any await, open, over or yet to come, gets its value."""
        if self.promises():
            self.say_outside(*self.random.choice(self.promises()))

    def say_outside(self, n: int, p: int) -> None:
        outcome, token = f"v{value(n, p)}" if self.plan[n].good[p] else self._error(n, p), self.token()
        answer, ending = self.store.resolve(RUN, f"{n}.{p}", outcome, token=token)
        assert answer == ("late" if (n, p) in self.resolved else "accepted")
        self.resolved.add((n, p))
        if self.random.random() < 0.2:
            again = self.store.resolve(RUN, f"{n}.{p}", outcome, token=token)
            assert (again[0], again[1].code) == (answer, ending.code), "the same token, another answer"
        before = len(self.log)
        self.hear()
        assert (ending.code == "decided") is (len(self.log) > before and decides(self.plan, self.log))
        if self.random.random() > 0.2 and self.engine.go_on(RUN, ending):
            self.take()

    def begin(self, ref: PartRef) -> None:
        token = self.token()
        grant = self.store.begin(ref, token=token, where="")
        if self.random.random() < 0.2:
            assert self.store.begin(ref, token=token, where="").code == grant.code, "the same token, another answer"
        if not grant.granted:
            return
        place = (ref.n, ref.p)
        assert place not in {(body.ref.n, body.ref.p) for body in self.bodies}, f"{place} runs twice"
        if self.plan[ref.n].delayed[int(ref.p)] and place not in self.started_early:
            before = {(entry.n, entry.p) for entry in self.log if isinstance(entry, Ended) and entry.came != "v"}
            assert self.plan[ref.n].kind == "race"
            assert all((ref.n, p) in before for p in range(int(ref.p))), f"{place} began before its time"
        self.bodies.append(Body(ref, token))

    def finish(self, body: Body | None = None, *, careful: bool = False) -> None:
        if body is None:
            if not self.bodies:
                return
            body = self.bodies.pop(self.random.randrange(len(self.bodies)))
        n, p = body.ref.n, int(body.ref.p)
        join = self.plan[n]
        if body.ref.attempt <= join.flaky[p]:
            kind, outcome = "retry", self._error(n, p)
        else:
            kind, outcome = ("done", f"v{value(n, p)}") if join.good[p] else ("failed", self._error(n, p))
        self.say(body.ref, body.token, kind, outcome, careful=careful)

    @staticmethod
    def _error(n: int, p: int) -> str:
        return encode_error(describe(ValueError(message(n, p)), step="reference.do"))

    def say(self, ref: PartRef, token: str, kind: Any, outcome: str, *, careful: bool = False) -> None:
        seen = self.store.load(RUN)
        assert seen is not None
        was_recorded = f"{ref.n}.{ref.p}" in seen.journal
        ending = self.store.finish(
            ref, token=token, kind=kind, outcome=outcome, began_ms=1, retry_in_ms=60_000, gives="all"
        )
        self.said.append((ref, token, kind, outcome, {}))
        now = self.store.load(RUN)
        assert now is not None
        if not was_recorded and f"{ref.n}.{ref.p}" in now.journal:
            self.log.append(Ended(ref.n, int(ref.p), outcome[0]))
            decided = decides(self.plan, self.log)
            assert (ending.code == "decided") is decided, f"{ending.code} after {self.log}"
        elif was_recorded:
            assert seen.journal[f"{ref.n}.{ref.p}"] == now.journal[f"{ref.n}.{ref.p}"], "an outcome was changed"
        dies = not careful and self.random.random() < 0.2
        if not dies and self.engine.go_on(RUN, ending):
            self.take(ending.record)

    def say_again(self) -> None:
        """A lost reply: the same call once more; or a stranger that did the same work."""
        if self.said:
            ref, token, kind, outcome, _ = self.random.choice(self.said)
            if self.random.random() < 0.3:
                token = self.token()
            self.say(ref, token, kind, outcome)

    def lose(self) -> None:
        if self.inbox:
            del self.inbox[self.random.randrange(len(self.inbox))]

    def kill(self) -> None:
        if self.bodies:
            del self.bodies[self.random.randrange(len(self.bodies))]

    def suspend(self) -> None:
        if self.bodies:
            self.asleep.append(self.bodies.pop(self.random.randrange(len(self.bodies))))

    def wake(self) -> None:
        if self.asleep:
            self.finish(self.asleep.pop(self.random.randrange(len(self.asleep))))

    def fire(self) -> None:
        timers = self.store.redis.zrange(self.store.keys.timers(self.shard), 0, -1)
        if timers:
            member = self.random.choice(timers)
            self.store.redis.zadd(self.store.keys.timers(self.shard), {member: 1})
            timer = Timer.parse(member)
            if timer.kind == "start":
                self.started_early.add((int(timer.n), timer.p))
            self.sweeper.fire(timer)

    def remember(self) -> None:
        record = self.store.load(RUN)
        assert record is not None
        self.old.append(record)

    def stale_turn(self) -> None:
        if self.old:
            self.take(self.random.choice(self.old))
        else:
            self.take()

    def cancel(self) -> None:
        self.cancels = False
        ending = self.store.cancel(RUN, "enough", token=self.token())
        if ending.code != "late":
            self.log.append(Asked(ending.code, "enough"))
        if self.random.random() < 0.5 and self.engine.go_on(RUN, ending):
            self.take()

    def sweep(self) -> None:
        claims = [(body.ref.n, body.ref.p, body.token) for body in self.bodies]
        self.store.vouch(RUN, claims)
        self.store.redis.incrby(self.store.keys.tick(self.shard), 3)
        self.store.vouch(RUN, claims)
        self.store.redis.incrby(self.store.keys.tick(self.shard), 3)
        for member in self.due():
            run_id, _, place = member.partition("/")
            n, _, p = place.partition(".")
            self.sweeper.repair(run_id, n, p)

    def flush_scripts(self) -> None:
        self.store.redis.script_flush()

    # --- the end -------------------------------------------------------------------------

    def be_kind(self) -> None:
        """Nothing more goes wrong."""
        if self.inbox:
            self.deliver(twice=0)
        elif self.bodies:
            self.finish(careful=True)
        elif self.asleep:
            self.bodies.append(self.asleep.pop())
            self.finish(careful=True)
        elif left := [place for place in self.promises() if place not in self.resolved]:
            self.say_outside(*left[0])
        else:
            self.store.redis.incrby(self.store.keys.tick(self.shard), 64)
            self.sweep()
            self.fire()

    def drain(self) -> None:
        """What still runs ends after the run; then nothing of it may be left."""
        for body in [*self.bodies, *self.asleep]:
            self.finish(body, careful=True)
        self.bodies.clear()
        self.asleep.clear()
        for _ in range(10):
            self.store.redis.incrby(self.store.keys.tick(self.shard), 64)
            self.sweep()

    @property
    def state(self) -> str:
        return str(self.store.redis.hget(self.store.keys.run(RUN), "state"))

    def due(self) -> list[str]:
        return list(self.store.redis.zrange(self.store.keys.due(self.shard), 0, -1))


def decides(plan: list[Join], log: list[Entry]) -> bool:
    """Whether the last entry of the log decided an await."""
    reference = Reference(Plan(plan), log)
    with suppress(NotYet):
        reference.state()
    return reference.decided_at[-1:] == [len(log) - 1]


# --- the property ------------------------------------------------------------------------


@st.composite
def joins(draw: st.DrawFn) -> Join:
    kind = draw(st.sampled_from(["await", "fan_out_fail", "fan_out", "race", "quorum"]))
    size = 1 if kind == "await" else draw(st.integers(1, 4))
    parts = st.lists(st.booleans(), min_size=size, max_size=size)
    flaky = st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=size, max_size=size)
    delayed = draw(parts) if draw(st.booleans()) else [False] * size
    kinds = [PROMISE if outside else "do" for outside in draw(parts)] if draw(st.booleans()) else []
    return Join(kind, draw(parts), draw(flaky), delayed, draw(st.integers(1, size)), steps=kinds)


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    with current_app("reference") as made:
        yield made


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=st.lists(joins(), min_size=1, max_size=4), seed=st.integers(0, 2**32), cancels=st.booleans())
def test_a_run_gives_what_the_order_of_its_outcomes_says(app, redis_client, plan, seed, cancels):
    redis_client.flushall()
    store = Store(redis_client, Settings(shards=1, max_lives=1000))
    world = World(app, store, plan, Random(seed), cancels)

    world.run()

    record = store.load(RUN)
    assert record is not None
    reference = Reference(Plan(plan), world.log)
    assert reference.state() == "completed"
    assert json.loads(record.fields["result"]) == reference.said
    assert record.fields["phase"] == "end"
    history = Reader(redis_client, store.keys).history(RUN)
    decisions = [event.name for event in history if event.kind == "join.decided"]
    assert decisions == [str(n) for n in range(len(plan))]
    assert int(record.fields.get("loose") or 0) == 0
    left = {key for key in redis_client.scan_iter("*") if ":join:" in key}
    assert (left, world.due(), redis_client.zrange(store.keys.timers(0), 0, -1)) == (set(), [], [])
    assert keys_without_end(redis_client) == []
