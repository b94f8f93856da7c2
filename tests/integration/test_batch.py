"""Batches: many items through one step, a window of them at a time. Real Redis, steps played by the test."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from batches import ITEMS, WINDOW, Batches
from canvas import Counts, Run, StepFailed, map_concurrent, process_batch, step, with_timeout, workflow
from canvas.batch import CHUNK
from core import current_app
from leaks import keys_without_end
from runs import ERROR, UNKNOWN
from saga import Saga, database
from status import operating
from status.errors import ConfigError, TimedOut
from status.records import Timer, Wanted


@step(name="batch.double")
def double(n: int) -> int:
    return 2 * n


@step(name="batch.undo")
def undo(n: int | None) -> None: ...


@workflow(name="batch.values")
async def values(run: Run, items: int, window: int) -> list[int]:
    return await process_batch(double, range(items), window)


@workflow(name="batch.settled")
async def settled(run: Run, items: int, window: int) -> list[Any]:
    found = await process_batch(double, range(items), window, settle=True)
    return [found.results, [index for index, _ in found.bad]]


@workflow(name="batch.counted")
async def counted(run: Run, items: int, window: int) -> list[int]:
    counts = await process_batch(double, range(items), window, settle=True, collect=False)
    return [counts.succeeded, counts.failed]


@workflow(name="batch.first_failure")
async def first_failure(run: Run, items: int, window: int) -> list[int]:
    try:
        return [(await process_batch(double, range(items), window, collect=False)).succeeded]
    except StepFailed as error:
        return [-1, error.index]


#: How many items the workflow below has, if not as many as it was given.
size = [0]


@workflow(name="batch.uncollected")
async def uncollected(run: Run, items: int, window: int) -> int:
    return (await process_batch(double, range(size[0] or items), window, collect=False)).succeeded


@pytest.fixture
def batch(redis_client) -> Iterator[Batches]:
    size[0] = 0
    with current_app() as app:
        yield Batches(app, redis_client)


def keys_of(batch: Batches) -> set[str]:
    return {key.partition("}:")[2].partition(":")[0] for key in batch.redis.scan_iter("*") if ":r" in key}


def test_values_come_in_the_order_of_the_items_and_no_more_than_the_window_at_once(batch):
    assert batch.started(values).play() == [2 * n for n in range(ITEMS)]
    assert batch.most == WINDOW
    assert batch.bodies == list(range(ITEMS))


def test_a_window_wider_than_the_items(batch):
    assert batch.started(values, items=3, window=50).play() == [0, 2, 4]


def test_no_items_are_no_await(batch):
    assert batch.started(values, items=0).play() == []
    assert batch.redis.hlen(batch.keys.journal("r")) == 0


def test_one_item(batch):
    assert batch.started(values, items=1).play() == [0]


def test_settle_goes_on_past_failures(batch):
    found = batch.started(settled, items=10).play(bad=(3, 9))
    assert found == [[None if n in (3, 9) else 2 * n for n in range(10)], [3, 9]]


def test_without_settle_it_ends_with_the_first_failure_and_starts_no_more(batch):
    assert batch.started(first_failure).play(bad=(7,)) == [-1, 7]
    assert max(batch.bodies) <= 7 + WINDOW


def test_counts_keep_no_outcome(batch):
    assert batch.started(counted).play(bad=(3, 50)) == [ITEMS - 2, 2]
    assert set(batch.redis.hkeys(batch.keys.journal("r"))) == {"0"}


def test_an_item_is_carried_as_it_is(batch):
    big = [2**60 + 1, [], 1e100, "é", {"a": []}, None]

    @step(name="batch.keeps")
    def keeps(it: Any) -> Any: ...

    @workflow(name="batch.carries")
    async def carries(run: Run) -> Any:
        return await map_concurrent(keeps, big, 1)

    batch.begun(carries)
    seen = []
    while batch.queue:
        seen.append(batch.queue[0][1][0])
        ref, _ = batch.queue.pop(0)
        batch.store.begin(ref, token="t", where="w")
        batch.engine.go_on("r", batch.store.finish(ref, token="t", kind="done", outcome="vnull", began_ms=1))
    assert seen == big


def test_finisher_dies_between_take_and_publish_of_a_batch(batch):
    batch.started(values)
    batch.dies_after_taking = True
    batch.play_one()
    assert len(batch.queue) == WINDOW - 1, "the next item's message was never sent"
    batch.dies_after_taking = False

    batch.queue.clear()
    batch.sweep()
    assert sorted(args[0] for _, args in batch.queue) == [1, 2, 3, 4, 5]
    batch.play()


def test_sweep_never_publishes_beyond_window(batch):
    batch.started(values)
    for _ in range(4):
        batch.sweep()
    assert {args[0] for _, args in batch.queue} == set(range(WINDOW))
    batch.play()
    assert len(batch.bodies) == ITEMS, "doubled messages ran nothing twice"


def test_a_turn_that_finds_the_batch_open_publishes_what_nobody_has_claimed(batch):
    batch.started(values)
    batch.play_one()
    ref, _ = batch.queue[0]
    assert batch.store.begin(ref, token="busy", where="w").granted
    batch.queue.clear()
    batch.take()
    assert sorted(args[0] for _, args in batch.queue) == [2, 3, 4, 5]


def test_a_success_that_is_said_twice_makes_room_once(batch):
    batch.started(values)
    ref, _ = batch.queue[0]
    batch.play_one(token="a")
    again = batch.store.finish(ref, token="a", kind="done", outcome="v0", began_ms=1)
    assert (again.code, again.publish) == ("recorded", ())
    assert len(batch.queue) == WINDOW


def test_whoever_ends_an_item_may_run_the_next_one_itself(batch):
    batch.started(values, items=20, window=2)
    mine, other = batch.queue
    batch.store.begin(mine[0], token="t0", where="w")
    wanted = Wanted("+", "t2", "w", 0, -1)

    first = batch.store.finish(mine[0], token="t0", kind="done", outcome="v0", began_ms=1, wanted=wanted)
    again = batch.store.finish(mine[0], token="t0", kind="done", outcome="v0", began_ms=1, wanted=wanted)

    assert first.grant is not None
    assert [part.ref.p for part in first.publish] == ["2"]
    assert again.grant is not None, "its reply was lost: it has the claim, and no other"
    assert [part.ref.p for part in again.publish] == ["2"]
    assert batch.store.begin(first.publish[0].ref, token="else", where="w").code == "held"
    assert batch.window == {"1", "2"}
    batch.queue = [other]
    ended = batch.store.finish(first.publish[0].ref, token="t2", kind="done", outcome="v4", began_ms=1)
    batch.engine.go_on(batch.id, ended)
    assert batch.play() == [2 * n for n in range(20)]


def test_the_last_item_grants_no_other(batch):
    batch.started(values, items=1, window=1)
    ((ref, _),) = batch.queue
    batch.store.begin(ref, token="t0", where="w")

    ended = batch.store.finish(
        ref, token="t0", kind="done", outcome="v0", began_ms=1, wanted=Wanted("+", "t1", "w", 0, -1)
    )

    assert (ended.code, ended.grant) == ("decided", None)


def test_nothing_is_granted_while_a_restart_of_redis_is_met(batch):
    batch.started(values, items=20, window=2)
    (ref, _), _ = batch.queue
    batch.store.begin(ref, token="t0", where="w")
    batch.redis.set(batch.store.keys.grace(batch.shard), 10**9)

    ended = batch.store.finish(
        ref, token="t0", kind="done", outcome="v0", began_ms=1, wanted=Wanted("+", "t1", "w", 0, -1)
    )

    assert ended.grant is None
    assert [part.ref.p for part in ended.publish] == ["2"]
    batch.redis.delete(batch.store.keys.grace(batch.shard))


@pytest.mark.parametrize("flow", [values, counted])
def test_a_claim_that_outlives_its_part_is_given_back(batch, flow):
    batch.started(flow)
    ref, _ = batch.queue[0]
    assert batch.store.begin(ref, token="suspended", where="w1").granted
    batch.tick(10)
    assert batch.store.begin(ref, token="new", where="w2").granted
    ending = batch.store.finish(ref, token="suspended", kind="done", outcome="v0", began_ms=1)
    assert [one.ref.p for one in ending.publish] == ["5"]
    batch.engine.go_on("r", ending)
    assert batch.loose() == 1
    assert batch.store.finish(ref, token="new", kind="failed", outcome=ERROR, began_ms=1).code == "late"
    assert batch.loose() == 0
    batch.queue.pop(0)
    batch.play()


def test_a_dead_claim_of_an_ended_part_starts_nothing(batch):
    batch.started(counted)
    ref, _ = batch.queue.pop(0)
    batch.store.begin(ref, token="suspended", where="w1")
    batch.tick(10)
    batch.store.begin(ref, token="new", where="w2")
    batch.engine.go_on("r", batch.store.finish(ref, token="suspended", kind="done", outcome="v0", began_ms=1))
    batch.tick(10)
    ending = batch.store.release(ref, token="", call_token="c", outcome=UNKNOWN)
    assert (ending.code, ending.publish) == ("recorded", ())
    assert batch.loose() == 0


def test_a_cancelled_batch_stops_what_runs_and_leaves_no_key_without_an_end(batch):
    batch.started(values)
    ref, _ = batch.queue[0]
    batch.store.begin(ref, token="busy", where="w")
    ending = batch.cancel()
    assert [claim.token for claim in ending.stop] == ["busy"]
    batch.take()
    assert batch.state == "cancelled"
    assert keys_without_end(batch.redis) == []
    assert batch.store.finish(ref, token="busy", kind="done", outcome="v0", began_ms=1).code == "late"
    assert batch.loose() == 0
    assert "join" not in keys_of(batch)


def test_a_finished_batch_leaves_nothing_but_its_journal(batch):
    batch.started(values).play()
    assert keys_without_end(batch.redis) == []
    assert "join" not in keys_of(batch)
    assert batch.due() == set()


def test_redis_holds_the_window_not_the_items_that_have_passed(batch):
    many = 20 * CHUNK
    batch.started(counted, items=many)
    for _ in range(many - WINDOW - 1):
        batch.play_one()
    join = batch.redis.hgetall(batch.keys.join("r", 0))
    assert sum(field.startswith("s") and field[1:].isdigit() for field in join) == WINDOW
    chunks = batch.redis.lrange(batch.keys.join("r", 0) + ":items", 0, -1)
    assert sum(map(bool, chunks)) <= 1
    assert len(batch.due()) == WINDOW


def test_a_batch_within_a_time(batch):
    @workflow(name="batch.in_time")
    async def in_time(run: Run) -> str:
        try:
            await with_timeout(process_batch(double, range(10), 2), 5)
        except TimedOut as error:
            return str(error)
        return ""

    batch.begun(in_time)
    (timer,) = map(Timer.parse, batch.redis.zrange(batch.keys.timers(batch.shard), 0, -1))
    batch.redis.zadd(batch.keys.timers(batch.shard), {"|".join(timer): 1})
    assert batch.store.fire(timer, token="now").code == "decided"
    batch.take()
    assert "process_batch(batch.double*10) was not done within 5 s" in str(batch.field("result"))


def test_a_retried_run_does_not_repeat_the_items_that_had_succeeded(batch):
    batch.started(values)
    for _ in range(20):
        batch.play_one()
    batch.play_one(bad=True)
    while batch.queue:
        batch.play_one()
    assert batch.state == "failed"
    done = sorted(batch.bodies[:20])
    operating.retry(batch.store, batch.id)
    batch.take()
    batch.bodies.clear()
    assert batch.play() == [2 * n for n in range(ITEMS)]
    assert not set(done) & set(batch.bodies)


def failed_after(batch: Batches, done: int, items: int = ITEMS) -> set[int]:
    """A batch that keeps no outcomes, of which so many items have succeeded before one failed. Gives those."""
    batch.started(uncollected, items)
    while len(batch.bodies) < done:
        batch.play_one()
    batch.play_one(bad=True)
    while batch.queue:
        batch.play_one()
    assert batch.state == "failed"
    return set(batch.bodies[:done])


def taken_up(batch: Batches) -> None:
    operating.retry(batch.store, batch.id)
    batch.bodies.clear()
    batch.take()


@pytest.mark.parametrize("done", [0, 1, 8, 20, 64])
def test_a_batch_that_keeps_no_outcomes_does_not_repeat_its_items_either(batch, done):
    before = failed_after(batch, done)
    taken_up(batch)

    assert batch.play() == ITEMS
    assert sorted([*before, *batch.bodies]) == list(range(ITEMS))
    assert batch.redis.keys("*:done") == []
    assert keys_without_end(batch.redis) == []


def test_what_is_done_of_a_batch_costs_a_bit_an_item_and_has_an_end(batch):
    failed_after(batch, 900, items=1000)
    (bits,) = batch.redis.keys("*:done")

    assert batch.redis.strlen(bits) <= 1000 / 8
    assert batch.redis.ttl(bits) > 0


def test_an_item_that_succeeded_after_the_batch_had_failed_is_not_repeated(batch):
    batch.started(uncollected)
    late = batch.queue.pop(0)[0]
    assert batch.store.begin(late, token="late", where="w").granted
    for _ in range(10):
        batch.play_one()
    batch.play_one(bad=True)
    while batch.queue:
        batch.play_one()
    batch.store.finish(late, token="late", kind="done", outcome="v0", began_ms=1)
    before = set(batch.bodies[:10])
    taken_up(batch)

    assert batch.play() == ITEMS
    assert sorted([0, *before, *batch.bodies]) == list(range(ITEMS))


def test_other_items_after_a_retry_are_all_made(batch):
    failed_after(batch, 20)
    size[0] = ITEMS + 1
    taken_up(batch)

    assert batch.play() == ITEMS + 1
    assert sorted(batch.bodies) == list(range(ITEMS + 1))


def test_a_batch_is_retried_as_often_as_it_fails(batch):
    done = failed_after(batch, 30)
    for more in (10, 50):
        taken_up(batch)
        for _ in range(more):
            batch.play_one()
        done |= set(batch.bodies)
        batch.play_one(bad=True)
        while batch.queue:
            batch.play_one()
        assert batch.state == "failed"
    taken_up(batch)

    assert batch.play() == ITEMS
    assert len(done) == 90
    assert sorted([*done, *batch.bodies]) == list(range(ITEMS))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: map_concurrent(double, [1], -1), r"max_concurrency=-1\): at least 1"),
        (lambda: process_batch(double, [1], 0), r"max_concurrency=0\): at least 1"),
    ],
)
def test_what_cannot_be_is_refused(make, why):
    with current_app(), pytest.raises(ConfigError, match=why):
        make()


def test_an_item_that_does_not_fit_is_named(batch):
    @workflow(name="batch.misfit")
    async def misfit(run: Run) -> Counts:
        return await process_batch(double, [1, "two"], 2, collect=False)  # type: ignore[list-item]

    batch.begun(misfit)
    assert batch.state == "failed"
    assert "argument n of batch.double" in str(batch.field("error"))


def test_a_saga_refuses_a_batch_and_says_what_to_write(batch):
    @workflow(name="batch.in_saga")
    async def in_saga(run: Run) -> Any:
        async with Saga(run, "s") as saga:
            return await saga.safe_step("all").with_compensation(undo).execute(process_batch(double, [1], 1))

    batch.begun(in_saga)
    assert "can't be undone item by item: enter one undo for all of it before you await it" in str(batch.field("error"))


@step(name="batch.undo_all")
def undo_all(of: str) -> str:
    return f"all of {of} undone"


@workflow(name="batch.undone_as_one")
async def undone_as_one(run: Run, items: int, window: int) -> int:
    async with Saga(run, "s") as saga:
        saga.register("import", undo_all.s(run.id))
        return (await process_batch(double, range(items), window, collect=False)).succeeded


def test_a_batch_in_a_saga_has_one_undo_for_all_of_it(batch, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "places", lambda: SimpleNamespace(database_url=f"sqlite:///{tmp_path}/log.db"))
    batch.started(undone_as_one)
    for _ in range(10):
        batch.play_one()
    batch.play_one(bad=True)
    while list(batch.queue[0][1]) != [batch.id]:
        batch.play_one()
    undo_ref, _ = batch.queue.pop(0)
    assert batch.store.begin(undo_ref, token="undo", where="w").granted
    batch.store.finish(undo_ref, token="undo", kind="done", outcome='v"undone"', began_ms=1)
    batch.take()

    assert batch.state == "compensated"
    database.dispose()
