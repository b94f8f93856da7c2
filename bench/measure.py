"""Starts a Valkey and the workers of both sides, and measures the sides in turn."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import redis
from celery import Celery

from bench.app import make_app
from bench.children import ChildFailed, Valkey, Worker
from bench.orders import Side

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured. Everything is bounded: orders, pairs, and the time that is waited for them."""

    sides: tuple[str, ...]
    pairs: int  #: how often each side has its turn
    orders: int  #: submitted at once, in each turn
    singles: int  #: one after the other on an idle system, in each turn
    warm_up: int  #: orders of each side before anything is measured
    wait_s: float  #: for all orders of a turn
    pool: str
    concurrency: int


@dataclass(frozen=True)
class Usage:
    """What has been used up since the processes began."""

    clock_s: float
    cpu_s: float  #: workers, their children and this client
    valkey_cpu_s: float
    redis_commands: int  #: those inside Lua scripts too
    redis_reads: int  #: what Valkey read from sockets: about one a round trip


@dataclass(frozen=True)
class Turn:
    """One side's figures of one pair."""

    orders_per_s: float
    p50_ms: float
    cpu_s_per_100: float
    valkey_cpu_s_per_100: float
    redis_commands_per_order: float
    redis_reads_per_order: float


class Unfinished(RuntimeError):  # noqa: N818 -- a state of the orders, told to the user as it is
    """Orders were not completed in time; the message says how many, and what the worker said last."""


class Stage:
    """The running processes, and the sides that submit to them."""

    def __init__(self, valkey: Valkey, workers: Sequence[Worker], sides: Sequence[Side]) -> None:
        self.valkey = valkey
        self.workers = list(workers)
        self.sides = list(sides)
        self._client: redis.Redis = valkey.client()

    def usage(self) -> Usage:
        stats = self._client.info("stats")
        return Usage(
            clock_s=time.perf_counter(),
            cpu_s=sum(tree_cpu_s(worker.pid) for worker in self.workers) + time.process_time(),
            valkey_cpu_s=tree_cpu_s(self.valkey.pid),
            redis_commands=stats["total_commands_processed"],
            redis_reads=stats["total_reads_processed"],
        )

    def valkey_version(self) -> str:
        info = self._client.info("server")
        return str(info.get("valkey_version", info["redis_version"]))

    def complete(self, side: Side, order_ids: Sequence[str], wait_s: float) -> None:
        """Submit all at once and wait for each.

        Raises:
            Unfinished: Some were not completed in time.
        """
        for order_id in order_ids:
            side.start(order_id)
        deadline = time.monotonic() + wait_s
        for number, order_id in enumerate(order_ids):
            if not side.wait(order_id, max(deadline - time.monotonic(), 0.001)):
                raise Unfinished(
                    f"{side.name}: {len(order_ids) - number} of {len(order_ids)} orders not known to be completed"
                    f" after {wait_s:g} s; the worker's last lines:\n{self.workers[0].output()[-2000:]}"
                )

    def settle(self, wait_s: float) -> None:
        """Wait until no message is in the queue or with a worker: the next turn begins on an idle system."""
        self.workers[0].wait(self._is_idle, "still had messages", wait_s)

    def _is_idle(self) -> bool:
        queues = list(self._client.scan_iter("celery*", _type="list"))  # one for each priority
        return not queues and self._client.hlen("unacked") == 0


@contextmanager
def on_stage(plan: Plan, folder: Path) -> Iterator[Stage]:
    """Valkey and the worker, ended when the block is left, however it is left."""
    with ExitStack() as ending:
        valkey = Valkey(folder)
        ending.callback(valkey.stop)
        valkey.start()
        env = {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": f"sqlite:///{folder / 'bench.db'}",
            "CELERIAC_DATA_DIR": str(folder),
            "BENCH_SIDES": ",".join(plan.sides),
            "PYTHONPATH": str(ROOT),
        }
        os.environ.update(env)  # celeriac's client side reads them too
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        # A solo worker is one process; the others have that many children.
        alone = plan.pool == "solo"
        workers = [
            Worker(
                "bench.worker",
                log=folder / f"worker-{number}.log",
                env=env,
                pool=plan.pool,
                concurrency=1 if alone else plan.concurrency,
                name=f"worker-{number}",
                loglevel="WARNING",
                options=options,
            )
            for number in range(plan.concurrency if alone else 1)
        ]
        for worker in workers:
            ending.callback(worker.stop)
            worker.start()
        app = make_app(valkey.url, list(plan.sides))
        sides = [import_module(f"bench.{name}.order").Side(valkey.url) for name in plan.sides]
        ending.callback(_forget_results, app)
        yield Stage(valkey, workers, sides)


def _forget_results(app: Celery) -> None:
    """Let results that nobody read die in peace: at the interpreter's end each would unsubscribe."""
    backend: Any = app.backend
    backend.result_consumer.subscribed_to.clear()


def measure(stage: Stage, plan: Plan) -> Iterator[tuple[str, Turn]]:
    """Each side's turns, in pairs: what else the machine does meets both sides alike.

    Raises:
        Unfinished: Some orders were not completed in time.
    """
    for side in stage.sides:
        stage.complete(side, [f"{side.name}-warm-{n}" for n in range(plan.warm_up)], plan.wait_s)
    for pair in range(plan.pairs):
        for side in stage.sides:
            yield side.name, _turn(stage, side, plan, f"{side.name}-{pair}")


def _turn(stage: Stage, side: Side, plan: Plan, name: str) -> Turn:
    stage.settle(plan.wait_s)
    before = stage.usage()
    stage.complete(side, [f"{name}-{n}" for n in range(plan.orders)], plan.wait_s)
    after = stage.usage()
    stage.settle(plan.wait_s)
    latencies_ms = [_latency_ms(stage, side, f"{name}-single-{n}", plan.wait_s) for n in range(plan.singles)]
    return Turn(
        orders_per_s=plan.orders / (after.clock_s - before.clock_s),
        p50_ms=statistics.median(latencies_ms),
        cpu_s_per_100=(after.cpu_s - before.cpu_s) * 100 / plan.orders,
        valkey_cpu_s_per_100=(after.valkey_cpu_s - before.valkey_cpu_s) * 100 / plan.orders,
        redis_commands_per_order=(after.redis_commands - before.redis_commands) / plan.orders,
        redis_reads_per_order=(after.redis_reads - before.redis_reads) / plan.orders,
    )


def _latency_ms(stage: Stage, side: Side, order_id: str, wait_s: float) -> float:
    began_s = time.perf_counter()
    stage.complete(side, [order_id], wait_s)
    return (time.perf_counter() - began_s) * 1000


def medians(turns: Sequence[Turn]) -> dict[str, float]:
    """The median of each figure over the turns of one side."""
    rows = [asdict(turn) for turn in turns]
    return {figure: round(statistics.median(row[figure] for row in rows), 3) for figure in rows[0]}


def tree_cpu_s(pid: int) -> float:
    """User and system time of a process and its children.

    Raises:
        ChildFailed: It has ended.
    """
    try:
        root = psutil.Process(pid)
        times = [process.cpu_times() for process in [root, *root.children(recursive=True)]]
    except psutil.NoSuchProcess as gone:
        raise ChildFailed(f"process {gone.pid} ended while it was measured") from gone
    return sum(time.user + time.system for time in times)
