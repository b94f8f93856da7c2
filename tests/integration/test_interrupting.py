"""Steps that are `interruptible`: interrupted in their body, and killed only if they go on all the same."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from hearing import listening
from status import get_status
from waiting import wait_until


@pytest.fixture
def notes(redis_client):
    return lambda: redis_client.lrange("notes", 0, -1)


def processes(flow) -> set[int]:
    """The pool's, as the worker says."""
    [stats] = flow.app.control.inspect(timeout=10, limit=1).stats().values()
    return set(stats["pool"]["processes"])


def slots_are_free(flow) -> bool:
    """Both of them: two steps each wait a second for the other."""
    return bool(flow.meeting.submit(f"meet-{threading.get_ident()}", 2).result(timeout_s=20) == 4)


def test_a_stopped_step_tidies_up_and_its_process_lives_on(flow, workers, notes):
    workers(concurrency=2)
    before = processes(flow)

    assert flow.stopping.submit("tidy", run_id="r").result(timeout_s=20) == "quick"
    wait_until(lambda: "tidied" in notes(), "the loser has tidied up")

    assert slots_are_free(flow)
    assert processes(flow) == before
    assert "late" not in notes()
    assert [step.state for step in get_status("r").steps] == ["done", "stopped"]


def test_a_step_that_goes_on_all_the_same_is_killed(flow, workers, notes):
    workers(concurrency=2)
    before = processes(flow)

    assert flow.stopping.submit("deaf", run_id="r").result(timeout_s=20) == "quick"
    wait_until(lambda: len(processes(flow) - before) == 1, "a new process is there")

    assert slots_are_free(flow)
    assert notes().count("heard") == 1
    assert "late" not in notes()


def test_a_step_that_ends_by_itself_when_interrupted_is_not_killed(flow, workers, notes):
    workers(concurrency=2)
    before = processes(flow)

    assert flow.stopping.submit("makes_do", run_id="r").result(timeout_s=20) == "quick"
    wait_until(lambda: "heard" in notes(), "the loser was interrupted")

    assert slots_are_free(flow)
    assert processes(flow) == before


def test_an_attempt_that_is_interrupted_for_its_time_is_made_again_at_once(flow, workers):
    workers(concurrency=2)
    before = processes(flow)
    handle = flow.limits.submit()

    assert handle.result(timeout_s=20) == [1, "flow.limited", 408]
    assert handle.status().steps[1].attempt == 2
    assert processes(flow) == before


def test_monitors_see_a_stopped_step_as_revoked_once(flow, workers):
    workers(more=("-E",), concurrency=2)
    seen: list[str] = []
    over = threading.Event()

    def hear(event: dict[str, Any]) -> None:
        if str(event.get("uuid", "")).startswith("r/0.1"):
            seen.append(event["type"])
        if str(event.get("uuid", "")).startswith("end"):
            over.set()

    with listening(flow.app, hear):
        flow.stopping.submit("tidy", run_id="r").result(timeout_s=20)
        wait_until(lambda: "task-revoked" in seen, "the loser is told of", 20)
        flow.stopping.submit("tidy", run_id="end").result(timeout_s=20)
        wait_until(over.is_set, "a later run is told of", 20)

    assert seen == ["task-received", "task-started", "task-revoked"]
