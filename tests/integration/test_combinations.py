"""Transitions in combination: each is sound alone. Real Redis, no worker."""

from __future__ import annotations

import json
from itertools import count

import pytest

from canvas import Run, step, workflow
from core import current_app
from family import Died, Family
from leaks import keys_without_end
from runs import Runs, part, refs
from status.keys import Keys
from status.records import NewBatch


@step(name="combinations.do")
def do() -> int:
    return 1


@workflow(name="combinations.child")
async def child(run: Run) -> int:
    return await do.s()


@workflow(name="combinations.starts")
async def starts(run: Run) -> str:
    return await run.start(child.s())


@workflow(name="combinations.asks")
async def asks(run: Run) -> int:
    return await child.s().with_run_id("theirs")


@pytest.fixture
def run(redis_client):
    return Runs(redis_client)


@pytest.fixture
def family(redis_client):
    with current_app("combinations") as app:
        yield Family(app, redis_client)


def batch_of(size: int, window: int, *, keep: bool = True) -> NewBatch:
    spec = json.dumps({"task": "s", "kwargs": {}, "queue": "q", "label": "s"})
    return NewBatch(size, window, "q", "s", spec, keep, size, [json.dumps(list(range(size)))])


def test_a_claim_that_dies_after_a_late_success_of_its_part_does_not_owe_the_undo_again(run):
    run.started(part(undo=True), part())
    run.begin(0, "a")
    run.tick(5)  # a is frozen, and b takes its place
    assert run.begin(0, "b") == "granted"
    run.begin(1, "c")
    assert run.fail(1, "c") == "decided"
    run.settle(1)
    late = run.finish("done", 0, "a")
    assert (late.code, refs(late)) == ("late", [("0u", 1)])

    run.tick(5)
    assert not run.release(0).publish  # b is gone
    assert run.loose() == 1
    run.begin("0u", "u")
    assert run.done("0u", "u") == "decided"
    assert not run.joined(0)
    assert run.decision(1) == ("all", "")


def test_an_undo_that_ends_after_it_has_timed_out_for_good_is_counted_once(run):
    run.started(part(undo=True), part(), part())
    run.begin(0, "a")
    run.begin(1, "b")
    run.begin(2, "c")
    run.fail(2, "c")
    run.settle(1)
    assert run.done(0, "a") == "late"
    run.begin("0u", "u", timeout_ms=1000, retry_in_ms=-1)
    run.fire("attempt", "0u")
    assert run.loose() == 1

    run.done("0u", "u")
    assert run.loose() == 1  # b still runs
    assert run.decision(1) is None
    assert run.done(1, "b") == "decided"
    run.complete(seen="n1", state="compensated")
    assert not keys_without_end(run.redis)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "counted"])
def test_a_part_of_a_batch_that_timed_out_for_good_lets_go_when_its_worker_dies(run, keep):
    run.submit()
    assert run.open(policy="settle", batch=batch_of(2, 1, keep=keep)) == "opened"
    assert run.begin(0, "a", timeout_ms=1000, retry_in_ms=-1) == "granted"
    assert refs(run.fire("attempt", 0)) == [("1", 1)]
    run.begin(1, "b")
    assert run.done(1, "b") == "decided"
    run.settle(1)
    assert run.loose() == 1

    run.tick(5)  # the worker of a is gone
    assert run.store.repair(run.id, "0", "0", asks_queues=True) is not None
    assert run.release(0).code == "decided"
    assert (run.loose(), run.joined(0), run.due()) == (0, False, {""})


def test_a_run_that_was_started_and_has_ended_is_not_waited_for_by_the_cancel_of_its_starter(family, monkeypatch):
    family.crash(monkeypatch, "finish")
    with pytest.raises(Died):
        family.submit(starts)
    family.play()
    assert family.state("top@0.0") == "completed"

    family.cancel()
    family.sweep()
    assert family.state() == "cancelled"
    assert family.left() == set()


def test_a_run_that_had_ended_before_it_was_asked_for_is_not_waited_for_by_the_cancel_of_who_asked(family, monkeypatch):
    family.submit(child, run_id="theirs")
    assert family.state("theirs") == "completed"
    family.crash(monkeypatch, "submit_child")
    with pytest.raises(Died):
        family.submit(asks)

    family.cancel()
    family.sweep()
    assert family.state() == "cancelled"
    assert family.left() == set()


def test_the_end_of_a_run_leaves_a_run_alone_whose_id_goes_on_with_end(redis_client):
    shard_of = Keys(4).shard_of
    one = next(f"r{i}" for i in count() if shard_of(f"r{i}") == shard_of(f"r{i}:end"))
    ends, other = Runs(redis_client, run_id=one), Runs(redis_client, run_id=f"{one}:end")
    ends.submit()
    other.submit()
    ends.complete(seen="")
    assert other.events() == ["run.submitted"]
    assert redis_client.ttl(other.keys.events(other.id)) == -1
    other.complete(seen="")
