"""`celery up` as a user runs it, on an app of two queues."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from celery import Celery
from celery.result import AsyncResult

from waiting import wait_until

ROOT = Path(__file__).parents[2]

APP = """
import os, time
from celery import Celery
from kombu import Queue
from status.places import places

url = places().redis_url
app = Celery("tiny", broker=url, backend=url)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_queues=[Queue("fast"), Queue("slow")],
    task_default_queue="fast",
    celeriac_workers={
        "quick": {"queues": ["fast"], "pool": os.environ.get("POOL", "solo"), "concurrency": 2},
        "lazy": {"queues": os.environ.get("LAZY", "slow").split(","), "pool": "solo"},
    },
)

@app.task(name="nap")
def nap(seconds):
    print("napping")
    time.sleep(seconds)
    return seconds
"""

#: The command as the entry point in pyproject.toml declares it, in a checkout that is not installed.
CELERY = """
from celery.bin.celery import celery
from canvas.up import up

celery.add_command(up, "up")
celery(auto_envvar_prefix="CELERY")
"""


class Up:
    """A `celery up` that runs, and what it has shown."""

    def __init__(self, folder: Path, *options: str, env: dict[str, str]) -> None:
        (folder / "tiny.py").write_text(APP)
        inherited = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
        self.shown: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", CELERY, "-A", "tiny", "up", *options],
            cwd=folder,
            env={**inherited, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.shown.extend(line.rstrip() for line in self.process.stdout)

    def lines(self, *parts: str) -> list[str]:
        return [line for line in list(self.shown) if all(part in line for part in parts)]

    def wait_for_line(self, *parts: str, times: int = 1) -> str:
        wait_until(
            lambda: len(self.lines(*parts)) >= times,
            f"{parts} is shown {times} times; shown was:\n" + "\n".join(self.shown),
            timeout_s=30,
        )
        return self.lines(*parts)[-1]

    def ready(self, *nodes: str) -> Up:
        for node in nodes:
            self.wait_for_line(f"{node}@", "ready.")
        return self

    def nap(self, seconds: float) -> AsyncResult:
        url = self.wait_for_line("valkey", "redis://").partition(" at ")[2].partition(",")[0]
        client = Celery("client", broker=url, backend=url, set_as_current=False)
        return client.send_task("nap", [seconds], queue="fast")

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def find(self, *parts: str) -> psutil.Process:
        """The eldest of its processes with all of these in the command line."""
        for process in self.family():
            if set(parts) <= set(process.cmdline()):
                return process
        raise AssertionError(f"no process has {parts} among {self.family()}")

    def servers(self) -> list[psutil.Process]:
        return [process for process in self.family() if process.name().startswith("valkey")]

    def press_ctrl_c(self) -> None:
        """To its whole process group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        exit_code = self.process.wait(timeout=30)
        self.reader.join(timeout=10)
        return exit_code


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*options: str, **env: str) -> Up:
        started.append(Up(tmp_path, *options, env=env))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_until_gone(family: list[psutil.Process]) -> None:
    wait_until(lambda: all(map(gone, family)), f"all of {family} are gone", timeout_s=20)


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_all_is_stopped_in_order_and_a_task_that_runs_is_waited_for(up, how):
    running = up("--no-flower", "--only", "quick", POOL="prefork").ready("quick-1")
    result = running.nap(1.0)
    running.wait_for_line("quick-1", "napping")
    family = running.family()

    if how == "Ctrl-C":
        running.press_ctrl_c()
    else:
        running.process.terminate()

    assert running.end() == 0
    wait_until_gone(family)
    (succeeded,) = running.lines("quick-1", result.id, "succeeded")
    (stopped,) = running.lines("quick-1", "stopped with exit code 0")
    (server,) = running.lines("valkey", "is told to stop")
    assert running.shown.index(succeeded) < running.shown.index(stopped) < running.shown.index(server)
    assert running.shown[-1].endswith("stopped with exit code 0")
    assert not running.lines("died")


def test_a_second_ctrl_c_does_not_wait_for_the_task(up):
    running = up("--no-flower", "--only", "quick", POOL="prefork").ready("quick-1")
    running.nap(100)
    running.wait_for_line("napping")
    family = running.family()

    running.press_ctrl_c()
    running.wait_for_line("is told to stop")
    running.press_ctrl_c()

    assert running.end() == 0
    wait_until_gone(family)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_killed_up_leaves_no_process_even_while_a_task_runs(up, pool):
    running = up("--no-flower", "--only", "quick", POOL=pool).ready("quick-1")
    running.nap(100)
    running.wait_for_line("napping")
    family = running.family()

    running.process.kill()

    assert len(family) >= 3  # Valkey, the guard and a worker, with the children of its pool
    wait_until_gone(family)


def test_a_killed_worker_is_started_again_without_leftovers_of_its_pool(up):
    running = up("--no-flower", "--only", "quick", POOL="prefork").ready("quick-1")
    worker = running.find("-n", "quick-1@%h")
    pool = worker.children()

    worker.kill()

    running.wait_for_line("quick-1", "died with exit code -9 (SIGKILL)", "it is started again now")
    assert pool
    wait_until_gone(pool)
    running.wait_for_line("quick-1@", "ready.", times=2)
    assert running.nap(0).get(timeout=10) == 0


def test_a_killed_server_is_back_at_its_place_and_the_workers_go_on(up):
    running = up("--no-flower", "--only", "quick").ready("quick-1")
    place = running.wait_for_line("valkey", "runs (pid").partition(" at ")[2].partition(",")[0]
    (server,) = running.servers()

    server.kill()

    assert running.wait_for_line("valkey", "is there again").endswith(place)
    assert running.lines("valkey", "died with exit code -9 (SIGKILL)")
    assert running.nap(0).get(timeout=20) == 0
    assert not running.lines("quick-1", "died")


def test_with_a_redis_of_ones_own_no_server_is_started(up, redis_url, tmp_path):
    running = up("--no-flower", "--only", "quick", REDIS_URL=redis_url).ready("quick-1")

    servers = running.servers()
    running.press_ctrl_c()

    assert running.end() == 0
    assert servers == []
    assert running.lines("valkey", f"is not started: REDIS_URL is {redis_url}")
    assert not (tmp_path / ".data" / "valkey").exists()


def test_groups_can_be_chosen_and_multiplied(up):
    running = up("--no-flower", "--only", "quick", "--scale", "quick=2").ready("quick-1", "quick-2")

    assert not running.lines("lazy")


def test_flower_shows_the_same_workers_and_goes_after_them(up):
    pytest.importorskip("flower")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = up("--flower-port", str(port)).ready("quick-1", "lazy-1")
    running.wait_for_line("flower", "Connected to redis://")

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5) as answer:
        assert answer.status == 200
    running.press_ctrl_c()

    assert running.end() == 0
    stops = [line.split()[0] for line in running.lines("stopped with exit code 0")]
    assert set(stops[:2]) == {"quick-1", "lazy-1"}
    assert stops[2:] == ["flower", "valkey"]


def test_a_queue_without_a_worker_is_refused_with_exit_code_2_and_leaves_nothing(up):
    running = up("--no-flower", LAZY="fast")

    assert running.end() == 2
    assert running.lines("nobody would work on the queue 'slow'", "add it to the queues of a group in")
    assert not running.lines("ready.")


def test_a_port_that_is_taken_is_said_before_anything_starts(up):
    pytest.importorskip("flower")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = up("--flower-port", str(port))

        assert running.end() == 2
        assert running.lines(f"Flower can't have port {port}", "use --flower-port or --no-flower")
