"""The shop, and a batch of its own beside it: all of `celeriac_workers`, as `celery up` starts them."""

from __future__ import annotations

from canvas import Run, process_batch, step, workflow
from tasks.app import app

__all__ = ["app"]


@step(name="batch.nothing")
def nothing(_item: int) -> None:
    """The least that an item can cost."""


@workflow(name="bulk.all")
async def bulk(run: Run, items: int) -> int:
    counts = await process_batch(nothing, range(items), max_concurrency=1_000, collect=False)
    return counts.succeeded
