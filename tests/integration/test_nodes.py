"""The processes under all integration tests: they start, die when told to, and come back."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import psutil
import pytest
from celery import Celery

from bench.children import ChildFailed
from leaks import keys_without_end
from nodes import CeleryTestSetup
from waiting import wait_until


@pytest.fixture
def plain(celery_setup_app):
    """The client's side of tests/apps/plain.py."""
    return celery_setup_app


def ask(app: Celery, task: str, *args: object, timeout_s: float = 15.0) -> object:
    return app.send_task(task, args).get(timeout=timeout_s)


def test_a_worker_runs_a_task(worker, plain):
    worker("plain", pool="threads")

    assert ask(plain, "plain.add", 2, 3) == 5


def test_a_killed_worker_takes_its_children_along_and_comes_back(worker, plain):
    node = worker("plain", pool="prefork", concurrency=1)
    parent_pid, child_pid = node.pid, ask(plain, "plain.pid")
    assert child_pid != parent_pid

    node.kill()

    wait_until(lambda: not _runs(child_pid), "the pool's child is gone")
    assert not node.alive
    answer = plain.send_task("plain.add", (4, 5))
    node.restart()
    assert answer.get(timeout=15) == 9


def test_a_stopped_worker_has_drained(worker, plain):
    node = worker("plain")
    assert ask(plain, "plain.add", 1, 1) == 2

    node.stop()

    assert "Traceback" not in node.output()
    assert not node.alive


def test_a_worker_that_cannot_start_says_why(worker):
    with pytest.raises(ChildFailed, match="no_such_app"):
        worker("no_such_app")


def test_killed_valkey_comes_back_with_its_data(valkey):
    with valkey.client() as client:
        client.set("order", "paid")
        # While its disk is busy the server holds writes back for up to 2 s.
        wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0, "it is written to the file")

    valkey.kill()
    valkey.start()

    with valkey.client() as client:
        assert client.get("order") == "paid"


def test_each_test_has_an_empty_valkey(redis_client):
    assert redis_client.dbsize() == 0


def test_pytest_celery_speaks_to_local_processes(celery_setup: CeleryTestSetup):
    assert celery_setup.ready(control=True)
    assert ask(celery_setup.app, "plain.add", 1, 2) == 3

    celery_setup.worker.kill()
    assert celery_setup.worker.container.status == "exited"
    celery_setup.broker.restart(force=True)
    celery_setup.worker.restart()

    celery_setup.worker.wait_for_log("ready.", timeout=10)
    assert ask(celery_setup.app, "plain.add", 3, 4) == 7


def test_a_killed_parent_leaves_no_orphan(tmp_path):
    starter = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from bench.children import Valkey
        server = Valkey(Path({str(tmp_path)!r}))
        server.start()
        print(server.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    path = os.pathsep.join(sys.path)

    said = subprocess.run(
        [sys.executable, "-c", starter], capture_output=True, text=True, timeout=30, check=False,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip

    server_pid = int(said.stdout)
    wait_until(lambda: not _runs(server_pid), "the server has died with its parent")


def _runs(pid: int) -> bool:
    # A container may have no init that collects orphans: a zombie has ended.
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("state", "leaks"), [("running", False), ("completed", True)])
def test_a_finished_run_must_not_stay_for_ever(redis_client, state, leaks):
    redis_client.hset("celeriac:{3}:run:order-1", "state", state)
    redis_client.hset("celeriac:{3}:join:order-1:0", "size", 4)
    redis_client.hset("celeriac:{3}:join:order-12:0", "size", 4)
    redis_client.zadd("celeriac:{3}:due", {"order-1": 1})
    redis_client.set("celeriac:{3}:journal:order-1", "kept for a minute", ex=60)

    found = keys_without_end(redis_client)
    redis_client.flushall()  # or the guard after each test would complain

    theirs = ["celeriac:{3}:join:order-1:0", "celeriac:{3}:run:order-1"]
    assert found == (theirs if leaks else [])


@pytest.mark.docker
def test_pytest_celery_speaks_to_containers(celery_redis_broker):
    assert celery_redis_broker.ready()
