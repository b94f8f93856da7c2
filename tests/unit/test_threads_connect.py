"""What a worker's threads need of their own is made without looking anything up again for each of them."""

from __future__ import annotations

import threading

import pytest
import redis.utils
from celery import Celery

from canvas import install
from status import here

URL = "redis://127.0.0.1:1/0"


@pytest.fixture
def lookups(monkeypatch):
    """The packages whose version was looked for."""
    asked = []
    version = redis.utils.metadata.version
    monkeypatch.setattr(redis.utils.metadata, "version", lambda name: asked.append(name) or version(name))
    return asked


def in_threads(call, count=5):
    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


def test_a_threads_connection_does_not_look_up_the_version_of_its_library(lookups):
    pool = here.connect(URL).connection_pool
    lookups.clear()

    in_threads(pool.make_connection)

    assert lookups == []


def test_a_threads_backend_does_not_look_up_the_version_of_its_library(lookups):
    app = Celery("threads", set_as_current=False)
    install(app, redis_url=URL)
    named = [app.backend.connparams["driver_info"].formatted_name]
    lookups.clear()

    in_threads(lambda: named.append(app.backend.connparams["driver_info"].formatted_name))

    assert lookups == []
    assert len(named) == 6
    assert all(name.startswith("redis-py(celery_v") for name in named)
