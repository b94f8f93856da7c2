"""`python -m bench.sleepers`: what runs cost that sleep, or wait, for days: Redis' memory, and CPU of all processes.

Valkey and one worker are watched while they have nothing, then while so many runs sleep. Exit codes as `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis

from bench.children import ChildFailed, Valkey, Worker
from bench.stage import ROOT, tree_cpu_s

OUT = Path(__file__).parent / "results" / "sleepers.json"

#: Transitions that are sent in one go.
BATCH = 500


class Batched:
    """In the place of a store's scripts: keeps the calls of transitions, and sends them together.

    Each is answered at once with what it must come to; `send` sees that it did.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pipe = client.pipeline(transaction=False)
        self._expected: list[str] = []

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any], _meanwhile: Any = None) -> list[str]:
        from status.scripts import digest  # noqa: PLC0415  # after the environment is set

        self._pipe.evalsha(digest(name), len(keys), *keys, *args)
        self._expected.append({"submit": "created", "open_join": "opened"}[name])
        return [self._expected[-1]]

    def send(self) -> None:
        answers = [answer[0] for answer in self._pipe.execute()]
        if answers != self._expected:
            raise RuntimeError(f"expected {self._expected[:4]}, got {answers[:4]}: these runs do not sleep")
        self._expected.clear()


def put_to_sleep(app: Any, workflow: Any, run_ids: Sequence[str]) -> None:
    """Submit runs and take the first turn of each: the real turn and the real transitions, sent in batches."""
    from canvas.engine import Engine  # noqa: PLC0415
    from canvas.turn import take_turn  # noqa: PLC0415
    from status.records import RunRecord  # noqa: PLC0415
    from status.scripts import source  # noqa: PLC0415
    from status.settings import Settings  # noqa: PLC0415
    from status.store import Store  # noqa: PLC0415

    client = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    for name in ("submit", "open_join"):
        client.script_load(source(name))
    store, batched = Store(client, Settings.from_environment()), Batched(client)
    store._scripts = batched  # type: ignore[assignment]  # noqa: SLF001
    engine = Engine(app, store)
    for at in range(0, len(run_ids), BATCH):
        for n, run_id in enumerate(run_ids[at : at + BATCH], at):
            text, now_ms = workflow.write_input((n,), {}), str(int(time.time() * 1000))
            store.submit(run_id, workflow=workflow.name, input_json=text, digest=uuid4().hex * 2, token=uuid4().hex)
            fields = {"workflow": workflow.name, "state": "pending", "submitted_ms": now_ms, "updated_ms": now_ms}
            fields |= {"input": text, "seen": "", "open": ""}
            take_turn(engine, run_id, RunRecord(run_id, fields, {}))
        batched.send()
    client.close()


def watch(valkey: Valkey, worker: Worker, watch_s: float) -> dict[str, float]:
    """What both use while nothing happens, as per cent of one CPU, and what goes over the wire each second."""
    client = valkey.client()
    at_s = time.perf_counter()
    before, stats = (tree_cpu_s(valkey.pid), tree_cpu_s(worker.pid)), client.info("stats")
    time.sleep(watch_s)
    took_s = time.perf_counter() - at_s
    after, now = (tree_cpu_s(valkey.pid), tree_cpu_s(worker.pid)), client.info("stats")
    return {
        "valkey_cpu_percent": round(100 * (after[0] - before[0]) / took_s, 2),
        "worker_cpu_percent": round(100 * (after[1] - before[1]) / took_s, 2),
        "commands_per_s": round((now["total_commands_processed"] - stats["total_commands_processed"]) / took_s, 1),
        "bytes_from_valkey_per_s": round((now["total_net_output_bytes"] - stats["total_net_output_bytes"]) / took_s, 1),
    }


def entries(client: redis.Redis) -> dict[str, int]:
    """How many entries there are of what a worker may look at."""
    queued = sum(client.llen(key) for key in client.scan_iter("*", count=10_000, _type="list"))
    return {
        "due": sum(client.zcard(key) for key in client.scan_iter("*:due", count=10_000)),
        "timers": sum(client.zcard(key) for key in client.scan_iter("*:timers", count=10_000)),
        "messages": queued,
    }


def keys_of_a_run(client: redis.Redis, run_id: str) -> dict[str, int]:
    """Bytes of each key of one run."""
    keys = [str(key) for key in client.scan_iter(f"*:{run_id}*", count=10_000)]
    return {key.split(":")[2]: int(client.memory_usage(key, samples=0) or 0) for key in sorted(keys)}


def used_bytes(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


@contextmanager
def on_stage(folder: Path) -> Iterator[tuple[Valkey, Callable[[], Worker]]]:
    """A Valkey, and what starts a worker for it; both ended when the block is left."""
    valkey = Valkey(folder)
    started: list[Worker] = []

    def start() -> Worker:
        env = {name: os.environ[name] for name in ("REDIS_URL", "CELERIAC_DATA_DIR", "PYTHONPATH")}
        options = ["--without-gossip", "--without-mingle"]
        worker = Worker("bench.nap", log=folder / "worker.log", env=env, loglevel="WARNING", options=options)
        started.append(worker)
        worker.start()
        return worker

    try:
        valkey.start()
        os.environ.update(REDIS_URL=valkey.url, CELERIAC_DATA_DIR=str(folder), PYTHONPATH=str(ROOT))
        yield valkey, start
    finally:
        for worker in started:
            worker.stop()
        valkey.stop()


def run(runs: int, watch_s: float, kind: str) -> dict[str, Any]:
    """Measure, with a Valkey and a worker of its own."""
    with tempfile.TemporaryDirectory(prefix="sleepers-") as folder, on_stage(Path(folder)) as (valkey, start):
        nap = import_module("bench.nap")
        client, worker = valkey.client(), start()
        worker.wait(lambda: watch(valkey, worker, 1.0)["worker_cpu_percent"] < 20, "never came to rest", 30)
        none = watch(valkey, worker, watch_s)
        before = used_bytes(client)
        began_s = time.perf_counter()
        put_to_sleep(nap.app, getattr(nap, kind), [f"nap-{n}" for n in range(runs)])
        took_s = time.perf_counter() - began_s
        per_run = (used_bytes(client) - before) / runs
        print(f"{runs} runs sleep after {took_s:.0f} s, {per_run:.0f} bytes each", file=sys.stderr)
        time.sleep(3)  # the append-only file is written to disk
        many = watch(valkey, worker, watch_s)
        woken_s = _wake_one(client, nap, kind)
        return {
            "runs": runs,
            "kind": kind,
            "bytes_per_run": round(per_run),
            "bytes_by_key": keys_of_a_run(client, "nap-1"),
            "submitted_per_s": round(runs / took_s),
            "watched_s": watch_s,
            "entries": entries(client),
            "with_none": none,
            "with_runs": many,
            "one_woken_after_s": round(woken_s, 2),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        }


def _wake_one(client: redis.Redis, nap: Any, kind: str) -> float:
    """Let the time of one of them be over: it wakes, the others sleep on."""
    (timers,) = [key for key in client.scan_iter("*:timers", count=10_000) if _timer_of(client, key)]
    client.zadd(timers, {_timer_of(client, timers)[0]: 1})
    began_s = time.perf_counter()
    getattr(nap, kind).handle("nap-0").result(timeout_s=30)
    return time.perf_counter() - began_s


def _timer_of(client: redis.Redis, key: str) -> list[str]:
    return [member for member, _ in client.zscan_iter(key, match="*|nap-0|*", count=10_000)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sleepers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--watch-s", type=float, default=20.0)
    parser.add_argument(
        "--kind", choices=("sleep", "wait"), default="sleep", help="wait: for a promise, with a time limit"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if not 1 <= options.runs <= 1_000_000 or options.watch_s < 1:
        parser.error("--runs must be from 1 to 1000000 and --watch-s at least 1")
    # A SIGTERM ends the processes as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = run(options.runs, options.watch_s, options.kind)
    except (ChildFailed, RuntimeError, redis.RedisError) as failed:
        print(f"sleepers: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sleepers: stopped", file=sys.stderr)
        return 130
    text = json.dumps(results, indent=2)
    options.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
