"""A chord of no-ops whose body adds up what they gave."""

from __future__ import annotations

from typing import Any

from celery import chord, current_app, shared_task

from bench.stock.answers import connect, pop, push


@shared_task(name="stock.one", acks_late=True, reject_on_worker_lost=True)
def one(n: int) -> int:
    return n


@shared_task(name="stock.add_up", acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def add_up(values: list[int], name: str) -> None:
    push(f"bench:fan:{name}", str(sum(values)))


class Side:
    """This side of the bench."""

    name = "stock"

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url)

    def fan(self, n: int, name: str, timeout_s: float) -> int | None:
        """What n no-ops add up to; None: it was not known in time."""
        body: Any = add_up.s(name)
        with current_app.producer_pool.acquire(block=True) as producer:
            chord([one.s(number) for number in range(n)], body).apply_async(producer=producer)
        answer = pop(self._client, f"bench:fan:{name}", timeout_s)
        return None if answer is None else int(answer)
