"""Calls and joins as values: what they carry, what they refuse, and that stock canvas still takes them."""

from __future__ import annotations

import asyncio
import json

import pytest
from celery import chain, chord, group
from celery.canvas import Signature, maybe_signature
from kombu.serialization import dumps, loads

from canvas import (
    Call,
    ConfigError,
    PayloadError,
    Run,
    current_step,
    fan_out,
    fan_out_fail,
    quorum,
    race,
    step,
    with_timeout,
    workflow,
)
from core import current_app


@step(name="calls.add", queue="sums")
def add(left: int, right: int = 0) -> int:
    return left + right


@step(name="calls.once", idempotent=False)
def once() -> None: ...


@workflow(name="calls.flow")
async def flow(run: Run, n: int) -> int:
    return n


@pytest.fixture(autouse=True)
def app():
    with current_app("calls") as app:
        yield app


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        (lambda call: call.after(2), "delay_s", 2.0),
        (lambda call: call.within(3), "within_s", 3.0),
        (lambda call: call.named("sum"), "label", "sum"),
        (lambda call: call.undone_by(once.s()), "undone_by", None),
    ],
)
def test_a_mark_gives_a_new_call_and_leaves_the_old_as_it_was(change, field, value):
    old = add.s(1, right=2)
    before = dict(old), old.plan

    new = change(old)

    assert new is not old
    assert type(new) is Call
    assert (dict(old), old.plan) == before
    assert (new["task"], new["args"], new["kwargs"]) == (old["task"], old["args"], old["kwargs"])
    assert value is None or getattr(new.plan, field) == value


@pytest.mark.parametrize("make", [lambda: add.s(1), lambda: add.s(1, 2), lambda: add.s(1, right=2), lambda: add.s(*())])
def test_a_call_is_the_signature_that_celery_would_make(make):
    call = make()

    made = Call("calls.add", call["args"], call["kwargs"], app=add.app)

    assert dict(call) == dict(made)
    assert list(call) == list(made)
    assert vars(call) == {**vars(made), "_definition": call.definition}
    assert call.definition is add._get_current_object()
    assert call.app is add.app


def test_calls_share_nothing_that_one_of_them_may_change():
    first, second = add.s(1), add.s(1)
    first.set(priority=1)
    first["kwargs"]["right"] = 2

    assert (second["options"], second["kwargs"], add.s(1)["options"]) == ({}, {}, {})


def test_marks_add_up_in_any_order():
    call = add.s(1).named("x").after(1).within(2).set(priority=3)

    part = call.prepare()

    assert (part.label, part.delay_ms, part.within_ms, part.queue) == ("x", 1000, 2000, "sums")
    assert json.loads(part.spec)["priority"] == 3
    assert call.after(5).set(queue="other").prepare().queue == "other"


def test_set_on_a_copy_leaves_the_original_alone():
    old = add.s(1).set(queue="a")

    old.named("x").set(queue="b")

    assert old["options"]["queue"] == "a"


@pytest.mark.parametrize(
    ("option", "remedy"),
    [("countdown", r"\.after\("), ("eta", r"\.after\("), ("task_id", "made from the run"), ("link", "await the call")],
)
def test_set_refuses_what_celeriac_decides_and_says_what_to_write(option, remedy):
    with pytest.raises(ConfigError, match=rf"set\({option}=\.\.\.\): .*{remedy}"):
        add.s(1).set(**{option: 1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: add.s(1).after(-1), r"after\(-1\).* at least 0"),
        (lambda: add.s(1).within(0), r"within\(0\).* more than 0"),
        (lambda: quorum(0, add.s(1)), r"quorum\(0, \.\.\.\) of 1 calls: n must be from 1 to 1"),
        (lambda: quorum(3, add.s(1), add.s(2)), "n must be from 1 to 2"),
        (race, "at least one"),
        (lambda: with_timeout(add.s(1), 0), "more than 0 seconds"),
    ],
)
def test_a_number_out_of_range_is_refused_where_it_is_written(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("make", [lambda: add.s(1), lambda: fan_out(add.s(1)), lambda: flow.s(1)])
def test_a_call_is_not_its_value(make):
    with pytest.raises(TypeError, match="is a call, not its value: write `await`"):
        bool(make())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: add.s(add.s(1)), "calls.add: got a call of calls.add.* for argument 1: await it first"),
        (lambda: add.s(1, right=add.s(1)), "for right: await it first"),
        (lambda: add.s(fan_out(add.s(1))), "for argument 1: await it first"),
        (lambda: add.s("many"), "argument left of calls.add: .*got 'many'"),
        (lambda: flow.submit(add.s(1)), "await it first"),
        (flow.submit, "missing a required argument: 'n'"),
        (lambda: flow.submit(1, 2), "too many positional arguments"),
    ],
)
def test_a_wrong_argument_is_refused_where_it_is_given(make, message):
    with pytest.raises(PayloadError, match=message):
        make()


@pytest.mark.parametrize("join", [fan_out, fan_out_fail, race, lambda *parts: quorum(1, *parts)])
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda: [[add.s(1), add.s(2)]], r"write \w+\(\*calls\), with the star: got a list"),
        (lambda: [fan_out(add.s(1))], r"fan_out\(calls\.add\) is a join, not a part"),
        (lambda: [add.s(1), 7], "takes calls .*got int 7"),
        (lambda: [add], "takes calls"),
    ],
)
def test_a_join_takes_parts_only(join, parts, message):
    with pytest.raises(TypeError, match=message):
        join(*parts())


@pytest.mark.parametrize("name", ["failed", "results", "value", "submit_all"])
def test_a_join_that_was_not_awaited_says_so(name):
    with pytest.raises(AttributeError, match=rf"'{name}' asked of a fan_out that was not awaited.*await fan_out"):
        getattr(fan_out(add.s(1)), name)


def test_a_step_is_the_plain_function_outside_of_a_workflow():
    assert add(2, 3) == 5


def test_current_step_is_there_only_in_a_step():
    with pytest.raises(ConfigError, match="only while a step runs"):
        current_step()


def test_a_workflow_is_not_a_function():
    with pytest.raises(ConfigError, match=r"calls\.flow\(\.\.\.\) does not run a workflow: calls\.flow\.submit"):
        flow(1)


@pytest.mark.parametrize("make", [lambda: add.s(1), lambda: fan_out(add.s(1))])
def test_a_call_awaited_under_asyncio_names_submit(make):
    async def main() -> None:
        await make()

    with pytest.raises(RuntimeError) as raised:
        asyncio.run(main())

    assert any(".submit()" in note for note in getattr(raised.value, "__notes__", []))


@pytest.mark.parametrize("run_id", ["", "a b", "a/b", "ä", "x" * 201, "a\n"])
def test_a_malformed_run_id_is_refused(run_id):
    from status.records import check_run_id

    with pytest.raises(ConfigError, match=r"run id .* won.t do"):
        check_run_id(run_id)


@pytest.mark.parametrize(
    "message_id",
    ["", "x", "order-1/2.1", "order-1/turn~abc", "a/1.2~n.x", "a/1.2~.1", "6b2c8f5e-0000-4000-8000-000000000000"],
)
def test_an_id_that_is_not_ours_is_left_to_celery(message_id):
    from status.records import PartRef

    assert PartRef.parse(message_id) is None


@pytest.mark.parametrize("run_id", ["r", "a:run:b", "a.b@c-d_e:1", "9" * 200])
@pytest.mark.parametrize("p", ["0", "12", "3u"])
def test_a_message_id_names_run_await_part_life_and_attempt(run_id, p):
    from status.records import PartRef

    ref = PartRef(run_id, 4, p, "abc123", 7)

    assert PartRef.parse(ref.message_id) == ref
    assert ref.step_id == f"{run_id}/4.{p}"


# --- stock canvas ---------------------------------------------------------------------


def _stock():
    return [
        chain(add.s(1, 2), add.s(3)),
        group(add.s(1), add.s(2)),
        group([add.s(n) for n in range(3)]),
        chord([add.s(1), add.s(2)], once.s()),
        chord(group(add.s(1), add.s(2)), add.s(0)),
        add.s(1) | add.s(2) | once.s(),
        chain(group(add.s(1), add.s(2)), once.s()),
        chain(add.s(1).named("x").after(1), add.s(2)),
    ]


@pytest.mark.parametrize("at", range(8))
def test_stock_canvas_builds_copies_and_serialises(at):
    built = _stock()[at]

    content_type, encoding, text = dumps(built, serializer="json")
    back = maybe_signature(loads(text, content_type, encoding))

    assert isinstance(back, Signature)
    assert back["task"] == built["task"]
    assert built.clone()["task"] == built["task"]


@pytest.mark.parametrize("at", range(8))
def test_stock_canvas_freezes_and_links(at):
    built = _stock()[at]

    built.freeze()

    built.link_error(once.si())


def test_a_partial_of_stock_canvas_may_leave_arguments_open(app):
    app.conf.task_always_eager = True

    assert chain(add.s(1, 2), add.s(3)).apply_async().get() == 6
    assert chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async().get() == 6


@step(name="calls.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


def test_delay_runs_a_step_as_a_plain_task(app):
    app.conf.task_always_eager = True

    assert add.delay(1, right=1).get() == 2
    assert add.apply_async((4,)).get() == 4


# --- declarations ---------------------------------------------------------------------


async def _async_step() -> None: ...


def _plain(n: int) -> None: ...


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: step(_async_step), "is async: a step is a plain def"),
        (lambda: step(name="x", bind=True)(_plain), r"bind= is not for steps: ask canvas\.current_step\(\)"),
        (lambda: step(autoretry_for=(ValueError,))(_plain), r"autoretry_for= .*Retry\(on="),
        (lambda: step(max_retries=3)(_plain), r"max_retries= .*Retry\(max_attempts="),
        (lambda: step(retry_backoff=True)(_plain), r"retry_backoff= .*Retry"),
        (lambda: step(timeout_s=0)(_plain), "timeout_s must be more than 0"),
        (lambda: workflow(name="d")(_plain), "@workflow d is a plain def.*async def _plain"),
        (lambda: workflow(name="d")(_async_step), "takes no `run`"),
        (lambda: workflow(name="d")(_takes_a_run_id), "a parameter can't be called run_id"),
        (lambda: workflow(name="d", timeout_s=-1)(_async_run), "timeout_s must be more than 0"),
        (lambda: workflow(name="d", retention_s=0)(_async_run), "retention_s must be more than 0"),
    ],
)
def test_a_wrong_declaration_is_refused_when_it_is_made(declare, message):
    with pytest.raises(ConfigError, match=message):
        declare()


async def _async_run(run: Run) -> None: ...


async def _takes_a_run_id(run, run_id): ...


def test_the_retry_of_celery_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"self\.retry\(\) is not for steps: .*Retry"):
        add.retry()
