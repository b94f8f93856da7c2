"""`python -m bench.pages`: how soon Flower's Workflows tab answers with many runs, and what pages that watch cost.

A Valkey is filled by the runs' own transitions; then a real Flower is asked, and workers sell orders with and without
ten pages that watch. Exit codes as `bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from bench.__main__ import FAILURES
from bench.children import Child, free_port
from bench.filling import Filler
from bench.stage import Crew, Stage, on_stage

OUT = Path(__file__).parent / "results" / "pages.json"

#: What is asked of the list.
LISTS = {
    "newest": "",
    "running": "state=running",
    "failed": "state=failed",
    "one_workflow": "workflow=orders.ship",
    "rare_workflow": "workflow=reports.build",
    "part_of_an_id": "text=order-0001",
    "whole_id": "text=order-000007",
}

#: For all orders of a turn.
WAIT_S = 180.0

#: Orders before anything is measured.
WARM_UP = 20

#: Pages that watch while orders are sold: half of them the list, half of them a run.
WATCHING = 10


class Flower(Child):
    """`celery -A bench.worker flower`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "celery", "-A", "bench.worker", "flower", "--address=127.0.0.1"]
        super().__init__("flower", [*command, f"--port={self.port}"], log=folder / "flower.log")

    def is_ready(self) -> bool:
        try:
            return ask(self, "/healthcheck")[0] == 200
        except OSError:
            return False


def ask(flower: Flower, path: str) -> tuple[int, bytes, float]:
    """Status, body and how long it took, ms."""
    connection = http.client.HTTPConnection("127.0.0.1", flower.port, timeout=60)
    began_s = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    took_ms = (time.perf_counter() - began_s) * 1000
    connection.close()
    return answer.status, body, took_ms


def timed(flower: Flower, path: str, times: int) -> dict[str, float]:
    """Median, best and worst of several answers, ms: on a machine that does other things too the best says most.

    Raises:
        RuntimeError: It is refused.
    """
    took = []
    for _ in range(times):
        status, body, took_ms = ask(flower, path)
        if status != 200:
            raise RuntimeError(f"{path} answered {status}: {body[:200]!r}")
        took.append(took_ms)
    best, median, worst = min(took), statistics.median(took), max(took)
    return {"median_ms": round(median, 1), "best_ms": round(best, 1), "worst_ms": round(worst, 1)}


def lists(flower: Flower, times: int) -> dict[str, Any]:
    """Each list, and one deep in the pages."""
    found: dict[str, Any] = {
        name: timed(flower, f"/workflows/api/runs?{query}", times) for name, query in LISTS.items()
    }
    cursor = ""
    for _ in range(20):
        page = json.loads(ask(flower, f"/workflows/api/runs?limit=1000&cursor={quote(cursor)}")[1])
        cursor = page["cursor"] or cursor
    found["after_20000"] = timed(flower, f"/workflows/api/runs?cursor={quote(cursor)}", times)
    return found


def runs(flower: Flower, times: int) -> dict[str, Any]:
    """The runs of many steps: their model, and in a browser if there is one."""
    found: dict[str, Any] = {}
    for name in ("wide", "long"):
        found[name] = timed(flower, f"/workflows/api/run/{name}", times)
        found[name]["bytes"] = len(ask(flower, f"/workflows/api/run/{name}")[1])
    with contextlib.suppress(ImportError):
        from bench.browsing import opened_ms  # noqa: PLC0415  # playwright is for development

        for name in ("wide", "long"):
            found[name]["in_browser"] = opened_ms(f"http://127.0.0.1:{flower.port}/workflows/run/{name}")
    return found


@contextmanager
def watching(flower: Flower, paths: Sequence[str]) -> Iterator[Callable[[], int]]:
    """Pages that are open, and have been told all that they show; gives how many messages they have got since."""
    connections = [http.client.HTTPConnection("127.0.0.1", flower.port, timeout=60) for _ in paths]
    got = [0] * len(paths)

    def read(number: int) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
            connections[number].request("GET", paths[number])
            answer = connections[number].getresponse()
            while answer.readline():
                got[number] += 1

    threads = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(len(paths))]
    for thread in threads:
        thread.start()
    end_s = time.monotonic() + WAIT_S
    while not all(got) and time.monotonic() < end_s:
        time.sleep(0.05)
    begun = sum(got)
    try:
        yield lambda: sum(got) - begun
    finally:
        for connection in connections:
            if connection.sock is not None:
                connection.sock.shutdown(2)
        for thread in threads:
            thread.join(5)


def throughput(flower: Flower, stage: Stage, number: int, pairs: int) -> dict[str, Any]:
    """Orders a second without and with pages that watch, in turn."""
    side = stage.side("ours")
    stage.complete(side, [f"warm-{n}" for n in range(WARM_UP)], WAIT_S)
    rates: dict[str, list[float]] = {"alone": [], "watched": []}
    messages = 0
    for pair in range(pairs):
        for name, theirs in rates.items():
            orders = [f"{name}-{pair}-{n}" for n in range(number)]
            pages = ["/workflows/api/live"] * WATCHING
            stage.settle(WAIT_S)
            with ExitStack() as open_pages:
                count = open_pages.enter_context(watching(flower, pages)) if name == "watched" else int
                began_s = time.perf_counter()
                stage.complete(side, orders, WAIT_S)
                theirs.append(number / (time.perf_counter() - began_s))
                messages += count()
    alone, watched = (statistics.median(rates[name]) for name in rates)
    return {
        "pages": WATCHING,
        "alone_orders_per_s": round(alone, 1),
        "watched_orders_per_s": round(watched, 1),
        "ratio": round(watched / alone, 3),
        "turns": {name: [round(rate, 1) for rate in theirs] for name, theirs in rates.items()},
        "messages_to_pages": messages,
    }


def run(finished: int, running: int, orders: int, pairs: int) -> dict[str, Any]:
    """Measure, with processes of its own.

    Raises:
        ChildFailed: One of them did not start.
    """
    crew = Crew(name="pages", module="order", packages=("ours",))
    with tempfile.TemporaryDirectory(prefix="pages-") as name, on_stage([crew], Path(name)) as stages:
        stage = stages["pages"]
        flower = Flower(Path(name))
        flower.start()
        try:
            watched = throughput(flower, stage, orders, pairs)
            for worker in stage.workers:
                worker.stop()  # what is put in now is to stay as it is
            client = stage.valkey.client()
            began_s = time.perf_counter()
            filler = Filler(client)
            filler.running(running)
            filler.wide("wide", 1000)
            filler.long("long", 1000)
            filler.finished(finished)
            print(f"filled in {time.perf_counter() - began_s:.0f} s", file=sys.stderr)
            return {
                "finished": finished,
                "running": running,
                "lists": lists(flower, 20),
                "runs_of_1000_steps": runs(flower, 10),
                "watching": watched,
                "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
            }
        finally:
            flower.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--finished", type=int, default=100_000)
    parser.add_argument("--running", type=int, default=1000)
    parser.add_argument("--orders", type=int, default=600, help="of each turn, with and without pages that watch")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if not (0 <= options.finished <= 1_000_000 and 0 <= options.running <= 100_000):
        parser.error("--finished must be from 0 to 1000000 and --running to 100000")
    # A SIGTERM ends the processes as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = run(options.finished, options.running, options.orders, options.pairs)
    except (*FAILURES, redis.RedisError) as failed:
        print(f"pages: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pages: stopped", file=sys.stderr)
        return 130
    text = json.dumps(results, indent=2)
    options.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
