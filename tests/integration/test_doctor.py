"""`celery runs doctor` on a real Valkey, with real workers."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from click.testing import CliRunner

from runs import Runs, part, sleep
from status import here, places
from status.cli import runs as commands
from status.keys import Keys
from waiting import wait_until

APP = "trips"
ROOT = Path(__file__).parents[2]
PARKED = '{"step":null,"error_type":"status.errors.NonDeterministic","message":"await 2 was x, is y","code":500}'


@dataclass
class Said:
    """What the doctor said."""

    exit_code: int
    found: list[dict[str, str]]

    def of(self, check: str) -> list[tuple[str, str]]:
        """Severity and text of each finding of a check."""
        return [(each["severity"], each["seen"]) for each in self.found if each["check"] == check]

    def bad(self) -> list[str]:
        return [each["check"] for each in self.found if each["severity"] in {"warning", "error"}]


@pytest.fixture
def doctor(worker_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Said]]:
    """Runs it in this process."""
    for name, value in worker_env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "apps"))
    places.reset()
    app = importlib.import_module(APP).app
    # The app may be of a test before this one, which had another Valkey.
    app.conf.update(broker_url=worker_env["REDIS_URL"])
    here.use(None)

    def run(*options: str) -> Said:
        result = CliRunner().invoke(commands, ["doctor", "--json", *options], obj=SimpleNamespace(app=app))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        told = json.loads(result.stdout)
        return Said(result.exit_code, told["findings"])

    yield run
    places.reset()


@pytest.fixture
def outside(worker_env: dict[str, str], tmp_path: Path) -> Callable[..., Said]:
    """Runs it as people do. In this process an app has the steps of all tests before this one."""

    def run(app: str = APP) -> Said:
        told = subprocess.run(
            [sys.executable, "-m", "celery", "-A", app, "runs", "doctor", "--json"],
            env={**os.environ, **worker_env}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert told.stdout, told.stderr
        return Said(told.returncode, json.loads(told.stdout)["findings"])

    return run


@pytest.fixture
def client(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """Its settings are put back."""
    yield redis_client
    redis_client.config_set("maxmemory-policy", "noeviction")
    redis_client.config_set("maxmemory", 0)
    redis_client.config_set("appendfsync", "everysec")


def trip(client: redis.Redis, run_id: str) -> Runs:
    """A run whose step waits on the queue `q`, that nobody knows."""
    client.set(Keys.layout(), 16)
    return Runs(client, run_id=run_id, shards=16)


def test_a_cluster_in_good_health_ends_with_0(worker, outside):
    worker(APP, pool="prefork", concurrency=1, queues=["celery", "attic"])

    said = wait_until(lambda: (now := outside()).exit_code == 0 and now, "all is well", 40)

    assert said.bad() == []
    assert said.of("workers")[0][1].startswith("1 worker: w1@")
    assert "16 shards swept by w1@" in said.of("runs.sweep")[0][1]
    assert said.of("workers.code")[0][0] == "ok"
    assert said.of("workers.clock")[0][0] == "ok"


def test_keys_may_be_thrown_away_is_an_error(doctor, client):
    client.config_set("maxmemory-policy", "allkeys-lru")

    said = doctor()

    assert said.exit_code == 2
    assert said.of("redis.eviction")[0][0] == "error"
    assert "allkeys-lru" in said.of("redis.eviction")[0][1]


def test_memory_and_fsync_are_seen_as_they_are_set(doctor, client):
    used = client.info()["used_memory"]
    client.config_set("maxmemory", int(used * 1.15))
    client.config_set("appendfsync", "no")

    said = doctor()

    assert [said.of(check)[0][0] for check in ("redis.memory", "redis.aof")] == ["warning", "warning"]


def test_without_workers_runs_that_wait_are_an_error_and_none_a_warning(outside, client):
    idle = outside()
    trip(client, "a").started(part())
    waiting = outside()

    assert (idle.exit_code, idle.bad()) == (1, ["workers"])
    assert waiting.exit_code == 2
    assert waiting.of("workers")[0][0] == "error"
    assert "no worker listens on queue 'q': 1 run waits on it" in waiting.of("workers.queues")[0][1]
    assert waiting.of("runs.sweep")[0][0] == "error"


def test_a_queue_without_a_worker_is_told_with_what_waits_there(worker, outside, doctor, client):
    worker(APP, pool="solo", concurrency=1, queues=["celery"])
    book = importlib.import_module(APP).pack
    book.submit("Rome", run_id="bag")
    wait_until(lambda: client.llen("attic"), "its step is on the queue", 30)

    said = outside()

    assert said.exit_code == 2
    [(severity, seen)] = said.of("workers.queues")
    assert severity == "error"
    # The sweep may have sent it once more by now.
    assert re.fullmatch(r"no worker listens on queue 'attic': 1 run waits on it, \d+ messages? lies? there", seen), seen
    remedy = next(each["remedy"] for each in said.found if each["check"] == "workers.queues")
    assert remedy == "start one with `celery -A trips worker -Q attic`"


def test_a_workflow_that_no_worker_knows_is_an_error(worker, doctor, client):
    worker(APP, pool="solo", concurrency=1, queues=["celery", "attic"])
    trip(client, "a").started(part())  # of workflow `w`

    said = doctor()

    assert said.exit_code == 2
    assert "no worker knows the workflow 'w', of which 1 run has not ended" in said.of("workers.workflows")[0][1]


def test_a_parked_run_is_told_with_its_reason(doctor, client):
    run = trip(client, "stray")
    run.submit()
    run.store.park(run.id, seen="", error=PARKED)

    said = doctor()

    assert said.of("runs.parked") == [("warning", "1 run parked (stray): NonDeterministic: await 2 was x, is y")]


def test_a_run_that_sleeps_is_neither_parked_nor_stuck(doctor, client):
    trip(client, "asleep").started(sleep(), state="suspended")

    said = doctor()

    assert (said.of("runs.parked"), said.of("runs.stuck")) == ([], [])


def test_a_run_that_nothing_would_move_on_is_stuck(doctor, client):
    run = trip(client, "lost")
    run.submit()
    fine = trip(client, "fine")
    fine.submit()
    client.zrem(run.keys.due(run.shard), run.id)

    said = doctor()
    fine.complete(seen="", state="completed")
    run.complete(seen="", state="completed")

    assert said.of("runs.stuck") == [("error", "1 run with nothing due and no open await (lost)")]


def test_an_undo_that_gave_up_is_told(doctor, client):
    run = trip(client, "broke")
    run.submit()
    run.complete(seen="", state="compensation_failed", error=PARKED)

    assert doctor().of("runs.undo_failed")[0][0] == "warning"


def test_a_key_without_an_end_is_found(doctor, client):
    run = trip(client, "done")
    run.submit()
    run.complete(seen="", state="completed")
    alive = trip(client, "alive")
    alive.submit()
    before = doctor()
    client.persist(run.keys.journal(run.id))
    client.persist(run.keys.events(run.id))
    client.set("celeriac:{3}:steps:nobody", "x")
    after = doctor()
    client.expire(run.keys.events(run.id), 60)

    assert before.of("redis.keys")[0][0] == "ok"
    severity, seen = after.of("redis.keys")[0]
    assert severity == "warning"
    assert seen.startswith("2 of ")
    assert run.keys.events(run.id) in seen
    assert "celeriac:{3}:steps:nobody" in seen


def test_other_shards_than_the_stored_are_told_and_the_rest_is_looked_at(doctor, client, monkeypatch):
    run = Runs(client, run_id="a", shards=4)
    client.set(Keys.layout(), 4)
    run.submit()
    monkeypatch.setenv("CELERIAC_SHARDS", "16")

    said = doctor()

    assert said.exit_code == 2
    assert "holds runs on 4 shards, CELERIAC_SHARDS says 16" in said.of("redis.shards")[0][1]
    assert said.of("runs") == [("ok", "1 pending")]


def test_the_doctor_changes_nothing(doctor, client):
    run = trip(client, "a").started(part())
    before = run.everything()

    doctor()
    after = {key: value for key, value in run.everything().items() if not key.startswith("_kombu")}

    assert {key for key in after if "reply" not in key and "pidbox" not in key} == set(before)
    assert all(after[key] == value for key, value in before.items())


def test_a_threads_pool_where_steps_may_be_interrupted_and_a_stock_worker_are_told(worker, outside):
    worker("flow", pool="threads", concurrency=1, queues=["celery"], name="soft")
    worker("plain", pool="solo", concurrency=1, queues=["celery"], name="stock")

    said = outside("flow")

    assert said.exit_code == 2
    assert ["soft@" in seen and "flow.hog" in seen for _, seen in said.of("workers.pool")] == [True]
    assert [(severity, seen[:6]) for severity, seen in said.of("workers.install")] == [("error", "stock@")]


def test_a_redis_that_is_down_is_the_one_finding(outside, worker_env, monkeypatch):
    monkeypatch.setitem(worker_env, "REDIS_URL", "redis://127.0.0.1:1/0")

    said = outside()

    assert (said.exit_code, said.bad()) == (2, ["redis"])
    assert "does not answer" in said.of("redis")[0][1]
