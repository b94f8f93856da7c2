"""Two tasks of which the first to answer wins; the client revokes the other and has its process killed.

Not redelivered when its process dies: the loser's is killed on purpose.
"""

from __future__ import annotations

import time
from uuid import uuid4

from celery import current_app, shared_task

from bench import meeting  # noqa: F401  # its task
from bench.stock.answers import connect, pop, push


@shared_task(name="stock.answer", acks_late=True, ignore_result=True)
def answer(delay_s: float, name: str) -> None:
    time.sleep(delay_s)
    push(f"bench:race:{name}", str(delay_s))


class Side:
    """This side of the bench."""

    name = "stock"

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url)

    def race(self, slow_s: float, fast_s: float, name: str, timeout_s: float) -> float | None:
        """Which delay won; None: none did in time."""
        ids = {delay_s: str(uuid4()) for delay_s in (slow_s, fast_s)}
        with current_app.producer_pool.acquire(block=True) as producer:
            for delay_s, task_id in ids.items():
                answer.apply_async((delay_s, name), task_id=task_id, producer=producer)
        won = pop(self._client, f"bench:race:{name}", timeout_s)
        if won is None:
            return None
        current_app.control.revoke(ids[slow_s if float(won) == fast_s else fast_s], terminate=True, signal="SIGKILL")
        return float(won)
