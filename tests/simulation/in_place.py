"""Steps that a child runs where their turn is: the real choice and the real calls, and the world's time between."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery.app.task import Context

from canvas import granted, wide
from canvas.in_place import InPlace, Place
from canvas.perform import limits
from simulation.broker import Sent
from simulation.hosts import Job, SimRequest
from status.records import NONE_WANTED, PartRef, Wanted

if TYPE_CHECKING:
    from canvas.perform import Here
    from canvas.step import Step
    from simulation.hosts import Child
    from simulation.world import World
    from status.records import NewPart


class SimHolding(granted.Holding):
    """The claims of a child's turn, as its worker's heartbeat finds them on the board. A dead child changes none."""

    def __init__(self, world: World, child: Child) -> None:
        super().__init__()
        self._world, self._child = world, child
        self.lease = ""
        self.rows: list[tuple[SimRequest, bool]] = []
        child.holding = self

    def hold(self, claims: Mapping[str, str], running: str = "") -> None:
        if self._child.dead:
            return
        self.drop()
        for token, said in claims.items():
            _, _, message_id, task = said.split(" ", 3)
            ref = PartRef.parse(message_id)
            assert ref is not None
            sent = Sent("", {}, None, self._world.now_ms)
            request = SimRequest(self._child.host, self._world.app.tasks[task], sent, ref, token)
            self.rows.append((request, token == running))
            self._child.host.requests.append(request)
            granted.note(token)

    def lead(self, lease: str, _what: str) -> None:
        if not self._child.dead:
            self.drop()
            self.lease = lease

    def drop(self) -> None:
        self.lease = ""
        for request, _ in self.rows:
            granted.forget(request.celeriac_token)
            self._child.host.requests.remove(request)
        self.rows = []


class SimInPlace(InPlace):
    """As the current child would."""

    def __init__(self, world: World, *, brief: bool) -> None:
        self._world, self._brief = world, brief
        self._host = world.current.host
        super().__init__(world.engine, Place(self._host.name, frozenset(), 0.0))
        self.holding = SimHolding(world, world.current)

    def likely_s(self, _step: Step[Any, Any], _part: NewPart) -> float | None:
        return 0.0001 if self._brief else self._world.random.choice([0.0005, 0.0005, 0.003, None])

    def is_brief(self, _step: Step[Any, Any]) -> bool:
        return self._brief or self._world.random.random() < 0.8

    def left_s(self) -> float:
        return self._world.random.choice([0.05, 0.05, 0.05, -1.0])

    def next_item(self, _run_id: str, step: Step[Any, Any]) -> Wanted:
        if step.interruptible or self._world.random.random() < 0.4:
            return NONE_WANTED
        return Wanted("+", uuid4().hex, self._host.name, *limits(step, step.policy, 1))

    def run(self, ref: PartRef, spec: dict[str, Any], workflow: str, here: Here) -> None:
        world, child = self._world, self._world.current
        message = world.engine.publisher.step(ref, spec, workflow)
        args, kwargs, embed = message.body
        task = world.app.tasks[message.headers["task"]]
        sent = Sent(message.queue, message.headers, message.body, world.now_ms)
        headers = {**message.headers, "hostname": self._host.name, "celeriac_token": here.token, "celeriac_here": here}
        context = Context(headers, args=args, kwargs=kwargs, chord=embed["chord"], called_directly=False)
        request = SimRequest(self._host, task, sent, ref, here.token)
        outer, child.job = child.job, Job(sent, task, context, request, here.grant, ends=True)
        if here.keeps == "all":
            world.watch.goes_ahead(child, ref, here.token)
        world.watch.begins(here.token)
        try:
            world.work(world.faults.in_place_ms())
            child.in_place()
        finally:
            child.job = outer


class Habits:
    """Whether the processes of a world run anything in place, and which of its joins are wide.

    Not in all worlds, so that the way by messages is played too.
    """

    def __init__(self, seed: int) -> None:
        self.some = Random(f"in place {seed}").random() < 0.6
        #: All steps are short, so that turns go far ahead of the journal.
        self.brief = self.some and Random(f"brief {seed}").random() < 0.4

        own = self._random = Random(f"wide {seed}")
        wide.LEAST = own.choice([2, 2, 33])
        wide.WINDOW, wide.CHUNK = own.randint(1, 3), own.randint(1, 3)

    def in_place(self, world: World) -> SimInPlace | None:
        return SimInPlace(world, brief=self.brief) if self.some else None

    def widens_by(self, _step: Step[Any, Any]) -> int:
        return self._random.choice([0, 1, 1, 2, 4])
