"""Which joins are filed as a batch is: many calls that differ by their arguments alone."""

from __future__ import annotations

import json
from collections import deque

import pytest

from canvas import PayloadError, Run, ServiceClient, fan_out, fan_out_fail, quorum, race, step, workflow
from canvas.perform import took_s
from canvas.submitted import plan_of, recipe_of
from canvas.wide import LEAST, OF_LONG, OF_SHORT, OF_UNKNOWN, batch_of, widens_by
from core import current_app


@step(name="wide.add", queue="sums")
def add(left: int, right: int = 0) -> int:
    return left + right


@step(name="wide.other")
def other(n: int) -> int:
    return n


@step(name="wide.killed", interruptible=True)
def killed(n: int) -> int:
    return n


@step(name="wide.here", local=True)
def right_here(n: int) -> int:
    return n


@step(name="wide.undo")
def undo(it: int | None) -> None: ...


@workflow(name="wide.child")
async def child(run: Run, n: int) -> int:
    return n


@pytest.fixture(autouse=True)
def app():
    with current_app("wide") as app:
        yield app


def calls(number: int = LEAST):
    return [add.s(n) for n in range(number)]


@pytest.mark.parametrize("join", [fan_out, fan_out_fail, lambda *parts: quorum(3, *parts)])
def test_many_calls_of_one_step_are_filed_together(join):
    batch = batch_of(join(*calls()).recipe())

    assert batch is not None
    assert (batch.size, batch.queue, batch.label, batch.keep, batch.wide) == (LEAST, "sums", "wide.add", True, True)
    assert [item for chunk in batch.chunks for item in json.loads(chunk)] == [[[n], {}] for n in range(LEAST)]
    template = json.loads(batch.spec)
    assert (template["batch"], template["task"], "args" in template) == ("wide", "wide.add", False)


@pytest.mark.parametrize(
    "odd",
    [
        lambda: add.s(1).after(1),
        lambda: add.s(1).within(1),
        lambda: add.s(1).named("sum"),
        lambda: add.s(1).undone_by(undo),
        lambda: add.s(1).planned(undo={"task": "wide.undo"}),
        lambda: add.s(1).planned(retry={"max_attempts": 1}),
        lambda: add.s(1).set(queue="elsewhere"),
        lambda: add.s(1).set(priority=3),
        lambda: other.s(1),
        lambda: child.s(1),
    ],
)
@pytest.mark.parametrize("at", [0, 20, LEAST - 1])
def test_a_single_call_that_is_another_keeps_them_apart(odd, at):
    parts = calls()
    parts[at] = odd()

    assert batch_of(fan_out(*parts).recipe()) is None


@pytest.mark.parametrize("one", [killed, right_here, child, ServiceClient("wide", "service", int, int)])
def test_what_is_run_one_by_one_is_sent_one_by_one(one):
    assert batch_of(fan_out(*(one.s(n) for n in range(LEAST))).recipe()) is None


def test_few_calls_and_the_parts_of_a_race_begin_at_once():
    assert batch_of(fan_out(*calls(LEAST - 1)).recipe()) is None
    assert batch_of(race(*calls()).recipe()) is None


def test_what_is_said_of_all_of_them_goes_with_each():
    batch = batch_of(fan_out(*(call.named("sum").set(queue="q", priority=3) for call in calls())).recipe())

    assert batch is not None
    template = json.loads(batch.spec)
    assert (template["label"], template["queue"], template["priority"]) == ("sum", "q", 3)
    assert (batch.queue, batch.label) == ("q", "sum")


def test_arguments_that_do_not_fit_are_named_as_they_are_for_a_single_call():
    bad = add.s()  # type: ignore[call-arg]
    with pytest.raises(PayloadError) as single:
        bad.prepare()
    with pytest.raises(PayloadError) as wide:
        batch_of(fan_out(*calls(), bad).recipe())

    assert str(wide.value) == str(single.value)


def test_a_fan_out_that_is_submitted_by_itself_is_opened_in_the_same_way():
    recipe = fan_out(*calls()).recipe()
    submitted = recipe_of(json.loads(json.dumps(plan_of(recipe))))

    mine, its = batch_of(recipe), batch_of(submitted)
    assert mine is not None
    assert its is not None
    assert its._replace(spec="") == mine._replace(spec="")
    assert json.loads(its.spec) == json.loads(mine.spec)
    assert submitted.fingerprint == recipe.fingerprint


def test_a_submitted_call_with_more_than_arguments_is_sent_by_itself():
    parts = [*calls(), add.s(1).within(1)]
    assert batch_of(recipe_of(plan_of(fan_out(*parts).recipe()))) is None
    client = ServiceClient("wide", "service", int, int)
    assert batch_of(recipe_of(plan_of(fan_out(*(client.s(n) for n in range(LEAST))).recipe()))) is None


@pytest.mark.parametrize(
    ("runs", "more"),
    [
        ((), OF_UNKNOWN),
        ((0.001,), OF_UNKNOWN),
        ((0.001, 0.001), OF_SHORT),
        ((0.001, 0.001, 0.02), OF_SHORT),
        ((0.3, 0.3), OF_LONG),
    ],
)
def test_many_more_parts_may_start_unless_the_step_is_known_to_be_short(monkeypatch, runs, more):
    monkeypatch.setitem(took_s, add.name, deque(runs))
    assert widens_by(add, short_s=0.005, prefetch=1) == more


def test_no_fewer_parts_start_than_a_worker_fetches_for_itself():
    assert widens_by(undo, short_s=0.005, prefetch=1000) == 1000
    assert widens_by(undo, short_s=0.0, prefetch=0) == OF_UNKNOWN
