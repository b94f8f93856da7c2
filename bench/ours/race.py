"""`race`, whose loser is interrupted by the one who decides."""

from __future__ import annotations

import time

from bench import meeting  # noqa: F401  # its task
from canvas import Run, race, step, workflow


@step(name="ours.answer", interruptible=True)
def answer(delay_s: float) -> float:
    time.sleep(delay_s)
    return delay_s


@workflow(name="ours.first")
async def first(run: Run, slow_s: float, fast_s: float) -> float:
    return (await race(answer.s(slow_s), answer.s(fast_s))).value


class Side:
    """This side of the bench."""

    name = "ours"

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url

    def race(self, slow_s: float, fast_s: float, name: str, timeout_s: float) -> float | None:
        """Which delay won; None: none did in time."""
        try:
            return first.submit(slow_s, fast_s, run_id=name).result(timeout_s=timeout_s)
        except TimeoutError:
            return None
