"""Short steps run where their turn is, and are what they would be as messages."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from canvas import RunFailed, in_place
from counting import pushes
from hearing import listening
from status import get_status, history
from status.scripts import RUN_SCRIPTS, digest
from waiting import wait_until


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine a step of microseconds may take its process 20 ms.
    monkeypatch.setenv("CELERIAC_IN_PLACE_MS", "1000")


@pytest.mark.parametrize(("pool", "concurrency"), [("prefork", 2), ("threads", 2), ("solo", 1)])
def test_a_short_step_runs_in_the_process_of_its_turn(flow, workers, redis_client, pool, concurrency):
    workers(pool=pool, concurrency=concurrency)
    flow.in_a_row.submit(8).result(timeout_s=30)
    pushed = pushes(redis_client)

    rows = flow.in_a_row.submit(12, run_id="r").result(timeout_s=30)

    steps = [(f"r/{n}.0", f"r/{n}.0", 1) for n in range(12)]
    assert [(row[2], row[3], row[4]) for row in rows] == steps
    assert [(step.step_id, step.state, step.attempt) for step in get_status("r").steps] == [
        (step_id, "done", 1) for step_id, _, _ in steps
    ]
    kinds = Counter(event.kind for event in history("r"))
    assert (kinds["step.started"], kinds["step.done"], kinds["join.decided"]) == (12, 12, 12)
    # The run's first turn is a message; of its steps a few at most are, where a chain was too long for one go.
    assert pushes(redis_client) - pushed < 8


def test_awaits_of_short_steps_are_one_round_trip_together(flow, workers, redis_client):
    workers(pool="solo", concurrency=1)
    flow.in_a_row.submit(8).result(timeout_s=30)

    with redis_client.monitor() as monitor:
        flow.in_a_row.submit(12, run_id="r").result(timeout_s=30)
        redis_client.echo("that is all")
        made = Counter(scripts_called(monitor))

    # The turn goes ahead of the journal, and what it passed is recorded with the end. A step or two may be a message,
    # where a chain was too long for one go: each a `begin` and a `finish`.
    assert 1 <= made["advance"] <= 1 + made["begin"]
    assert made["open_join"] + made["complete"] <= 1 + made["begin"]
    assert made["finish"] <= made["begin"] <= 2


def scripts_called(monitor: Any) -> Iterator[str]:
    """The scripts of runs among the commands that a monitor has seen, up to the echo."""
    names = {digest(name): name for name in RUN_SCRIPTS}
    while True:
        command = monitor.next_command()
        word, digest_or_text = (*command["command"].split(" ", 2), "")[:2]
        if word == "ECHO":
            return
        if word == "EVALSHA" and digest_or_text in names:
            yield names[digest_or_text]


def test_a_step_is_celerys_current_task_in_place_too(flow, workers, redis_client):
    workers(pool="solo", concurrency=1)
    flow.tasks_in_a_row.submit(4).result(timeout_s=30)
    pushed = pushes(redis_client)

    rows = flow.tasks_in_a_row.submit(8, run_id="r").result(timeout_s=30)

    assert pushes(redis_client) - pushed < 4, "most are in place"
    for n, (name, message_id, root_id, retries, args, called_directly) in enumerate(rows):
        assert (name, root_id, retries, args, called_directly) == ("flow.as_task", "r", 0, [n], False)
        assert message_id.startswith(f"r/{n}.0~")


def test_a_step_that_calls_itself_is_a_function_there(flow, workers):
    workers(pool="solo", concurrency=1)

    assert flow.sums.submit([3] * 8).result(timeout_s=30) == [6] * 8


def test_a_step_that_another_one_calls_is_a_function_there(flow, workers):
    """Also where a message of the one that is called has just led to the turn that runs the other."""
    workers(pool="solo", concurrency=1)

    for _ in range(3):
        assert flow.steps_call_steps.submit(6).result(timeout_s=30) == 12


def test_whoever_ends_an_item_of_a_batch_runs_the_next_one(flow, workers, redis_client):
    workers(pool="threads", concurrency=4)
    pushed = pushes(redis_client)

    rows = flow.batch_of.submit(200, 4, run_id="r").result(timeout_s=60)

    assert [row[0] for row in rows] == list(range(200))
    assert {row[4] for row in rows} == {1}
    assert pushes(redis_client) - pushed < 100


@pytest.mark.parametrize(("threads", "chains"), [(8, range(1, 10)), (3, range(10, 121))], ids=["free", "all busy"])
def test_items_stay_in_their_thread_for_as_long_as_others_are_free(flow, workers, redis_client, threads, chains):
    """Where none is, a chain makes way for others after 50 ms."""
    workers(pool="threads", concurrency=threads)
    flow.naps.submit(12, 3).result(timeout_s=30)
    pushed = pushes(redis_client)

    assert flow.naps.submit(120, 3).result(timeout_s=30) == sum(range(120))

    assert pushes(redis_client) - pushed - 1 in chains  # 0.4 s of naps in each of three chains


def test_a_step_whose_queue_is_served_by_others_goes_there(flow, workers):
    workers(name="here", queues=["celery"])
    workers(name="there", queues=["elsewhere"])

    rows = flow.there_and_back.submit(6).result(timeout_s=30)

    assert {here for here, _ in rows}.isdisjoint({there for _, there in rows})


def test_a_local_step_needs_no_queue_and_no_message(flow, workers):
    workers(queues=["celery"])

    assert flow.all_here.submit(20).result(timeout_s=30) == 1


def test_a_failure_stops_the_siblings_that_its_process_has_claimed_and_not_begun(flow, workers, redis_client):
    workers()

    with pytest.raises(RunFailed, match="not here"):
        flow.fails_here.submit(run_id="r").result(timeout_s=30)

    assert [step.state for step in get_status("r").steps] == ["done", "failed", "stopped"]
    assert redis_client.exists("notes:before", "notes:after") == 1


def test_a_process_that_dies_in_one_of_several_steps_runs_none_of_them_for_the_last_time(flow, workers, redis_client):
    """What the first gave was not recorded yet: it runs again. The one that was not begun has lost no life."""
    workers()

    assert flow.dies_here.submit(run_id="r").result(timeout_s=60) == ["first", "dies", "last", "end"]

    runs = {what: redis_client.llen(f"notes:{what}") for what in ("first", "dies", "last", "end")}
    assert runs == {"first": 2, "dies": 2, "last": 1, "end": 1}


def test_a_step_in_place_that_takes_long_after_all_is_vouched_for(flow, workers, redis_client):
    workers(name="one")
    workers(name="two")

    handle = flow.then_not.submit("stays", run_id="r")
    wait_until(lambda: redis_client.get("r") == "1", "the step has begun", 30)
    before = ticks(redis_client)
    wait_until(lambda: ticks(redis_client) > before + 7, "its claim would be dead without heartbeats", 60)
    redis_client.rpush("r:go", "go")

    assert handle.result(timeout_s=30)[8] == "stays"
    assert redis_client.get("r") == "1", "it was not begun again"


def ticks(redis_client: Any) -> int:
    return max(int(redis_client.get(key)) for key in redis_client.keys("celeriac:*:tick"))


def test_a_process_killed_in_a_step_in_place_loses_what_it_had_not_recorded_and_no_more(flow, workers, redis_client):
    workers()

    handle = flow.then_not.submit("dies", run_id="r")

    assert handle.result(timeout_s=60)[8] == "dies"
    assert redis_client.get("r") == "2"
    # It was ahead of the journal, which knows nothing of the attempt; the next one was by a claim.
    started = [event for event in history("r") if event.kind == "step.started"]
    assert len(started) == 8 + 1 + 1 + 2
    assert redis_client.hget(next(iter(redis_client.keys("celeriac:*:run:r"))), "given_up") is None


def test_a_step_in_place_that_fails_is_made_again(flow, workers, redis_client):
    workers()

    handle = flow.then_not.submit("fails", run_id="r")

    assert handle.result(timeout_s=30)[8] == "fails"
    kinds = Counter(event.kind for event in history("r"))
    assert (kinds["step.retrying"], redis_client.get("r")) == (2, "2"), "that one, and the one of the key x"


def test_time_limits_of_messages_keep_steps_out_of_place():
    for limits_messages, queues in ((False, {"celery"}), (True, set())):
        app = Celery("limited", set_as_current=False)
        in_place.settle_in(app, "w@h", limits_messages=limits_messages)

        place = in_place.place_of(app)
        assert place is not None
        assert place.queues == queues


def test_monitors_are_told_of_steps_in_place(flow, workers):
    workers(more=("-E",))
    seen: dict[str, list[Any]] = defaultdict(list)
    over = threading.Event()

    def hear(event: dict[str, Any]) -> None:
        if str(event.get("uuid", "")).startswith("r"):
            seen[event["uuid"].partition("~")[0]].append(event)
        if len([1 for told in seen.values() if told[-1]["type"] == "task-succeeded"]) >= 14:
            over.set()

    flow.in_a_row.submit(8).result(timeout_s=30)
    with listening(flow.app, hear):
        flow.in_a_row.submit(12, run_id="r").result(timeout_s=30)
        wait_until(over.is_set, "all twelve, the turn and the run are told of", 20)

    assert [event["type"] for event in seen["r"]] == ["task-received", "task-started", "task-succeeded"], "once each"
    for n in range(12):
        told = {event["type"]: event for event in seen[f"r/{n}.0"]}
        assert told.keys() == {"task-received", "task-started", "task-succeeded"}
        assert (told["task-received"]["name"], told["task-received"]["root_id"]) == ("flow.whose", "r")
        assert len({event["hostname"] for event in told.values()}) == 1


def test_a_worker_without_task_events_tells_nobody_of_steps_in_place(flow, workers):
    """Though it sends its heartbeats as events, as each worker does."""
    workers()
    kinds: Counter[str] = Counter()
    with listening(flow.app, lambda event: kinds.update([event["type"]])):
        for _ in range(3):
            flow.in_a_row.submit(8).result(timeout_s=30)
        beats = kinds["worker-heartbeat"]
        wait_until(lambda: kinds["worker-heartbeat"] >= beats + 2, "the heartbeats after the runs are heard", 30)

    assert [kind for kind in kinds if kind.startswith("task-")] == []
