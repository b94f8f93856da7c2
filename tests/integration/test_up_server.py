"""The embedded Valkey in the hands of `celery up`, when others have a hand in it too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from canvas.up_server import ServerWatch
from status import embedded
from status.places import Places, places, reset
from waiting import wait_until

ROOT = Path(__file__).parents[2]

#: Has the server until its standard input is closed.
OWNER = "import sys; from status.places import places; print(places().redis_url, flush=True); sys.stdin.read()"


class Watching:
    """A watch, what it says, and where the server moved to."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.moves: list[Places] = []
        self.watch = ServerWatch(places(), say=self.say, on_moved=self.moves.append)
        self.watch.start()

    def say(self, _name: str, line: str) -> None:
        self.said.append(line)

    def wait_for_line(self, part: str) -> str:
        wait_until(lambda: any(part in line for line in self.said), f"it says {part!r}; it said {self.said}")
        return next(line for line in self.said if part in line)


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], Watching]]:
    """Starts watches on the server of this test's folder."""
    monkeypatch.setenv("CELERIAC_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    reset()
    started: list[Watching] = []

    def start() -> Watching:
        started.append(Watching())
        return started[-1]

    yield start
    for each in started:
        each.watch.stop()
    embedded.stop()
    reset()


def kill_server(url: str) -> None:
    with Redis.from_url(url) as redis:
        server = psutil.Process(redis.info("server")["process_id"])
    server.kill()


def test_a_server_whose_owner_leaves_is_taken_over_at_its_place(watching):
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        watched = watching()
        watched.wait_for_line("ran already, for another process")
        Redis.from_url(url).set("kept", "yes")

        owner.communicate()

        assert watched.wait_for_line("is there again").endswith(url)
        watched.wait_for_line("was stopped by the process that started it")
        assert Redis.from_url(url).get("kept") == b"yes"
        assert watched.moves == []


def test_the_server_of_another_process_is_left_to_it(watching):
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        watched = watching()

        watched.watch.stop()

        assert watched.said[-1] == "stays, for the process that started it"
        assert Redis.from_url(url).ping()


def test_who_depends_on_it_is_told_when_its_port_is_lost(watching, monkeypatch):
    watched = watching()
    before = places().redis_url
    lost = embedded.remembered_port(places().data_dir / "valkey")
    is_free = embedded._is_free
    monkeypatch.setattr(embedded, "_is_free", lambda port: port != lost and is_free(port))

    kill_server(before)

    (moved,) = wait_until(lambda: watched.moves, "the move is told")
    assert moved.redis_url != before
    assert Redis.from_url(moved.redis_url).ping()


def test_a_server_that_can_not_come_back_is_tried_again_with_the_reason_said(watching, monkeypatch):
    watched = watching()
    before = places().redis_url
    monkeypatch.setenv("REDIS_SERVER", "/nowhere/redis-server")

    kill_server(before)

    assert "/nowhere/redis-server" in watched.wait_for_line("can't be started again")
    monkeypatch.delenv("REDIS_SERVER")
    watched.wait_for_line("is there again")
