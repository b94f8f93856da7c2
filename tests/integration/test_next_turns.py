"""A pool process goes on with the turns of other runs, and only where nobody would notice."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from canvas import engine as engines
from canvas import granted, in_hand, next_turns
from canvas.request import give_away
from canvas.transport import Channel
from status import get_status, here, history
from waiting import wait_until

RUNS = 40
TOLD = re.compile(r"Task flow\.\w+ turn\[(.+)/turn~\w+\] (received|succeeded)")


@pytest.fixture(autouse=True)
def _at_the_start(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(next_turns, "lately_s", deque(maxlen=8))
    monkeypatch.setattr(next_turns, "GO_ON_S", 10.0)  # however busy this machine is
    in_hand.starts()
    yield
    in_hand.starts()
    granted.took({})


@pytest.fixture
def one_process(workers, worker_env) -> Callable[..., Any]:
    """A worker of one process, which goes on for as long as there are turns, however busy this machine is."""

    def start(*more: str, env: dict[str, str] | None = None, **options: Any) -> Any:
        return workers(more, concurrency=1, env=worker_env | {"FLOW_GO_ON_S": "10"} | (env or {}), **options)

    return start


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


def test_turns_are_taken_by_the_pool_process_itself(one_process, backlog):
    run_ids = backlog()

    node = one_process()
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
def test_where_it_would_be_noticed_each_turn_is_a_message(one_process, backlog, more, options):
    run_ids = backlog()

    node = one_process(*options, env=more)
    wait_until(lambda: completed(run_ids), "all are done", 30)
    wait_until(lambda: len(told(node)["succeeded"]) == RUNS, "each is logged", 10)

    assert told(node)["received"] == dict.fromkeys(run_ids, 1)


def test_other_queues_get_their_turn_as_before(flow, one_process, backlog):
    """A worker takes from its queues in turn; a backlog of turns does not keep it from that."""
    run_ids = backlog()
    others = [flow.elsewhere.apply_async(queue="elsewhere") for _ in range(10)]

    node = one_process(queues=["celery", "elsewhere"])
    wait_until(lambda: completed(run_ids), "all are done", 30)

    lines = re.findall(r"flow\.(\w+)\S* ?\w*\[\S+\] succeeded", node.output())
    last = max(number for number, name in enumerate(lines) if name == "elsewhere")
    assert last < 2 * len(others) + 8, "one of each in turn, and what was in hand before"
    assert len(told(node)["received"]) < RUNS, "and then it goes on by itself"


@pytest.mark.parametrize("known", [True, False], ids=["ahead of its journal", "by claims"])
def test_what_a_dead_process_had_taken_itself_is_sent_again_at_once(flow, one_process, backlog, known):
    """A process goes ahead with steps that it knows to be short. The run of the message has nothing to do with it."""
    workflow = flow.notes_here if known else flow.all_here
    run_ids = backlog(2, workflow)
    flow.dies_here.submit(run_id="dies")
    run_ids += [workflow.submit(2).run_id for _ in range(12)]

    node = one_process()
    wait_until(lambda: completed([*run_ids, "dies"]), "all are done", 30)

    output = node.output()
    said = Counter(re.findall(r"(\S+?)(?:/\S+)?: (?:the process that had its turn|its process) is gone", output))
    assert said["dies"] == (1 if known else 3), said
    assert said["r0"] == 0, "it was over"
    assert told(node)["received"]["dies"] == (1 if known else 0), "as a message when it was sent again"
    assert "its turn has not come" not in output, "nobody had to miss those that were taken with it"


def test_whoever_finds_first_that_a_process_is_gone_gives_away_what_it_had_once(flow, backlog, monkeypatch):
    """The heartbeat of its worker may be first, or its pool."""
    run_ids = backlog(3, flow.notes_here)
    engine, sent = engines.of(flow.app), []
    monkeypatch.setattr(engine, "send_turn_of", lambda run_id, again: sent.append((run_id, again)))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # a process that has begun the first of two turns that it took
        monkeypatch.setattr(granted, "slot_here", lambda: 5)
        granted.took(dict.fromkeys(run_ids[:2], flow.notes_here.name))
        holding = granted.Holding()
        holding.lead("t" * 32, granted.said_of(granted.PartRef(run_ids[0], 0, "0", "turn", 1), flow.notes_here.name))
        os.write(writer, b".")
        os._exit(0)
    os.read(reader, 1)
    assert not give_away(engine, os.getpid()), "it lives"
    os.waitpid(pid, 0)

    first, second = give_away(engine, pid), give_away(engine, pid)

    assert (first, second) == (True, True), "the second one hears that it was so"
    assert sorted(sent) == [("r0", 1), ("r1", 0)], "it died of the first, if of any"


def test_a_worker_that_stops_leaves_the_others_to_the_next(one_process, backlog, redis_client):
    run_ids = backlog(400)
    node = one_process()
    wait_until(lambda: get_status(run_ids[20]).state == "completed", "it has begun", 30)

    node.stop()

    left = [run_id for run_id in run_ids if get_status(run_id).state == "pending"]
    assert left, "it has not gone on to the end"
    assert sum(redis_client.llen(name) for name in redis_client.scan_iter("celery*", _type="list")) == len(left)


def test_each_turn_is_a_task_of_its_own(flow, one_process, backlog):
    run_ids = backlog(RUNS, flow.which_run)
    node = one_process()

    for run_id in run_ids:
        assert flow.which_run.handle(run_id).result(timeout_s=30) == [run_id] * 2
    assert len(told(node)["received"]) < RUNS / 2


# --- one go, without a worker ----------------------------------------------------------


@pytest.fixture
def trips(monkeypatch) -> Counter[str]:
    """How many messages were taken and put back."""
    counted: Counter[str] = Counter()
    take, put_back = Channel.take_turns, Channel.put_back

    def taking(self: Any, *args: Any) -> Any:
        name, texts = take(self, *args)
        counted["taken"] += len(texts)
        return name, texts

    def putting(self: Any, name: Any, texts: Any) -> None:
        counted["put back"] += len(texts)
        put_back(self, name, texts)

    monkeypatch.setattr(Channel, "take_turns", taking)
    monkeypatch.setattr(Channel, "put_back", putting)
    return counted


def go(flow: Any) -> None:
    next_turns.Bout(flow.app, "celery", []).go()


@pytest.fixture(params=["unknown", "limited"])
def _unfit(request, flow, backlog, monkeypatch) -> None:
    """Turns wait that a process may not take itself."""
    backlog(6)
    app, name = flow.app, flow.all_here.name
    if request.param == "unknown":
        monkeypatch.delitem(app.tasks, name)
    else:
        monkeypatch.setattr(app.tasks[name], "rate_limit", "10/s")


@pytest.mark.usefixtures("_unfit")
def test_what_a_process_can_not_take_itself_goes_back_to_its_place(flow, redis_client, trips):
    (queue,) = redis_client.scan_iter("celery*", _type="list")
    before = redis_client.lrange(queue, 0, -1)

    go(flow)

    assert trips == {"taken": 1, "put back": 1}
    assert redis_client.lrange(queue, 0, -1) == before
    assert {get_status(f"r{number}").state for number in range(6)} == {"pending"}


def test_what_has_not_begun_goes_back_whatever_ends_the_process(flow, backlog, redis_client, monkeypatch, trips):
    backlog(8)
    next_turns.lately_s.extend([0.001] * 4)

    def ends(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(engines.of(flow.app), "turn_here", ends)
    with pytest.raises(SystemExit):
        go(flow)

    assert trips == {"taken": 4, "put back": 3}
    assert sum(redis_client.llen(name) for name in redis_client.scan_iter("celery*", _type="list")) == 7
    assert flow.all_here.request_stack.top is None


def test_one_connection_to_the_broker_is_enough(flow, backlog):
    """A turn sends its steps by the very pool from which its message was taken."""
    backlog(4)
    pool = flow.app.producer_pool
    usual = pool.limit
    pool.resize(1, force=True)
    try:
        go(flow)
    finally:
        pool.resize(usual, force=True)

    assert {get_status(f"r{number}").state for number in range(4)} == {"running"}


def test_a_connection_that_was_cut_meanwhile_is_made_anew(flow, backlog, redis_client):
    go(flow)
    backlog(2)
    here.store().redis.client_kill_filter(_type="normal", skipme=True)

    go(flow)

    assert {get_status(f"r{number}").state for number in range(2)} == {"running"}


def test_no_more_is_taken_together_than_there_is_time_for(flow, monkeypatch):
    """Who is taken with a long one waits for it, though another process may be free."""
    taken = []
    for lately_s in ([0.001] * 3, [0.001] * 7 + [60.0], [next_turns.GO_ON_S / 2.5] * 8, [0.001] * 6 + [60.0] * 2):
        monkeypatch.setattr(next_turns, "lately_s", lately_s)
        taken.append(next_turns.Bout(flow.app, "celery", [])._at_most())

    assert taken == [1, next_turns.AT_MOST, 2, 1]


def test_who_has_long_turns_takes_each_as_a_message(flow, backlog, trips, monkeypatch):
    backlog(4)
    monkeypatch.setattr(next_turns, "_others", lambda *_: [])
    workflow = flow.app.tasks[flow.all_here.name]
    workflow.push_request(delivery_info={"routing_key": "celery"})
    try:
        next_turns.lately_s.append(next_turns.GO_ON_S)
        next_turns.go_on(workflow)
        assert trips == {}
        next_turns.lately_s.clear()
        next_turns.lately_s.append(0.001)
        next_turns.go_on(workflow)
        assert trips["taken"] == 4, "one by one: of so few nothing is known"
    finally:
        workflow.pop_request()
