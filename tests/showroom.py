"""The catalogue with one worker, for a whole module of tests: its commands, and a client in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

import docs_blocks
from bench.children import Valkey, Worker
from leaks import keys_without_end
from processes import client_of
from saga import database
from status import here, places
from tasks import app, catalogue_data
from tasks.domain import Behaviour, Provider
from tasks.rehearsal import tell
from tasks.showcase.crew import queues_of
from waiting import wait_until

ROOT = Path(__file__).parent.parent

#: It would never end in time: who is done before it has not waited for it.
HANGS = Behaviour(latency_ms=40_000)

#: More than any pattern may have at a time: what goes over a limit can be seen.
CONCURRENCY = 16

#: So many are more than others start.
READY_S = 90.0

Simulate = Mapping[Provider, Behaviour]


def refuses(error: str = "no") -> Behaviour:
    return Behaviour(error=error)


class Showroom:
    """What the fixture `showroom` gives.

    Attributes:
        worker: The only one; it serves all queues of the catalogue.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.env = {
            "REDIS_URL": url,
            "DATABASE_URL": f"sqlite:///{folder / 'shop.db'}",
            "CELERIAC_DATA_DIR": str(folder),
            "PYTHONPATH": str(ROOT),
        }
        self.worker = self.another("showroom")

    def another(self, name: str, concurrency: int = CONCURRENCY) -> Worker:
        """A worker that was not started yet."""
        return Worker(
            "tasks",
            log=self.folder / f"{name}.log",
            env=self.env,
            name=name,
            queues=queues_of(app),
            concurrency=concurrency,
            options=["--without-mingle", "--without-gossip"],
        )

    def launch(self) -> None:
        """Start the worker and wait until it is ready."""
        self.worker.launch()
        self.worker.wait(self.worker.is_ready, "was not ready", READY_S)

    def command(self, line: str) -> tuple[int, str]:
        """Run `celery ...`. Gives its exit code and what it printed."""
        return docs_blocks.execute(line, self.folder, self.env)

    @staticmethod
    def behave(run_id: str, simulate: Simulate) -> None:
        """Let the providers behave as told in a run that is not there yet."""
        tell({run_id: simulate})

    def run_id(self, simulate: Simulate | None = None) -> str:
        """A fresh run id, for whose run the providers behave as told."""
        run_id = f"r-{uuid4().hex[:8]}"
        self.behave(run_id, simulate or {})
        return run_id


@pytest.fixture(scope="module")
def showroom(valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Showroom]:
    """One worker for all tests of the module, on the session's Valkey; this process is a client of the same app."""
    if not valkey_server.alive:
        valkey_server.start()
    with valkey_server.client() as client:
        client.flushall()
    here._store.cache_clear()
    folder = tmp_path_factory.mktemp("showroom")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SHOP_SIMULATE", "SMTP_HOST"):
            patch.delenv(name, raising=False)
        patch.setenv("REDIS_URL", valkey_server.url)
        patch.setenv("DATABASE_URL", f"sqlite:///{folder / 'shop.db'}")
        patch.setenv("CELERIAC_DATA_DIR", str(folder))
        places.reset()
        with client_of(app, valkey_server.url):
            made = Showroom(folder, valkey_server.url)
            made.launch()
            try:
                catalogue_data.fill()
                yield made
            finally:
                made.worker.stop()
                database.dispose()
        with valkey_server.client() as client:
            assert wait_until(lambda: not keys_without_end(client), "no key of a finished run is there for ever")
    places.reset()


@pytest.fixture(autouse=True)
def _show_its_log(request: pytest.FixtureRequest) -> None:
    """A failure shows what the worker said."""
    if "showroom" in request.fixturenames:
        request.node.children = [request.getfixturevalue("showroom").worker]
