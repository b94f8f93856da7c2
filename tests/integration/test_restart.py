"""`run.restart`: another round of the same run. Real Redis, real turns, no worker."""

# ruff: noqa: S106, S107, a token here is no password
from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from canvas import ConfigError, Run, channel, fan_out, promise, race, step, with_timeout, workflow
from canvas import engine as engines
from canvas.children import child_id
from canvas.restart import Restart
from core import current_app
from runs import Runs, dump, part, stops
from saga import Saga
from status import get_status, here, history
from status.errors import RetryRefused
from status.operating import retry
from status.records import News, PartRef, Remark
from turns import Turns

ROUNDS = 300
jobs = channel("jobs", int)
approval = promise("approval", int)


@pytest.fixture
def run(redis_client) -> Runs:
    return Runs(redis_client)


def begin_anew(run: Runs, *, seen: str = "n0", token: str = "r", first: int = 1, **more: Any) -> str:
    values = {"input_json": "[[2],{}]", "entered": 0, "carried": '["",0,{}]', "news": News(), **more}
    return run.store.restart(run.id, seen=seen, token=token, first=first, **values)


def one_await(run: Runs, n: int = 0, **more: Any) -> None:
    assert run.open(part(), n=n, **more) == "opened"
    run.begin(n=n)
    assert run.done(n=n) == "decided"


# --- the transition --------------------------------------------------------------------


def test_a_restart_empties_the_journal_and_owes_a_turn(run):
    run.submit()
    one_await(run)

    assert begin_anew(run) == "restarted"

    keys = run.keys
    assert [run.redis.exists(key) for key in (keys.journal("r"), keys.steps("r"), keys.late("r"))] == [0, 0, 0]
    assert (run.state, run.due(), run.field("round"), run.field("first")) == ("running", {""}, "2", "1")
    assert (run.field("round_input"), run.field("input")) == ("[[2],{}]", "[[],{}]")
    assert run.events()[-1] == "run.restarted"


def test_the_awaits_of_a_round_are_counted_on(run):
    run.submit()
    one_await(run)
    begin_anew(run)

    assert run.open(part(), n=1, seen="r#") == "opened"
    run.begin(n=1)
    assert run.done(n=1) == "decided"
    assert run.field("seen") == "n1"
    assert begin_anew(run, seen="n1", token="r2", first=2) == "restarted"
    assert run.field("round") == "3"


def test_restart_reply_lost(run):
    run.submit()
    one_await(run)
    begin_anew(run)
    before = run.everything()

    assert begin_anew(run) == "restarted"
    assert run.everything() == before


@pytest.mark.parametrize("seen", ["", "nonsense", "n1"])
def test_a_turn_that_has_read_another_journal_starts_no_round(run, seen):
    run.submit()
    one_await(run)
    before = run.everything()

    assert begin_anew(run, seen=seen) == "moved"
    assert run.everything() == before


def test_two_turns_start_one_round(run):
    run.submit()
    one_await(run)
    assert begin_anew(run, token="a") == "restarted"

    assert begin_anew(run, token="b") == "moved"
    assert run.field("round") == "2"


def test_a_turn_of_the_former_round_opens_and_ends_nothing(run):
    run.submit()
    one_await(run)
    begin_anew(run)
    before = run.everything()

    assert run.open(part(), n=1) == "moved"
    assert run.complete(seen="n0") == "moved"
    assert run.store.park("r", seen="n0", error="{}") is False
    assert run.everything() == before


def test_no_restart_while_an_await_is_open(run):
    run.started(part())

    assert begin_anew(run, seen="", first=0) == "moved"


def test_no_restart_of_a_run_that_has_ended_or_is_not_there(run):
    assert begin_anew(run) == "gone"
    run.submit()
    one_await(run)
    run.complete(seen="n0")
    before = run.everything()

    assert begin_anew(run) == "gone"
    assert run.everything() == before


def test_a_message_of_the_former_round_begins_nothing(run):
    run.submit()
    one_await(run)
    begin_anew(run)
    assert run.open(part(), n=1, seen="r#") == "opened"

    assert run.begin(0, "old", n=0) == "gone"
    assert run.done(0, "old", n=0) == "gone"


def test_a_loser_that_still_runs_is_not_taken_for_something_of_the_new_round(run):
    """It holds its claim, is vouched for, and is undone if it succeeds late; then nothing of it is left."""
    run.started(part(), part(undo=True), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    assert stops(run.finish("done", 0, "a")) == ["b"]
    assert run.loose() == 1

    assert begin_anew(run) == "restarted"
    assert run.open(part(), n=1, seen="r#") == "opened"
    assert run.store.vouch("r", [(0, "1", "b")]) == 1
    ending = run.finish("done", 1, "b")

    assert (ending.code, [one.ref.p for one in ending.publish], run.late()) == ("late", ["1u"], {"0.1": "v1"})
    run.begin("1u", "c")
    run.done("1u", "c")
    assert (run.loose(), run.joined(0)) == (0, False)
    run.begin(0, n=1)
    run.done(0, n=1)
    begin_anew(run, seen="n1", token="r2", first=2)
    assert (run.late(), run.redis.hkeys(run.keys.steps("r"))) == ({}, [])


def test_a_part_that_had_succeeded_twice_is_not_undone_in_the_next_round(run):
    """It was given to another worker and succeeded there; the first one, which slept, still holds on."""
    run.started(part(undo=True), part())
    run.begin(0, "slow")
    run.begin(1, "b")
    assert run.done(0, "quick") == "recorded"
    assert run.done(1, "b") == "decided"
    assert run.loose() == 1
    begin_anew(run)

    ending = run.finish("done", 0, "slow")

    assert (ending.publish, run.late(), run.loose()) == ((), {}, 0)


def test_what_a_batch_that_ended_badly_has_done_is_forgotten(run):
    run.submit()
    run.redis.setbit(run.keys.join("r", 0) + ":done", 3, 1)
    run.redis.hset(run.keys.run("r"), "bits", "0")

    assert begin_anew(run, seen="", first=1) == "restarted"
    assert (run.redis.exists(run.keys.join("r", 0) + ":done"), run.field("bits")) == (0, None)


def test_what_a_round_is_told_stays(run):
    run.submit(timeout_ms=3_600_000)
    one_await(run)
    run.store.resolve("r", "ok", "v1", token="p")
    run.store.send("r", "jobs", "v5", token="s.1")
    run.cancel()
    deadline = run.field("deadline_ms")

    news = News(("half", 0.5, '{"a":1}'), [Remark("run.status", "half")])
    assert begin_anew(run, news=news) == "restarted"

    assert (run.field("phase"), run.field("progress"), run.field("meta")) == ("half", "0.5", '{"a":1}')
    assert (run.field("deadline_ms"), run.timers(), run.state) == (deadline, {"run"}, "cancelling")
    assert run.open(part(), n=1, seen="r#") == "answered"
    assert run.decision(1) == ("cancelled", "409|enough")
    assert run.redis.lrange(run.keys.unread("r", "jobs"), 0, -1) == ["v5"]
    assert run.redis.hget(run.keys.promises("r"), "ok") == "p||v1"


def test_a_run_that_restarts_before_it_awaits_anything_is_running(run):
    run.submit()

    assert begin_anew(run, seen="", first=0) == "restarted"
    assert (run.state, bool(run.field("started_ms"))) == ("running", True)
    assert run.redis.zrange(run.keys.state(run.shard, "pending"), 0, -1) == []


def test_a_parked_run_that_restarts_is_no_longer_parked(run):
    run.submit()
    one_await(run)
    run.store.park("r", seen="n0", error="{}")
    assert run.state == "suspended"

    assert begin_anew(run) == "restarted"
    assert (run.state, run.field("error")) == ("running", None)


# --- in a workflow ---------------------------------------------------------------------


@step(name="restart.do")
def do(n: int) -> int:
    return n


@step(name="restart.undo")
def undo(value: int | None) -> int | None:
    return value


@workflow(name="restart.child")
async def child(run: Run) -> None: ...


@workflow(name="restart.rounds")
async def rounds(run: Run, left: int, said: list[str]) -> list[str]:
    run.update_status(phase=f"{left} left", **{f"round{left}": True})
    now = [str(run.uuid()), str(run.random().random()), str(run.now().timestamp())]
    await do.s(left)
    if left:
        return await run.restart(left - 1, said=[*said, *now])
    return [*said, *now]


@pytest.fixture
def turns(redis_client, valkey):
    """A run in this process, of which the world outside knows too."""
    with current_app("restart") as app:
        made = Turns(app, redis_client)
        app.__dict__["_celeriac"] = made.engine
        here.use(valkey.url)
        here.store().settings = made.store.settings
        here.store().keys = made.keys
        before = here._follow
        here.follow_with(engines.of(app).follow)
        yield made
        here._follow = before
        here.use(None)
        here._store.cache_clear()


def begin(turns: Turns, flow: Any, *args: Any) -> None:
    turns.store.submit(
        turns.id, workflow=flow.name, input_json=json.dumps([args, {}]), digest="d", token="t", retention_ms=60_000
    )
    take(turns)


def take(turns: Turns) -> None:
    """Take the turn; and those that it sends, as a round does for the next."""
    turns.take()
    while turns.sent[-1:] == [("r", 0)]:
        turns.sent.pop()
        turns.take()


def play(turns: Turns, n: int, *, good: bool = True) -> None:
    """Let await `n` of one step end, and take the turn."""
    turns.end(n, good=good)
    take(turns)


def test_a_round_follows_the_other_under_one_id(turns):
    begin(turns, rounds, 2, [])
    for n in range(3):
        assert (turns.state, get_status("r").round) == ("running", n + 1)
        play(turns, n)

    assert turns.state == "completed", turns.field("error")
    said = json.loads(turns.field("result"))
    assert len({*said}) == 9, "no round has the uuid, the random number or the time of another"
    assert get_status("r").metadata == {"round2": True, "round1": True, "round0": True}
    assert [event.name for event in history("r") if event.kind == "run.restarted"] == ["2", "3"]
    assert [one.step_id for one in get_status("r").steps] == ["r/2.0"]


def test_a_replayed_round_is_the_same(turns):
    begin(turns, rounds, 1, [])
    play(turns, 0)
    before = turns.everything()
    turns.take()
    turns.take()

    assert turns.everything() == before


def test_three_hundred_rounds_leave_what_one_has(turns):
    """`python -m bench.rounds` does a hundred thousand, with a worker."""

    @workflow(name="restart.endless")
    async def endless(run: Run, total: int = 0) -> int:
        run.update_status(phase="counting", total=total)
        weight = await jobs.receive()
        return await run.restart(total + weight) if weight else total

    def size() -> dict[str, int]:
        """Characters under each key; what an allocator gives for the same ones differs from time to time."""
        names = [key for key in turns.redis.scan_iter("*:r*") if ":events:" not in key]  # which are capped
        return {name: len(json.dumps(dump(turns.redis, name))) for name in names}

    begin(turns, endless)
    sizes = []
    for number in range(ROUNDS):
        jobs.send("r", 1)
        take(turns)
        if (number + 1) % (ROUNDS // 3) == 0:
            sizes.append(size())
            assert turns.redis.hlen(turns.keys.journal("r")) == 0
    jobs.send("r", 0)
    take(turns)

    assert (turns.field("result"), get_status("r").round) == (str(ROUNDS), ROUNDS + 1)
    assert len(sizes[1]) == len(sizes[2]) > 1, sizes  # the open await has another number
    assert sum(sizes[2].values()) == sum(sizes[1].values()), sizes


def test_a_child_is_told_of_when_its_last_round_has_ended(turns):
    @workflow(name="restart.parent")
    async def parent(run: Run) -> list[str]:
        return await rounds.s(1, [])

    begin(turns, parent)
    child_run = Turns(turns.engine.app, turns.redis)
    child_run.id, child_run.engine = child_id("r", "0.0", 0), turns.engine
    turns.sent.clear()
    for n in range(2):
        child_run.take()
        assert get_status(child_run.id).round == n + 1
        child_run.end(n)
        child_run.take()
    take(turns)

    assert (get_status(child_run.id).state, turns.state) == ("completed", "completed")
    assert len(json.loads(turns.field("result"))) == 6


def test_submitting_it_again_gives_the_run_whatever_round_it_is_in(turns):
    begin(turns, rounds, 2, [])
    play(turns, 0)

    assert turns.store.submit("r", workflow=rounds.name, input_json="[[2,[]],{}]", digest="d", token="t2") is False


def test_each_round_has_keys_and_children_of_its_own(turns):
    seen: list[str] = []

    @workflow(name="restart.keys")
    async def keys(run: Run, left: int) -> None:
        await do.s(1)
        await run.start(child.s())
        if left:
            await run.restart(left - 1)

    begin(turns, keys, 2)
    for n in range(0, 6, 2):
        nonce = turns.redis.hget(turns.keys.join("r", n), "nonce")
        seen.append(PartRef("r", n, "0", nonce, 1).idempotency_key)
        play(turns, n)
        assert turns.redis.exists(turns.keys.run(child_id("r", f"{n + 1}.0", 0)))
        turns.take()

    assert (seen, turns.state) == (["r/0.0", "r/2.0", "r/4.0"], "completed")


def test_messages_promises_and_the_place_in_them_go_on(turns):
    @workflow(name="restart.receives")
    async def receives(run: Run, got: list[int]) -> list[int]:
        got = [*got, await jobs.receive(), await approval]
        return got if len(got) > 4 else await run.restart(got)

    begin(turns, receives, [])
    approval.resolve("r", 9)
    for value in range(4):
        jobs.send("r", value)
    take(turns)

    assert json.loads(turns.field("result")) == [0, 9, 1, 9, 2, 9]


def test_a_run_that_only_restarts_makes_room_for_others(turns):
    @workflow(name="restart.busy")
    async def busy(run: Run, left: int) -> str:
        return await run.restart(left - 1) if left else "done"

    turns.store.submit("r", workflow=busy.name, input_json="[[120],{}]", digest="d", token="t")
    turns.take()
    assert (turns.sent, get_status("r").round, turns.due()) == ([("r", 0)], 2, {""})
    take(turns)

    assert (turns.state, get_status("r").round) == ("completed", 121)


def test_a_retry_takes_up_the_round_that_failed(turns):
    begin(turns, rounds, 1, [])
    play(turns, 0)
    play(turns, 1, good=False)
    assert turns.state == "failed"

    retry(turns.store, "r")
    turns.take()
    nonce = turns.redis.hget(turns.keys.join("r", 1), "nonce")
    assert PartRef("r", 1, "0", nonce, 1).idempotency_key == "r~1/1.0"
    play(turns, 1)

    assert (turns.state, get_status("r").round) == ("completed", 2)


def test_a_round_that_failed_by_itself_before_any_await_is_retried_from_there(turns):
    broken = [True]

    @workflow(name="restart.breaks")
    async def breaks(run: Run, n: int) -> int:
        if n and broken:
            raise ValueError(n)
        return await do.s(n) if n else await run.restart(await do.s(5))

    begin(turns, breaks, 0)
    play(turns, 0)
    assert turns.state == "failed"
    broken.clear()
    retry(turns.store, "r")
    turns.take()

    assert json.loads(turns.redis.hget(turns.keys.join("r", 1), "s0"))["args"] == [1]
    play(turns, 1)
    assert turns.state == "completed"
    with pytest.raises(RetryRefused):
        retry(turns.store, "r")


def test_a_restart_with_wrong_arguments_fails_where_it_is_asked_for(turns):
    @workflow(name="restart.wrong")
    async def wrong(run: Run, n: int) -> None:
        await run.restart("one")

    begin(turns, wrong, 1)

    error = get_status("r").error
    assert (turns.state, error.error_type) == ("failed", "status.errors.PayloadError")
    assert "restart.wrong" in error.message


def test_no_restart_inside_a_saga_that_has_something_to_undo(turns):
    @workflow(name="restart.saga")
    async def owing(run: Run) -> None:
        async with Saga(run, "s") as saga:
            saga.register("hotel", undo.s(1))
            await run.restart()

    begin(turns, owing)
    assert turns.state == "compensating"
    play(turns, 1)

    error = get_status("r").error
    assert (turns.state, error.error_type) == ("compensated", "status.errors.ConfigError")
    assert "may still have to undo hotel" in error.message
    assert "leave the saga's block first" in error.message


def test_a_restart_after_a_saga_that_ended_well_or_was_rolled_back(turns):
    keys: list[str] = []

    async def fails(run: Run) -> None:
        async with Saga(run, "t") as saga:
            saga.register("flight", undo.s(1))
            keys.append(saga._entries[0].key)
            raise ValueError

    @workflow(name="restart.after")
    async def after(run: Run, left: int) -> int:
        async with Saga(run, "s") as saga:
            saga.register("hotel", undo.s(1))
            keys.append(saga._entries[0].key)
        with suppress(ValueError):
            await fails(run)
        return await run.restart(left - 1) if left else 7

    begin(turns, after, 1)
    play(turns, 1)
    play(turns, 3)

    assert (turns.state, turns.field("result")) == ("completed", "7")
    assert list(dict.fromkeys(keys)) == ["r#0", "r#1", "r#2", "r#3"]


def test_what_was_undone_in_a_former_round_is_no_failure_of_this_one(turns):
    @workflow(name="restart.undone")
    async def undone(run: Run, left: int) -> int:
        if not left:
            raise ValueError("at last")
        saga = Saga(run, "t")
        saga.register("flight", undo.s(1))
        await saga.rollback()
        return await run.restart(left - 1)

    begin(turns, undone, 1)
    play(turns, 1)

    assert turns.state == "failed"


@pytest.mark.parametrize(
    "wrapped", [lambda run: with_timeout(run.restart(), 5), lambda run: run.restart().submit()], ids=["timed", "submit"]
)
def test_a_restart_stands_by_itself(turns, wrapped):
    @workflow(name=f"restart.wrapped.{id(wrapped)}")
    async def wraps(run: Run) -> None:
        await wrapped(run)

    begin(turns, wraps)

    assert (turns.state, get_status("r").error.error_type) == ("failed", "status.errors.ConfigError")


@pytest.mark.parametrize("join", [race, fan_out])
def test_a_restart_is_no_part(join):
    with pytest.raises(TypeError, match="is a join, not a part"):
        join(Restart("[[],{}]"), do.s(1))


def test_code_that_restarts_where_the_journal_has_an_await_parks_the_run(turns):
    restarts: list[bool] = []

    @workflow(name="restart.changed")
    async def changed(run: Run) -> int:
        if restarts:
            return await run.restart()
        return await do.s(1) + await do.s(2)

    begin(turns, changed)
    restarts.append(True)
    turns.take()
    assert "the workflow now asks for nothing more" in turns.parked.message
    turns.end(0)
    turns.take()
    assert turns.state == "suspended"

    restarts.clear()
    turns.take()
    play(turns, 1)
    assert turns.state == "completed"


def test_outside_a_workflow_a_restart_is_only_a_recipe():
    with pytest.raises(ConfigError, match=r"return await run\.restart"):
        Restart("[[],{}]").recipe()
