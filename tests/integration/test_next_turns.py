"""A pool process goes on with turns that have waited, and only where nobody would notice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from canvas import next_turns
from status import get_status, history
from waiting import wait_until

RUNS = 40
TOLD = re.compile(r"Task flow\.\w+ turn\[(.+)/turn~\w+\] (received|succeeded)")


@pytest.fixture
def backlog(flow) -> Callable[..., list[str]]:
    """Runs of local steps, whose first turns lie on the queue by now."""

    def submit(count: int = RUNS, workflow: Any = flow.all_here) -> list[str]:
        run_ids = [f"r{number}" for number in range(count)]
        for run_id in run_ids:
            workflow.submit(2, run_id=run_id)
        return run_ids

    return submit


def completed(run_ids: list[str]) -> bool:
    return all(get_status(run_id).state == "completed" for run_id in run_ids)


def told(node: Any) -> dict[str, Counter[str]]:
    """How often the worker has said of each turn that it was received, and that it succeeded."""
    said: dict[str, Counter[str]] = {"received": Counter(), "succeeded": Counter()}
    for run_id, what in TOLD.findall(node.output()):
        said[what][run_id] += 1
    return said


def test_turns_that_have_waited_are_taken_by_the_pool_process_itself(workers, backlog):
    run_ids = backlog()

    node = workers(concurrency=1)
    wait_until(lambda: completed(run_ids), "all are done", 30)
    wait_until(lambda: len(told(node)["succeeded"]) == RUNS, "each is logged", 10)

    said = told(node)
    assert said["succeeded"] == dict.fromkeys(run_ids, 1), "each was taken once"
    assert len(said["received"]) < RUNS / 2, "most of them without their worker's parent"
    for run_id in run_ids:
        kinds = Counter(event.kind for event in history(run_id))
        assert (kinds["step.done"], kinds["join.decided"], kinds["run.completed"]) == (2, 2, 1)


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({}, ("-E",)),
        ({}, ("--max-tasks-per-child", "1000")),
        ({}, ("--time-limit", "60")),
        ({"CELERIAC_IN_PLACE_MS": "0"}, ()),
    ],
    ids=["watched", "counted", "limited", "switched off"],
)
def test_where_it_would_be_noticed_each_turn_is_a_message(workers, backlog, worker_env, more, options):
    run_ids = backlog()

    node = workers(options, concurrency=1, env=worker_env | more)
    wait_until(lambda: completed(run_ids), "all are done", 30)
    wait_until(lambda: len(told(node)["succeeded"]) == RUNS, "each is logged", 10)

    assert told(node)["received"] == dict.fromkeys(run_ids, 1)


def test_other_queues_get_their_turn_as_before(flow, workers, backlog, redis_client):
    """A worker takes from its queues in turn; a backlog of turns does not keep it from that."""
    run_ids = backlog()
    others = [flow.elsewhere.apply_async(queue="elsewhere") for _ in range(10)]

    node = workers(concurrency=1, queues=["celery", "elsewhere"])
    wait_until(lambda: completed(run_ids), "all are done", 30)

    lines = re.findall(r"flow\.(\w+)\S* ?\w*\[\S+\] succeeded", node.output())
    last = max(number for number, name in enumerate(lines) if name == "elsewhere")
    assert last < 2 * len(others) + 8, "one of each in turn, and what was in hand before"


@pytest.mark.parametrize("known", [True, False], ids=["ahead of its journal", "by claims"])
def test_a_process_that_dies_of_a_turn_it_took_itself_sends_that_again_and_no_other(flow, workers, backlog, known):
    """A process goes ahead with steps that it knows to be short."""
    workflow = flow.notes_here if known else flow.all_here
    run_ids = backlog(2, workflow)
    flow.dies_here.submit(run_id="dies")
    run_ids += [workflow.submit(2).run_id for _ in range(8)]

    # With nothing more in its worker's hand: the process takes the third run itself, right after the first.
    node = workers(("--prefetch-multiplier", "1"), concurrency=1)
    wait_until(lambda: completed([*run_ids, "dies"]), "all are done", 30)

    said = re.findall(r"(\S+): (?:the process that had its turn|its process) is gone", node.output())
    assert {what.partition("/")[0] for what in said} == {"dies"}
    assert len(said) == (1 if known else 3), said
    assert told(node)["received"]["dies"] == (1 if known else 0), "as a message when it was sent again"


def test_a_worker_that_stops_leaves_the_others_to_the_next(flow, workers, backlog, redis_client):
    run_ids = backlog(400)
    node = workers(concurrency=1)
    wait_until(lambda: get_status(run_ids[20]).state == "completed", "it has begun", 30)

    node.stop()

    left = [run_id for run_id in run_ids if get_status(run_id).state == "pending"]
    assert left, "it has not gone on to the end"
    assert sum(redis_client.llen(name) for name in redis_client.scan_iter("celery*", _type="list")) >= len(left)


def test_each_turn_is_a_task_of_its_own(flow, workers, backlog):
    run_ids = backlog(RUNS, flow.which_run)
    node = workers(concurrency=1)

    for run_id in run_ids:
        assert flow.which_run.handle(run_id).result(timeout_s=30) == [run_id] * 2
    assert len(told(node)["received"]) < RUNS / 2


@pytest.mark.parametrize("unfit", ["unknown", "limited"])
def test_what_a_process_can_not_take_itself_goes_back_to_its_place(flow, backlog, redis_client, monkeypatch, unfit):
    backlog(6)
    app, name = flow.app, flow.all_here.name
    if unfit == "unknown":
        monkeypatch.delitem(app.tasks, name)
    else:
        monkeypatch.setattr(app.tasks[name], "rate_limit", "10/s")
    (queue,) = redis_client.scan_iter("celery*", _type="list")
    before = redis_client.lrange(queue, 0, -1)

    next_turns.Bout(app, "celery", []).go()

    assert redis_client.lrange(queue, 0, -1) == before
    assert {get_status(f"r{number}").state for number in range(6)} == {"pending"}


def test_one_connection_to_the_broker_is_enough(flow, backlog, redis_client):
    """A turn sends its steps by the very pool from which its message was taken."""
    backlog(4)
    pool = flow.app.producer_pool
    usual = pool.limit
    pool.resize(1, force=True)
    try:
        next_turns.Bout(flow.app, "celery", []).go()
    finally:
        pool.resize(usual, force=True)

    assert {get_status(f"r{number}").state for number in range(4)} == {"running"}


def test_no_more_is_taken_together_than_there_is_time_for(flow, monkeypatch):
    """Who is taken with a long one waits for it, though another process may be free."""
    taken = []
    for lately_s in ([], [next_turns.GO_ON_S / 100] * 4, [next_turns.GO_ON_S / 2.5] * 8, [0.001] * 7 + [60.0]):
        monkeypatch.setattr(next_turns, "lately_s", lately_s)
        taken.append(next_turns.Bout(flow.app, "celery", [])._at_most())

    assert taken == [1, next_turns.AT_MOST, 2, 1], "of the first one nothing is known"
