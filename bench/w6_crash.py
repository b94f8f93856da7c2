"""W6: one of two workers is killed, with its children, in the middle of many orders, and started again at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bench.stage import Crew, Stage
from bench.workload import Figure, Part, Seen, Size, Sizes, Workload, total

#: As short as is safe for stock canvas: a message in hand for longer would be run a second time beside the first.
VISIBILITY_TIMEOUT_S = 10
#: Without one order done for so long, those that are left are lost. Restored messages come after the
#: visibility timeout and a second or so, celeriac's after 8 s at most.
QUIET_S = 25
LOOK_EVERY_S = 0.05


def _crew(name: str) -> Crew:
    return Crew(name=name, module="order", concurrency=1, workers=2, visibility_timeout_s=VISIBILITY_TIMEOUT_S)


class Crash(Workload):
    """How soon after the kill all orders are done, and how many never are."""

    name = "w6"
    title = "W6: kill -9 of a worker in the middle"
    parts = (
        Part("stock", "stock", _crew("shared"), "stock"),
        Part("ours", "ours", _crew("shared"), "ours"),
        Part("stock_alone", "stock", _crew("alone"), "stock, alone"),
    )
    figures = (
        Figure("after_kill_s", "s until the last order is done"),
        Figure("lost", "orders that are never done, in all turns", "is", digits=0, fold=total),
        Figure("orders", "of so many", "is", digits=0, fold=total),
        Figure("open_at_kill", "orders not done at the kill", "is", digits=0),
    )
    sizes = Sizes(
        full=Size(pairs=3, wait_s=180, amounts={"orders": 300}),
        quick=Size(pairs=1, wait_s=90, amounts={"orders": 100}),
        tiny=Size(pairs=1, wait_s=90, amounts={"orders": 12}),
    )

    def warm_up(self, stage: Stage, side: Any, size: Size) -> None:
        """See `Workload`."""
        stage.complete(side, [f"{stage.crew.name}-{side.name}-warm-{n}" for n in range(10)], size.wait_s)

    def turn(self, stage: Stage, side: Any, size: Size, name: str) -> Seen:
        """See `Workload`."""
        order_ids = [f"{name}-{n}" for n in range(size.amounts["orders"])]
        for order_id in order_ids:
            side.start(order_id)
        enough = len(order_ids) // 3
        stage.until(lambda: side.completed(order_ids) >= enough, f"{name}: {enough} orders were not done", size.wait_s)
        victim = stage.workers[0]
        victim.kill()
        killed_s = time.perf_counter()
        victim.launch()
        before = side.completed(order_ids)
        done, last_s = self._see_it_through(side, order_ids, before, size.wait_s)
        stage.until(victim.is_ready, "the killed worker did not come back", size.wait_s)
        return {
            "after_kill_s": [last_s - killed_s],
            "lost": [len(order_ids) - done],
            "orders": [len(order_ids)],
            "open_at_kill": [len(order_ids) - before],
        }

    @staticmethod
    def _see_it_through(side: Any, order_ids: Sequence[str], done: int, wait_s: float) -> tuple[int, float]:
        """Until all are done, or nothing has happened for too long: how many are, and when the last one was."""
        last_s = time.perf_counter()
        end_s = last_s + wait_s
        while done < len(order_ids) and time.perf_counter() < min(last_s + QUIET_S, end_s):
            time.sleep(LOOK_EVERY_S)
            now = side.completed(order_ids)
            if now > done:
                done, last_s = now, time.perf_counter()
        return done, last_s
