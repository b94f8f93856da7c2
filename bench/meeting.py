"""A plain task that ends when so many of it run at once: that many slots of the workers were free."""

from __future__ import annotations

from typing import Any, cast

import redis
from celery import current_app, group, shared_task

from bench.stock.answers import pop

#: Nobody waits longer for the others.
PATIENCE_S = 20


@shared_task(name="bench.meet", ignore_result=True)
def meet(name: str, others: int) -> None:
    """Let all who wait go as soon as the last has come."""
    client: redis.Redis = cast("Any", current_app.backend).client
    doors = [f"bench:meet:{name}:{number}" for number in range(others)]
    came = int(client.incr(f"bench:meet:{name}"))
    if came <= others:
        client.blpop([doors[came - 1]], timeout=PATIENCE_S)
        return
    for door in (*doors, f"bench:met:{name}"):
        client.lpush(door, "1")
        client.expire(door, 600)


def met(client: redis.Redis, name: str, slots: int) -> bool:
    """Wait until all slots have been free at once; False: they were not in time."""
    group([meet.s(name, slots - 1) for _ in range(slots)]).apply_async()
    return pop(client, f"bench:met:{name}", PATIENCE_S) is not None
