"""Many naps, so many at once, in the three ways that stock Celery has for it.

- *Chunked chords*: the body of a chord of 50 starts the next one. Keeps to 50 on any number of workers; each
  waits for its slowest.
- `task.chunks`: one message for 40 items. Keeps to 50 and is fast; but an item has no retry, no result and no
  place in a queue of its own, and a worker that dies repeats up to 40.
- A queue whose workers have 50 slots, and one chord: the number is the workers', not the call's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery import chord, current_app, shared_task

from bench.gauge import counted
from bench.stock.answers import connect, pop, push

NAP_S = 0.01


@shared_task(name="stock.nap", acks_late=True, reject_on_worker_lost=True)
def nap(n: int, counted_as: str = "") -> int:
    if counted_as:
        with counted(counted_as):
            time.sleep(NAP_S)
    else:
        time.sleep(NAP_S)
    return n


@shared_task(name="stock.next_wave", acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def next_wave(values: list[int], at: int, so_far: int, plan: dict[str, Any]) -> None:
    """The body of a wave: starts the next, or tells the client."""
    total, items = so_far + sum(values), plan["items"]
    if at >= items:
        push(f"bench:batch:{plan['name']}", str(total))
        return
    end = min(at + plan["window"], items)
    wave = [nap.s(n, plan["counted_as"]) for n in range(at, end)]
    chord(wave, next_wave.s(end, total, plan)).apply_async()


@shared_task(name="stock.add_up_all", acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def add_up_all(values: list[Any], name: str) -> None:
    """The body of a chord of all items, or of chunks of them."""
    push(f"bench:batch:{name}", str(sum(sum(value) if isinstance(value, list) else value for value in values)))


@shared_task(name="stock.nothing", ignore_result=True)
def nothing(n: int) -> None:
    """A raw no-op: acknowledged early, without a result, told to nobody."""


def in_waves(name: str, items: int, window: int, counted_as: str) -> None:
    next_wave.delay([], 0, 0, {"name": name, "items": items, "window": window, "counted_as": counted_as})


def in_chunks(name: str, items: int, window: int, counted_as: str) -> None:
    of_one = -(-items // window)
    chunks = nap.chunks(((n, counted_as) for n in range(items)), of_one).group()
    chord(chunks, add_up_all.s(name)).apply_async()


def in_a_queue(name: str, items: int, window: int, counted_as: str) -> None:  # the workers' slots
    with current_app.producer_pool.acquire(block=True) as producer:
        chord([nap.s(n, counted_as) for n in range(items)], add_up_all.s(name)).apply_async(producer=producer)


WAYS: dict[str, Callable[[str, int, int, str], None]] = {"waves": in_waves, "chunks": in_chunks, "queue": in_a_queue}


class Side:
    """This side of the bench."""

    name = "stock"

    def __init__(self, redis_url: str, way: str) -> None:
        self._client = connect(redis_url)
        self.way = way

    def run(self, name: str, items: int, window: int, timeout_s: float, *, count: bool = False) -> int | None:
        """What naps for all items add up to; None: it was not known in time."""
        WAYS[self.way](name, items, window, name if count else "")
        answer = pop(self._client, f"bench:batch:{name}", timeout_s)
        return None if answer is None else int(answer)

    def park(self, items: int, queue: str) -> None:
        """Send raw no-ops to a queue that nobody serves."""
        with current_app.producer_pool.acquire(block=True) as producer:
            for n in range(items):
                nothing.apply_async((n,), queue=queue, producer=producer)
