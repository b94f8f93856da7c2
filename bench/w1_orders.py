"""W1: the order of 14 no-op steps: many at once, then one at a time on an idle system."""

from __future__ import annotations

import time
from typing import Any

from bench.stage import Crew, Stage
from bench.workload import Figure, Part, Seen, Size, Sizes, Workload, p99

SHARED = Crew(name="shared", module="order")


class Orders(Workload):
    """Stock canvas, celeriac, with local steps and as a saga, by the same workers; stock Celery also by its own.

    Celeriac's transport carries the messages of all tasks of its app, so that stock canvas gains from it in a
    shared worker. `stock_alone` has workers of an app that knows nothing of celeriac.
    """

    name = "w1"
    title = "W1: orders of 14 steps"
    parts = (
        Part("stock", "stock", SHARED, "stock"),
        Part("ours", "ours", SHARED, "ours"),
        Part("ours_local", "ours_local", SHARED, "local steps"),
        Part("ours_saga", "ours_saga", SHARED, "as a saga"),
        Part("stock_alone", "stock", Crew(name="alone", module="order"), "stock, alone"),
    )
    figures = (
        Figure("orders_per_s", "orders/s, all at once", "more"),
        Figure("p50_ms", "one order on an idle system, p50 ms", source="latency_ms"),
        Figure("p99_ms", "one order on an idle system, p99 ms", source="latency_ms", fold=p99),
        Figure("cpu_s_per_100", "CPU s for 100 orders: workers and client", digits=2),
        Figure("valkey_cpu_s_per_100", "CPU s for 100 orders: Valkey", digits=2),
        Figure("redis_commands_per_order", "Redis commands an order, in scripts too", digits=0),
        Figure("redis_reads_per_order", "Redis reads an order (round trips)", digits=0),
        Figure("broker_bytes_per_order", "bytes an order to and from Redis", digits=0),
    )
    sizes = Sizes(
        full=Size(pairs=5, wait_s=180, amounts={"orders": 300, "singles": 50, "warm_up": 40}),
        quick=Size(pairs=3, wait_s=60, amounts={"orders": 60, "singles": 15, "warm_up": 10}),
        tiny=Size(pairs=1, wait_s=60, amounts={"orders": 5, "singles": 3, "warm_up": 1}),
    )

    def warm_up(self, stage: Stage, side: Any, size: Size) -> None:
        """See `Workload`."""
        ids = [f"{stage.crew.name}-{side.name}-warm-{n}" for n in range(size.amounts["warm_up"])]
        stage.complete(side, ids, size.wait_s)

    def turn(self, stage: Stage, side: Any, size: Size, name: str) -> Seen:
        """See `Workload`."""
        seen = self.lot(stage, side, size, name)
        stage.settle(size.wait_s)
        singles = [latency_ms(stage, side, f"{name}-single-{n}", size.wait_s) for n in range(size.amounts["singles"])]
        return {**seen, "latency_ms": singles}

    def lot(self, stage: Stage, side: Any, size: Size, name: str) -> Seen:
        """What many orders at once cost."""
        orders = size.amounts["orders"]
        before = stage.usage()
        stage.complete(side, [f"{name}-{n}" for n in range(orders)], size.wait_s)
        after = stage.usage()
        return {
            "orders_per_s": [orders / (after.clock_s - before.clock_s)],
            "cpu_s_per_100": [(after.cpu_s - before.cpu_s) * 100 / orders],
            "valkey_cpu_s_per_100": [(after.valkey_cpu_s - before.valkey_cpu_s) * 100 / orders],
            "redis_commands_per_order": [(after.redis_commands - before.redis_commands) / orders],
            "redis_reads_per_order": [(after.redis_reads - before.redis_reads) / orders],
            "broker_bytes_per_order": [(after.redis_bytes - before.redis_bytes) / orders],
        }


def latency_ms(stage: Stage, side: Any, order_id: str, wait_s: float) -> float:
    """How long one order takes, from the client's call until it knows."""
    began_s = time.perf_counter()
    stage.complete(side, [order_id], wait_s)
    return (time.perf_counter() - began_s) * 1000
