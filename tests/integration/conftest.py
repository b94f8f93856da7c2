"""What several of these tests are given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import _state

import sagas
from core import current_app
from saga import database
from saga.log import SagaLog
from status import here


@pytest.fixture
def world(redis_client: Any, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sagas.World]:
    """A broker, a worker and a database for sagas, in this process (see `sagas.World`)."""

    class Places:
        database_url = os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{tmp_path}/log.db"

    monkeypatch.setattr(database, "places", Places)
    monkeypatch.setattr("saga.writing.places", Places)
    here.use(redis_url)
    with current_app("sagas") as app:
        made = sagas.World(app, redis_client)
        write = SagaLog.write

        def faulty(self: SagaLog, changes: Any) -> None:
            with made.write("log"):
                write(self, changes)

        monkeypatch.setattr(SagaLog, "write", faulty)
        sagas.use(made)
        sagas.create_effects()
        sagas.forget_all()
        yield made
        sagas.use(None)
    here.use(None)
    database.dispose()


@pytest.fixture
def flow(redis_url, monkeypatch) -> Iterator[Any]:
    """The client's side of tests/apps/flow.py."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import flow

    before = _state._tls.current_app
    flow.app.conf.broker_url = redis_url
    here.use(redis_url)
    flow.app.set_current()
    yield flow
    here.use(None)
    _state._tls.current_app = before


@pytest.fixture
def workers(flow, worker):
    """Starts workers of the flow. They are killed in the end: how a worker stops is not asked here."""
    started = []

    def start(more: tuple[str, ...] = (), **options: Any) -> Any:
        node = worker("flow", options=("--without-mingle", "--without-gossip", *more), **options)
        started.append(node)
        return node

    yield start
    for node in started:
        node.kill()
