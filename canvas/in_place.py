"""Runs short steps where their turn is, and spares them the way through a queue.

A turn that asks for a step is in a worker's process that is free at that moment, for the step before it has just ended
there. If that worker serves the step's queue anyway, and the step has been short of late in this process, it is run
here and now, by Celery's own tracer: claimed, recorded, retried and shown like any other. The workflow goes on from
where it stands, without being replayed (see `canvas.series`). Temporal has the idea as eager activities, Restate as
`ctx.run`.

Nothing rests on it. A part that is meant to be run here is due like all others. It is claimed when its await is opened;
who has no time for it after all gives it back, and who dies leaves it to the heartbeat of its worker, or to the sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from celery.app.trace import trace_task
from celery.worker import state as worker_state

from canvas import granted, tracing, untraced
from canvas.perform import Here, limits, took_s
from canvas.publisher import tell_publishing
from canvas.series import PATIENT
from canvas.service import ServiceClient
from canvas.telling import Teller, is_watched
from status.ahead import Gives
from status.records import NONE_WANTED, Ending, NewPart, PartRef, Wanted
from status.settings import Settings
from status.tokens import new_token

if TYPE_CHECKING:
    from celery import Celery

    from canvas.call import Call
    from canvas.engine import Engine
    from canvas.publisher import Message
    from canvas.replay import Asks
    from canvas.step import Step

#: A step is known to be short by so many runs in this process, of which none took longer than `in_place_ms`. Of the
#: last few one may have: on a busy machine it had to wait for the processor.
ENOUGH, FEW = 2, 4

#: After so long in one go the next steps are sent as messages: others wait for this process.
AT_MOST_S = 0.05

#: The same where there are free threads for others. Not for ever: a message that takes long is in the way of its
#: worker's end, and of whoever looks at what the worker does.
UNHURRIED_S = 1.0

#: The longest item that is run so: its worker's end, too, waits for it.
EACH_ITEM_S = 0.25

#: Parts of one join that are run here, one after the other: as many as take no longer than one message.
TOGETHER_S, EACH_S = 0.004, 0.0005


#: Whose queues are more takes no turns from them: looking at all of them would cost more than it saves.
FEW_QUEUES = 4


@dataclass(frozen=True, slots=True)
class Place:
    """A worker, as its processes know it.

    Attributes:
        where: Its node name.
        queues: Those it serves.
        short_s: Longer than that no step may be that is run in place.
        threads: How many its pool has, if it is one of threads.
        takes_turns: Whether its processes may take turns from the broker themselves (see `canvas.next_turns`).
    """

    where: str
    queues: frozenset[str]
    short_s: float
    threads: int = 0
    takes_turns: bool = False

    def has_free_threads(self) -> bool:
        """Whether a message that comes now need not wait for the one that runs here."""
        return len(worker_state.active_requests) < self.threads and worker_state.should_stop is None


def settle_in(
    app: Celery, where: str, threads: int = 0, *, limits_messages: bool = False, counts_messages: bool = False
) -> None:
    """This process, and those that it forks, are a worker's.

    Args:
        limits_messages: Each message has so much time.
        counts_messages: A process ends after so many.
    """
    queues = frozenset(cast("Any", app).amqp.queues.consume_from)
    # A time limit is for one message; what follows in place would have to end within it.
    short_s = Settings.from_environment().in_place_ms / 1000
    served = frozenset[str]() if limits_messages else queues
    takes_turns = bool(short_s) and not counts_messages and len(served) <= FEW_QUEUES
    app.__dict__["_celeriac_place"] = Place(where, served, short_s, threads, takes_turns)


def place_of(app: Celery) -> Place | None:
    """The worker that this process is of, if it is one's."""
    place: Place | None = app.__dict__.get("_celeriac_place")
    return place


class Chosen(NamedTuple):
    """Parts of one await that are run here, one after the other; the others are sent."""

    wanted: Sequence[Wanted]  #: the claims on them
    by: InPlace


class InPlace:
    """What one turn runs by itself."""

    def __init__(self, engine: Engine, place: Place) -> None:
        self.engine = engine
        self.place = place
        self.holding = granted.Holding()
        self._since_s: float | None = None
        # Asked once in a turn, and not for each of its steps.
        self._tasks = engine.app.tasks
        self._unheard = untraced.nobody_listens(engine.app)
        self._teller = Teller(engine.app, place.where) if is_watched() else None

    def left_s(self) -> float:
        """How much longer; from when there is something to run, for the replay before may have been a long one."""
        now_s = monotonic()
        if self._since_s is None:
            self._since_s = now_s
        return self._since_s - now_s + (UNHURRIED_S if self.place.has_free_threads() else AT_MOST_S)

    def choose(self, run_id: str, asks: Asks) -> Chosen | None:
        """What of an await is run here."""
        if not asks.parts or any(part.kind != "step" for part in asks.parts):
            return None
        # What was submitted by itself is opened by whoever comes, who may not know its steps.
        if not all(hasattr(part, "plan") for part in asks.recipe.parts):
            return None
        chosen: list[Wanted] = []
        left_s, longest_name = TOGETHER_S, max((_call_of(asks, p).task_name for p in range(len(asks.parts))), key=len)
        room = granted.room_for(run_id, longest_name)
        for p, part in enumerate(asks.parts):
            call = _call_of(asks, p)
            step, cost_s = call.definition, self._cost_s(call, part)
            # One that must not run twice is claimed by itself: were the process to die before it, it might have run.
            if cost_s is not None and len(chosen) < room and (not chosen or (cost_s <= left_s and step.idempotent)):
                chosen.append(self._wanted(asks, p))
                left_s -= cost_s
            # Of parts that race with each other the others begin now.
            if chosen and (left_s <= 0 or asks.recipe.policy not in PATIENT or not step.idempotent):
                break
        return Chosen(chosen, self) if chosen else None

    def _cost_s(self, call: Call[Any], part: NewPart) -> float | None:
        """How long a part is likely to take; None if it is not run here."""
        step: Step[Any, Any] = call.definition
        # A process that may be killed serves one step alone, an undo has its own retries, a service its own workers.
        if part.delay_ms or step.interruptible or call.plan.retry is not None or isinstance(step, ServiceClient):
            return None
        return 0.0 if step.local else self.likely_s(step, part)

    def likely_s(self, step: Step[Any, Any], part: NewPart) -> float | None:
        """The same of a step that need not be run here."""
        if part.queue not in self.place.queues or self.left_s() < 0:
            return None
        if step.time_limit or step.soft_time_limit or step.rate_limit:
            return None
        longest_s = _longest_s(step)
        return longest_s + EACH_S if longest_s is not None and longest_s < self.place.short_s else None

    def is_brief(self, step: Step[Any, Any]) -> bool:
        """Whether a step, be it local, is so short that nobody needs to know of it before it is over."""
        longest_s = _longest_s(step)
        return longest_s is not None and longest_s < AT_MOST_S

    def _wanted(self, asks: Asks, p: int) -> Wanted:
        step: Step[Any, Any] = _call_of(asks, p).definition
        return Wanted(str(p), new_token(), self.place.where, *limits(step, step.policy, 1))

    def next_item(self, run_id: str, step: Step[Any, Any]) -> Wanted:
        """Of a batch, whose step has just run here: the claim on the item that gets the place of the last."""
        bounded = step.interruptible or step.time_limit or step.soft_time_limit or step.rate_limit
        bounded = bounded or not granted.room_for(run_id, step.name)
        left_s = min(self.left_s(), EACH_ITEM_S)
        if bounded or not self.place.queues or not self.place.short_s or max(took_s[step.name], default=1.0) > left_s:
            return NONE_WANTED
        return Wanted("+", new_token(), self.place.where, *limits(step, step.policy, 1))

    def run_items(self, ending: Ending | None, wanted: Wanted, workflow: str) -> Ending | None:
        """Run the items of a batch that this process is granted, one after the other. Gives how the last one ended."""
        gives: Gives = "all" if self.engine.workflow(workflow) is not None else ""
        try:
            while ending is not None and ending.grant is not None:
                (part,) = ending.publish
                spec = self.engine.spec_of(part)
                step: Any = self._tasks[spec["task"]]
                here = Here(wanted.token, ending.grant, monotonic(), gives, self.next_item(part.ref.run_id, step))
                self.holding.hold({here.token: granted.said_of(part.ref, step.name)}, here.token)
                self.run(part.ref, spec, workflow, here)
                ending, wanted = here.ending, here.wanted
        finally:
            self.over()
        return ending

    def run(self, ref: PartRef, spec: dict[str, Any], workflow: str, here: Here) -> None:
        """Run a step by Celery's tracer; or without it, if nobody would notice."""
        step: Any = self._tasks[spec["task"]]
        if self._unheard and untraced.is_plain(step, spec):
            untraced.run(step, ref, spec, workflow, here, where=self.place.where)
        else:
            self._trace(ref, self.engine.publisher.step(ref, spec, workflow), here)

    def _trace(self, ref: PartRef, message: Message, here: Here) -> None:
        """What a pool process does with a message, without sending it."""
        tell_publishing(message)
        args, kwargs, embed = message.body
        request = {
            **message.headers,
            **embed,
            "hostname": self.place.where,
            "delivery_info": {"exchange": "", "routing_key": message.queue, "priority": 0, "redelivered": False},
            "correlation_id": message.headers["id"],
            "reply_to": "",
            "is_eager": False,
            "celeriac_token": here.token,
            "celeriac_here": here,
        }
        # What tracers have put there; else Celery's own context would look for it among all of these.
        request.setdefault("headers", {})
        task: Any = self._tasks[message.headers["task"]]
        if self._teller:
            self._teller.begins(message)
        with tracing.below(self.engine.store, ref.run_id, ref.nonce):
            traced = trace_task(task, message.headers["id"], args, kwargs, request, app=self.engine.app)
        if self._teller:
            self._teller.ended(message, traced)

    def over(self) -> None:
        """The turn is: its claims too, and monitors are told."""
        self.holding.let_go()
        if self._teller:
            self._teller.let_out()


def _longest_s(step: Step[Any, Any]) -> float | None:
    """How long it took of late in this process; None: too seldom to say."""
    runs = sorted(took_s[step.name])
    if len(runs) < ENOUGH:
        return None
    return runs[-2] if len(runs) >= FEW else runs[-1]


def _call_of(asks: Asks, p: int) -> Call[Any]:
    return cast("Call[Any]", asks.recipe.parts[p])
