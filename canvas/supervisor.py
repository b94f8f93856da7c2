"""Keeps programs running until it is told to stop, and then stops them in order.

Everything happens in the thread that calls `run`, one event after the other; the threads of the
children, signal handlers and other threads only put events into its queue.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue

from canvas.supervisor_child import Child, Guard, Program

__all__ = ["Backoff", "Program", "Supervisor", "describe_exit"]

#: A program that lived this long has started well: the next restart is at once again.
HEALTHY_S = 30.0

#: The longest time between two attempts to start a program that keeps dying.
LONGEST_WAIT_S = 30.0

#: After SIGQUIT a worker gives its tasks back and ends its pool. What takes longer hangs.
COLD_S = 5.0


class Backoff:
    """How long to wait before the next start: 0, then 1, 2, 4 ... 30 s; 0 again after a long life."""

    def __init__(self) -> None:
        self._wait_s = 0.0

    def next_wait_s(self, *, lived_s: float) -> float:
        """The wait after a life of `lived_s` seconds."""
        if lived_s >= HEALTHY_S:
            self._wait_s = 0.0
        wait_s = self._wait_s
        self._wait_s = min(max(1.0, wait_s * 2), LONGEST_WAIT_S)
        return wait_s


class Supervisor:
    """Runs `programs`, starts again what dies, and stops all of it when asked.

    Args:
        programs: With names that differ.
        env: The environment of each program.
        say: Called with a name and a line: of a program's output, or about the program. It is called
            from several threads at once.
    """

    def __init__(self, programs: Sequence[Program], *, env: Mapping[str, str], say: Callable[[str, str], None]) -> None:
        self._programs = list(programs)
        self._env = dict(env)
        self._say = say
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._backoffs = {program.name: Backoff() for program in programs}
        self._children: dict[str, Child] = {}
        self._due_s: dict[str, float] = {}  # when to start what has died, on the monotonic clock
        self._stop_requests = 0
        self._failure: BaseException | None = None
        self._guard: Guard

    def run(self) -> None:
        """Start all and look after them until `request_stop`; every one has ended when this returns.

        Raises:
            OSError: A program can't be started for the first time, or nobody takes the output any more
                (both after everything else was stopped).
        """
        self._guard = Guard()
        try:
            for program in self._programs:
                self._start(program)
            while not self._stop_requests:
                self._handle_one(until_s=min(self._due_s.values(), default=None))
                self._start_what_is_due()
        finally:
            self._stop_all()
            self._guard.close()
        if self._failure is not None:
            raise self._failure

    def request_stop(self) -> None:
        """Stop in order. A second call ends the patience with tasks that run, a third kills.

        Safe to call from signal handlers and from any thread.
        """
        self._events.put(self._note_stop)

    def restart(self, env: Mapping[str, str]) -> None:
        """Give all programs another environment: each is stopped and started. From any thread."""
        self._events.put(lambda: self._change_env(env))

    def pids(self) -> dict[str, int]:
        """The process of each program that runs now."""
        return {name: child.pid for name, child in list(self._children.items())}

    def _note_stop(self) -> None:
        self._stop_requests += 1

    def _change_env(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        for child in self._children.values():
            child.signal(signal.SIGTERM)

    def _start(self, program: Program) -> None:
        self._due_s.pop(program.name, None)
        self._children[program.name] = Child(
            program,
            env=self._env,
            guard=self._guard,
            on_line=lambda line: self._pass_on(program.name, line),
            on_exit=lambda child: self._events.put(lambda: self._note_exit(child)),
        )

    def _pass_on(self, name: str, line: str) -> None:
        """In the reader's thread, so that a slow terminal slows the program down and not this queue."""
        try:
            self._say(name, line)
        except (OSError, ValueError) as error:
            # Nobody reads our output any more. Programs that nobody hears are not run on.
            broken = error
            self._events.put(lambda: self._fail(broken))

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._stop_requests = max(self._stop_requests, 1)

    def _note_exit(self, child: Child) -> None:
        name = child.program.name
        del self._children[name]
        if self._stop_requests:
            self._pass_on(name, f"stopped with {describe_exit(child.exit_code)}")
            return
        lived_s = time.monotonic() - child.started_s
        self._put_off(name, lived_s, f"died with {describe_exit(child.exit_code)} after {lived_s:.1f} s")

    def _put_off(self, name: str, lived_s: float, what: str) -> None:
        wait_s = self._backoffs[name].next_wait_s(lived_s=lived_s)
        self._due_s[name] = time.monotonic() + wait_s
        when = f"in {wait_s:.0f} s" if wait_s else "now"
        self._pass_on(name, f"{what}; it is started again {when}")

    def _start_what_is_due(self) -> None:
        for program in self._programs:
            due_s = self._due_s.get(program.name)
            if due_s is None or due_s > time.monotonic() or self._stop_requests:
                continue
            try:
                self._start(program)
            except OSError as error:
                # It did start once, so this may pass: out of memory, or the program is being replaced.
                self._put_off(program.name, 0.0, f"can't be started ({error})")

    def _handle_one(self, *, until_s: float | None) -> None:
        """The next event, if one comes before `until_s` on the monotonic clock (None: whenever)."""
        timeout_s = None if until_s is None else max(0.0, until_s - time.monotonic())
        try:
            event = self._events.get(timeout=timeout_s)
        except Empty:
            return
        event()

    def _stop_all(self) -> None:
        self._stop_requests = max(self._stop_requests, 1)  # from here on nothing is started again
        self._due_s.clear()
        for stage in sorted({program.stage for program in self._programs}):
            self._stop_stage(stage)

    def _stop_stage(self, stage: int) -> None:
        grace_s = max(program.grace_s for program in self._programs if program.stage == stage)
        for child in self._in_stage(stage):
            self._pass_on(child.program.name, f"is told to stop, within {grace_s:g} s")
        # Each harder step is taken when its predecessor's time is up, or when one more stop is asked for.
        self._ask(stage, lambda child: child.signal(signal.SIGTERM), patience_s=grace_s, requests=1)
        self._ask(stage, lambda child: child.signal(signal.SIGQUIT), patience_s=COLD_S, requests=2)
        self._ask(stage, Child.kill_group, patience_s=COLD_S, requests=3)
        for child in self._in_stage(stage):
            self._pass_on(child.program.name, f"does not end (pid {child.pid}), even when killed")

    def _ask(self, stage: int, how: Callable[[Child], None], *, patience_s: float, requests: int) -> None:
        for child in self._in_stage(stage):
            how(child)
        deadline_s = time.monotonic() + patience_s
        patient = requests >= 3  # a kill needs no hurry: it is waited for whatever is asked
        while self._in_stage(stage) and time.monotonic() < deadline_s:
            if self._stop_requests > requests and not patient:
                return
            self._handle_one(until_s=deadline_s)

    def _in_stage(self, stage: int) -> list[Child]:
        return [child for child in self._children.values() if child.program.stage == stage]


def describe_exit(exit_code: int | None) -> str:
    """`exit code 1`, or the signal's name."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"exit code {exit_code} ({signal.Signals(-exit_code).name})"
    except ValueError:  # a real-time signal has no name
        return f"exit code {exit_code}"
