"""The supervisor, on small programs that misbehave in one way each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from canvas import supervisor_child
from canvas.supervisor import Backoff, Program, Supervisor, describe_exit
from waiting import wait_until

ROOT = Path(__file__).parents[2]

STAYS = "import signal; print('up', flush=True); signal.pause()"
IGNORES_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + STAYS
IGNORES_ALL = "import signal; signal.signal(signal.SIGQUIT, signal.SIG_IGN);" + IGNORES_TERM
#: Has a child that ignores SIGTERM, as the pool child of a worker does.
HAS_A_CHILD = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-S", "-c", {IGNORES_TERM!r}]).pid, flush=True)
import signal; signal.pause()
"""


def program(name: str, code: str, **more: float) -> Program:
    return Program(name=name, argv=[sys.executable, "-S", "-c", code], **more)


class Running:
    """A supervisor in a thread of its own, and what it has said."""

    def __init__(self, *programs: Program) -> None:
        self.said: list[tuple[str, str]] = []
        self.raised: BaseException | None = None
        self.supervisor = Supervisor(programs, env=os.environ, say=self.say)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except OSError as error:
            self.raised = error

    def say(self, name: str, line: str) -> None:
        self.said.append((name, line))

    def lines(self, name: str) -> list[str]:
        return [line for who, line in list(self.said) if who == name]

    def wait_for_line(self, name: str, part: str, times: int = 1) -> str:
        def found() -> list[str]:
            return [line for line in self.lines(name) if part in line]

        wait_until(lambda: len(found()) >= times, f"{name} says {part!r} {times} times; it said {self.said}")
        return found()[-1]

    def stop(self) -> None:
        self.supervisor.request_stop()
        self.end()

    def end(self) -> None:
        self.thread.join(timeout=20)
        assert not self.thread.is_alive()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def run(*programs: Program) -> Running:
        running.append(Running(*programs))
        return running[-1]

    yield run
    for each in running:
        for _ in range(3):
            each.supervisor.request_stop()
        each.end()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_each_line_of_a_program_is_passed_on_with_its_name(start):
    running = start(
        program("a", "print('one'); import sys; print('two', file=sys.stderr);" + STAYS),
        program("b", "import os; os.write(1, b'\\xff three\\n');" + STAYS),
    )

    running.wait_for_line("a", "up")
    running.wait_for_line("b", "up")

    assert sorted(running.lines("a")) == ["one", "two", "up"]
    assert running.lines("b") == ["\N{REPLACEMENT CHARACTER} three", "up"]


def test_what_dies_is_started_again_at_once_and_then_after_a_second(start):
    running = start(program("dies", "print('born'); raise SystemExit(3)"), program("lives", STAYS))

    running.wait_for_line("dies", "born", times=3)

    deaths = [line for line in running.lines("dies") if "died" in line]
    assert "died with exit code 3 after 0." in deaths[0]
    assert [line.rpartition("; ")[2] for line in deaths[:2]] == [
        "it is started again now",
        "it is started again in 1 s",
    ]
    assert running.lines("lives") == ["up"]


def test_a_killed_program_is_reported_with_the_signal_and_its_children_go_with_it(start):
    running = start(program("parent", HAS_A_CHILD))
    running.wait_for_line("parent", "up")
    wait_until(lambda: len(running.lines("parent")) == 2, "the child's pid is printed too")
    (child_pid,) = (int(line) for line in running.lines("parent") if line != "up")

    os.kill(running.supervisor.pids()["parent"], signal.SIGKILL)

    running.wait_for_line("parent", "died with exit code -9 (SIGKILL)")
    wait_until(lambda: gone(child_pid), "its child is killed too")


@pytest.mark.parametrize(
    ("lives_s", "waits_s"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 2, 4, 8, 16, 30, 30]),
        ([0, 0, 0, 31, 0], [0, 1, 2, 0, 1]),
        ([29, 29, 30], [0, 1, 0]),
    ],
)
def test_restarts_wait_longer_each_time_until_a_life_was_long(lives_s, waits_s):
    backoff = Backoff()

    assert [backoff.next_wait_s(lived_s=lived_s) for lived_s in lives_s] == waits_s


def test_stages_are_stopped_one_after_the_other(start):
    slow = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit()));" + STAYS
    running = start(program("last", STAYS, stage=1), program("slow", slow), program("quick", STAYS))
    for name in ("last", "slow", "quick"):
        running.wait_for_line(name, "up")

    running.stop()

    told = [(who, line.split()[0]) for who, line in running.said if line.startswith(("is told", "stopped"))]
    assert told == [
        ("slow", "is"),
        ("quick", "is"),
        ("quick", "stopped"),
        ("slow", "stopped"),
        ("last", "is"),
        ("last", "stopped"),
    ]
    assert running.lines("slow")[-1] == "stopped with exit code 0"


@pytest.mark.parametrize(("code", "end"), [(IGNORES_TERM, "SIGQUIT"), (IGNORES_ALL, "SIGKILL")])
def test_who_does_not_listen_is_stopped_harder(start, monkeypatch, code, end):
    monkeypatch.setattr("canvas.supervisor.COLD_S", 0.2)
    running = start(program("stubborn", code, grace_s=0.2))
    running.wait_for_line("stubborn", "up")

    running.stop()

    assert end in running.lines("stubborn")[-1]


@pytest.mark.parametrize(("code", "requests", "end"), [(IGNORES_TERM, 2, "SIGQUIT"), (IGNORES_ALL, 3, "SIGKILL")])
def test_another_request_ends_the_patience(start, monkeypatch, code, requests, end):
    monkeypatch.setattr("canvas.supervisor.COLD_S", 60.0)
    running = start(program("stubborn", code, grace_s=60))
    running.wait_for_line("stubborn", "up")

    for _ in range(requests):
        running.supervisor.request_stop()
    running.end()

    assert end in running.lines("stubborn")[-1]


def test_a_change_of_environment_reaches_every_program(start):
    running = start(program("asks", "import os; print(os.environ.get('WORD'));" + STAYS))
    running.wait_for_line("asks", "None")
    running.wait_for_line("asks", "up")

    running.supervisor.restart({**os.environ, "WORD": "changed"})

    running.wait_for_line("asks", "changed")


def test_when_nobody_takes_the_output_everything_is_stopped(start, monkeypatch):
    def broken(_self: Running, _name: str, _line: str) -> None:
        raise BrokenPipeError("nobody there")

    monkeypatch.setattr(Running, "say", broken)
    running = start(program("a", STAYS))

    running.end()

    assert isinstance(running.raised, BrokenPipeError)
    assert running.supervisor.pids() == {}


def test_a_program_that_does_not_exist_stops_the_others_and_is_named(start):
    running = start(program("a", STAYS), Program(name="b", argv=["/nowhere/at-all"]))

    running.end()

    assert isinstance(running.raised, FileNotFoundError)
    assert "/nowhere/at-all" in str(running.raised)
    assert running.supervisor.pids() == {}


SUPERVISES = f"""
import os, sys
from canvas import supervisor_child
from canvas.supervisor import Program, Supervisor
supervisor_child.ORPHAN_GRACE_S = 0.3
program = Program(name="parent", argv=[sys.executable, "-S", "-c", {HAS_A_CHILD!r}])
Supervisor([program], env=os.environ, say=lambda name, line: print(line, flush=True)).run()
"""


def test_a_killed_supervisor_leaves_nobody_behind():
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISES],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = {process.stdout.readline().strip() for _ in range(2)}
        assert "up" in lines
        family = psutil.Process(process.pid).children(recursive=True)

        process.kill()

    assert len(family) == 3  # the guard, the program, and its child that ignores SIGTERM
    wait_until(lambda: all(gone(each.pid) for each in family), f"all of {family} are gone")


def test_a_guard_that_was_ended_is_replaced_by_one_that_knows_everything(start, monkeypatch):
    monkeypatch.setattr(supervisor_child, "ORPHAN_GRACE_S", 0.1)
    guard = supervisor_child.Guard()
    with subprocess.Popen([sys.executable, "-S", "-c", STAYS], start_new_session=True) as one:
        guard.watch(one.pid)
        guard._process.kill()
        guard._process.wait()
        guard.forget(0)

        guard.close()

        assert one.wait(timeout=10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("exit_code", "text"),
    [(0, "exit code 0"), (1, "exit code 1"), (-15, "exit code -15 (SIGTERM)"), (-42, "exit code -42")],
)
def test_an_exit_is_told_in_words(exit_code, text):
    assert describe_exit(exit_code) == text
