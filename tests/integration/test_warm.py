"""A pool process that is new has done what its first step would wait for."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError as NotThere

from canvas import step, warm
from canvas.engine import Engine
from core import current_app
from status.settings import Settings
from status.store import Store


@step(name="warm.typed")
def typed(n: int) -> list[int]:
    return [n]


@step(name="warm.odd")
def odd(n: NotThereYet) -> None: ...  # noqa: F821


def test_types_are_read_before_the_pool_forks(caplog):
    with current_app() as app:
        warm.compile_codecs(app)

        codec: Any = app.tasks["warm.typed"].codec
        assert "result" in codec.__dict__
    assert "warm.odd: each call of it will fail: name 'NotThereYet' is not defined" in caplog.text


def engine_of(app: Any, client: Any) -> Engine:
    engine = app.__dict__["_celeriac"] = Engine(app, Store(client, Settings()))
    return engine


def test_a_new_process_is_connected_before_its_first_step(redis_client, redis_url):
    with current_app() as app:
        app.conf.broker_url = redis_url
        engine = engine_of(app, redis_client)

        warm.connect(app)

        assert engine.store._scripts._mine.connection.is_connected


def test_a_redis_that_is_away_ends_no_new_process(redis_client, monkeypatch):
    with current_app() as app:
        engine = engine_of(app, redis_client)

        def away(_within_s: float) -> None:
            raise NotThere("connection refused")

        monkeypatch.setattr(engine.store, "connect", away)
        monkeypatch.setattr(type(app), "producer_pool", property(lambda _: pytest.fail("the broker is not asked then")))

        warm.connect(app)
