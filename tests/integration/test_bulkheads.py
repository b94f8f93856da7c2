"""A batch has a queue and workers of its own: however many items wait, an order does not wait behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import psutil
import pytest

from canvas.up_workers import Group, groups_of
from processes import children, client_of, queued
from saga import database
from tasks import loading
from waiting import wait_until

ITEMS = 5_000
#: Orders in a row without a batch, and then beside one; and how often.
IN_A_ROW, ROUNDS = 6, 3
#: On a machine that others use a few figures say little: then it is measured more often before it counts.
MOST_ROUNDS = 6
#: Of the batch so many at least wait while orders are sold.
BACKLOG = 100


@pytest.fixture
def shop(worker: Any, redis_url: str, worker_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The workers of `celeriac_workers`, each group as `celery up` starts it; and a client."""
    for name, value in worker_env.items():
        monkeypatch.setenv(name, value)
    from apps import bulk

    products = loading.load_products(loading.SAMPLE_PRODUCTS)
    engine = database.engine(worker_env["DATABASE_URL"])
    loading.clear(engine)
    loading.seed(engine, [replace(product, units_in_stock=1_000_000) for product in products])
    for group in groups_of(bulk.app):
        start(worker, group)
    with client_of(bulk.app, redis_url):
        yield bulk
    database.dispose()


def start(worker: Any, group: Group) -> None:
    ahead = ("--prefetch-multiplier", str(group.prefetch)) if group.prefetch else ()
    node = worker(
        "bulk",
        name=group.name,
        queues=group.queues,
        pool=group.pool,
        concurrency=group.concurrency or 1,
        options=(*ahead, "--without-mingle", "--without-gossip"),
    )
    for pid in (node.pid, *children(node.pid)):
        psutil.Process(pid).nice(group.nice)


class Orders:
    """Sells one order after the other, and takes the time of each."""

    def __init__(self) -> None:
        from tasks.orders import complete_order

        products = loading.load_products(loading.SAMPLE_PRODUCTS)
        self._workflow = complete_order
        self._order = next(
            order for order in loading.load_orders(loading.SAMPLE_ORDERS, products) if not order.simulate
        )
        self._number = count()

    def sell(self) -> float:
        order = replace(self._order, order_id=f"o{next(self._number)}")
        began_s = monotonic()
        self._workflow.submit(order, run_id=f"order-{order.order_id}").result(timeout_s=60)
        return monotonic() - began_s


def compare(orders: Orders, shop: Any, redis_client: Any, number: int) -> tuple[list[float], list[float]]:
    """How long orders take, without a batch and beside one."""
    idle = [orders.sell() for _ in range(IN_A_ROW)]
    batch = shop.bulk.submit(ITEMS, run_id=f"bulk-{number}")
    wait_until(lambda: queued(redis_client, "batch") > BACKLOG, "the batch has begun")
    beside = [orders.sell() for _ in range(IN_A_ROW)]
    assert queued(redis_client, "batch") > BACKLOG, "the batch was there all the time"
    batch.cancel("measured")
    wait_until(lambda: batch.status().finished and not queued(redis_client, "batch"), "the batch is gone", 60)
    return idle, beside


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_a_batch_of_5000_leaves_the_latency_of_an_order_within_twice_of_idle(
    shop: Any, redis_client: Any, tmp_path: Path
) -> None:
    """Idle and busy in turns, so that a machine that others use too is as slow for the one as for the other."""
    orders = Orders()
    for _ in range(IN_A_ROW):
        orders.sell()  # processes are warm
    idle: list[float] = []
    beside: list[float] = []
    for number in range(MOST_ROUNDS):
        alone, together = compare(orders, shop, redis_client, number)
        idle, beside = idle + alone, beside + together
        if number + 1 >= ROUNDS and median(beside) < 2 * median(idle):
            break

    print(f"idle {median(idle):.3f} s, beside a batch {median(beside):.3f} s")
    assert median(beside) < 2 * median(idle), (sorted(idle), sorted(beside))
    logs = {name: (tmp_path / f"{name}.log").read_text() for name in ("orders", "outside", "batch")}
    assert "Task batch.nothing[" in logs["batch"]
    for name in ("orders", "outside"):
        assert "Task batch.nothing[" not in logs[name], "an order waits behind no item"
    assert "Task inventory." not in logs["batch"]
