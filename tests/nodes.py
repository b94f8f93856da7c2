"""pytest-celery's nodes on local processes: its setup, kill, restart and log waits without Docker."""

from __future__ import annotations

import signal
import socket
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


def _signal_number(name: str | int | None) -> int:
    if name is None:
        return signal.SIGKILL
    return signal.Signals[name] if isinstance(name, str) else name
