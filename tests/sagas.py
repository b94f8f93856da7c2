"""A saga played in this process, on a real Redis and a real database, that dies at any write it makes.

`World` is the broker and one worker: it takes messages one after the other and runs steps as Celery's tracer would.
A write is a transition, a batch of messages, or a transaction in SQL; it may die before each and after each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
from celery import Celery
from sqlalchemy import text

from canvas import Retry, TerminalError, current_step, perform, settling, step
from canvas.engine import Engine
from canvas.pulse import Sweeper
from canvas.turn import take_turn
from saga import database, receipt
from saga.log import SagaLog
from status.records import PartRef, Timer
from status.settings import Settings
from status.states import FINAL
from status.store import Store


class Killed(BaseException):
    """The process is gone, at this write."""


class World:
    """Broker, worker and sweep.

    Attributes:
        inbox: What lies in the queues: a step's place and spec, or a run id for a turn.
        bodies: Idempotency keys of the steps whose body began, in order.
        while_it_runs: What happens, once, when the body of that name begins; `after NAME`: when it had its effect.
        kill_at: The point to die at, counted from 0; each write is two of them, before and after it.
        kill_when: The name of the point to die at, once.
        points: How many points were passed.
    """

    def __init__(self, app: Celery, client: redis.Redis) -> None:
        self.app, self.redis = app, client
        self.inbox: list[Any] = []
        self.bodies: list[str] = []
        self.while_it_runs: dict[str, Callable[[], None]] = {}
        self.kill_at, self.points = -1, 0
        self.kill_when = ""
        self.died = ""
        self.start()

    # --- a process -------------------------------------------------------------------

    def start(self) -> None:
        """A new process: nothing is left of the one before but what it wrote."""
        self.store = Store(self.redis, Settings())
        call = self.store._scripts.call

        def faulty(name: str, *args: Any) -> Any:
            with self.write(name):
                return call(name, *args)

        self.store._scripts.call = faulty  # type: ignore[method-assign]
        self.engine = Engine(self.app, self.store)
        self.engine.publisher = self  # type: ignore[assignment]
        self.app.__dict__["_celeriac"] = self.engine
        self.sweeper = Sweeper(self.engine, "world")
        self.sweeper.backlog = self  # type: ignore[assignment]

    @contextmanager
    def write(self, what: str) -> Iterator[None]:
        self._point(f"before {what}")
        yield
        self._point(f"after {what}")

    def _point(self, where: str) -> None:
        if self.points == self.kill_at or where == self.kill_when:
            self.points += 1
            self.kill_when = ""
            self.died = where
            raise Killed(where)
        self.points += 1

    # --- as the engine sees it: a publisher, and a backlog that always says "lost" ------

    def steps(self, messages: Any, _workflow: str) -> None:
        with self.write("publish"):
            self.inbox += [(ref, json.loads(json.dumps(spec))) for ref, spec in messages]

    def turn(self, run_id: str, *_: Any, **__: Any) -> None:
        with self.write("publish turn"):
            self.inbox.append(run_id)

    def is_lost(self, *_: Any) -> bool:
        return True

    # --- what happens ----------------------------------------------------------------

    def submit(self, flow: Any, *args: Any, run_id: str = "r") -> None:
        """The client's part; nobody dies in it."""
        kill_at, self.kill_at = self.kill_at, -1
        self.store.submit(
            run_id, workflow=flow.name, input_json=flow.write_input(args, {}), digest="d", token=f"submit {run_id}"
        )
        self.inbox.append(run_id)
        self.kill_at, self.points = kill_at, 0

    def deliver(self) -> None:
        """Take the oldest message; it is lost with who dies in it."""
        taken = self.inbox.pop(0)
        if isinstance(taken, str):
            take_turn(self.engine, taken)
        else:
            self.perform(*taken)

    def perform(self, ref: PartRef, spec: dict[str, Any]) -> None:
        """What Celery's tracer does with a step's message."""
        task = self.app.tasks[spec["task"]]
        marks = {f"celeriac_{mark}": spec[mark] for mark in ("undoes", "key", "retry", "log") if spec.get(mark)}
        task.push_request(id=ref.message_id, chord={"task": "w"}, hostname="w", task=spec["task"], **marks)
        try:
            # What it raises is for the tracer: Ignore, Retry, or the step's own error.
            with suppress(Exception):
                perform.attempt(task, tuple(spec["args"]), dict(spec["kwargs"]))
            settling.write_down(task.request, self.app)
            settling.after_return(task)
        finally:
            task.pop_request()

    def sweep(self) -> None:
        """So much time goes by that every claim of a dead process has ended, and every timer is due."""
        for shard in range(self.store.keys.shards):
            self.redis.incrby(self.store.keys.tick(shard), 64)
            for member in self.redis.zrange(self.store.keys.due(shard), 0, -1):
                run_id, _, place = member.partition("/")
                n, _, p = place.partition(".")
                self.sweeper.repair(run_id, n, p)
            for member in self.redis.zrange(self.store.keys.timers(shard), 0, -1):
                self.redis.zadd(self.store.keys.timers(shard), {member: 1}, xx=True)
                self.sweeper.fire(Timer.parse(member))

    def go_on(self, run_id: str = "r", *, until: Callable[[], bool] | None = None) -> None:
        """Until the run has ended and nothing is left to do; who dies is replaced."""
        for _ in range(400):
            try:
                if until is not None and until():
                    return
                if self.inbox:
                    self.deliver()
                elif until is None and self.state(run_id) in FINAL and not self.loose(run_id):
                    return
                else:
                    self.sweep()
            except Killed:
                self.start()
        raise AssertionError(f"stuck: {self.state(run_id)} {self.error(run_id)}; died {self.died}")

    # --- looking -----------------------------------------------------------------------

    def field(self, name: str, run_id: str = "r") -> str | None:
        return self.redis.hget(self.store.keys.run(run_id), name)

    def state(self, run_id: str = "r") -> str | None:
        return self.field("state", run_id)

    def error(self, run_id: str = "r") -> str:
        return json.loads(self.field("error", run_id) or '{"message": ""}')["message"]

    def loose(self, run_id: str = "r") -> int:
        return int(self.field("loose", run_id) or 0)


world: World | None = None


def meet(name: str) -> None:
    """A step's body began; a test may let other things happen while it runs."""
    assert world is not None
    world.bodies.append(current_step().idempotency_key)
    happens(name)


def happens(when: str) -> None:
    """Let what a test wants happen now."""
    assert world is not None
    happen = world.while_it_runs.pop(when, None)
    if happen:
        happen()


# --- steps with one effect in SQL each, and what takes it back ---------------------------


def _effect(name: str, sign: int) -> str:
    assert world is not None
    with world.write(f"effect {sign:+} {name}"), database.transaction() as session, receipt(session) as r:
        if not r.done and (sign > 0 or r.acted):
            of = r.action if sign < 0 else name
            session.execute(text("INSERT INTO effects VALUES (:name, :sign)"), {"name": of, "sign": sign})
        r.store(name)
    return name


@step(name="sagas.act", retry=Retry(1))
def act(name: str) -> str:
    return _act(name)


@step(name="sagas.act_once", retry=Retry(1), idempotent=False)
def act_once(name: str) -> str:
    """It is not run again after a crash."""
    return _act(name)


@step(name="sagas.refuse", retry=Retry(1))
def refuse(name: str) -> str:
    meet(name)
    raise TerminalError(f"{name} is refused", 422)


@step(name="sagas.take_back", retry=Retry(2, first_s=0.01))
def take_back(it: str | None, name: str, padding: str = "") -> None:
    meet(f"undo {name}")
    _effect(name, -1)
    happens(f"after undo {name}")


@step(name="sagas.stuck", retry=Retry(1))
def stuck(it: str | None, name: str = "") -> None:
    meet(f"undo {name}")
    raise TerminalError("the bank is closed", 503)


def _act(name: str) -> str:
    meet(name)
    _effect(name, +1)
    happens(f"after {name}")
    return name


def create_effects() -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS effects (name TEXT, sign INTEGER)"))
        session.execute(text("DELETE FROM effects"))


def forget_all() -> None:
    """An empty database: no effect, no receipt, nothing in the log."""
    SagaLog()  # its tables are there
    with database.transaction() as session:
        for table in ("saga_log", "receipts", "effects"):
            session.execute(text(f"DELETE FROM {table}"))  # noqa: S608  # names of this file


def effects() -> list[tuple[str, int]]:
    """What happened, in order."""
    with database.session() as session:
        return [(name, sign) for name, sign in session.execute(text("SELECT name, sign FROM effects"))]


def log_states(run_id: str = "r") -> dict[str, str]:
    """Name -> state of the log's entries."""
    return {entry.name: entry.state.value for entry in SagaLog().of_run(run_id)}


def owed() -> list[str]:
    return [f"{entry.run_id} {entry.name} {entry.state}" for entry in SagaLog().open()]


def use(new: World | None) -> None:
    """The world that steps meet."""
    global world  # noqa: PLW0603
    world = new
