"""One run: so many orders of one side, the faults of one seed, and the wait for what is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from chaos.books import begun, open_books
from chaos.client import confirmed
from chaos.crew import Crew, crew_of
from chaos.faults import KILL_EVERY_S, Fault, plan
from saga import database
from status import here
from status.keys import Keys
from status.reading import Reader
from status.states import FINAL

LOOK_EVERY_S = 0.05
#: However slow the machine is, faults end then.
MOST_S = 240.0
#: The task that ends an order in stock Celery.
LAST = "stock.completed"
KILLS = ("parent", "group")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is done. All of it is bounded."""

    seed: int
    orders: int
    orders_per_s: float
    workers: int
    rest: str  #: ms a body takes, `shortest-longest`
    wait_s: float  #: after the last fault, for all to end
    faults: tuple[Fault, ...] | None = None  #: None: those of the seed

    @property
    def length_s(self) -> float:
        """About as long as orders are submitted."""
        return self.orders / self.orders_per_s


@dataclass(frozen=True)
class Happened:
    """A fault, when it happened (ms since 1970), and to whom."""

    fault: Fault
    at_ms: int
    whom: str


@dataclass(frozen=True)
class Ending:
    """What was seen of one run."""

    confirmed: dict[str, int]  #: order -> when its submission was confirmed, ms
    ended: dict[str, tuple[str, int]]  #: order -> its final state and when, ms
    happened: list[Happened]
    took_s: float


Say = Callable[[str], None]


def play(side: str, plan_: Plan, folder: Path, say: Say) -> Ending:
    """Submit the orders, let the faults happen, and wait until all have ended or the time is over.

    Raises:
        ChildFailed: Valkey or a worker did not start in the first place.
    """
    crew = crew_of(
        side, folder, seed=plan_.seed, orders=plan_.orders, orders_per_s=plan_.orders_per_s,
        workers=plan_.workers, rest=plan_.rest,
    )  # fmt: skip
    os.environ.update(crew.client.env)
    try:
        crew.valkey.start()
        open_books(folder)
        for worker in crew.workers:
            worker.launch()
        for worker in crew.workers:
            worker.wait(worker.is_ready, "was not ready", 60)
        return _Play(side, plan_, folder, crew, say).run()
    finally:
        crew.end()
        database.dispose()


class _Play:
    def __init__(self, side: str, plan_: Plan, folder: Path, crew: Crew, say: Say) -> None:
        self.side, self.plan, self.folder, self.crew, self.say = side, plan_, folder, crew, say
        self.ended: dict[str, tuple[str, int]] = {}
        self.happened: list[Happened] = []
        self._said_s = 0.0
        self._next_kill_s = 0.0  # those that had to wait for a worker must not come all at once

    def run(self) -> Ending:
        began_s = time.time()
        self.crew.client.env["CHAOS_BEGAN_S"] = repr(began_s)
        self.crew.client.launch()
        left = list(plan(self.plan.seed, self.plan.length_s) if self.plan.faults is None else self.plan.faults)
        end_s, asked_s = 0.0, 0.0
        while (now_s := time.time() - began_s) < min(end_s, MOST_S) + self.plan.wait_s:
            self.crew.look()
            if self.crew.submitted or now_s > MOST_S:
                left = []  # the last orders may end in peace
            left = self._let_happen(left, now_s)
            if left:
                end_s = max(end_s, now_s)
            if now_s - asked_s >= 0.5:
                asked_s = now_s
                self._ask(now_s)
                if self.crew.submitted and len(self.ended) == self.plan.orders and self._idle():
                    break
            time.sleep(LOOK_EVERY_S)
        self._ask(now_s)
        return Ending(confirmed(self.folder), self.ended, self.happened, now_s)

    def _let_happen(self, left: list[Fault], now_s: float) -> list[Fault]:
        """Gives those that are still to come. One that finds nobody comes a moment later."""
        later = []
        for fault in left:
            if fault.at_s > now_s or (fault.kind in KILLS and now_s < self._next_kill_s):
                later.append(fault)
                continue
            at_ms = time.time_ns() // 1_000_000
            whom = self.crew.happen(fault)
            if whom is not None:
                self._next_kill_s = now_s + KILL_EVERY_S - LOOK_EVERY_S if fault.kind in KILLS else self._next_kill_s
                self.happened.append(Happened(fault, at_ms, whom))
            else:
                later.append(fault)
        return later

    def _ask(self, now_s: float) -> None:
        """Learn which orders have ended by now."""
        if self.side == "stock":
            self.ended |= {one.run_id: ("completed", one.at_ms) for one in begun(self.folder) if one.task == LAST}
        else:
            self._ask_redis()
        (self.folder / "ended").write_text(str(len(self.ended)))
        if now_s - self._said_s >= 5:
            self._said_s = now_s
            self.say(f"{now_s:5.0f} s: {len(self.happened)} faults, {len(self.ended)}/{self.plan.orders} orders ended")

    def _ask_redis(self) -> None:
        try:
            with closing(here.connect(self.crew.valkey.url, timeout_s=2, retries=0)) as client:
                reader = Reader(client, Keys())
                for order_id in confirmed(self.folder):
                    if order_id not in self.ended and reader.result(order_id)[0] in FINAL:
                        status = reader.status(order_id)
                        at = status.finished_at or status.updated_at
                        self.ended[order_id] = (status.state, round(at.timestamp() * 1000))
        except (RedisError, LookupError):
            pass  # it is being killed; the next look is in a second

    def _idle(self) -> bool:
        """Whether nothing is owed any more: a race's loser may still be undone after its order has ended."""
        if self.side == "stock":
            return not self.crew.asleep
        keys = Keys()
        try:
            with closing(here.connect(self.crew.valkey.url, timeout_s=2, retries=0)) as client:
                owed = sum(int(client.zcard(keys.due(shard))) for shard in range(keys.shards))
        except RedisError:
            return False
        return owed == 0 and not self.crew.asleep
