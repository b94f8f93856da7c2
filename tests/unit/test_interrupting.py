"""Interrupts: they hit the body of the claim that is meant, once, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery

from canvas import Cancelled, interrupting, perform, stopping
from canvas.context import CurrentStep, is_in_step, running_as
from canvas.engine import Engine
from canvas.interrupting import Interrupted, interruptible

MEANT, OTHER, SLOT = "a" * 32, "b" * 32, 3


@pytest.fixture(autouse=True)
def _in_a_pool(monkeypatch):
    """This process is the fourth of a pool."""
    monkeypatch.setattr(interrupting, "slot_here", lambda: SLOT)
    monkeypatch.setattr(interrupting, "_board", bytearray(len(interrupting._board)))
    monkeypatch.setattr(interrupting, "_cut", interrupting._NOBODY)
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


def test_a_second_signal_of_the_same_stop_hits_nothing():
    def body() -> str:
        with contextlib.suppress(Cancelled):
            ask()
        os.kill(os.getpid(), interrupting.SIGNAL)
        return "tidied"

    assert interruptible(MEANT, body) == "tidied"
    assert interrupting.was_cut(MEANT)


@pytest.mark.parametrize("made_of_it", [Cancelled("tidied up"), BaseExceptionGroup("tasks", [Cancelled("one")])])
def test_what_a_step_makes_of_its_interrupt_is_one(made_of_it):
    def body() -> None:
        try:
            ask()
        except Cancelled:
            raise made_of_it from None

    with pytest.raises(Interrupted) as caught:
        interruptible(MEANT, body)
    assert caught.value.__cause__ is made_of_it


def test_a_step_that_says_cancelled_by_itself_is_not_taken_for_an_interrupted_one():
    def body() -> None:
        raise Cancelled("by itself")

    with pytest.raises(Cancelled, match="by itself") as caught:
        interruptible(MEANT, body)
    assert type(caught.value) is Cancelled


def test_after_a_cut_no_step_is_current_and_no_connection_is_kept(monkeypatch):
    """The cut may come just where the step would have left its thread, or between a command and its answer."""
    dropped: list[str] = []
    engine = SimpleNamespace(drop_connections=lambda: dropped.append("all"))
    monkeypatch.setattr(perform.engines, "of", lambda _: engine)
    current = CurrentStep("r", "r/0.0", "key", step_name="cut")

    def work() -> Any:
        running_as(current).__enter__()
        ask()

    with pytest.raises(Interrupted):
        perform._interruptibly(SimpleNamespace(app=None), MEANT, work)
    assert not is_in_step()
    assert dropped == ["all"]


def test_a_request_is_interrupted_once(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(interrupting, "ask", lambda *_: asked.append(1) or True)
    request, consumer = _request(), _consumer()

    assert stopping._interrupt(consumer, request)
    assert stopping._interrupt(consumer, request)
    assert asked == [1]


@pytest.mark.parametrize(("there", "runs", "killed"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_who_is_killed_is_there_and_runs(monkeypatch, there, runs, killed):
    request, consumer = _request(), _consumer()
    monkeypatch.setattr(interrupting, "runs", lambda *_: runs)
    monkeypatch.setattr(stopping.worker_state, "active_requests", {request} if there else set())

    stopping._make_sure(consumer, request, SLOT)

    assert len(request.killed) == killed


def _request() -> Any:
    request = type("Request", (), {})()
    request.killed, request.celeriac_interrupted, request.celeriac_token, request.worker_pid = [], False, MEANT, 1
    request.terminate = lambda _pool, signal: request.killed.append(signal)
    return request


def _consumer() -> Any:
    pool = type("TaskPool", (), {"__module__": "celery.concurrency.prefork", "terminate_job": None})()
    pool._pool = SimpleNamespace(_pool=[SimpleNamespace(pid=1, index=SLOT)])
    return SimpleNamespace(pool=pool, hub=SimpleNamespace(call_later=lambda *_: None))


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


def test_what_a_cut_step_had_taken_from_the_pools_of_the_broker_is_not_missed():
    app = Celery("cut", broker="memory://cut", set_as_current=False)
    store = SimpleNamespace(redis=SimpleNamespace(connection_pool=SimpleNamespace(disconnect=lambda: None)))
    all_there_are = app.producer_pool.limit
    taken = [app.producer_pool.acquire() for _ in range(all_there_are)]

    Engine.drop_connections(cast("Any", SimpleNamespace(app=app, store=store)))

    again = [app.producer_pool.acquire() for _ in range(all_there_are)]
    assert not {id(producer.connection) for producer in taken} & {id(producer.connection) for producer in again}
