"""The processes that faults happen to, and the supervisor that starts what has died again."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import redis

from bench.children import Child, Valkey, Worker
from chaos.faults import STOPPED_S, Fault

ROOT = Path(__file__).parent.parent
#: What a supervisor takes to notice; systemd's default is a little less.
RESTART_AFTER_S = 0.5
#: Some of the workers are always left: with none there is nobody to recover.
READY_AT_LEAST = 2


class Crew:
    """Valkey, the workers and the client of one run.

    Call `look` often: it starts what has died, and wakes what was stopped.
    """

    def __init__(self, valkey: Valkey, workers: Sequence[Worker], client: Child) -> None:
        self.valkey = valkey
        self.workers = list(workers)
        self.client = client
        self.submitted = False  #: whether the client has ended by itself
        self._dead_since: dict[Child, float] = {}
        self._wake_at: dict[Worker, float] = {}
        self._groups: set[int] = set()

    @property
    def asleep(self) -> bool:
        """Whether one of them is stopped: it will go on with what it was at."""
        return bool(self._wake_at)

    def look(self) -> None:
        """What the supervisor does, many times a second."""
        now_s = time.monotonic()
        for worker in [worker for worker, at_s in self._wake_at.items() if at_s <= now_s]:
            del self._wake_at[worker]
            worker.kill(signal.SIGCONT)
        for child in (self.valkey, *self.workers, self.client):
            if child.alive or (child is self.client and self.submitted):
                continue
            if child is self.client and self._ended_well(child):
                self.submitted = True
                continue
            if now_s - self._dead_since.setdefault(child, now_s) >= RESTART_AFTER_S:
                del self._dead_since[child]
                child.kill()  # what has outlived it, as systemd does
                child.launch()
                self._groups.add(child.pid)

    @staticmethod
    def _ended_well(child: Child) -> bool:
        return child.exit_code == 0

    def happen(self, fault: Fault) -> str | None:
        """Let a fault happen. Returns to whom, or None if there is nobody at this moment."""
        happenings: dict[str, Callable[[Fault], str | None]] = {
            "parent": self._kill_worker,
            "group": self._kill_worker,
            "child": self._kill_child,
            "client": self._kill_client,
            "stop": self._stop,
            "valkey": self._kill_valkey,
            "cut": self._cut,
        }
        return happenings[fault.kind](fault)

    def end(self) -> None:
        """Kill all that is left of it."""
        for child in (self.client, *self.workers, self.valkey):
            child.kill()
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    # --- faults -------------------------------------------------------------------

    def _ready(self) -> list[Worker]:
        return [each for each in self.workers if each.alive and each not in self._wake_at and each.is_ready()]

    def _pick(self, fault: Fault) -> Worker | None:
        ready = self._ready()
        return ready[int(fault.choice * len(ready))] if len(ready) >= READY_AT_LEAST else None

    def _kill_worker(self, fault: Fault) -> str | None:
        worker = self._pick(fault)
        if worker is None:
            return None
        if fault.kind == "group":
            os.killpg(worker.pid, signal.SIGKILL)
        else:
            os.kill(worker.pid, signal.SIGKILL)
        return worker.name

    def _kill_child(self, fault: Fault) -> str | None:
        ready = self._ready()
        with contextlib.suppress(psutil.NoSuchProcess):
            children = [child for worker in ready for child in psutil.Process(worker.pid).children()]
            if children:
                victim = children[int(fault.choice * len(children))]
                victim.kill()
                return f"process {victim.pid}"
        return None

    def _kill_client(self, _fault: Fault) -> str | None:
        if self.submitted or not self.client.alive:
            return None
        os.kill(self.client.pid, signal.SIGKILL)
        return self.client.name

    def _stop(self, fault: Fault) -> str | None:
        worker = self._pick(fault)
        if worker is None:
            return None
        worker.kill(signal.SIGSTOP)
        self._wake_at[worker] = time.monotonic() + STOPPED_S
        return worker.name

    def _kill_valkey(self, _fault: Fault) -> str | None:
        if not self.valkey.alive:
            return None
        os.kill(self.valkey.pid, signal.SIGKILL)
        return self.valkey.name

    def _cut(self, _fault: Fault) -> str | None:
        try:
            with self.valkey.client() as client:
                cut = [client.client_kill_filter(_type=kind) for kind in ("normal", "pubsub")]
        except redis.RedisError:
            return None
        return f"{sum(map(int, cut))} connections"


def crew_of(side: str, folder: Path, *, seed: int, orders: int, orders_per_s: float, workers: int, rest: str) -> Crew:
    """The processes of one run, none of them started; `folder` takes all that they write."""
    valkey = Valkey(folder)
    env = {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": f"sqlite:///{folder / 'chaos.db'}",
        "CELERIAC_DATA_DIR": str(folder),
        "CHAOS_SIDE": side,
        "CHAOS_SEED": str(seed),
        "CHAOS_REST_MS": rest,
        "CHAOS_ORDERS": str(orders),
        "CHAOS_ORDERS_PER_S": str(orders_per_s),
        "PYTHONPATH": str(ROOT),
    }
    crew = [
        Worker(
            "chaos.worker",
            log=folder / f"worker-{number}.log",
            env=env,
            name=f"worker-{number}",
            options=["--without-gossip", "--without-mingle", "--without-heartbeat"],
        )
        for number in range(1, workers + 1)
    ]
    client = Child("client", [sys.executable, "-m", "chaos.client"], log=folder / "client.log", env=env)
    return Crew(valkey, crew, client)
