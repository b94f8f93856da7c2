"""pytest-celery's nodes on local processes: its setup, kill, restart and log waits without Docker."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryTestContainer,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
)

from bench.children import Child, Valkey, Worker

__all__ = [
    "CeleryBackendCluster",
    "CeleryBrokerCluster",
    "CeleryTestBackend",
    "CeleryTestBroker",
    "CeleryTestSetup",
    "CeleryWorkerCluster",
    "LocalWorker",
    "ValkeyContainer",
    "WorkerContainer",
    "Workers",
]


class ProcessContainer(CeleryTestContainer):
    """What pytest-celery asks of a container, answered by a child process."""

    def __init__(self, child: Child) -> None:
        super().__init__(child)
        self.child = child

    @property
    def id(self) -> str:
        return f"{self.child.name}-{self.child.log.parent.name}"

    @property
    def name(self) -> str:
        return self.child.name

    @property
    def status(self) -> str:
        return "running" if self.child.alive else "exited"

    @property
    def env(self) -> dict[str, str]:
        return dict(self.child.env)

    def ready(self) -> bool:
        return self.child.is_ready()

    def logs(self) -> str:
        return self.child.output()

    def reload(self) -> None:
        """A process has no state of its own to fetch."""

    def kill(self, signal: str | int | None = "SIGKILL") -> None:
        self.child.kill(_signal_number(signal))

    def restart(self, timeout: int = 10) -> None:
        self.child.stop(timeout)
        self.child.start()

    def teardown(self) -> None:
        self.child.stop()


class ValkeyContainer(ProcessContainer):
    """Broker or backend. The session's server outlives the node: its teardown leaves it running."""

    child: Valkey

    @property
    def client(self) -> Any:
        return self.child.client()

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {"url": self.child.url, "host_url": self.child.url}

    def teardown(self) -> None:
        """Nothing: it belongs to the session."""


class WorkerContainer(ProcessContainer):
    """A worker; `CeleryTestWorker` asks it for its name, its queue and its version."""

    child: Worker

    def worker_name(self) -> str:
        return self.child.name

    def worker_queue(self) -> str:
        return self.child.queues[0]

    def log_level(self) -> str:
        return "INFO"

    def version(self) -> str:
        from celery import __version__

        return __version__


class LocalWorker(CeleryTestWorker):
    """A worker node that is named after this machine, not after a container's id."""

    container: WorkerContainer

    def hostname(self) -> str:
        return f"{self.worker_name}@{socket.gethostname()}"


class Workers:
    """What the fixture `worker` gives: called, it starts a worker in the test's own folder."""

    def __init__(self, folder: Path, env: dict[str, str], *, on_start: Callable[[Worker], None]) -> None:
        self._folder = folder
        self._env = env
        self._on_start = on_start
        self._started: list[Worker] = []

    def __call__(
        self,
        app: str = "tasks",
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        queues: Sequence[str] = (),
        name: str = "",
        env: dict[str, str] | None = None,
        loglevel: str = "INFO",
        options: Sequence[str] = (),
    ) -> Worker:
        """Start one and wait until it is ready.

        Args:
            queues: Those it takes messages from; none given: all that the app has.
            name: `w1`, `w2`, ... unless given; its log is `<name>.log` in the test's folder.
            env: Beside `worker_env`.
            options: Further ones of `celery worker`.

        Raises:
            ChildFailed: It ended, or was not ready in time.
        """
        name = name or f"w{len(self._started) + 1}"
        node = Worker(
            app,
            log=self._folder / f"{name}.log",
            env=self._env | (env or {}),
            pool=pool,
            concurrency=concurrency,
            queues=queues,
            name=name,
            loglevel=loglevel,
            options=options,
            # Who brings a path of their own has a folder as a user has it.
            module="celery" if "PYTHONPATH" in (env or {}) else "quick_celery",
        )
        self._started.append(node)
        self._on_start(node)
        node.start()
        return node

    def stop(self) -> None:
        """End all of them. They are killed: how a worker stops is asked where a test stops one."""
        for node in reversed(self._started):
            node.kill()


def _signal_number(name: str | int | None) -> int:
    if name is None:
        return signal.SIGKILL
    return signal.Signals[name] if isinstance(name, str) else name
