"""Runs that sleep cost nobody anything: no message, nothing due, and the same few commands each second."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from celery import _state

from bench.sleepers import entries, put_to_sleep
from canvas.engine import Engine
from canvas.pulse import Sweeper
from status import State, here
from status.settings import Settings
from status.store import Store

SLEEPERS = 3000


@pytest.fixture
def nap(redis_url, tmp_path, monkeypatch) -> Iterator[Any]:
    """The app of `bench/nap.py`, on this test's Redis."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("CELERIAC_DATA_DIR", str(tmp_path))
    before = _state._tls.current_app
    found = import_module("bench.nap")
    found.app.conf.broker_url = redis_url
    here.use(redis_url)
    found.app.set_current()
    yield found
    here.use(None)
    _state._tls.current_app = before


class Looking(Sweeper):
    """A sweeper whose seconds are as short as the test wants them."""

    def __init__(self, app: Any, client: Any) -> None:
        super().__init__(Engine(app, Store(client, Settings.from_environment())), "test")
        self.repaired: list[str] = []
        self.fired: list[str] = []

    def second(self) -> dict[str, int]:
        """One look at everything: what it asked of Redis, by command, and how much it was told."""
        redis, keys = self.engine.store.redis, self.engine.store.keys
        for shard in self._shards:
            # A second has passed. The lease is taken anew: whether it has run out depends on how busy the machine is.
            redis.delete(keys.raised(shard), keys.lease(shard))
        self._next_sweep_s = 0.0
        redis.config_resetstat()
        self.round()
        stats = {name: row["calls"] for name, row in redis.info("commandstats").items()}
        stats.pop("cmdstat_ping", None)  # a connection that has rested for long is tried first
        return stats | {"bytes": redis.info("stats")["total_net_output_bytes"]}

    def repair(self, run_id: str, n: str, p: str) -> None:
        self.repaired.append(f"{run_id}/{n}.{p}")
        super().repair(run_id, n, p)

    def fire(self, timer: Any) -> None:
        self.fired.append(timer.run_id)
        super().fire(timer)


def asleep(nap: Any) -> list[str]:
    ids = [f"nap-{n}" for n in range(SLEEPERS)]
    put_to_sleep(nap.app, nap.sleep, ids[::2])
    put_to_sleep(nap.app, nap.wait, ids[1::2])
    return ids


def test_a_second_with_thousands_of_sleepers_is_a_second_with_none(nap, redis_client):
    sweeper = Looking(nap.app, redis_client)
    sweeper.second()
    alone = sweeper.second()

    asleep(nap)

    assert here.reader().counts()[State.SUSPENDED] == SLEEPERS
    assert entries(redis_client) == {"due": 0, "timers": SLEEPERS, "messages": 0}
    beside = sweeper.second()
    told = beside.pop("bytes") - alone.pop("bytes")
    assert beside == alone
    # A few timers of each shard are looked at, however many there are.
    assert told < 16 * 11 * 120
    assert (sweeper.repaired, sweeper.fired) == ([], [])


def test_of_thousands_only_those_wake_whose_time_has_come(nap, redis_client):
    ids = asleep(nap)
    sweeper = Looking(nap.app, redis_client)
    sweeper.second()
    woken = set(ids[100:160])
    for shard in range(16):
        name = sweeper.engine.store.keys.timers(shard)
        due = {row: 1 for row in redis_client.zrange(name, 0, -1) if row.split("|")[1] in woken}
        if due:
            redis_client.zadd(name, due)

    sweeper.second()
    while sweeper.round() < 0.01:  # a few of a shard at a time
        pass

    assert set(sweeper.fired) == woken
    assert len(sweeper.fired) == len(woken)
    assert entries(redis_client) == {"due": len(woken), "timers": SLEEPERS - len(woken), "messages": len(woken)}
