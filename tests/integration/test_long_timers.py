"""Times of days: every process dies, the embedded Valkey too, and comes back; what waited still waits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bench.children import Worker
from waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
DAYS_MS = 3 * 86_400_000


class House:
    """One worker, on the embedded server that it starts; nothing else lives on."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        apart = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "DATABASE_URL"}}
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "apps")])
        self.env = {**apart, "CELERIAC_DATA_DIR": str(self.data), "PYTHONPATH": path}
        self.worker = Worker("patient", log=folder / "worker.log", env=self.env, pool="solo")

    def client(self) -> redis.Redis:
        port = int((self.data / "valkey" / "server.port").read_text())
        return redis.Redis(port=port, decode_responses=True, socket_timeout=5)

    def python(self, code: str) -> str:
        """What a process of its own prints."""
        done = subprocess.run(
            [sys.executable, "-c", f"import patient; {code}"],
            env=self.env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def everything_dies(self) -> None:
        pid = int(self.client().info("server")["process_id"])
        self.worker.kill()
        wait_until(lambda: not _lives(pid), "the server has ended with the worker that started it", 20)

    def state(self, run_id: str) -> str:
        found = [str(key) for key in self.client().scan_iter(f"*:run:{run_id}")]
        return str(self.client().hget(found[0], "state")) if found else ""

    def timers(self) -> dict[str, tuple[str, float]]:
        """Run -> its timer, and when it is due in ms."""
        rows: dict[str, tuple[str, float]] = {}
        for key in self.client().scan_iter("*:timers"):
            for member, at_ms in self.client().zrange(key, 0, -1, withscores=True):
                rows[member.split("|")[1]] = (f"{key} {member}", at_ms)
        return rows


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    made.worker.start()
    yield made
    made.worker.stop()


def result(house: House, run_id: str, workflow: str) -> str:
    return house.python(f"print(patient.{workflow}.handle({run_id!r}).result(timeout_s=30))")


@pytest.mark.timeout(170)
def test_what_waits_for_days_outlives_the_death_of_everything(house):
    house.python("[patient.sleep.submit(run_id='s')] + [patient.ask.submit(run_id=r) for r in ('timed', 'asked')]")
    wait_until(lambda: {house.state(r) for r in ("s", "timed", "asked")} == {"suspended"}, "all of them wait", 20)
    before = house.timers()
    server_ms = float(house.client().time()[0]) * 1000
    assert all(DAYS_MS - 120_000 < at_ms - server_ms <= DAYS_MS + 1000 for _, at_ms in before.values())

    for _ in range(2):
        house.everything_dies()
        house.worker.start()

    assert house.timers() == before
    assert {house.state(r) for r in ("s", "timed", "asked")} == {"suspended"}
    # Three days pass: what is due then is due now. No clock but the timers' own is asked.
    for run_id in ("s", "timed"):
        key, _, member = before[run_id][0].partition(" ")
        house.client().zadd(key, {member: 1}, xx=True)
    assert result(house, "s", "sleep").startswith("woken, asleep since 20")
    assert result(house, "timed", "ask") == "nobody"
    assert house.python("print(patient.answer.resolve('asked', 7))") == "accepted"
    assert result(house, "asked", "ask") == "said 7"
    assert house.timers() == {}
    assert house.python("print(patient.answer.resolve('timed', 7))") == "late"


@pytest.mark.timeout(170)
def test_a_value_that_was_accepted_outlives_the_death_of_everything(house):
    """It is on record and nobody was told: whoever comes next finds it due."""
    house.python("patient.ask.submit(run_id='r')")
    wait_until(lambda: house.state("r") == "suspended", "it waits", 20)
    house.worker.kill()

    said = house.python(
        "from status import here; here.follow_with(lambda *_: None); print(patient.answer.resolve('r', 5))"
    )

    assert said == "accepted"
    house.worker.start()
    assert result(house, "r", "ask") == "said 5"
    assert house.timers() == {}
