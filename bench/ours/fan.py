"""A fan-out of no-ops whose workflow adds up what they gave."""

from __future__ import annotations

from canvas import Run, fan_out_fail, step, workflow


@step(name="ours.one")
def one(n: int) -> int:
    return n


@workflow(name="ours.add_up")
async def add_up(run: Run, n: int) -> int:
    return sum(await fan_out_fail(*(one.s(number) for number in range(n))))


class Side:
    """This side of the bench."""

    name = "ours"

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url

    def fan(self, n: int, name: str, timeout_s: float) -> int | None:
        """What n no-ops add up to; None: it was not known in time."""
        try:
            return add_up.submit(n, run_id=name).result(timeout_s=timeout_s)
        except TimeoutError:
            return None
