"""Redis and the broker die, forget, refuse and come back; real workers, real servers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import _state

from bench.children import Valkey
from canvas import PayloadError, RunFailed, RunNotFound, StoreUnavailable, payload
from status import get_status, here
from waiting import wait_until


@pytest.fixture
def faults(redis_url, worker_env, tmp_path, monkeypatch) -> Iterator[Any]:
    """The client's side of tests/apps/faults.py; `.lines(name)` and `.go(name)` of its steps."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import faults

    before = _state._tls.current_app
    worker_env[faults.FOLDER] = str(tmp_path)
    _point(faults, redis_url, redis_url)

    def lines(name: str) -> list[str]:
        path = tmp_path / name
        return path.read_text().split() if path.exists() else []

    yield SimpleNamespace(
        app=faults.app,
        holding=faults.holding,
        counting=faults.counting,
        larger=faults.larger,
        echo=faults.echo,
        lines=lines,
        go=lambda name: (tmp_path / f"{name}.go").touch(),
    )
    here.use(None)
    _state._tls.current_app = before


def _point(faults: Any, state_url: str, broker_url: str) -> None:
    faults.app.conf.broker_url = broker_url
    faults.app.__dict__.pop("_celeriac", None)  # its engine, and with it its store
    faults.app._pool = None  # the next connection is to the new address
    faults.app.amqp._producer_pool = None
    here.use(state_url)
    faults.app.set_current()


@pytest.fixture
def workers(worker):
    """Starts workers of the app; they are killed in the end."""
    started = []

    def start(**options: Any) -> Any:
        started.append(worker("faults", options=("--without-mingle", "--without-gossip"), **options))
        return started[-1]

    yield start
    for node in started:
        node.kill()


@pytest.fixture
def broker(faults, worker_env, redis_url, tmp_path) -> Iterator[Valkey]:
    """A second server, for messages alone."""
    folder = tmp_path / "broker"
    folder.mkdir()
    server = Valkey(folder, name="broker")
    server.start()
    worker_env["BROKER_URL"] = server.url
    _point(faults, redis_url, server.url)
    yield server
    server.stop()


class Disk:
    """The append-only file of a server, to bring back an earlier moment of it."""

    def __init__(self, server: Valkey) -> None:
        self.server = server
        wait_until(self._settled, "nothing is written any more")
        self.sizes = {path: path.stat().st_size for path in self._files()}

    def _files(self) -> list[Path]:
        return list((self.server.log.parent / "appendonlydir").glob("*.incr.aof"))

    def _settled(self) -> bool:
        with self.server.client() as client:
            return client.info("persistence")["aof_buffer_length"] == 0

    def lose_what_came_since(self) -> None:
        """Kill the server and start it as it was when this was made."""
        self.server.kill()
        for path, size in self.sizes.items():
            os.truncate(path, size)
        self.server.start()


def ended(run_id: str, timeout_s: float = 40) -> str:
    wait_until(lambda: get_status(run_id).finished, f"{run_id} has ended", timeout_s, 0.1)
    return get_status(run_id).state


# --- Redis restarts ------------------------------------------------------------------


def test_lost_begin_and_join_while_the_step_runs(faults, workers, valkey):
    """The restarted Redis knows of neither: the step is not begun beside itself, and the run ends."""
    faults.holding.submit("h", run_id="r")
    disk = Disk(valkey)
    workers(concurrency=2)
    wait_until(lambda: faults.lines("h") == ["begin"], "the step runs")

    disk.lose_what_came_since()

    wait_until(lambda: get_status("r").steps, "the run has opened its await anew", 20)
    _ticks_pass(valkey, 10)
    assert faults.lines("h") == ["begin"]
    faults.go("h")
    assert ended("r") == "completed"
    assert faults.lines("h") == ["begin", "end", "begin", "end"]


def test_down_longer_than_lease_while_the_step_runs(faults, workers, valkey):
    workers(concurrency=2)
    faults.holding.submit("h", run_id="r")
    wait_until(lambda: faults.lines("h") == ["begin"], "the step runs")

    valkey.kill()
    _seconds_pass(6)
    valkey.start()

    _ticks_pass(valkey, 7)
    faults.go("h")
    assert ended("r") == "completed"
    assert faults.lines("h") == ["begin", "end"]


def test_finish_unrecordable_then_redis_back_is_success(faults, workers, valkey):
    node = workers(concurrency=1)
    faults.holding.submit("h", run_id="r")
    wait_until(lambda: faults.lines("h") == ["begin"], "the step runs")

    valkey.kill()
    faults.go("h")
    wait_until(lambda: faults.lines("h") == ["begin", "end"], "the step has ended")
    wait_until(lambda: "could not record" in node.output(), "its worker has tried to say so", 20)
    valkey.start()

    assert ended("r") == "completed"
    assert faults.lines("h") == ["begin", "end"]


def test_restarts_while_many_run_lose_none_of_them(faults, workers, valkey):
    workers(concurrency=4)
    for lap in range(2):
        names = [f"c{lap}-{n}" for n in range(10)]
        for name in names:
            faults.counting.submit(name, run_id=name)
        wait_until(lambda names=names: any(faults.lines(name) for name in names), "they run")
        valkey.kill()
        valkey.start()
        assert [ended(name) for name in names] == ["completed"] * 10


# --- one of two servers --------------------------------------------------------------


def _all_end_although_it_restarts(server, faults, workers):
    workers(concurrency=4)
    names = [f"c{n}" for n in range(10)]
    for name in names:
        faults.counting.submit(name, run_id=name)
    wait_until(lambda: any(faults.lines(name) for name in names), "they run")

    server.kill()
    server.start()

    assert [ended(name) for name in names] == ["completed"] * 10


def test_state_restarts_broker_not(faults, workers, valkey, broker):
    _all_end_although_it_restarts(valkey, faults, workers)


def test_broker_restarts_state_not(faults, workers, valkey, broker):
    _all_end_although_it_restarts(broker, faults, workers)


def test_state_restarts_broker_not_and_forgets(faults, workers, valkey, broker):
    """Its messages are of joins that the state does not know: they are void, and the runs start over."""
    names = [f"c{n}" for n in range(5)]
    for name in names:
        faults.counting.submit(name, run_id=name)
    disk = Disk(valkey)
    workers(concurrency=2)
    wait_until(lambda: all(faults.lines(name) for name in names), "they run")

    disk.lose_what_came_since()

    assert [ended(name) for name in names] == ["completed"] * 5


def test_flushdb_of_broker(faults, workers, broker):
    names = [f"c{n}" for n in range(5)]
    for name in names:
        faults.counting.submit(name, run_id=name)
    broker.client().flushdb()

    workers(concurrency=2)

    assert [ended(name) for name in names] == ["completed"] * 5
    assert [faults.lines(name) for name in names] == [["0", "1", "2", "3"]] * 5


def test_connection_reset_in_brpop(faults, workers, valkey):
    workers(concurrency=2)
    for n in range(5):
        faults.counting.submit(f"c{n}", run_id=f"c{n}")
        with valkey.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert [ended(f"c{n}") for n in range(5)] == ["completed"] * 5


# --- Redis refuses -------------------------------------------------------------------


@pytest.fixture
def full(valkey) -> Iterator[Any]:
    """Lets Redis be out of memory, and not."""

    def be(yes: bool) -> None:
        with valkey.client() as client:
            client.config_set("maxmemory", 1 if yes else 0)

    yield be
    be(False)


def test_a_submit_to_a_full_redis_is_refused_in_one_line(faults, full):
    faults.counting.submit("c", run_id="before")
    full(True)

    with pytest.raises(StoreUnavailable) as refused:
        faults.counting.submit("c", run_id="r")

    message = str(refused.value)
    assert "run r was not submitted, nothing of it is recorded: Redis is out of memory" in message
    assert "raise its maxmemory" in message
    assert "\n" not in message
    with pytest.raises(RunNotFound):
        get_status("r")
    full(False)
    faults.counting.submit("c", run_id="r")
    assert get_status("r").state == "pending"


def test_oom_inside_finish(faults, workers, full):
    """What has ended is no failure meanwhile, and its run goes on when there is room again."""
    node = workers(concurrency=1)
    faults.holding.submit("h", run_id="r")
    wait_until(lambda: faults.lines("h") == ["begin"], "the step runs")

    full(True)
    faults.go("h")
    wait_until(lambda: faults.lines("h") == ["begin", "end"], "the step has ended")
    wait_until(lambda: "Redis is out of memory" in node.output(), "its worker has said so", 20)
    assert get_status("r").state == "running"
    full(False)

    assert ended("r") == "completed"
    assert faults.lines("h") == ["begin", "end"]
    assert "Redis is out of memory and takes no writes: raise its maxmemory" in node.output()


def test_oom_before_begin_loses_no_message_and_no_worker(faults, workers, full, valkey):
    """Longer than a message waits in its slot: it can't go back to its queue either."""
    node = workers(concurrency=1)
    faults.holding.submit("h", run_id="first")
    wait_until(lambda: faults.lines("h") == ["begin"], "its one slot is taken")
    faults.counting.submit("c", run_id="r")
    full(True)
    faults.go("h")
    wait_until(lambda: "out of memory" in node.output(), "the worker has noticed", 20)
    _seconds_pass(2)
    full(False)

    assert ended("r") == "completed"
    assert faults.lines("c") == ["0", "1", "2", "3"]
    assert node.alive


# --- clients and values --------------------------------------------------------------


def test_a_client_killed_in_submit_between_record_and_publish(faults, workers, worker_env):
    script = """
        import os
        from apps import faults
        from canvas.publisher import Publisher
        Publisher.turn = lambda *_, **__: os._exit(9)
        faults.counting.submit("c", run_id="r")
    """
    env = {**os.environ, **worker_env}
    client = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=env, capture_output=True, text=True, check=False
    )
    assert client.returncode == 9, client.stderr
    assert get_status("r").state == "pending"

    workers(concurrency=1)

    assert ended("r") == "completed"
    assert faults.lines("c") == ["0", "1", "2", "3"]


def test_a_result_over_the_limit_fails_its_step_at_once(faults, workers):
    workers(concurrency=1, env={"CELERIAC_MAX_VALUE_BYTES": "2000"})

    assert faults.larger.submit(1000).result(timeout_s=30) == 1000
    with pytest.raises(RunFailed) as failed:
        faults.larger.submit(5000, run_id="r").result(timeout_s=30)
    with pytest.raises(RunFailed, match=r"the result of faults\.echo: 5,002 bytes"):
        faults.echo.submit(5000).result(timeout_s=30)

    assert failed.value.error_type.endswith("PayloadError")
    assert "the result of faults.large: 5,002 bytes as JSON are more than CELERIAC_MAX_VALUE_BYTES (2,000)" in str(
        failed.value
    )
    assert "pass its key, or raise the limit" in str(failed.value)
    assert faults.lines("large") == ["begin"] * 2


def test_an_argument_over_the_limit_is_refused_before_anything_is_recorded(faults, monkeypatch):
    monkeypatch.setenv("CELERIAC_MAX_VALUE_BYTES", "100")
    payload.max_value_bytes.cache_clear()
    try:
        with pytest.raises(PayloadError, match=r"argument name of faults\.counting: 101 bytes"):
            faults.counting.submit("x" * 101, run_id="r")
    finally:
        payload.max_value_bytes.cache_clear()
    with pytest.raises(RunNotFound):
        get_status("r")


def _ticks_pass(valkey: Valkey, number: int) -> None:
    """Wait until the run's shard has been swept so often."""
    key = here.store().keys.tick(here.store().keys.shard_of("r"))
    with valkey.client() as client:
        start = int(client.get(key) or 0)
        wait_until(lambda: int(client.get(key) or 0) >= start + number, f"{number} ticks have passed", 40, 0.1)


def _seconds_pass(seconds: float) -> None:
    """For that something must not happen meanwhile."""
    threading.Event().wait(seconds)
