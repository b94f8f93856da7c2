"""What the demo runs on: a folder of its own, an embedded Valkey in it, and the shop's workers."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

from canvas.supervisor import Supervisor
from canvas.up_workers import Group, choose, groups_of
from status import embedded, places
from status.errors import ConfigError
from tasks.demo_stop import Stop

#: Python, Celery and the shop are imported by each worker; a busy machine takes a while.
READY_S = 90.0

#: What the workers do when all orders have ended is not worth more.
GRACE_S = 5.0

#: A server whose demo was killed notices within moments.
OLD_SERVER_S = 10.0

#: Ctrl-C is heard after this time.
LISTEN_S = 0.2

#: The group of workers that orders give nothing to do.
IDLE = "batch"

LOCK = "demo.lock"


class WorkersFailed(Exception):  # noqa: N818
    """The workers did not come up; the message has the end of their log."""


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that no other demo uses, and from now on the data folder of this process.

    Raises:
        ConfigError: Another demo uses it, or it holds something that is not of a demo.
    """
    lock = folder / LOCK
    if folder.exists() and any(folder.iterdir()) and not lock.exists():
        raise ConfigError(f"{folder} holds something that is not of a demo: move it, or set CELERIAC_DATA_DIR")
    folder.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another demo runs in {folder}: wait for its end, or set CELERIAC_DATA_DIR to another folder"
            ) from error
        _wait_for_old_server(folder / "valkey")
        wipe(folder)
        # The invariants are exact only where nobody else has sold anything.
        for name in ("REDIS_URL", "DATABASE_URL"):
            os.environ.pop(name, None)
        os.environ["CELERIAC_DATA_DIR"] = str(folder)
        places.reset()
        yield folder


def wipe(folder: Path) -> None:
    """Remove all that a demo has left, but not its lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _wait_for_old_server(home: Path) -> None:
    end_s = time.monotonic() + OLD_SERVER_S
    while (port := embedded.remembered_port(home)) is not None and embedded.serves(port, home):
        if time.monotonic() > end_s:
            raise ConfigError(f"a Valkey of another process still serves {home}: end `celery up` there first")
        time.sleep(0.1)


class Crew:
    """The shop's workers, in the hands of the supervisor of `celery up`.

    Args:
        log: Gets all that they say.
        groups: The workers; None: those of the app's settings.
    """

    def __init__(self, app: Celery, place: places.Places, log: Path, *, groups: Sequence[Group] | None = None) -> None:
        environment = {
            **os.environ,
            "REDIS_URL": place.redis_url,
            "DATABASE_URL": place.database_url,
            "PYTHONUNBUFFERED": "1",
        }
        chosen = [group for group in groups_of(app) if group.name != IDLE] if groups is None else groups
        programs = [
            group.program("tasks", number, loglevel="INFO", grace_s=GRACE_S)
            for group, processes in choose(chosen, (), {})
            for number in range(1, processes + 1)
        ]
        self._log = log.open("w", encoding="utf-8")
        self._last: deque[str] = deque(maxlen=15)
        self._changed = threading.Condition()
        self._ready: set[str] = set()
        self._failure = ""
        self.names = [program.name for program in programs]
        self._supervisor = Supervisor(programs, env=environment, say=self._say)
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self, stop: Stop) -> None:
        """Start them and wait until each is ready.

        Raises:
            Interrupted: `stop` was asked for meanwhile.
            WorkersFailed: One died, or was not ready within `READY_S`.
        """
        self._thread.start()
        end_s = time.monotonic() + READY_S
        while not self._wait(LISTEN_S) and time.monotonic() < end_s:
            stop.check()
        with self._changed:
            told = self._failure or ("" if self._all_ready() else f"not ready after {READY_S:.0f} s")
        if told:
            raise WorkersFailed(f"the workers did not start, {told}; they said:\n" + "\n".join(self._last))

    def _wait(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._failure) or self._all_ready(), timeout_s)

    def _all_ready(self) -> bool:
        return len(self._ready) == len(self.names)

    def hurry(self) -> None:
        """Do not wait for what they still do. Safe in a signal handler."""
        self._supervisor.request_stop()

    def stop(self) -> None:
        """End all of them, and wait for it."""
        if self._thread.is_alive():
            self._supervisor.request_stop()
            self._thread.join()
        self._log.close()

    def _run(self) -> None:
        try:
            self._supervisor.run()
        except OSError as error:  # the one that `run` raises
            with self._changed:
                self._failure = str(error)
                self._changed.notify_all()

    def _say(self, name: str, line: str) -> None:
        with self._changed:
            self._log.write(f"{name} | {line}\n")
            self._log.flush()
            self._last.append(f"  {name} | {line}")
            if f"{name}@" in line and line.rstrip().endswith("ready."):
                self._ready.add(name)
            elif line.startswith("died with") and name not in self._ready:
                self._failure = f"{name} {line}"
            self._changed.notify_all()
