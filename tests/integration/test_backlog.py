"""What the sweep sends again, with a real queue and no worker: what is lost, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from time import time
from typing import Any

import pytest
import redis
from celery import Celery, _state

import canvas
from canvas import Run, step, workflow
from canvas import engine as engines
from canvas.backlog import Backlog
from canvas.publisher import FIRST, LAST
from canvas.pulse import Sweeper
from canvas.turn import take_turn
from runs import Runs
from status import here
from status.records import PartRef


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
        self.engine = engines.of(app)
        self.sweeper = Sweeper(self.engine, "w")

    def send_step(self) -> None:
        spec = {"task": "backlog.do", "args": [], "kwargs": {}, "queue": "celery", "label": "do"}
        self.engine.publisher.steps([(PartRef("other", 0, "0", "n", 1), spec)], "backlog.flow")

    def sweep(self) -> None:
        """Look at all that is due, as the sweep does much later."""
        self.tick(200)
        self.redis.delete(self.keys.raised(self.shard))
        self.sweeper.backlog.look_again()
        self.sweeper.sweep(self.shard)

    def messages(self) -> int:
        # Once each: SCAN may give a key twice.
        return sum(self.redis.llen(name) for name in set(self.redis.scan_iter("celery*", _type="list")))

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
    shop.redis.hincrby(shop.keys.run(shop.id), "updated_ms", -10_000)
    shop.sweep()
    assert shop.messages() == 2


def test_a_step_is_lost_though_runs_wait_that_nobody_has_begun(shop):
    shop.engine.publisher.turn("waits", "backlog.flow", "celery", first=True)
    now_ms = int(time() * 1000)

    assert Backlog(shop.engine.app).is_lost("r/0.0", "celery", now_ms, (FIRST,))
    assert not Backlog(shop.engine.app).is_lost("waits", "celery", now_ms, (FIRST, LAST))


def test_what_was_sent_again_and_waits_behind_others_is_not_sent_once_more(shop):
    backlog = Backlog(shop.engine.app)
    sent_ms = int(time() * 1000) - 1000
    shop.send_step()  # of somebody else, younger than what is missed

    assert backlog.is_lost("r/0.1", "celery", sent_ms, (FIRST,))
    backlog.look_again()
    assert not backlog.is_lost("r/0.1", "celery", sent_ms, (FIRST,))


def test_a_connection_that_was_cut_meanwhile_costs_no_message(shop):
    shop.send_step()
    shop.redis.client_kill_filter(_type="normal")

    shop.send_step()

    assert shop.messages() == 2
