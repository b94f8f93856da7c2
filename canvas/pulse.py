"""What a worker does beside its steps: vouch for those that run, fire timers, and put back what got lost.

Two threads, started with the worker and ended with its process, not with the bootstep: a worker that is
told to stop still has steps to vouch for until its pool has drained.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from functools import cached_property, partial
from time import monotonic, time
from typing import TYPE_CHECKING, Any, assert_never, cast
from uuid import uuid4

from celery import bootsteps, signals
from celery.concurrency.thread import TaskPool as ThreadPool
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from canvas import children, in_hand, in_place, stopping, telling, turn, warm, worker_info
from canvas import engine as engines
from canvas.backlog import Backlog, can_be_asked
from canvas.heartbeat import BEAT_S, Heartbeat
from canvas.lives import lives_used_up
from canvas.outcomes import encode_unknown
from canvas.publisher import FIRST, LAST
from status.advice import advice
from status.errors import OrchestrationError
from status.places import revive
from status.records import DeadClaim, Ending, OwedNews, OwedPart, OwedStop, OwedTurn, PartRef, Timer

if TYPE_CHECKING:
    from canvas.engine import Engine

logger = logging.getLogger("celeriac")


class Pulse(bootsteps.StartStopStep):
    """The worker bootstep."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        # Before the pool forks its processes, which are to know it too.
        threads = worker.concurrency if issubclass(worker.pool_cls, ThreadPool) else 0
        in_place.settle_in(
            worker.app,
            worker.hostname,
            threads,
            limits_messages=bool(worker.time_limit or worker.soft_time_limit),
            counts_messages=bool(worker.max_tasks_per_child),
        )
        in_hand.starts()
        warm.compile_codecs(worker.app)
        signals.worker_process_init.connect(partial(warm.connect, worker.app), weak=False)
        telling.watch(bool(worker.task_events))  # and with each beat of its heart as monitors have it by then

    def start(self, worker: Any) -> None:
        """Start the threads; also after a restart of the consumer, when they run already."""
        if getattr(worker, "celeriac_pulse", None):
            return
        engine = engines.of(worker.app)
        heartbeat = Heartbeat(engine, partial(_tell_pool, worker))
        signals.worker_shutting_down.connect(heartbeat.stopping, weak=False)
        signals.worker_shutting_down.connect(in_hand.stops, weak=False)
        worker.celeriac_pulse = [
            _thread("celeriac-heartbeat", heartbeat.beat_for_ever),
            _thread("celeriac-timers", Sweeper(engine, worker.hostname).sweep_for_ever),
        ]

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Called for each new connection: look for dead pool processes as often as the heart beats."""
        look = getattr(worker.pool, "maintain_pool", None)
        if look is not None:
            hub.call_repeatedly(BEAT_S, look)

    def stop(self, worker: Any) -> None:
        """Nothing: the threads end with the process."""


def _thread(name: str, target: Any) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def _revive() -> None:
    # The embedded server ends with the process that started it, which may have been a client that came first.
    try:
        revive()
    except OrchestrationError as error:
        logger.error("%s", error)  # noqa: TRY400  # said in a line; the worker goes on trying


def _tell_pool(worker: Any) -> None:
    """What is set in this process while the worker runs."""
    telling.watch(_sends_events(worker))
    turns = (task for task in list(worker.app.tasks.values()) if getattr(task, "is_workflow", False))
    in_hand.limits(any(task.rate_limit or task.time_limit or task.soft_time_limit for task in turns))


def _sends_events(worker: Any) -> bool:
    dispatcher = getattr(worker.consumer, "event_dispatcher", None)
    if dispatcher is None:  # it has not connected yet: what it was told at its start
        return bool(worker.task_events)
    # It is enabled for its heartbeats alone, too; monitors that switch events on add the tasks to its groups.
    return bool(dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups))


class Sweeper:
    """Fires timers when they are due, and looks once a second at what nobody has moved on."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = f"{name}~{uuid4().hex[:8]}"
        self._shards = range(engine.store.keys.shards)
        self._next_sweep_s = 0.0
        self._next_s: dict[int, float] = {}  # when a shard's next timer is due, on our monotonic clock
        self._ahead_ms = 0.0  # Redis' clock before ours
        self.backlog = Backlog(engine.app)
        self._later: list[tuple[float, Callable[[], None]]] = []  # what is to be sent when, on our monotonic clock

    def sweep_for_ever(self) -> None:
        """Until the process ends. Wakes when a timer is due, or was set, and once a second."""
        shards = {self.engine.store.keys.wake(shard): shard for shard in self._shards}
        while True:
            try:
                with cast("Any", self.engine.store.redis).pubsub(ignore_subscribe_messages=True) as wake:
                    wake.subscribe(*shards)
                    while True:
                        told = wake.get_message(timeout=self.round())
                        if told is not None:
                            self.hear_of_timer(shards[told["channel"]], int(told["data"]))
            except (RedisError, OperationalError, OSError) as error:
                logger.warning("timers and sweep wait for Redis: %s", advice(error))
                _revive()
                threading.Event().wait(BEAT_S)
            except Exception:  # of one run, perhaps; without this thread no timer of any would fire
                logger.exception("timers and sweep go on after an error")
                threading.Event().wait(BEAT_S)

    def round(self) -> float:
        """Do what is due. Returns how long nothing will be, in seconds."""
        if monotonic() >= self._next_sweep_s:
            self._next_sweep_s = monotonic() + BEAT_S
            self.backlog.look_again()
            # Whatever was heard or missed: once a second each of them is looked at.
            self._next_s = {shard: 0.0 for shard in self._shards if self.sweep(shard)}
        now_s = monotonic()
        self.fire_due([shard for shard, at_s in self._next_s.items() if at_s <= now_s])
        if self._later:
            self._send_later_ones(now_s)
        next_s = [self._next_sweep_s, *self._next_s.values(), *(at_s for at_s, _ in self._later)]
        return max(0.001, min(next_s) - monotonic())

    def _send_later_ones(self, now_s: float) -> None:
        due = [send for at_s, send in self._later if at_s <= now_s]
        self._later = [one for one in self._later if one[0] > now_s]
        for send in due:
            send()

    def _send(self, since_ms: int, send: Callable[[], None]) -> None:
        """Send now; or, what a worker has turned down, at a time that is not in step with anything.

        Redis gives a message to the worker that has waited longest, and idle workers ask anew once a second: sent each
        time at the same moment of the second, it would come to the same worker each time.
        """
        if since_ms:
            send()
        else:
            self._later.append((monotonic() + random.random() * BEAT_S, send))  # noqa: S311  # no secret

    def fire_due(self, shards: list[int]) -> None:
        """Fire what is due on these shards, and learn when they are to be looked at again."""
        if not shards:
            return
        due, next_ms, redis_ms = self.engine.store.due_timers(shards)
        self._ahead_ms = redis_ms - time() * 1000
        for shard in shards:
            self._next_s[shard] = self._when(next_ms[shard]) if shard in next_ms else self._next_sweep_s
        for timer in due:
            self.fire(timer)

    def hear_of_timer(self, shard: int, at_ms: int) -> None:
        """A timer was set that is due at `at_ms` of Redis' clock; another worker's shard is none of ours."""
        if shard in self._next_s:
            self._next_s[shard] = min(self._next_s[shard], self._when(at_ms))

    def _when(self, at_ms: int) -> float:
        """A time of Redis' clock on our monotonic one."""
        return monotonic() + (at_ms - self._ahead_ms) / 1000 - time()

    def fire(self, timer: Timer) -> None:
        """Do what one timer is for."""
        token = uuid4().hex
        ending = self.engine.store.fire(timer, token=token)
        if ending.code == "expired":
            self.engine.cancel(timer.run_id, "its time was up", code=408)
        else:
            self._go_on(timer.run_id, ending)

    def sweep(self, shard: int) -> bool:
        """Take a shard's clock one tick on and repair what is due. Returns whether this worker sweeps it."""
        due = self.engine.store.sweep(shard, self.name)
        for member in due or ():
            run_id, _, place = member.partition("/")
            n, _, p = place.partition(".")
            self.repair(run_id, n, p)
        return due is not None

    def repair(self, run_id: str, n: str, p: str) -> None:
        """Put one thing back on its way."""
        owed = self.engine.store.repair(run_id, n, p, asks_queues=self._asks_queues)
        match owed:
            case OwedTurn():
                queue = self.engine.turn_queue(owed.workflow, owed.queue)
                sent_with = (FIRST, LAST) if owed.first else (FIRST,)
                if self.backlog.is_lost(run_id, queue, owed.since_ms, sent_with):
                    logger.info("%s: its turn has not come, it is sent again", run_id)
                    send = partial(self.engine.send_turn, run_id, owed.workflow, queue=queue, again=0)
                    self._send(owed.since_ms, send)
                    self.engine.store.count_resent(run_id, "turn")
            case OwedPart():
                if self._is_lost(owed):
                    logger.info("%s: nobody has begun it, it is sent again", owed.part.ref.step_id)
                    self._send(owed.since_ms, partial(self.engine.publish, run_id, [owed.part]))
                    self.engine.store.count_resent(run_id, "message")
            case DeadClaim():
                self.release(owed.ref)
            case OwedStop():
                children.stop(self.engine, [owed.claim])
            case OwedNews():
                children.tell(self.engine, run_id)
            case None:
                pass
            case _:
                assert_never(owed)

    @cached_property
    def _asks_queues(self) -> bool:
        return can_be_asked(self.engine.app)

    def _is_lost(self, owed: OwedPart) -> bool:
        # A child has no message that could be lost: it is not known to be there.
        if owed.queue.startswith(">"):
            return True
        sent_with = (self.engine.priority(owed.part),)
        return self.backlog.is_lost(owed.part.ref.step_id, owed.queue, owed.since_ms, sent_with)

    def release(self, ref: PartRef) -> None:
        """A claim that nobody vouches for is over."""
        outcome = encode_unknown(lives_used_up())
        ending = self.engine.store.release(ref, token="", call_token=uuid4().hex, outcome=outcome)
        if ending.code != "none":
            logger.warning("%s: its worker is gone, it is given to another", ref.step_id)
        self._go_on(ref.run_id, ending)

    def _go_on(self, run_id: str, ending: Ending) -> None:
        if self.engine.go_on(run_id, ending):
            self.engine.send_turn_of(run_id)


#: Imported for what they register: the control commands by which others stop steps here, and ask who this is.
_ = stopping, turn, worker_info
