"""What is submitted by itself, without a workflow: a call, a join, a batch, a promise. Workers are played."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

import canvas
from canvas import (
    ConfigError,
    Counts,
    PayloadError,
    Retry,
    Run,
    RunConflict,
    RunFailed,
    StepFailed,
    StoreUnavailable,
    TerminalError,
    TimedOut,
    current_step,
    fan_out,
    fan_out_fail,
    map_concurrent,
    process_batch,
    promise,
    quorum,
    race,
    race_promise_with_timeout,
    step,
    with_timeout,
    workflow,
)
from canvas.context import CurrentStep, running_as
from canvas.staging import PIECES
from canvas.submitted import submitted
from clients import Client, client
from leaks import keys_without_end
from saga import Saga
from status.store_input import UPLOAD_MS
from waiting import wait_until

#: What `odd` does once it is not empty; and what `submits` submits.
mended: list[bool] = []
makes: list[Any] = []


@dataclass(frozen=True)
class Cat:
    name: str


@step(name="submitted.cat", queue="cats")
def cat(n: int) -> Cat:
    return Cat(f"cat {n}")


@step(name="submitted.bad", retry=Retry(1))
def bad(n: int = 0) -> Cat:
    raise TerminalError(f"no cat {n}", code=404)


@step(name="submitted.odd", retry=Retry(1))
def odd(n: int) -> int:
    if n % 2 == 0 and not mended:
        raise TerminalError(f"{n} is even")
    return n


@step(name="submitted.undo")
def undo(it: Cat | None) -> None: ...


@workflow(name="submitted.child")
async def child(run: Run, n: int) -> Cat:
    return await cat.s(n)


@workflow(name="submitted.broken")
async def broken(run: Run, n: int) -> Cat:
    return await bad.s(n)


@workflow(name="submitted.submits")
async def submits(run: Run) -> None:
    makes[0]().submit()


@pytest.fixture
def desk(redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    mended.clear()
    makes.clear()
    with client("submitted", redis_url, redis_client, monkeypatch) as made:
        yield made


CATS = (Cat("cat 1"), Cat("cat 2"))


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: cat.s(1), CATS[0]),
        (lambda: cat.s(1).named("tom").within(60), CATS[0]),
        (lambda: child.s(1), CATS[0]),
        (lambda: fan_out_fail(cat.s(1), child.s(2)), CATS),
        (lambda: quorum(2, cat.s(1), bad.s(), cat.s(2)), [(0, CATS[0]), (2, CATS[1])]),
        (lambda: with_timeout(fan_out_fail(cat.s(1), cat.s(2)), 60), CATS),
        (lambda: with_timeout(map_concurrent(cat, [1, 2], 1), 60), list(CATS)),
        (lambda: map_concurrent(cat, [1, 2]), list(CATS)),
        (lambda: map_concurrent(child, [1, 2], 1), list(CATS)),
        (lambda: process_batch(cat, iter([1, 2]), 1), list(CATS)),
        (lambda: process_batch(odd, range(5), 2, settle=True, collect=False), Counts(2, 3)),
        (fan_out_fail, ()),
        (lambda: process_batch(cat, [], 3), []),
        (lambda: process_batch(cat, iter(()), 3, collect=False), Counts(0, 0)),
    ],
)
def test_what_is_submitted_by_itself_gives_what_its_await_would(desk, make, value):
    assert desk.result(make().submit()) == value
    assert desk.left() == set()
    assert keys_without_end(desk.redis) == []


def test_a_race_names_its_winner(desk):
    won = desk.result(race(bad.s(), cat.s(1).named("tom")).submit())

    assert (won.index, won.name, won.value) == (1, "tom", CATS[0])


def test_a_fan_out_gives_values_and_errors(desk, caplog):
    found = desk.result(fan_out(cat.s(1), bad.s(3), cat.s(2)).submit(run_id="all"))

    assert found.results == (CATS[0], None, CATS[1])
    assert [(index, error.code, error.step, error.is_a(TerminalError)) for index, error in found.bad] == [
        (1, 404, "submitted.bad", True)
    ]
    assert desk.state("all") == "completed"
    assert "nobody looked" not in caplog.text


@pytest.mark.parametrize(
    ("make", "error_type", "message"),
    [
        (lambda: bad.s(7), "TerminalError", "no cat 7"),
        (lambda: fan_out_fail(cat.s(1), bad.s(7)), "TerminalError", "no cat 7"),
        (lambda: fan_out_fail(cat.s(1), broken.s(7)), "TerminalError", "no cat 7"),
        (lambda: race(bad.s(1), bad.s(2)), "AllFailed", "no cat 1.*no cat 2"),
        (lambda: quorum(2, bad.s(1), bad.s(2), cat.s(3)), "QuorumFailed", "no cat 1.*no cat 2"),
        (lambda: map_concurrent(odd, [1, 3, 4, 5], 1), "TerminalError", "4 is even"),
        (lambda: process_batch(broken, [4], 1, collect=False), "TerminalError", "no cat 4"),
    ],
)
def test_what_its_await_would_raise_fails_the_run(desk, make, error_type, message):
    handle = make().submit()

    with pytest.raises(RunFailed, match=message) as failed:
        desk.result(handle)

    assert failed.value.error_type.rpartition(".")[2] == error_type
    assert failed.value.state == "failed"


def test_a_time_limit_fails_the_run_as_it_would_raise(desk):
    desk.hold.add("submitted.cat")
    handle = with_timeout(fan_out(cat.s(1)), 60).submit()
    desk.play().fire("join")

    with pytest.raises(RunFailed, match=r"fan_out\(submitted.cat\) was not done within 60 s") as failed:
        handle.result(timeout_s=5)

    assert failed.value.code == 408
    desk.let_go("submitted.cat")


def test_a_time_limit_of_the_whole_run(desk):
    desk.hold.add("submitted.cat")
    handle = cat.s(1).submit(timeout_s=60)
    desk.play().fire("run")

    with pytest.raises(RunFailed, match="its time was up") as failed:
        handle.result(timeout_s=5)

    assert failed.value.state == "timed_out"
    desk.let_go("submitted.cat")


# --- promises ----------------------------------------------------------------------------

approval = promise("approval", bool)


def test_a_promise_can_be_submitted_and_resolved(desk):
    handle = approval.submit(run_id="ask")
    desk.play()
    assert desk.state("ask") == "suspended"

    assert approval.resolve("ask", True) == "accepted"

    desk.inbox.append("ask")  # (`here` knows no app in this test, so the turn is sent by hand)
    assert desk.result(handle) is True


@pytest.mark.parametrize("make", [lambda: race_promise_with_timeout(approval, 60)])
def test_a_promise_that_nobody_keeps_is_no_failure(desk, make):
    handle = make().submit()
    desk.play().fire("join")

    found = handle.result(timeout_s=5)

    assert found.timed_out
    with pytest.raises(TimedOut, match="approval was not resolved within 60 s"):
        _ = found.value


def test_the_shorter_of_two_time_limits_says_how_it_ends(desk):
    handle = with_timeout(race_promise_with_timeout(approval, 60), 30).submit()
    desk.play().fire("join")

    with pytest.raises(RunFailed, match="was not done within 30 s"):
        handle.result(timeout_s=5)


def test_a_promise_with_a_value_of_another_type_says_so_where_it_is_read(desk):
    from status import promises

    handle = approval.submit(run_id="ask")
    desk.play()
    promises.resolve("ask", "approval", '"perhaps"')
    desk.inbox.append("ask")

    with pytest.raises(PayloadError, match="promise approval"):
        desk.result(handle)


# --- run ids -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: cat.s(1), lambda: cat.s(2)),
        (lambda: fan_out(cat.s(1)), lambda: fan_out_fail(cat.s(1))),
        (lambda: process_batch(cat, iter([1, 2]), 5), lambda: process_batch(cat, iter([1, 3]), 5)),
        (lambda: with_timeout(cat.s(1), 5), lambda: with_timeout(cat.s(1), 6)),
        (lambda: cat.s(1).within(5), lambda: cat.s(1).within(6)),
    ],
)
def test_the_same_id_gives_the_same_run_and_another_recipe_is_a_conflict(desk, make, other):
    first = make().submit(run_id="mine")
    desk.play()
    again = make().submit(run_id="mine")

    assert desk.inbox == []
    assert str(again.result(timeout_s=5)) == str(first.result(timeout_s=5))
    with pytest.raises(RunConflict):
        other().submit(run_id="mine")
    assert not [key for key in desk.redis.scan_iter("*") if "input~" in key]


def test_a_fresh_id_says_what_it_is(desk):
    names = [make().submit().run_id for make in (lambda: cat.s(1), lambda: fan_out(cat.s(1)), lambda: approval)]

    assert [name.rpartition("-")[0] for name in names] == ["cat", "fan_out", "promise-approval"]


# --- where it can't be -------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: cat.s(1),
        lambda: fan_out(cat.s(1)),
        lambda: process_batch(cat, [1], 1),
        lambda: approval,
        lambda: with_timeout(cat.s(1), 1),
    ],
)
def test_in_a_workflow_it_is_refused_with_what_to_write(desk, make):
    makes.append(make)

    desk.submit(submits)

    assert desk.error().error_type == "status.errors.ConfigError"
    assert "would happen at each replay: await" in desk.error().message


def test_in_a_step_it_is_allowed(desk):
    with running_as(CurrentStep("r", "r/0.0", "r/0.0")):
        assert current_step().run_id == "r"
        handle = cat.s(1).submit()

    assert desk.result(handle) == CATS[0]


def test_a_call_with_an_undo_is_refused(desk):
    with pytest.raises(ConfigError, match=r"only a saga runs the undo: .*saga\.run"):
        cat.s(1).undone_by(undo).submit()


def test_an_await_of_a_saga_is_refused(desk):
    saga = Saga(Run("r", "w", 0), "s")

    with pytest.raises(ConfigError, match="belongs to a saga"):
        saga.rollback().submit()


def test_a_delayed_workflow_is_started_by_a_run_of_its_own(desk):
    handle = child.s(1).with_run_id("mine").after(60).submit(run_id="starter")
    desk.play()
    assert desk.state("mine") == ""

    desk.fire("start")

    assert handle.result(timeout_s=5) == CATS[0]
    assert desk.state("mine") == "completed"


@pytest.mark.parametrize("make", [lambda: fan_out(cat.s(1)), lambda: process_batch(cat, [1], 1)])
def test_nothing_is_submitted_where_redis_does_not_answer(desk, make, monkeypatch):
    def fails(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(desk.store, "_call", fails)

    with pytest.raises(StoreUnavailable, match="was not submitted"):
        make().submit()


# --- what any worker must know -----------------------------------------------------------


def test_the_run_s_input_is_enough_for_a_worker_that_has_none_of_the_steps(desk, redis_url, redis_client, monkeypatch):
    fan_out_fail(cat.s(1).named("tom").after(5).set(priority=3), child.s(2)).submit(run_id="far")
    text = json.loads(desk.redis.hget(desk.store.keys.run("far"), "input"))

    from canvas.submitted import recipe_of

    recipe = recipe_of(text[0][0])
    tom, two = (part.prepare() for part in recipe.parts)

    assert recipe.fingerprint == "fan_out_fail(submitted.cat, submitted.child)"
    assert (tom.label, tom.queue, tom.delay_ms, json.loads(tom.spec)["priority"]) == ("tom", "cats", 5000, 3)
    assert (two.kind, json.loads(two.spec)["task"]) == ("child", "submitted.child")
    desk.fire("start")


def test_a_submitted_run_that_failed_can_be_retried(desk):
    from status import operating

    handle = process_batch(odd, iter([1, 3, 4, 5]), 1).submit(run_id="again")
    desk.play()
    assert desk.state("again") == "failed"
    mended.append(True)

    operating.retry(desk.store, "again")
    desk.inbox.append("again")

    assert desk.result(handle) == [1, 3, 4, 5]
    assert keys_without_end(desk.redis) == []


# --- streaming ---------------------------------------------------------------------------


def test_an_iterator_is_read_bit_by_bit_and_never_held_as_a_whole(desk, monkeypatch):
    held: list[int] = []
    stage = desk.store.stage

    def counted(run_id: str, token: str, before: int, pieces: Any) -> None:
        held.append(len(pieces))
        stage(run_id, token, before, pieces)

    monkeypatch.setattr(desk.store, "stage", counted)

    handle = process_batch(cat, iter(range(10_000)), 50, collect=False).submit(run_id="many")

    assert max(held) == PIECES
    assert sum(held) == -(-10_000 // canvas.batch.CHUNK)
    assert handle.status().state == "pending"
    desk.cancel("many")
    assert keys_without_end(desk.redis) == []


def test_a_client_that_dies_half_way_has_submitted_nothing_and_what_it_sent_ends(desk):
    class Killed(BaseException): ...

    def items() -> Iterator[int]:
        yield from range(5000)
        raise Killed

    batch = process_batch(cat, items(), 5)
    unstage, desk.store.unstage = desk.store.unstage, lambda *_: None  # a process that is killed clears up nothing
    with pytest.raises(Killed):
        batch.submit(run_id="half")
    desk.store.unstage = unstage

    assert desk.inbox == []
    assert desk.left() == set()
    assert desk.redis.exists(desk.store.keys.run("half")) == 0
    (upload,) = [key for key in desk.redis.scan_iter("*") if ":join:" in key]
    assert 0 < desk.redis.pttl(upload) <= UPLOAD_MS
    assert desk.result(process_batch(cat, iter([1, 2]), 5).submit(run_id="half")) == list(CATS)


def test_an_iterator_that_raises_leaves_nothing(desk):
    def items() -> Iterator[int]:
        yield from range(5000)
        raise OSError("the file is broken")

    with pytest.raises(OSError, match="broken"):
        process_batch(cat, items(), 5).submit(run_id="half")

    assert [key for key in desk.redis.scan_iter("*") if "half" in key] == []


def test_an_item_that_does_not_fit_is_named_and_nothing_is_submitted(desk):
    with pytest.raises(PayloadError, match=r"item 70 of process_batch\(submitted.cat, ...\): argument n .*got 'x'"):
        process_batch(cat, itertools.chain(range(70), ["x"]), 5).submit(run_id="half")

    assert [key for key in desk.redis.scan_iter("*") if "half" in key] == []


def test_an_iterator_is_submitted_once(desk):
    batch = process_batch(cat, iter([1, 2]), 5)
    first = batch.submit()

    with pytest.raises(ConfigError, match="its items were an iterator, and have been read: give a list"):
        batch.submit()

    assert desk.result(first) == list(CATS)


def test_an_upload_that_was_forgotten_is_not_submitted(desk):
    def items() -> Iterator[int]:
        yield from range(5000)
        for key in desk.redis.scan_iter("*input~*"):
            desk.redis.delete(key)
        yield from range(5000)

    with pytest.raises(StoreUnavailable, match=r"its items are no longer in Redis.*submit it again"):
        process_batch(cat, items(), 5).submit(run_id="half")

    assert desk.redis.exists(desk.store.keys.run("half")) == 0


def test_an_upload_that_is_forgotten_at_the_last_moment_is_not_submitted_without_its_items(desk, monkeypatch):
    submit = desk.store.submit

    def too_late(*args: Any, **kwargs: Any) -> bool:
        desk.redis.delete(*desk.redis.scan_iter("*input~*"))
        return submit(*args, **kwargs)

    monkeypatch.setattr(desk.store, "submit", too_late)

    with pytest.raises(StoreUnavailable, match="submit it again"):
        process_batch(cat, iter([1, 2]), 5).submit(run_id="half")

    assert desk.redis.exists(desk.store.keys.run("half")) == 0


def test_a_piece_that_is_sent_twice_is_there_once(desk):
    desk.store.stage("r", "t", 0, ["[1]", "[2]"])
    desk.store.stage("r", "t", 0, ["[1]", "[2]"])
    desk.store.stage("r", "t", 2, ["[3]"])
    desk.store.stage("r", "t", 2, ["[3]"])

    assert desk.redis.lrange(desk.store.keys.upload("r", "t"), 0, -1) == ["[1]", "[2]", "[3]"]
    with pytest.raises(StoreUnavailable):
        desk.store.stage("r", "t", 7, ["[4]"])


def test_two_clients_that_submit_the_same_at_once_do_not_mix_their_items(desk):
    other = process_batch(cat, iter([1, 2]), 5)

    def items() -> Iterator[int]:
        yield 1
        other.submit(run_id="same")
        yield 2

    handle = process_batch(cat, items(), 5).submit(run_id="same")

    assert desk.result(handle) == list(CATS)
    assert keys_without_end(desk.redis) == []


def test_the_items_stay_as_long_as_the_run_and_no_longer(desk):
    desk.result(process_batch(cat, iter([1, 2]), 5).submit(run_id="kept"))
    (items,) = [key for key in desk.redis.scan_iter("*") if key.endswith("kept:input")]

    assert desk.redis.pexpiretime(items) == desk.redis.pexpiretime(desk.store.keys.run("kept"))


def test_the_values_of_a_batch_are_in_redis_once(desk):
    desk.result(map_concurrent(cat, range(50), 10).submit(run_id="once"))

    assert desk.redis.hget(desk.store.keys.run("once"), "result") == "null"
    assert len(desk.journal("once")) == 51


def test_a_value_that_does_not_fit_here_is_named(desk, monkeypatch):
    handle = fan_out_fail(cat.s(1), cat.s(2)).submit()
    desk.play()
    monkeypatch.setattr(cat.codec, "result", odd.codec.result)

    with pytest.raises(PayloadError, match=r"the result of submitted\.odd"):
        handle.result(timeout_s=5)


def test_the_workflow_is_called_by_its_name():
    assert submitted.name == "celeriac.submitted"


def test_a_failed_part_is_a_step_failed_where_it_is_read(desk):
    found = desk.result(process_batch(odd, [1, 2], 2, settle=True).submit())

    assert found.results == [1, None]
    assert isinstance(found.errors[1], StepFailed)
    assert found.errors[1].index == 1


HALF_WAY = """
import threading
import canvas
from celery import Celery

app = Celery("half")
canvas.install(app)

@canvas.step(name="half.do")
def do(n: int) -> None: ...

def items():
    yield from range(5000)
    threading.Event().wait()

canvas.process_batch(do, items(), 5).submit(run_id="half")
"""


def test_a_client_process_that_is_killed_half_way_has_started_nothing(redis_client, worker_env, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HALF_WAY], env=os.environ | worker_env, cwd=tmp_path)
    try:
        uploads = wait_until(lambda: list(redis_client.scan_iter("*:half:input~*")), "a part of the items is there", 60)
    finally:
        process.kill()
        process.wait()

    assert 0 < redis_client.llen(uploads[0]) < 5000
    assert 0 < redis_client.pttl(uploads[0]) <= UPLOAD_MS
    assert [key for key in redis_client.scan_iter("*") if "half" in key] == uploads
    assert redis_client.llen("celery") == 0
