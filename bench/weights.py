"""What a run weighs in Redis: the sum of all of celeriac's keys, as MEMORY USAGE has it, for so many runs."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.children import Valkey
from bench.sleepers import put_to_sleep
from bench.stage import ROOT, Crew, Stage, on_stage

WAIT_S = 180.0


def weigh_finished(folder: Path, runs: int) -> int:
    """Bytes of a finished order."""
    with on_stage([Crew(name="finished", module="order")], folder, packages=("ours",)) as stages:
        stage = stages["finished"]
        empty = _bytes(stage.redis)
        stage.complete(stage.side("ours"), [f"order-{n}" for n in range(runs)], WAIT_S)
        return round((_bytes(stage.redis) - empty) / runs)


def weigh_running(folder: Path, runs: int) -> int:
    """Bytes of an order that is at its last await, three steps waiting in a queue; the messages are not counted."""
    crew = Crew(name="running", module="order", held="ours.send_*")
    with on_stage([crew], folder, packages=("ours",)) as stages:
        stage = stages["running"]
        empty = _bytes(stage.redis)
        side = stage.side("ours")
        for n in range(runs):
            side.start(f"order-{n}")
        stage.until(lambda: _held(stage) >= 3 * runs, f"{runs} orders did not come to their last await", WAIT_S)
        return round((_bytes(stage.redis) - empty) / runs)


def _held(stage: Stage) -> int:
    return sum(int(stage.redis.llen(key)) for key in stage.redis.scan_iter("held*", _type="list"))


def weigh_sleeping(folder: Path, runs: int) -> int:
    """Bytes of a run that sleeps in its first await."""
    own = folder / "sleeping"
    own.mkdir()
    valkey = Valkey(own)
    try:
        valkey.start()
        os.environ.update(REDIS_URL=valkey.url, CELERIAC_DATA_DIR=str(own), PYTHONPATH=str(ROOT))
        nap = import_module("bench.nap")
        nap.app.set_current()
        with valkey.client() as client:
            put_to_sleep(nap.app, nap.sleep, [f"nap-{n}" for n in range(runs)])
            return round(_bytes(client) / runs)
    finally:
        valkey.stop()


def _bytes(client: Any) -> int:
    """Of all keys of celeriac's but those that go a minute after a run's end."""
    names = [name for name in client.scan_iter("celeriac:*", count=10_000) if not name.endswith("/end")]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.memory_usage(name, samples=0)
    return sum(int(used or 0) for used in pipe.execute())
