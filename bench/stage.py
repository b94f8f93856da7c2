"""The processes that a workload is measured on: a Valkey and workers for each crew, and the client's app for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import psutil
import redis
from celery import Celery

from bench.app import make_app
from bench.children import ChildFailed, Valkey, Worker
from status import here

ROOT = Path(__file__).parent.parent

#: All workers of a workload start at the same time, on perhaps two cores.
WORKERS_READY_S = 90.0

#: Between two looks at what is going to happen in a moment.
LOOK_EVERY_S = 0.002


@dataclass(frozen=True, kw_only=True)
class Crew:
    """Worker processes that serve some sides, on a Valkey of their own.

    Attributes:
        module: The file in each side's folder: what is measured.
        packages: The folders of `bench/` whose tasks they have; without one of ours they are stock Celery alone.
            Filled in with the sides that are measured.
    """

    name: str
    module: str
    packages: tuple[str, ...] = ()
    pool: str = "prefork"
    concurrency: int = 2
    workers: int = 1
    visibility_timeout_s: int = 600
    held: str = ""  #: tasks, as a pattern, that go to a queue that nobody serves

    @property
    def text(self) -> str:
        many = "" if self.workers == 1 else f"{self.workers} workers, "
        return f"{many}{self.pool} -c {self.concurrency}"


@dataclass(frozen=True)
class Usage:
    """What has been used up since the processes began."""

    clock_s: float
    cpu_s: float  #: workers, their children and this client
    valkey_cpu_s: float
    redis_commands: int  #: those inside Lua scripts too
    redis_reads: int  #: what Valkey read from sockets: about one a round trip
    redis_bytes: int  #: over its sockets, both ways


class Starts(Protocol):
    """A side whose orders are started and waited for."""

    name: str

    def start(self, order_id: str) -> None:
        """Submit an order and return at once."""

    def wait(self, order_id: str, timeout_s: float) -> bool:
        """Whether the order is completed within the time; raises if it has failed."""


class Unfinished(RuntimeError):  # noqa: N818 -- a state of the orders, told to the user as it is
    """Work was not completed in time; the message says how much, and what the worker said last."""


class Stage:
    """The running processes of a crew, and the app that its client submits with."""

    def __init__(self, crew: Crew, folder: Path) -> None:
        self.crew = crew
        self.valkey = Valkey(folder)
        self._env = {
            "REDIS_URL": self.valkey.url,
            "DATABASE_URL": f"sqlite:///{folder / 'bench.db'}",
            "CELERIAC_DATA_DIR": str(folder),
            "BENCH_SIDES": ",".join(crew.packages),
            "BENCH_MODULE": crew.module,
            "BENCH_HELD": crew.held,
            "BENCH_VISIBILITY_TIMEOUT_S": str(crew.visibility_timeout_s),
            "PYTHONPATH": str(ROOT),
        }
        self.workers = [self._worker(folder, number) for number in range(self._processes())]
        self.app: Celery
        self.redis: redis.Redis

    def _processes(self) -> int:
        # A solo worker is one process; the others have that many children.
        return self.crew.workers * (self.crew.concurrency if self.crew.pool == "solo" else 1)

    def _worker(self, folder: Path, number: int) -> Worker:
        return Worker(
            "bench.worker",
            log=folder / f"worker-{number}.log",
            env=self._env,
            pool=self.crew.pool,
            concurrency=1 if self.crew.pool == "solo" else self.crew.concurrency,
            name=f"worker-{number}",
            loglevel="WARNING",
            options=["--without-gossip", "--without-mingle", "--without-heartbeat"],
        )

    def launch(self) -> None:
        """Start Valkey and the workers, and wait for Valkey alone.

        Raises:
            ChildFailed: Valkey did not start.
        """
        self.valkey.start()
        for worker in self.workers:
            worker.launch()

    def get_ready(self) -> None:
        """Wait for the workers, and make the client's app.

        Raises:
            ChildFailed: One of them did not start.
        """
        for worker in self.workers:
            worker.wait(worker.is_ready, "was not ready", WORKERS_READY_S)
        os.environ.update(self._env)  # celeriac's client side reads them too
        self.app = make_app(self.valkey.url, list(self.crew.packages), self.crew.module, self.crew.visibility_timeout_s)
        self.redis = self.valkey.client()

    def end(self) -> None:
        """End all of it, however far it got."""
        for child in (*self.workers, self.valkey):
            child.stop()
        app = self.__dict__.get("app")
        if app is not None:
            # Let results that nobody read die in peace: at the interpreter's end each would unsubscribe.
            app.backend.result_consumer.subscribed_to.clear()

    def to_front(self) -> None:
        """Let this stage be the one that this process submits to."""
        self.app.set_current()
        here.use(self.valkey.url)

    def side(self, package: str, way: str = "") -> Any:
        """The client's half of one side; `way`: where there are several to do it."""
        self.to_front()
        made = import_module(f"bench.{package}.{self.crew.module}").Side
        return made(self.valkey.url, way) if way else made(self.valkey.url)

    def usage(self) -> Usage:
        stats = self.redis.info("stats")
        return Usage(
            clock_s=time.perf_counter(),
            cpu_s=sum(tree_cpu_s(worker.pid) for worker in self.workers) + time.process_time(),
            valkey_cpu_s=tree_cpu_s(self.valkey.pid),
            redis_commands=stats["total_commands_processed"],
            redis_reads=stats["total_reads_processed"],
            redis_bytes=stats["total_net_input_bytes"] + stats["total_net_output_bytes"],
        )

    def version(self) -> str:
        info = self.redis.info("server")
        return str(info.get("valkey_version", info["redis_version"]))

    def complete(self, side: Starts, order_ids: Sequence[str], wait_s: float) -> None:
        """Submit all at once and wait for each.

        Raises:
            Unfinished: Some were not completed in time.
        """
        for order_id in order_ids:
            side.start(order_id)
        deadline = time.monotonic() + wait_s
        for number, order_id in enumerate(order_ids):
            if not side.wait(order_id, max(deadline - time.monotonic(), 0.001)):
                left = len(order_ids) - number
                raise self.unfinished(f"{side.name}: {left} of {len(order_ids)} orders not known to be done", wait_s)

    def unfinished(self, what: str, wait_s: float) -> Unfinished:
        """The error that says what was waited for, and what the first worker said last."""
        said = self.workers[0].output()[-2000:]
        return Unfinished(f"{what} after {wait_s:g} s; the worker's last lines:\n{said}")

    def until(self, condition: Callable[[], bool], what: str, wait_s: float) -> None:
        """Look again and again until something is so.

        Raises:
            Unfinished: It was not, in time.
        """
        deadline = time.monotonic() + wait_s
        while not condition():
            if time.monotonic() > deadline:
                raise self.unfinished(what, wait_s)
            time.sleep(LOOK_EVERY_S)

    def settle(self, wait_s: float) -> None:
        """Wait until no message is in the queue or with a worker: what follows begins on an idle system."""
        self.until(self.is_idle, "still had messages", wait_s)

    def is_idle(self) -> bool:
        """Whether no message waits, and none that the broker knows of is in a worker's hand."""
        queues = list(self.redis.scan_iter("celery*", count=10_000, _type="list"))  # one for each priority
        return not queues and self.redis.hlen("unacked") == 0


@contextmanager
def on_stage(crews: Sequence[Crew], folder: Path, packages: tuple[str, ...] = ()) -> Iterator[dict[str, Stage]]:
    """The stages of some crews by the crew's name, ended when the block is left, however it is left.

    Args:
        packages: Of crews that have none yet.
    """
    with ExitStack() as ending:
        stages = {}
        for crew in crews:
            own = folder / crew.name
            own.mkdir()
            stage = stages[crew.name] = Stage(replace(crew, packages=crew.packages or packages), own)
            ending.callback(stage.end)
            stage.launch()
        for stage in stages.values():
            stage.get_ready()
        yield stages


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
