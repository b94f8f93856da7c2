"""W4: a race of a fast and a slow step on prefork: when there is an answer, and when the loser's slot is free."""

from __future__ import annotations

import time
from typing import Any

from bench.meeting import met
from bench.stage import Crew, Stage
from bench.stock.answers import connect
from bench.workload import Figure, Part, Seen, Size, Sizes, Workload, most, total

SHARED = Crew(name="shared", module="race")


class Race(Workload):
    """`race` with `interruptible=True` against two tasks, the slower one revoked with `terminate`.

    Races follow each other at once: the next one begins while the loser of the one before may still have its slot.
    Then some are run alone, and after each answer it is measured how long it takes until all slots are free.
    """

    name = "w4"
    title = "W4: a race of 50 ms and 5 s"
    needs_its_pool = True
    parts = (
        Part("stock", "stock", SHARED, "revoke"),
        Part("ours", "ours", SHARED, "race"),
        Part("stock_alone", "stock", Crew(name="alone", module="race"), "revoke, alone"),
    )
    figures = (
        Figure("p50_ms", "answer, p50 ms", source="answer_ms"),
        Figure("max_ms", "answer, at worst, ms", source="answer_ms", fold=most),
        Figure("slot_p50_ms", "loser's slot free after the answer, p50 ms", source="slot_ms"),
        Figure("slot_max_ms", "loser's slot free, at worst, ms", source="slot_ms", fold=most),
        Figure("wrong", "races that the slow one won", "is", digits=0, fold=total),
    )
    sizes = Sizes(
        full=Size(pairs=3, wait_s=60, amounts={"races": 20, "slots": 8, "slow_ms": 5000, "fast_ms": 50}),
        quick=Size(pairs=1, wait_s=60, amounts={"races": 10, "slots": 3, "slow_ms": 5000, "fast_ms": 50}),
        tiny=Size(pairs=1, wait_s=60, amounts={"races": 2, "slots": 1, "slow_ms": 3000, "fast_ms": 50}),
    )

    def warm_up(self, stage: Stage, side: Any, size: Size) -> None:
        """See `Workload`."""
        name = f"{stage.crew.name}-{side.name}-warm"
        self._race_ms(stage, side, size, name)
        self._slots_free_ms(stage, name)

    def turn(self, stage: Stage, side: Any, size: Size, name: str) -> Seen:
        """See `Workload`."""
        races = [self._race_ms(stage, side, size, f"{name}-{number}") for number in range(size.amounts["races"])]
        self._slots_free_ms(stage, name)
        slot_ms = []
        for number in range(size.amounts["slots"]):
            self._race_ms(stage, side, size, f"{name}-alone-{number}")
            slot_ms.append(self._slots_free_ms(stage, f"{name}-alone-{number}"))
        fast_s = size.amounts["fast_ms"] / 1000
        return {
            "answer_ms": [took_ms for took_ms, _ in races],
            "wrong": [sum(won != fast_s for _, won in races)],
            "slot_ms": slot_ms,
        }

    @staticmethod
    def _race_ms(stage: Stage, side: Any, size: Size, name: str) -> tuple[float, float]:
        slow_s, fast_s = size.amounts["slow_ms"] / 1000, size.amounts["fast_ms"] / 1000
        began_s = time.perf_counter()
        won = side.race(slow_s, fast_s, name, size.wait_s)
        if won is None:
            raise stage.unfinished(f"{name}: a race had no answer", size.wait_s)
        return (time.perf_counter() - began_s) * 1000, won

    @staticmethod
    def _slots_free_ms(stage: Stage, name: str) -> float:
        began_s = time.perf_counter()
        with connect(stage.valkey.url) as client:
            if not met(client, name, stage.crew.concurrency):
                raise RuntimeError(f"{name}: {stage.crew.concurrency} slots were never free at once")
        return (time.perf_counter() - began_s) * 1000
