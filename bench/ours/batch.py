"""Many naps, so many at once: `process_batch`."""

from __future__ import annotations

import time

from bench.gauge import counted
from canvas import Run, process_batch, step, workflow

NAP_S = 0.01


@step(name="ours.nap")
def nap(n: int) -> int:
    time.sleep(NAP_S)
    return n


@step(name="ours.counted_nap")
def counted_nap(item: tuple[int, str]) -> int:
    n, name = item
    with counted(name):
        time.sleep(NAP_S)
    return n


@step(name="ours.nothing")
def nothing(n: int) -> None: ...


@workflow(name="ours.naps")
async def naps(run: Run, items: int, window: int, count: bool) -> int:
    if count:
        return sum(await process_batch(counted_nap, [(n, run.id) for n in range(items)], window))
    return sum(await process_batch(nap, range(items), window))


@workflow(name="ours.nothings")
async def nothings(run: Run, items: int, window: int) -> int:
    return (await process_batch(nothing, range(items), window, collect=False)).succeeded


class Side:
    """This side of the bench."""

    name, way = "ours", "batch"

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url

    def run(self, name: str, items: int, window: int, timeout_s: float, *, count: bool = False) -> int | None:
        """What naps for all items add up to; None: it was not known in time."""
        try:
            return naps.submit(items, window, count, run_id=name).result(timeout_s=timeout_s)
        except TimeoutError:
            return None

    def nothings(self, name: str, items: int, window: int, timeout_s: float) -> int | None:
        """How many no-ops succeeded; None: it was not known in time."""
        try:
            return nothings.submit(items, window, run_id=name).result(timeout_s=timeout_s)
        except TimeoutError:
            return None
