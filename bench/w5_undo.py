"""W5: an order that fails in its last but one stage, and is undone."""

from __future__ import annotations

from typing import Any

from bench.stage import Crew, Stage
from bench.w1_orders import latency_ms
from bench.workload import Figure, Part, Seen, Size, Sizes, Workload

SHARED = Crew(name="shared", module="undo")


class Undo(Workload):
    """A saga, with its log in SQL, against an errback that is a chain of undos, with no log."""

    name = "w5"
    title = "W5: orders that fail and are undone"
    parts = (
        Part("stock", "stock", SHARED, "errback chain"),
        Part("ours", "ours", SHARED, "saga"),
        Part("stock_alone", "stock", Crew(name="alone", module="undo"), "errback, alone"),
    )
    figures = (
        Figure("orders_per_s", "orders undone/s, all at once", "more"),
        Figure("p50_ms", "one order on an idle system, p50 ms", source="latency_ms"),
        Figure("cpu_s_per_100", "CPU s for 100 orders: workers and client", digits=2),
        Figure("undone_per_order", "how often an order is undone (1 is right)", "is", digits=2),
    )
    sizes = Sizes(
        full=Size(pairs=3, wait_s=180, amounts={"orders": 200, "singles": 30}),
        quick=Size(pairs=1, wait_s=60, amounts={"orders": 40, "singles": 10}),
        tiny=Size(pairs=1, wait_s=60, amounts={"orders": 3, "singles": 1}),
    )

    def warm_up(self, stage: Stage, side: Any, size: Size) -> None:
        """See `Workload`."""
        stage.complete(side, [f"{stage.crew.name}-{side.name}-warm"], size.wait_s)

    def turn(self, stage: Stage, side: Any, size: Size, name: str) -> Seen:
        """See `Workload`."""
        orders, undone = size.amounts["orders"], _undone(stage, side)
        before = stage.usage()
        stage.complete(side, [f"{name}-{n}" for n in range(orders)], size.wait_s)
        after = stage.usage()
        stage.settle(size.wait_s)
        undone = _undone(stage, side) - undone
        return {
            "orders_per_s": [orders / (after.clock_s - before.clock_s)],
            "latency_ms": [
                latency_ms(stage, side, f"{name}-single-{n}", size.wait_s) for n in range(size.amounts["singles"])
            ],
            "cpu_s_per_100": [(after.cpu_s - before.cpu_s) * 100 / orders],
            "undone_per_order": [undone / orders],
        }


def _undone(stage: Stage, side: Any) -> int:
    return int(str(stage.redis.get(side.counter) or 0))
