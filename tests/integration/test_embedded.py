"""The embedded Valkey, started and shared by real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from status import embedded
from status.errors import ConfigError
from status.places import places, reset
from waiting import wait_until

ROOT = Path(__file__).parents[2]

#: Answers each line with the place of Redis, after it has done what the line says.
PROGRAM = """
import os, sys, threading
from status.places import places, reset

def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

def in_a_fork(function):
    if os.fork() == 0:
        function()
        sys.exit()
    os.wait()

print("ready", flush=True)
for line in sys.stdin:
    match line.strip():
        case "reset":
            reset()
        case "thread":
            in_a_thread(places)
        case "fork":
            in_a_fork(places)
    print(places().redis_url, flush=True)
"""


class Client:
    """A process that asks for its places when it is told to."""

    def __init__(self, data_dir: Path) -> None:
        env = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=env | {"PYTHONPATH": str(ROOT), "CELERIAC_DATA_DIR": str(data_dir)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str = "places") -> str:
        self.send(line)
        return self.read()

    def leave(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(timeout=20)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "my data"


@pytest.fixture
def client(data_dir: Path) -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def start() -> Client:
        clients.append(Client(data_dir))
        assert clients[-1].read() == "ready"
        return clients[-1]

    yield start
    for each in clients:
        each.process.kill()
        each.process.wait()


@pytest.fixture
def here(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The places of this process are those of the test."""
    monkeypatch.setenv("CELERIAC_DATA_DIR", str(data_dir))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    reset()
    yield
    embedded.stop()
    reset()


def server_at(url: str) -> psutil.Process:
    with Redis.from_url(url) as redis:
        return psutil.Process(redis.info("server")["process_id"])


def gone(server: psutil.Process) -> bool:
    return not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_processes_that_start_at_the_same_instant_share_one_server(client):
    clients = [client() for _ in range(4)]
    for each in clients:
        each.send("places")

    urls = {each.read() for each in clients}

    assert len(urls) == 1
    server = server_at(urls.pop())
    started_by = [each for each in clients if server.ppid() == each.process.pid]
    assert len(started_by) == 1
    children = [child for each in clients for child in psutil.Process(each.process.pid).children()]
    assert children == [server]


def test_the_server_ends_with_the_process_that_started_it_and_with_no_other(client):
    owner, guest = client(), client()
    server = server_at(owner.ask())
    guest.ask()

    assert guest.leave() == 0
    assert not gone(server)
    assert owner.leave() == 0
    assert gone(server)


def test_a_forked_child_leaves_the_server_of_its_parent_alone(client):
    owner = client()
    server = server_at(owner.ask())

    owner.ask("fork")

    assert not gone(server)


def test_a_server_that_a_passing_thread_asked_for_stays(client):
    owner = client()

    server = server_at(owner.ask("thread"))

    assert not gone(server)


def test_a_killed_owner_leaves_no_server_and_loses_no_data(client):
    owner = client()
    url = owner.ask()
    server = server_at(url)
    Redis.from_url(url).set("kept", "yes")

    owner.process.kill()
    wait_until(lambda: gone(server), "the server has followed its owner")

    heir = client()
    assert heir.ask() == url
    assert Redis.from_url(url).get("kept") == b"yes"


def test_a_killed_server_is_started_again_at_the_same_port_with_its_data(client):
    owner, guest = client(), client()
    url = owner.ask()
    guest.ask()
    Redis.from_url(url).set("kept", "yes")
    first = server_at(url)

    first.kill()
    wait_until(lambda: gone(first), "the server is dead")

    assert guest.ask("reset") == url
    assert Redis.from_url(url).get("kept") == b"yes"
    assert server_at(url).ppid() == guest.process.pid


def test_a_stale_port_file_that_names_a_strangers_server_fools_nobody(here, data_dir, tmp_path):
    stranger = embedded.ensure(tmp_path / "stranger")
    (data_dir / "valkey").mkdir(parents=True)
    (data_dir / "valkey" / "server.port").write_text(stranger.rpartition(":")[2].partition("/")[0])

    url = places().redis_url

    assert url != stranger
    assert Redis.from_url(url).config_get("dir") == {"dir": str(data_dir / "valkey")}


def test_a_port_that_somebody_takes_at_the_last_moment_is_left_to_him(here, tmp_path, monkeypatch):
    stranger = embedded.ensure(tmp_path / "stranger")
    taken = int(stranger.rpartition(":")[2].partition("/")[0])
    monkeypatch.setattr(embedded, "_is_free", lambda _: True)
    monkeypatch.setattr(embedded, "PORTS", range(taken, taken + 100))

    url = places().redis_url

    assert url != stranger
    assert Redis.from_url(url).ping()


@pytest.mark.parametrize("port", ["", "nonsense", "0", "99999999", "1"])
def test_a_port_file_with_nonsense_in_it_is_no_obstacle(here, data_dir, port):
    (data_dir / "valkey").mkdir(parents=True)
    (data_dir / "valkey" / "server.port").write_text(port)

    assert Redis.from_url(places().redis_url).ping()


def test_the_server_keeps_what_it_confirmed_and_throws_nothing_away(here):
    redis = Redis.from_url(places().redis_url)

    assert redis.config_get(
        "appendonly", "appendfsync", "maxmemory-policy", "save", "bind", "stream-node-max-bytes"
    ) == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "bind": "127.0.0.1",
        "stream-node-max-bytes": "512",
    }


def test_without_settings_both_places_are_below_the_data_folder(here, data_dir):
    found = places()

    assert found is places()
    assert found.embedded
    assert found.data_dir == data_dir
    assert found.database_url == f"sqlite:///{data_dir}/shop.db"


def test_a_server_that_can_not_start_shows_the_end_of_its_log(here, data_dir):
    broken = data_dir / "valkey" / "appendonlydir"
    broken.mkdir(parents=True)
    (broken / "appendonly.aof.manifest").write_text("this is no manifest\n")

    with pytest.raises(ConfigError, match=r"(?s)it said:.*manifest.*Mend that"):
        places()


def test_a_data_folder_whose_server_does_not_answer_is_given_up_with_its_name(here, data_dir, client):
    server = server_at(client().ask())
    server.suspend()
    try:
        with pytest.raises(ConfigError, match=r"server\.lock.*did not answer in 0\.1 s"):
            embedded.ensure(data_dir, deadline_s=0.1)
    finally:
        server.resume()
