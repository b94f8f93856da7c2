"""W3: a batch of naps of 10 ms, 50 at once; and no-op items beside raw no-op tasks."""

from __future__ import annotations

import threading
import time
from typing import Any, Self

import redis

from bench.gauge import peak
from bench.stage import Crew, Stage
from bench.workload import Figure, Part, Seen, Size, Sizes, Workload, most
from status.keys import Keys

#: More slots than the batch may fill, so that its own limit is what holds.
SHARED = Crew(name="shared", module="batch", pool="threads", concurrency=64)
#: The other way to have 50 at once: workers that have no more slots.
FIFTY = Crew(name="fifty", module="batch", pool="threads", concurrency=50)
#: Where raw tasks wait until all are there; then it becomes the queue that is served.
PARKED = "parked"


class Batch(Workload):
    """`process_batch` against chunked chords, `task.chunks`, and a queue whose workers have as many slots."""

    name = "w3"
    title = "W3: a batch, 50 at once"
    needs_its_pool = True
    parts = (
        Part("stock", "stock", SHARED, "chunked chords", "waves"),
        Part("ours", "ours", SHARED, "process_batch"),
        Part("stock_chunks", "stock", SHARED, "task.chunks", "chunks"),
        Part("stock_queue", "stock", FIFTY, "queue of 50", "queue"),
    )
    figures = (
        Figure("s_2000", "s for 2,000 naps of 10 ms", digits=2),
        Figure("cpu_s", "CPU s for them: workers and client", digits=2),
        Figure("peak_bodies", "most bodies at once", "is", digits=0, fold=most),
        Figure("peak_claims", "most claims at once", "is", digits=0, fold=most),
        Figure("noops_per_s", "no-op items/s (chunked chords: raw tasks)", "more", digits=0),
    )
    sizes = Sizes(
        full=Size(pairs=3, wait_s=120, amounts={"naps": 2000, "window": 50, "noops": 10_000, "noop_window": 128}),
        quick=Size(pairs=1, wait_s=60, amounts={"naps": 500, "window": 50, "noops": 2000, "noop_window": 128}),
        tiny=Size(pairs=1, wait_s=60, amounts={"naps": 12, "window": 5, "noops": 20, "noop_window": 5}),
    )

    def warm_up(self, stage: Stage, side: Any, size: Size) -> None:
        """See `Workload`."""
        few = Size(pairs=1, wait_s=size.wait_s, amounts={"naps": 20, "window": 10})
        _naps_s(stage, side, f"warm-{side.name}-{side.way}", few)

    def turn(self, stage: Stage, side: Any, size: Size, name: str) -> Seen:
        """See `Workload`."""
        before = stage.usage()
        took_s = _naps_s(stage, side, name, size)
        after = stage.usage()
        stage.settle(size.wait_s)
        seen = {"s_2000": [took_s], "cpu_s": [after.cpu_s - before.cpu_s]}
        with _Claims(stage, f"{name}-counted") as claims:
            _naps_s(stage, side, f"{name}-counted", size, count=True)
        seen["peak_bodies"] = [peak(stage.redis, f"{name}-counted")]
        stage.settle(size.wait_s)
        noops = size.amounts["noops"]
        if side.name == "ours":
            seen["peak_claims"] = [claims.peak]
            seen["noops_per_s"] = [noops / _ours_noops_s(stage, side, f"{name}-noops", size)]
        elif side.way == "waves":
            seen["noops_per_s"] = [noops / _raw_noops_s(stage, side, size)]
        return seen


def _naps_s(stage: Stage, side: Any, name: str, size: Size, *, count: bool = False) -> float:
    naps, window = size.amounts["naps"], size.amounts["window"]
    began_s = time.perf_counter()
    found = side.run(name, naps, window, size.wait_s, count=count)
    took_s = time.perf_counter() - began_s
    if found is None:
        raise stage.unfinished(f"{name}: {naps} naps were not done", size.wait_s)
    if found != sum(range(naps)):
        raise RuntimeError(f"{name}: {naps} naps gave {found}, not {sum(range(naps))}")
    return took_s


def _ours_noops_s(stage: Stage, side: Any, name: str, size: Size) -> float:
    noops = size.amounts["noops"]
    began_s = time.perf_counter()
    found = side.nothings(name, noops, size.amounts["noop_window"], size.wait_s)
    took_s = time.perf_counter() - began_s
    if found != noops:
        raise stage.unfinished(f"{name}: {found or 'not all'} of {noops} no-ops were done", size.wait_s)
    return took_s


def _raw_noops_s(stage: Stage, side: Any, size: Size) -> float:
    """How long the workers alone need: all messages are there before the first is taken."""
    side.park(size.amounts["noops"], PARKED)
    began_s = time.perf_counter()
    stage.redis.rename(PARKED, "celery")
    stage.settle(size.wait_s)
    return time.perf_counter() - began_s


class _Claims:
    """Looks, while a run goes on, how many claims its first await has at once."""

    def __init__(self, stage: Stage, run_id: str) -> None:
        self.peak = 0
        self._client: redis.Redis = stage.valkey.client()
        self._join = Keys().join(run_id, 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            fields = list(self._client.hkeys(self._join))
            # `c<part>` is a claim (see `status/lua/_run.lua`)
            self.peak = max(self.peak, sum(1 for field in fields if field[0] == "c" and field[1:].isdigit()))
