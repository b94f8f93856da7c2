"""`python -m bench.rounds`: one run that begins anew 100,000 times: what it takes of Redis' and the worker's memory.

A worker with two threads plays it; after each tenth of the rounds everything is measured. Exit codes as `bench`.
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
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import redis

from bench.children import ChildFailed, Valkey, Worker
from bench.sleepers import used_bytes
from bench.stage import ROOT

OUT = Path(__file__).parent / "results" / "rounds.json"
RUN = "counter"
#: No round takes so long.
STALLED_S = 60.0


def sample(client: redis.Redis, worker: Worker, began_s: float) -> dict[str, Any]:
    """What there is of the run now."""
    keys = [str(key) for key in client.scan_iter(f"*:{RUN}*", count=10_000)]
    journals = [key for key in keys if ":journal:" in key]
    return {
        "round": int(str(client.hget(next(key for key in keys if ":run:" in key), "round") or 1)),
        "after_s": round(time.perf_counter() - began_s, 1),
        "keys": len(keys),
        "bytes_of_the_run": sum(int(client.memory_usage(key, samples=0) or 0) for key in keys),
        "journal_fields": sum(int(client.hlen(key)) for key in journals),
        "valkey_bytes": used_bytes(client),
        "worker_bytes": psutil.Process(worker.pid).memory_info().rss,
    }


def follow(client: redis.Redis, worker: Worker, rounds: int) -> list[dict[str, Any]]:
    """Samples after each tenth of the rounds."""
    began_s = moved_s = time.perf_counter()
    samples: list[dict[str, Any]] = []
    at = 0
    while len(samples) < 10:
        found = sample(client, worker, began_s)
        if found["round"] != at:
            at, moved_s = found["round"], time.perf_counter()
        if at >= (len(samples) + 1) * rounds // 10:
            samples.append(found)
            print(json.dumps(found), file=sys.stderr, flush=True)
        if time.perf_counter() - moved_s > STALLED_S:
            raise RuntimeError(f"the run stands still in round {at}")
        time.sleep(0.05)
    return samples


def run(rounds: int) -> dict[str, Any]:
    """Measure, with a Valkey and a worker of its own."""
    with tempfile.TemporaryDirectory(prefix="rounds-") as name:
        folder = Path(name)
        valkey = Valkey(folder)
        valkey.start()
        try:
            env = {"REDIS_URL": valkey.url, "CELERIAC_DATA_DIR": name, "PYTHONPATH": str(ROOT)}
            os.environ.update(env)
            worker = Worker(
                "bench.round", log=folder / "worker.log", env=env, pool="threads", loglevel="WARNING",
                options=["--without-gossip", "--without-mingle"],
            )  # fmt: skip
            worker.start()
            try:
                handle = import_module("bench.round").count.submit(rounds, run_id=RUN)
                samples = follow(valkey.client(), worker, rounds)
                total = handle.result(timeout_s=STALLED_S)
            finally:
                worker.stop()
        finally:
            valkey.stop()
    took_s = samples[-1]["after_s"]
    return {
        "rounds": rounds,
        "result": total,
        "rounds_per_s": round(rounds / took_s, 1),
        "samples": samples,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rounds", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if not 10 <= options.rounds <= 10_000_000:
        parser.error("--rounds must be from 10 to 10000000")
    # A SIGTERM ends the processes as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = run(options.rounds)
    except (ChildFailed, RuntimeError, redis.RedisError) as failed:
        print(f"rounds: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rounds: stopped", file=sys.stderr)
        return 130
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
