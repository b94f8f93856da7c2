"""What several of these tests are given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
