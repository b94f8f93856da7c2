"""The heartbeat of a worker: vouches for the claims of the steps that run in it, each second.

A claim is good for four ticks, of a second each. Who does not vouch for it any more is dead, whatever process lives.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.worker import state as worker_state
from redis.exceptions import RedisError

from canvas import granted, in_place
from canvas.perform import limits, policy_of
from canvas.request import give_away
from canvas.retry import Retry
from status.advice import advice
from status.records import PartRef

if TYPE_CHECKING:
    from canvas.engine import Engine

logger = logging.getLogger("celeriac")

#: Between two heartbeats. A claim is dead after four ticks, of a second each, without one. A pool process that has
#: died is found as soon: the pool itself looks every 5 s, where it missed that its pipe was closed.
BEAT_S = 1.0


class Held(NamedTuple):
    """A claim that somebody in this worker holds."""

    ref: PartRef
    token: str
    step: Any
    policy: Retry
    where: str
    leads: bool = False  #: it is a turn's lease

    @property
    def claim(self) -> tuple[int, str, str]:
        """As the store wants it."""
        return self.ref.n, "turn" if self.leads else self.ref.p, self.token


class Heartbeat:
    """Vouches for the claims of what runs in this worker."""

    def __init__(self, engine: Engine, at_each_beat: Callable[[], None] = lambda: None) -> None:
        self.engine = engine
        self._at_each_beat = at_each_beat
        place = in_place.place_of(engine.app)
        self._where = place.where if place else ""
        self._rest = threading.Event()
        self._stopping = False
        self._leaving: set[str] = set()  # tokens of claims that the store knows to be leaving

    def stopping(self, **_: Any) -> None:
        """The worker was told to stop: say so at once, before whoever told it loses patience."""
        self._stopping = True
        self._rest.set()

    def _say_leaving(self, by_run: dict[str, list[Held]]) -> None:
        for run_id, running in by_run.items():
            new = [held.claim for held in running if held.token not in self._leaving and not held.leads]
            if new:
                self.engine.store.leaving(run_id, new)
                self._leaving.update(token for _, _, token in new)

    def beat_for_ever(self) -> None:
        """Once a second, until the process ends."""
        while True:
            start_s = monotonic()
            try:
                self.beat()
            except RedisError as error:
                logger.warning("no heartbeat: %s", advice(error))
            except Exception:  # without its thread, all that runs here would be given to others
                logger.exception("no heartbeat")
            self._rest.wait(max(0.05, BEAT_S - (monotonic() - start_s)))
            self._rest.clear()

    def beat(self) -> int:
        """Renew what runs now. Returns how many claims."""
        self._at_each_beat()
        by_run: dict[str, list[Held]] = defaultdict(list)
        for held in self._held():
            by_run[held.ref.run_id].append(held)
        if self._stopping:
            self._say_leaving(by_run)
        return sum(self._vouch(run_id, running) for run_id, running in by_run.items())

    def _held(self) -> Iterator[Held]:
        for request in list(worker_state.active_requests):
            ref: PartRef | None = getattr(request, "celeriac_ref", None)
            if ref is not None:
                policy = policy_of(request.task, request.request_dict.get("celeriac_retry"))
                yield Held(ref, request.celeriac_token, request.task, policy, request.hostname or "")
        gone = set()
        for found in granted.in_place():
            if not granted.is_there(found.pid):
                gone.add(found.pid)
            elif not found.taken:
                # A task that only its process knows, since it came to it later, is vouched for all the same.
                step: Any = self.engine.app.tasks.get(found.task)
                policy = Retry() if found.leads or step is None else step.policy
                yield Held(found.ref, found.token, step, policy, self._where, found.leads)
        for pid in gone:
            give_away(self.engine, pid)

    def _vouch(self, run_id: str, running: list[Held]) -> int:
        held = self.engine.store.vouch(run_id, [one.claim for one in running])
        if held < len(running):
            # It waits for its grant, or has just ended; or Redis was restarted, and its claim is lost.
            for one in running:
                if granted.runs(one.token) and not one.leads and one.step is not None:
                    self._reassert(one)
        return held

    def _reassert(self, held: Held) -> None:
        timeout_ms, retry_in_ms = limits(held.step, held.policy, held.ref.attempt)
        self.engine.store.grace.reassert(
            held.ref,
            token=held.token,
            where=held.where,
            interruptible=held.step.interruptible,
            timeout_ms=timeout_ms,
            retry_in_ms=retry_in_ms,
        )
