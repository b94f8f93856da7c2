"""Sagas whose process is killed at each write it makes: every undo comes, each once, newest first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

import sagas
from canvas import Retry, Run, StepFailed, StepTimeout, fan_out_fail, race, workflow
from saga import Saga, Strategy
from saga.log import SagaLog
from sagas import World, act, act_once, effects, log_states, owed, refuse, stuck, take_back
from status.records import Timer


def at_each_write(world: World, play: Callable[[], None], check: Callable[[], None]) -> int:
    """Play it from the start, killed at its first write, then at its second, ... Gives how often it was killed."""
    kills = 0
    while True:
        world.redis.flushall()
        sagas.forget_all()
        world.inbox.clear()
        world.bodies.clear()
        world.while_it_runs.clear()
        world.kill_at, world.points, world.died = kills, 0, ""
        world.start()
        play()
        try:
            check()
        except AssertionError as error:
            raise AssertionError(f"killed {world.died} (point {kills}): {error}") from error
        if not world.died:
            return kills
        kills += 1


# --- killed --------------------------------------------------------------------------------


@workflow(name="sagas.order")
async def order(run: Run) -> None:
    async with Saga(run, "order") as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        await (
            saga.safe_step("b")
            .with_compensation(take_back, "b")
            .execute(race(act.s("b"), act.s("b-late").named("late")))
        )
        await fan_out_fail(act.s("plain"))
        await saga.safe_step("c").with_compensation(take_back, "c").execute(fan_out_fail(act.s("c"), refuse.s("no")))


@workflow(name="sagas.three")
async def three(run: Run, strategy: Strategy = Strategy.COMPENSATE_ALL) -> None:
    async with Saga(run, "order", strategy=strategy) as saga:
        for name in ("a", "b", "c"):
            await saga.safe_step(name).with_compensation(take_back, name).execute(act.s(name))
        await saga.safe_step("d").with_compensation(take_back, "d").execute(refuse.s("d"))


def undone_newest_first(names: list[str]) -> list[tuple[str, int]]:
    return [(name, +1) for name in names] + [(name, -1) for name in reversed(names)]


def test_killed_at_each_write_of_compensation(world: World) -> None:
    def play() -> None:
        world.submit(three)
        world.go_on()

    def check() -> None:
        assert world.state() == "compensated"
        assert effects() == undone_newest_first(["a", "b", "c"])
        assert log_states() == {"a": "undone", "b": "undone", "c": "undone", "d": "undone"}
        assert owed() == []

    assert at_each_write(world, play, check) > 60


def test_no_undo_is_begun_again_once_its_outcome_is_recorded(world: World) -> None:
    """With a kill, a body may run twice; never after its outcome was written down."""

    def play() -> None:
        world.submit(three)
        world.go_on()

    def check() -> None:
        undos = [key for key in world.bodies if "#" in key]
        assert list(dict.fromkeys(undos)) == ["r#3", "r#2", "r#1", "r#0"]
        assert undos == sorted(undos, reverse=True)
        assert len(undos) <= 5

    at_each_write(world, play, check)


@workflow(name="sagas.patient")
async def patient(run: Run) -> str:
    """Goes on without what took too long, and ends well."""
    async with Saga(run, "order") as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        try:
            await saga.safe_step("b").with_compensation(take_back, "b").execute(act.s("b").within(60))
        except StepTimeout:
            await saga.safe_step("c").with_compensation(take_back, "c").execute(act.s("c"))
    return "well"


def test_what_succeeds_after_its_time_was_up_is_undone_though_the_saga_ends_well(world: World) -> None:
    """As a race's loser is: the workflow was told that it had failed, so nobody will use or undo it."""

    def time_is_up() -> None:
        for shard in range(world.store.keys.shards):
            for member in world.redis.zrange(world.store.keys.timers(shard), 0, -1):
                if member.startswith("within|"):
                    world.redis.zadd(world.store.keys.timers(shard), {member: 1})
                    world.sweeper.fire(Timer.parse(member))
        world.go_on(until=lambda: world.state() == "completed")

    def play() -> None:
        world.while_it_runs["b"] = time_is_up
        world.submit(patient)
        world.go_on()

    def check() -> None:
        assert world.state() == "completed"
        sums = {name: sum(sign for named, sign in effects() if named == name) for name in "abc"}
        late = world.field("result") == '"well"' and sums["c"] == 1
        assert sums == ({"a": 1, "b": 0, "c": 1} if late else {"a": 1, "b": 1, "c": 0}), effects()
        assert log_states()["a"] == "kept"
        assert owed() == []

    assert at_each_write(world, play, check) > 40


def test_late_siblings_are_undone_wherever_it_was_killed(world: World) -> None:
    """The sibling runs while its join fails and the rollback begins."""

    def play() -> None:
        for name in ("b", "c"):
            world.while_it_runs[name] = lambda: world.go_on(until=lambda: not world.inbox)
        world.submit(order)
        world.go_on()

    def check() -> None:
        assert world.state() == "compensated"
        done = effects()
        assert world.died or {name for name, _ in done} >= {"a", "b", "b-late", "c"}
        for name in {name for name, _ in done} - {"plain"}:
            assert sum(sign for named, sign in done if named == name) == 0, done
        assert owed() == []

    assert at_each_write(world, play, check) > 60


# --- what is not known ----------------------------------------------------------------------


@workflow(name="sagas.unsure")
async def unsure(run: Run) -> None:
    async with Saga(run, "order", strategy=Strategy.COMPENSATE_COMPLETED) as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        await saga.safe_step("b").with_compensation(take_back, "b").execute(act_once.s("b"))


def test_killed_between_effect_and_finish_completed(world: World) -> None:
    """Nobody knows that it had its effect: it is undone, also where only what completed is."""
    world.kill_when = "after effect +1 b"
    world.submit(unsure)
    world.go_on()

    assert world.state() == "compensated"
    assert effects() == undone_newest_first(["a", "b"])
    assert log_states() == {"a": "undone", "b": "undone"}


def test_compensate_completed_leaves_alone_what_failed(world: World) -> None:
    world.submit(three, Strategy.COMPENSATE_COMPLETED)
    world.go_on()

    assert log_states() == {"a": "undone", "b": "undone", "c": "undone", "d": "skipped"}
    assert owed() == []


def test_suspended_action_meets_tombstone(world: World) -> None:
    """It is stopped before its effect, given up and undone; then it wakes up."""
    world.while_it_runs["b"] = world.go_on
    world.submit(unsure)
    world.go_on()

    assert world.bodies == ["r/0.0", "r/1.0", "r#1", "r#0"]
    assert effects() == undone_newest_first(["a"])
    assert world.state() == "compensated"


@workflow(name="sagas.charge")
async def charge(run: Run) -> None:
    async with Saga(run, "order") as saga:
        await (
            saga.safe_step("charge")
            .with_compensation(take_back, "?")
            .execute(race(act.s("stripe").named("stripe"), act.s("paypal").named("paypal")))
        )


def test_cancel_mid_race_after_charge(world: World) -> None:
    """The money is gone, its outcome is not recorded; now the run is cancelled."""
    world.while_it_runs["after stripe"] = lambda: world.engine.cancel("r", "enough") and None
    world.submit(charge)
    world.go_on()

    assert world.state() == "cancelled"
    assert effects() == undone_newest_first(["stripe"])
    assert log_states() == {"charge stripe": "undone", "charge paypal": "skipped"}


# --- undos that give up -----------------------------------------------------------------------


@workflow(name="sagas.giving_up")
async def giving_up(run: Run, strategy: Strategy) -> None:
    async with Saga(run, "order", strategy=strategy) as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        await saga.safe_step("b").with_compensation(stuck, "b").execute(act.s("b"))
        await refuse.s("c")


@workflow(name="sagas.late_giving_up")
async def late_giving_up(run: Run) -> None:
    async with Saga(run, "order", strategy=Strategy.BEST_EFFORT, retry=Retry(1)) as saga:
        await saga.safe_step("b").with_compensation(stuck, "b").execute(fan_out_fail(act.s("b"), refuse.s("no")))


def test_best_effort_goes_on_past_an_undo_that_gave_up(world: World) -> None:
    world.submit(giving_up, Strategy.BEST_EFFORT)
    world.go_on()

    assert world.state() == "compensation_failed"
    assert log_states() == {"a": "undone", "b": "undo_failed"}
    assert effects() == [("a", 1), ("b", 1), ("a", -1)]


def test_without_best_effort_an_undo_that_gave_up_ends_the_rollback(world: World) -> None:
    world.submit(giving_up, Strategy.COMPENSATE_ALL)
    world.go_on()

    assert world.state() == "compensation_failed"
    assert "undo b gave up, 1 more not undone" in world.error()
    assert log_states() == {"a": "done", "b": "undo_failed"}


def test_an_undo_of_a_late_sibling_that_gave_up_stays_owed(world: World) -> None:
    world.while_it_runs["b"] = lambda: world.go_on(until=lambda: not world.inbox)
    world.submit(late_giving_up)
    world.go_on()

    assert world.state() == "compensation_failed"
    assert "r b sagas.act undo_failed" in owed()


# --- a log that is closed ----------------------------------------------------------------------


@workflow(name="sagas.well")
async def well(run: Run, how: str) -> str:
    saga = Saga(run, "order")
    if how == "async with":
        async with saga:
            await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
    elif how == "by hand":
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
    elif how == "caught":
        with suppress(StepFailed):
            await saga.safe_step("a").with_compensation(take_back, "a").execute(refuse.s("a"))
    elif how == "race":
        await saga.safe_step("a").with_compensation(take_back, "a").execute(race(act.s("a"), act.s("b")))
    elif how == "rolled back":
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        await saga.rollback()
    return await act.s("more")


@pytest.mark.parametrize("how", ["async with", "by hand", "caught", "race", "rolled back"])
def test_a_run_that_completed_owes_nothing(world: World, how: str) -> None:
    world.submit(well, how)
    world.go_on()

    assert world.state() == "completed"
    assert SagaLog().of_run("r")
    assert owed() == []
