"""What the sweep sends again, with a real queue and no worker: what is lost, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, _state

import canvas
from canvas import Run, step, workflow
from canvas import engine as engines
from canvas.pulse import Sweeper
from canvas.turn import take_turn
from runs import Runs
from status import here


@step(name="backlog.do")
def do() -> int:
    return 1


@workflow(name="backlog.flow")
async def flow(run: Run) -> int:
    return await do.s()


class Shop(Runs):
    """A run on an app whose broker is real."""

    def __init__(self, app: Celery, client: redis.Redis) -> None:
        super().__init__(client, shards=16)
        self.sweeper = Sweeper(engines.of(app), "w")

    def sweep(self) -> None:
        """Look at all that is due, as the sweep does much later."""
        self.tick(200)
        self.redis.delete(self.keys.raised(self.shard))
        self.sweeper.backlog.look_again()
        self.sweeper.sweep(self.shard)

    def messages(self) -> int:
        return sum(self.redis.llen(name) for name in self.redis.scan_iter("celery*", _type="list"))

    def lose(self) -> None:
        self.redis.delete(*self.redis.scan_iter("celery*", _type="list"))


@pytest.fixture
def shop(redis_url: str, redis_client: Any) -> Iterator[Shop]:
    before = _state._tls.current_app
    app = Celery("backlog", broker=redis_url, set_as_current=False)
    canvas.install(app, redis_url=redis_url)
    app.set_current()
    app.finalize()
    yield Shop(app, redis_client)
    here.use(None)
    _state._tls.current_app = before


@pytest.mark.parametrize("turn", [True, False], ids=["turn", "step"])
def test_a_message_that_still_waits_is_never_sent_again(shop, turn):
    flow.submit(run_id=shop.id)
    if not turn:
        shop.lose()
        take_turn(shop.sweeper.engine, shop.id)
    for _ in range(5):
        shop.sweep()
        assert shop.messages() == 1


@pytest.mark.parametrize("turn", [True, False], ids=["turn", "step"])
def test_lost_without_death_is_sent_again_once(shop, turn):
    flow.submit(run_id=shop.id)
    if not turn:
        take_turn(shop.sweeper.engine, shop.id)
    shop.lose()
    for _ in range(5):
        shop.sweep()
        assert shop.messages() == 1


def test_one_lost_behind_others_is_sent_again_when_they_have_gone(shop):
    flow.submit(run_id=shop.id)
    shop.lose()
    flow.submit(run_id="another")
    shop.sweep()
    assert shop.messages() == 1, "it may be the one that waits there"
    shop.lose()
    flow.submit(run_id="third")
    shop.redis.hincrby(shop.keys.run(shop.id), "looked_ms", -10_000)
    shop.sweep()
    assert shop.messages() == 2
