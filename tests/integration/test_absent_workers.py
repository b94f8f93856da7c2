"""Cancels, deadlines and children with real workers, and with none: what is asked for stands in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import _state

from status import cancel, get_status, here, history
from waiting import wait_until


@pytest.fixture
def flow(redis_url, monkeypatch) -> Iterator[Any]:
    """The client's side of tests/apps/flow.py."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import flow

    before = _state._tls.current_app
    flow.app.conf.broker_url = redis_url
    here.use(redis_url)
    flow.app.set_current()
    yield flow
    here.use(None)
    _state._tls.current_app = before


@pytest.fixture
def start(worker):
    """Starts a worker of the flow; `.kill()` ends it and its children at once."""
    return lambda: worker("flow", options=("--without-mingle", "--without-gossip"))


@pytest.fixture
def notes(redis_client):
    return lambda: redis_client.lrange("notes", 0, -1)


def runs_step(run_id: str, name: str) -> bool:
    return any((step.name, step.state) == (name, "running") for step in get_status(run_id).steps)


def ended(run_id: str) -> str:
    wait_until(lambda: get_status(run_id).finished, f"{run_id} has ended", 30)
    return get_status(run_id).state


def test_a_deadline_that_passes_while_no_worker_is_up_is_kept_when_one_is(flow, start, notes, redis_client):
    first = start()
    flow.cancelled_in_saga.submit(run_id="r", timeout_s=3)
    wait_until(lambda: runs_step("r", "flow.heeds"), "the second step runs", 20)
    first.kill()
    deadline_ms = int(redis_client.hget(here.store().keys.run("r"), "deadline_ms"))
    wait_until(lambda: redis_client.time()[0] * 1000 > deadline_ms, "its time is up", 20)
    assert get_status("r").state == "running", "nobody is there who could say so"

    start()

    assert ended("r") == "timed_out"
    assert notes() == ["a", "undo a"]
    assert get_status("r").error.code == 408


def test_a_cancel_that_comes_while_no_worker_is_up_is_done_when_one_is(flow, start, notes):
    first = start()
    flow.cancelled_in_saga.submit(run_id="r")
    wait_until(lambda: runs_step("r", "flow.heeds"), "the second step runs", 20)
    first.kill()

    cancel("r", "the customer called")
    assert get_status("r").state == "cancelling"
    start()

    assert ended("r") == "cancelled"
    assert notes() == ["a", "undo a"]


def test_a_parent_that_is_cancelled_while_no_worker_is_up_has_its_child_undone(flow, start, notes):
    first = start()
    flow.parent.submit(run_id="r")
    wait_until(lambda: get_status("r").steps and runs_step_of_child("r-child"), "the child's second step runs", 20)
    first.kill()

    cancel("r", "the customer called")
    start()

    assert (ended("r"), ended("r-child")) == ("cancelled", "cancelled")
    assert notes() == ["a", "undo a"]
    assert get_status("r-child").parent == "r/0.1"
    assert [step.child_run_id for step in get_status("r").steps] == ["r@0.0", "r-child"]


def runs_step_of_child(run_id: str) -> bool:
    try:
        return runs_step(run_id, "flow.heeds")
    except LookupError:
        return False


def test_an_attempt_whose_time_is_up_hears_of_it_and_the_next_waits_for_it(flow, start, notes):
    start()

    assert flow.patient.submit(run_id="r").result(timeout_s=30) == 2
    assert notes() == ["begins 1", "ends 1", "begins 2"]
    assert [event.kind for event in history("r")].count("step.retrying") == 1
