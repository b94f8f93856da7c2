"""One life of one supervised program: a process group, its output line by line, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from canvas import supervisor_guard
from status.embedded_lifeline import die_with_parent

#: What a dead process left in its pipe is there at once; only a stray grandchild keeps the pipe open.
LAST_LINES_S = 1.0

#: If the supervisor is killed, its programs have this long before they are killed too. Short: whoever
#: killed it wants it gone, and what a killed worker did is taken up by the next one.
ORPHAN_GRACE_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What to run.

    Attributes:
        name: Stands before each line of its output.
        argv: Its command line.
        stage: Programs of a lower stage are stopped first.
        grace_s: It has this long to end after SIGTERM.
    """

    name: str
    argv: Sequence[str]
    stage: int = 0
    grace_s: float = 30.0


class Guard:
    """The process that ends all groups if this one is killed. It is told of each of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._process = self._spawn()

    def watch(self, group: int) -> None:
        """From now on `group` is its business."""
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """`group` has ended. Call it before its leader is reaped and the number given to others."""
        with self._lock:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    def close(self) -> None:
        """Send it home; groups that it still watches are ended."""
        with self._lock:
            self._process.communicate()

    def _tell(self, line: str) -> None:
        try:
            self._write(line)
        except BrokenPipeError:
            # Somebody ended it. The next one is told of every group that lives.
            self._process.wait()
            self._process = self._spawn()
            self._write("".join(f"+{group}\n" for group in self._groups))

    def _write(self, text: str) -> None:
        if self._process.stdin is None:
            raise AssertionError("the guard was started without a pipe")
        self._process.stdin.write(text)
        self._process.stdin.flush()

    @staticmethod
    def _spawn() -> subprocess.Popen[str]:
        script = Path(supervisor_guard.__file__)
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", str(script), str(ORPHAN_GRACE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )


class Child:
    """A program that runs, in a session of its own so that Ctrl-C in the terminal does not reach it.

    Start it in a thread that outlives it: it gets SIGTERM when that thread ends.

    Attributes:
        pid: Also the number of its process group.
        exit_code: Negative is a signal; None until `on_exit` is called.
    """

    def __init__(
        self,
        program: Program,
        *,
        env: Mapping[str, str],
        guard: Guard,
        on_line: Callable[[str], None],
        on_exit: Callable[[Child], None],
    ) -> None:
        """Start it. `on_line` and `on_exit` are called in threads of its own.

        Raises:
            OSError: There is no such program, or it can't be started.
        """
        self.program = program
        self.exit_code: int | None = None
        self.started_s = time.monotonic()
        self._guard = guard
        self._on_line = on_line
        self._on_exit = on_exit
        self._process = _spawn(program.argv, env)
        self.pid = self._process.pid
        guard.watch(self.pid)
        self._reader = threading.Thread(target=self._read, name=f"{program.name}-output", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name=f"{program.name}-exit", daemon=True).start()

    def signal(self, signum: signal.Signals) -> None:
        """Tell the program itself; a Celery worker passes on to its pool what the pool should know."""
        # Not by Popen: that would look whether it has ended, and reap it before `_wait` has seen it.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill_group(self) -> None:
        """End it and everything it has started, at once."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _read(self) -> None:
        if self._process.stdout is None:
            raise AssertionError("the child was started without a pipe")
        with self._process.stdout as lines:
            for line in lines:
                self._on_line(line.rstrip("\r\n"))

    def _wait(self) -> None:
        if hasattr(os, "waitid"):
            # Its end is seen before it is reaped: so long nobody else can get its number, and the
            # signal below hits the pool children that a killed worker leaves, and no stranger.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self.kill_group()
        else:
            self._process.wait()
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody left
                os.killpg(self.pid, signal.SIGKILL)
        self._guard.forget(self.pid)
        self.exit_code = self._process.wait()
        self._reader.join(LAST_LINES_S)
        self._on_exit(self)


def _spawn(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        list(argv),
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509
    )
