"""Interrupts: they hit the body of the claim that is meant, once, and nothing else."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from canvas import interrupting
from canvas.interrupting import Interrupted, interruptible

MEANT, OTHER, SLOT = "a" * 32, "b" * 32, 3


@pytest.fixture(autouse=True)
def _in_a_pool(monkeypatch):
    """This process is the fourth of a pool."""
    monkeypatch.setattr(interrupting, "slot_here", lambda: SLOT)
    monkeypatch.setattr(interrupting, "_board", bytearray(len(interrupting._board)))
    before = signal.getsignal(interrupting.SIGNAL)
    yield
    signal.signal(interrupting.SIGNAL, before)


def ask(token: str = MEANT) -> None:
    assert interrupting.ask(SLOT, os.getpid(), token)


def test_a_body_that_waits_is_interrupted_and_tidies_up():
    tidied: list[str] = []

    def body() -> None:
        threading.Timer(0.05, ask).start()
        try:
            threading.Event().wait(30)
        finally:
            tidied.append("yes")

    with pytest.raises(Interrupted):
        interruptible(MEANT, body)
    assert tidied == ["yes"]
    assert not interrupting.runs(SLOT, MEANT)


def test_another_claim_is_not_interrupted():
    assert interruptible(OTHER, lambda: ask() or "went on") == "went on"


def test_who_is_asked_before_its_body_begins_does_not_begin():
    ask()

    with pytest.raises(Interrupted):
        interruptible(MEANT, lambda: pytest.fail("it began"))
    assert interruptible(OTHER, lambda: "next") == "next"


def test_who_is_asked_after_its_body_is_over_keeps_what_came_of_it():
    assert interruptible(MEANT, lambda: "over") == "over"
    ask()
    assert interruptible(OTHER, lambda: "next") == "next"


def test_a_body_is_interrupted_once():
    def body() -> str:
        try:
            ask()
        except Interrupted:
            os.kill(os.getpid(), interrupting.SIGNAL)
            return "tidied"
        return "not interrupted"

    assert interruptible(MEANT, body) == "tidied"


def test_except_exception_does_not_swallow_it():
    def body() -> None:
        try:
            ask()
        except Exception:  # noqa: BLE001  # as a careless step has it
            pytest.fail("swallowed")

    with pytest.raises(Interrupted):
        interruptible(MEANT, body)


def test_it_is_seen_whose_body_runs():
    assert interruptible(MEANT, lambda: (interrupting.runs(SLOT, MEANT), interrupting.runs(SLOT, OTHER))) == (
        True,
        False,
    )
    assert not interrupting.runs(SLOT, MEANT)


def test_a_process_that_is_gone_is_not_asked(monkeypatch):
    def gone(pid: int, number: int) -> None:
        raise ProcessLookupError(pid, number)

    monkeypatch.setattr(os, "kill", gone)
    assert not interrupting.ask(SLOT, 1, MEANT)


def test_a_pool_of_threads_is_left_alone(monkeypatch):
    monkeypatch.setattr(interrupting, "slot_here", lambda: None)
    before = signal.getsignal(interrupting.SIGNAL)

    assert interruptible(MEANT, lambda: "done") == "done"
    assert signal.getsignal(interrupting.SIGNAL) == before


def test_processes_beyond_the_board_are_not_asked():
    assert not interrupting.ask(interrupting.SLOTS, os.getpid(), MEANT)
