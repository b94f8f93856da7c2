"""Real processes for the tests: one Valkey a session, emptied for each test, and workers on demand.

Most tests need `redis_url`, `redis_client`, `valkey` (kill, restart) and `worker(...)`. Tests that
speak pytest-celery's language take its `celery_setup`: its nodes are the same processes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from bench.children import Valkey, Worker
from leaks import keys_without_end
from nodes import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryWorkerCluster,
    LocalWorker,
    ValkeyContainer,
    WorkerContainer,
    Workers,
)
from status import here

ROOT = Path(__file__).parent.parent


def _no_docker() -> str:
    """Why Docker can't be used here; empty if it can."""
    try:
        asked = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return "there is no docker command"
    except subprocess.TimeoutExpired:
        return "docker did not answer within 10 s"
    return "no Docker engine answers" if asked.returncode else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needing_docker = [item for item in items if item.get_closest_marker("docker")]
    if needing_docker and (why_not := _no_docker()):
        for item in needing_docker:
            item.add_marker(pytest.mark.skip(reason=f"needs Docker: {why_not}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.failed:
        # `worker` and `valkey` put what they start here: a failure shows what each of them said.
        for child in getattr(item, "children", []):
            report.sections.append((f"log of {child.name}", child.output()[-20_000:]))
    return report


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The server of this session. Tests take `valkey`."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(valkey_server: Valkey, request: pytest.FixtureRequest) -> Valkey:
    """An empty Valkey that this test may kill() and restart(); `.url`, `.client()`."""
    if not valkey_server.alive:  # a test before this one killed it
        valkey_server.start()
    with valkey_server.client() as client:
        client.flushall()
        client.script_flush()
    # Stores of this process believe that the emptied server knows who it is (rule 10): they are made anew.
    here._store.cache_clear()
    _remember(request, valkey_server)
    return valkey_server


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """Of an empty Valkey."""
    return valkey.url


@pytest.fixture
def redis_client(valkey: Valkey) -> Iterator[redis.Redis]:
    """A client of an empty Valkey; its answers are `str`."""
    with valkey.client() as client:
        yield client


@pytest.fixture
def worker_env(redis_url: str, tmp_path: Path) -> dict[str, str]:
    """What a worker of this test has in its environment: nothing outside the test's folder."""
    here = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "apps")])
    return {
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'shop.db'}",
        "CELERIAC_DATA_DIR": str(tmp_path),
        "PYTHONPATH": here,
    }


@pytest.fixture
def worker(worker_env: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workers]:
    """Starts workers: `worker("plain", pool="threads", concurrency=2, queues=["mail"], name="w1")`.

    Each is ready when the call returns, and ended after the test.
    """
    workers = Workers(tmp_path, worker_env, on_start=lambda node: _remember(request, node))
    yield workers
    workers.stop()


@pytest.fixture(autouse=True)
def _no_key_stays_for_ever(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test on a real Valkey: no key of a finished run is without a time to live."""
    watched = "valkey" in request.fixturenames
    server = request.getfixturevalue("valkey") if watched else None
    yield
    if server is not None and server.alive:
        with server.client() as client:
            assert keys_without_end(client) == []


@pytest.fixture
def celery_broker_cluster(valkey: Valkey) -> Iterator[CeleryBrokerCluster]:
    cluster = CeleryBrokerCluster(CeleryTestBroker(ValkeyContainer(valkey)))
    yield cluster
    cluster.teardown()


@pytest.fixture
def celery_backend_cluster(valkey: Valkey) -> Iterator[CeleryBackendCluster]:
    cluster = CeleryBackendCluster(CeleryTestBackend(ValkeyContainer(valkey)))
    yield cluster
    cluster.teardown()


@pytest.fixture
def celery_setup_app(redis_url: str) -> Celery:
    """The client's side of `tests/apps/plain.py`; override it, and the cluster, for another app."""
    app = Celery("plain", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True)
    return app


@pytest.fixture
def celery_worker_cluster(worker: Workers, celery_setup_app: Celery) -> Iterator[CeleryWorkerCluster]:
    cluster = CeleryWorkerCluster(LocalWorker(WorkerContainer(worker("plain")), celery_setup_app))
    yield cluster
    cluster.teardown()


def _remember(request: pytest.FixtureRequest, child: Worker | Valkey) -> None:
    children = getattr(request.node, "children", [])
    request.node.children = [*children, child]
