"""`python -m bench.awaits`: one run of 1,000 awaits: what an await costs at its end beside its beginning.

A worker of two processes plays it twice: with short steps in place, and with a message for each. Exit codes as `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.children import ChildFailed, Valkey, Worker
from bench.stage import ROOT
from status import get_status

OUT = Path(__file__).parent / "results" / "awaits.json"
#: Awaits at each end that are compared.
SAMPLE = 100
#: A run that takes longer is stuck.
PATIENCE_S = 300.0


def cost_ms(run_id: str) -> list[float]:
    """From each step's start to the next one's, ms."""
    begun = [step.started_at for step in get_status(run_id).steps if step.started_at is not None]
    return [(after - before).total_seconds() * 1000 for before, after in pairwise(sorted(begun))]


def figures(costs: Sequence[float]) -> dict[str, float]:
    """The first awaits beside the last ones: means, for in place most are cheap and a few are a message."""
    first, last = statistics.mean(costs[:SAMPLE]), statistics.mean(costs[-SAMPLE:])
    return {"first_ms": round(first, 3), "last_ms": round(last, 3), "ratio": round(last / first, 2)}


def measure(awaits: int) -> dict[str, dict[str, float]]:
    """Play a run on a worker that runs short steps in place, and one on a worker that does not."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="celeriac-awaits-") as made, ExitStack() as ending:
        folder = Path(made)
        valkey = Valkey(folder)
        ending.callback(valkey.stop)
        valkey.start()
        env = {"REDIS_URL": valkey.url, "CELERIAC_DATA_DIR": str(folder), "PYTHONPATH": str(ROOT)}
        os.environ.update(env)
        chain = import_module("bench.chain")
        for how, in_place_ms in (("in_place", 5), ("messages", 0)):
            more = {"CELERIAC_IN_PLACE_MS": str(in_place_ms)}
            worker = Worker("bench.chain", log=folder / f"{how}.log", env=env | more, name=how, loglevel="WARNING")
            ending.callback(worker.stop)
            worker.start()
            chain.one_by_one.submit(20, run_id=f"warm-{how}").result(timeout_s=PATIENCE_S)
            chain.one_by_one.submit(awaits, run_id=how).result(timeout_s=PATIENCE_S)
            worker.stop()
            found[how] = figures(cost_ms(how))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.awaits", description=__doc__)
    parser.add_argument("--awaits", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = measure(options.awaits)
    except (ChildFailed, TimeoutError) as failed:
        print(f"bench.awaits: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    results: dict[str, Any] = {"awaits": options.awaits, "sample": SAMPLE, "cores": os.cpu_count(), **found}
    results["python"] = platform.python_version()
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
