"""Child workflows: a run of its own is a part of another. Broker, workers and sweep are played, the rest is real."""

from __future__ import annotations

import json

import pytest

from canvas import (
    ConfigError,
    Run,
    StepFailed,
    StepTimeout,
    TerminalError,
    fan_out,
    fan_out_fail,
    race,
    step,
    with_timeout,
    workflow,
)
from canvas.children import child_id
from core import current_app
from family import Died, Family
from leaks import keys_without_end
from saga import Saga
from status import operating
from status.errors import RetryRefused
from status.records import RUN_ID, PartRef

effects: list[str] = []
fixed: list[bool] = []


@step(name="children.do")
def do(what: int) -> int:
    effects.append(f"do {what}")
    return what * 10


@step(name="children.bad")
def bad() -> int:
    raise TerminalError("it is out of stock", code=410)


@step(name="children.undo")
def undo(it: int | None) -> None:
    effects.append(f"undo {it}")


@workflow(name="children.child")
async def child(run: Run, what: int) -> int:
    return await do.s(what) + 1


@workflow(name="children.fails")
async def fails(run: Run) -> int:
    try:
        return await bad.s()
    except StepFailed as error:
        raise LookupError("nothing to be had") from error


@workflow(name="children.safe")
async def safe(run: Run, what: int) -> int:
    """Does something that it knows how to undo, and then something long."""
    async with Saga(run, "safe") as saga:
        await saga.safe_step("a").with_compensation(undo).execute(do.s(what))
        return await do.s(what + 1).named("long")


@workflow(name="children.one")
async def one(run: Run, what: int) -> int:
    return await child.s(what)


@workflow(name="children.grand")
async def grand(run: Run, what: int) -> int:
    return await one.s(what)


@workflow(name="children.both")
async def both(run: Run) -> list[int]:
    return list(await fan_out_fail(child.s(1), child.s(2).named("second"), do.s(3)))


@workflow(name="children.one_fails")
async def one_fails(run: Run) -> list[object]:
    try:
        await fan_out_fail(safe.s(1), fails.s().named("the bad one"))
    except StepFailed as error:
        return [
            error.step, error.index, error.error_type, error.message, error.code,
            error.is_a(LookupError), error.is_a(TerminalError), error.is_a(OSError),
        ]  # fmt: skip
    return []


@workflow(name="children.raced")
async def raced(run: Run) -> int:
    return (await race(quick.s(), safe.s(5))).value


@workflow(name="children.waits")
async def waits(run: Run) -> int:
    return await safe.s(1)


@workflow(name="children.impatient")
async def impatient(run: Run) -> str:
    try:
        await safe.s(1).within(60)
    except StepTimeout as error:
        return str(error)
    return ""


@workflow(name="children.hurried")
async def hurried(run: Run) -> int:
    return await with_timeout(safe.s(1), 60)


@workflow(name="children.named")
async def named(run: Run, what: int) -> int:
    return await child.s(what).with_run_id("mine")


@workflow(name="children.rolls_back")
async def rolls_back(run: Run) -> None:
    async with Saga(run, "parent") as saga:
        await saga.safe_step("first").with_compensation(undo).execute(do.s(7))
        await fan_out_fail(safe.s(1), do.s(3).named("then"))


@workflow(name="children.undoes_children")
async def undoes_children(run: Run) -> int:
    """A race of two, each of which can be undone by its parent."""
    async with Saga(run, "parent") as saga:
        race_of_two = race(do.s(9).named("short"), child.s(1))
        won = await saga.safe_step("either").with_compensation(undo).execute(race_of_two)
    return won.value


@workflow(name="children.wavering")
async def wavering(run: Run) -> int:
    """Goes another way once `fixed`."""
    return await (undo.s(1) if fixed else do.s(1).named("long")) or 0


@workflow(name="children.rolls_back_wavering")
async def rolls_back_wavering(run: Run) -> int:
    async with Saga(run, "parent") as saga:
        await saga.safe_step("first").with_compensation(undo).execute(do.s(7))
        return await wavering.s()


@workflow(name="children.starts")
async def starts(run: Run) -> list[str]:
    return [await run.start(child.s(1)), await run.start(child.s(2), run_id="mine")]


@workflow(name="children.settles")
async def settles(run: Run) -> list[object]:
    found = await fan_out(child.s(1), fails.s())
    return [found.results, [error.message for _, error in found.bad]]


@workflow(name="children.delayed")
async def delayed(run: Run) -> int:
    return await child.s(4).after(60)


@workflow(name="children.quick", timeout_s=60)
async def quick(run: Run) -> int:
    return await do.s(1).named("short")


@workflow(name="children.brief", retention_s=0.01)
async def brief(run: Run) -> int:
    return await do.s(1)


@workflow(name="children.waits_for_brief")
async def waits_for_brief(run: Run) -> int:
    return await brief.s()


@workflow(name="children.waits_for_quick")
async def waits_for_quick(run: Run) -> int:
    return await quick.s()


@pytest.fixture
def family(redis_client, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'saga.db'}")
    effects.clear()
    with current_app("children") as app:
        yield Family(app, redis_client)


def all_quiet(family: Family) -> None:
    """Nothing is left of runs that have all ended."""
    family.sweep()
    assert family.left() == set()
    assert keys_without_end(family.redis) == []


# --- all is well ----------------------------------------------------------------------------


def test_a_workflow_awaits_another(family):
    family.submit(one, 4)

    assert (family.state(), family.result()) == ("completed", "41")
    assert (family.state("top@0.0"), family.result("top@0.0")) == ("completed", "41")
    all_quiet(family)


def test_parent_and_child_know_of_each_other(family):
    family.submit(one, 4)

    assert family.status().steps[0].child_run_id == "top@0.0"
    assert (family.status().steps[0].state, family.status().steps[0].queue) == ("done", "")
    assert (family.status("top@0.0").parent, family.status().parent) == ("top/0.0", None)


def test_children_and_steps_are_parts_of_one_join(family):
    family.submit(both)

    assert family.result() == "[11,21,30]"
    assert [step.child_run_id for step in family.status().steps] == ["top@0.0", "top@0.1", None]
    assert [step.name for step in family.status().steps] == ["children.child", "second", "children.do"]
    all_quiet(family)


def test_a_child_has_children(family):
    family.submit(grand, 2)

    assert family.result() == "21"
    assert family.status("top@0.0@0.0").parent == "top@0.0/0.0"
    all_quiet(family)


def test_every_outcome_of_children(family):
    family.submit(settles)

    assert json.loads(family.result()) == [[11, None], ["nothing to be had"]]


def test_a_child_that_starts_later(family):
    family.submit(delayed)
    assert family.state("top@0.0") == ""

    family.fire("start")

    assert family.result() == "41"
    all_quiet(family)


def test_what_a_childs_error_says_in_its_parent(family):
    family.hold = {"long", "children.bad"}
    family.submit(one_fails)

    family.let_go("children.bad")

    said = ["the bad one", 1, "LookupError", "nothing to be had", 500, True, True, False]
    assert json.loads(family.result()) == said
    family.let_go("long")
    assert family.state("top@0.0") == "cancelled"
    all_quiet(family)


def test_a_child_has_the_id_it_is_given(family):
    family.submit(named, 3)

    assert (family.result(), family.state("mine")) == ("31", "completed")
    assert family.status().steps[0].child_run_id == "mine"


def test_a_run_of_the_same_arguments_that_is_there_is_waited_for(family):
    family.hold = {"children.do"}
    family.submit(named, 3, run_id="first")
    family.submit(named, 3, run_id="second")

    family.let_go("children.do")

    assert (family.result("first"), family.result("second")) == ("31", "31")
    assert effects == ["do 3"]
    assert family.status("mine").parent == "first/0.0"
    family.submit(named, 3, run_id="third")
    assert family.result("third") == "31"
    all_quiet(family)


def test_a_run_of_other_arguments_that_is_there_is_a_conflict(family):
    family.submit(named, 3, run_id="first")
    family.submit(named, 4, run_id="second")

    assert family.state("second") == "failed"
    assert family.error("second").error_type == "status.errors.RunConflict"
    assert "'mine' is taken by a run (completed)" in family.error("second").message
    all_quiet(family)


def test_a_step_has_no_run_id():
    with current_app("none"), pytest.raises(ConfigError, match="a step has no run of its own"):
        do.s(1).with_run_id("x")
    with current_app("none"), pytest.raises(ConfigError, match="run id 'a b' won't do"):
        child.s(1).with_run_id("a b")


def test_a_workflow_is_no_undo(family):
    with pytest.raises(ConfigError, match="is a workflow: an undo is a step"):
        Saga(Run("r", "w", 0), "s").safe_step("a").with_compensation(child)  # type: ignore[arg-type]


def test_ids_of_children_are_run_ids_and_differ():
    long = ["x" * 200, "x" * 199 + "y"]
    ids = [child_id(parent, "0.0", 0) for parent in long] + [child_id("r", "0.0", 0), child_id("r", "0.0", 1)]

    assert all(RUN_ID.fullmatch(one) for one in ids)
    assert len(set(ids)) == len(ids)


def test_a_run_that_nobody_waits_for_is_started_once(family, monkeypatch):
    family.crash(monkeypatch, "finish")
    with pytest.raises(Died):
        family.submit(starts)
    family.sweep()

    assert (family.state(), family.result()) == ("completed", '["top@0.0","mine"]')
    assert [family.state(run_id) for run_id in ("top@0.0", "mine")] == ["completed", "completed"]
    assert family.status("mine").parent is None
    assert sorted(effects) == ["do 1", "do 2"]
    all_quiet(family)


def test_a_started_run_whose_id_is_taken_is_a_conflict(family):
    family.submit(child, 3, run_id="mine")
    family.submit(starts)

    assert (family.state(), family.error().error_type) == ("failed", "status.errors.RunConflict")
    all_quiet(family)


def test_a_step_can_not_be_started(family):
    with pytest.raises(ConfigError, match="only a workflow's call makes a run"):
        Run("r", "w", 0).start(do.s(1))


# --- stopped --------------------------------------------------------------------------------


def test_a_child_that_loses_a_race_undoes_what_it_did(family):
    family.hold = {"long", "short"}
    family.submit(raced)

    family.let_go("short")

    assert family.result() == "10"
    family.let_go("long")
    assert family.state("top@0.1") == "cancelled"
    assert effects == ["do 5", "do 1", "do 6", "undo 50"]
    all_quiet(family)


@pytest.mark.parametrize("flow", [impatient, hurried], ids=["within", "with_timeout"])
def test_a_child_whose_time_is_up_is_cancelled(family, flow):
    family.hold = {"long"}
    family.submit(flow)

    family.fire("within" if flow is impatient else "join")

    assert family.state("top@0.0") == "compensating", "it waits for what still runs"
    family.let_go("long")
    assert (family.state("top@0.0"), effects[-1]) == ("cancelled", "undo 10")
    assert family.state() == ("completed" if flow is impatient else "failed")
    all_quiet(family)


def test_the_deadline_of_a_run_is_that_of_its_children(family):
    family.hold = {"long"}
    family.submit(waits, timeout_ms=60_000)

    family.fire("run")
    family.let_go("long")

    assert (family.state(), family.state("top@0.0")) == ("timed_out", "cancelled")
    assert effects[-1] == "undo 10"
    all_quiet(family)


def test_a_child_has_a_deadline_of_its_own(family):
    family.hold = {"short"}
    family.submit(waits_for_quick)

    family.fire("run")

    assert (family.state("top@0.0"), family.state()) == ("timed_out", "failed")
    assert family.error().code == 408
    family.let_go("short")
    all_quiet(family)


def test_cancel_goes_down_to_grandchildren(family):
    family.hold = {"children.do"}
    family.submit(grand, 1)

    family.cancel()

    assert [family.state(run_id) for run_id in ("top", "top@0.0", "top@0.0@0.0")] == ["cancelled"] * 3
    family.let_go("children.do")
    all_quiet(family)


def test_a_rollback_waits_for_a_child_that_still_undoes(family):
    family.hold = {"long", "then"}
    family.submit(rolls_back)
    family.cancel()
    assert family.state() == "compensating"
    family.let_go("then")
    assert "undo 70" not in effects, "the child has not ended"

    family.let_go("long")

    assert effects[-2:] == ["undo 10", "undo 70"]
    assert (family.state(), family.state("top@1.0")) == ("cancelled", "cancelled")
    all_quiet(family)


def test_a_child_that_was_there_before_is_left_alone(family):
    family.hold = {"children.do"}
    family.submit(named, 3, run_id="first")
    family.submit(named, 3, run_id="second")

    family.cancel("second")

    assert (family.state("second"), family.state("mine")) == ("cancelled", "running")
    family.let_go("children.do")
    assert family.result("first") == "31"
    all_quiet(family)


def test_a_child_of_an_abandoned_run_is_cancelled(family):
    family.hold = {"long"}
    family.submit(waits)

    family.engine.wake("top", operating.abandon(family.store, "top", "", []).stop)
    family.play()
    family.let_go("long")

    assert (family.state(), family.state("top@0.0"), effects[-1]) == ("cancelled", "cancelled", "undo 10")
    all_quiet(family)


def test_a_parent_that_is_retried_has_a_new_child(family):
    fixed.clear()
    family.submit(waits_for_bad)
    assert family.state() == "failed"
    fixed.append(True)

    operating.retry(family.store, "top")
    family.inbox.append("top")
    family.play()

    assert (family.state(), family.state("top@0.0"), family.state("top@0.0-r1")) == ("completed", "failed", "completed")
    all_quiet(family)


def retried(family: Family, run_id: str = "top") -> Family:
    operating.retry(family.store, run_id)
    family.inbox.append(run_id)
    return family.play()


def test_a_child_with_an_id_of_its_own_is_retried_before_its_parent(family):
    fixed.clear()
    family.submit(names_its_child)
    assert (family.state(), family.state("mine")) == ("failed", "failed")
    fixed.append(True)

    with pytest.raises(RetryRefused, match=r"child mine, .* is failed: `runs retry mine` first, then `runs retry top`"):
        retried(family)
    assert family.state() == "failed"

    retried(family, "mine")
    assert family.state("mine") == "completed"
    retried(family)
    assert (family.state(), family.result()) == ("completed", "1")
    all_quiet(family)


def test_a_child_with_an_id_of_its_own_that_is_undone_can_not_be_had_again(family):
    fixed.clear()
    family.submit(names_a_safe_child)
    assert (family.state(), family.state("mine")) == ("failed", "compensated")

    with pytest.raises(RetryRefused, match="is compensated: that can't be taken up again: submit both anew"):
        retried(family)


def test_a_race_is_retried_while_somebody_new_may_win_it(family):
    fixed.clear()
    family.submit(races_its_child)
    assert family.state() == "failed"
    fixed.append(True)

    retried(family)

    assert (family.state(), family.result()) == ("completed", "1")


@workflow(name="children.names_its_child")
async def names_its_child(run: Run) -> int:
    return await may_fail.s().with_run_id("mine")


@workflow(name="children.races_its_child")
async def races_its_child(run: Run) -> int:
    return (await race(may_fail.s().with_run_id("mine"), may_fail.s())).value


@workflow(name="children.safe_and_bad")
async def safe_and_bad(run: Run) -> int:
    async with Saga(run, "safe") as saga:
        await saga.safe_step("a").with_compensation(undo).execute(do.s(1))
        return await bad.s()


@workflow(name="children.names_a_safe_child")
async def names_a_safe_child(run: Run) -> int:
    return await safe_and_bad.s().with_run_id("mine")


@workflow(name="children.may_fail")
async def may_fail(run: Run) -> int:
    if not fixed:
        raise ValueError("a bug")
    return 1


@workflow(name="children.waits_for_bad")
async def waits_for_bad(run: Run) -> int:
    return await may_fail.s()


def test_a_child_that_succeeds_after_it_has_lost_is_undone_by_its_parent(family):
    """It had ended before the cancel reached it, and its parent had not been told."""
    family.hold = {"short", "children.do"}
    family.submit(undoes_children)
    told, family.engine.store.told = family.engine.store.told, lambda *_: 1  # type: ignore[method-assign]
    finish = family.store.finish

    def not_told(of: PartRef, **more):
        return finish(of, **more) if of.run_id != "top" or of.p == "0" else finish(of._replace(nonce="lost"), **more)

    family.store.finish = not_told  # type: ignore[method-assign]
    family.let_go("children.do")
    assert family.state("top@0.1") == "completed"
    family.let_go("short")
    family.store.finish, family.engine.store.told = finish, told  # type: ignore[method-assign]
    family.sweep()

    assert (family.state(), family.result()) == ("completed", "90")
    assert effects[-1] == "undo 11"
    all_quiet(family)


def test_a_parked_child_that_is_abandoned_lets_its_parent_roll_back(family):
    family.hold = {"long"}
    fixed.clear()
    family.submit(rolls_back_wavering)
    fixed.append(True)
    family.inbox.append("top@1.0")
    family.play()
    assert family.state("top@1.0") == "suspended"
    family.cancel()
    assert (family.state(), family.state("top@1.0")) == ("compensating", "cancelling")

    family.engine.wake("top@1.0", operating.abandon(family.store, "top@1.0", "", []).stop)
    family.play()
    family.let_go("long")
    family.sweep()

    assert (family.state(), family.state("top@1.0"), effects[-1]) == ("cancelled", "cancelled", "undo 70")
    fixed.clear()
    all_quiet(family)


# --- processes die --------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", ["begin", "submit_child", "child_submitted", "child_end", "finish", "told"])
def test_child_completes_parent_never_told(family, monkeypatch, method, after):
    """Whoever starts a child, or tells of its end, dies at any of its writes."""
    family.hold = {"children.do"}
    if method in {"begin", "submit_child", "child_submitted"}:
        family.crash(monkeypatch, method, after=after)
        with pytest.raises(Died):
            family.submit(one, 4)
        family.sweep()
    else:
        family.submit(one, 4)
    ref, spec = family.held.pop("children.do")
    family.hold.clear()
    family._end(ref, spec, spec["token"])
    if method in {"child_end", "finish", "told"}:
        family.crash(monkeypatch, method, after=after)
        with pytest.raises(Died):
            family.play()

    family.sweep()

    assert (family.state(), family.result()) == ("completed", "41")
    assert effects == ["do 4"]
    all_quiet(family)


def test_cancel_child_before_submit(family, monkeypatch):
    """A process has claimed the part, and is slow; meanwhile the parent is cancelled, and the child is told first."""
    slow: list[tuple[object, ...]] = []
    original = family.store.submit_child

    def later(*args, **kwargs):
        slow.append((args, kwargs))
        raise Died

    monkeypatch.setattr(family.store, "submit_child", later)
    with pytest.raises(Died):
        family.submit(waits)
    monkeypatch.setattr(family.store, "submit_child", original)
    family.cancel()
    family.sweep()
    args, kwargs = slow[0]

    code, _ = original(*args, **kwargs)

    assert code == "stopped"
    assert (family.state(), family.state("top@0.0"), effects) == ("cancelled", "", [])
    all_quiet(family)


def test_a_tombstone_is_for_its_parent_alone(family):
    ref = PartRef("top", 0, "0", "n0", 1)
    assert family.store.stop_child("mine", "enough", parent=ref).code == "stopped"
    assert family.redis.pttl(family.store.keys.run("mine")) > 0

    family.submit(child, 3, run_id="mine")

    assert family.state("mine") == "completed"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", ["stop_child", "child_stopped"])
def test_parent_cancelled_parent_killed_before_child_cancel(family, monkeypatch, method, after):
    family.hold = {"long"}
    family.submit(waits)
    family.crash(monkeypatch, method, after=after)
    with pytest.raises(Died):
        family.cancel()

    family.sweep()
    family.let_go("long")
    family.sweep()

    assert (family.state(), family.state("top@0.0")) == ("cancelled", "cancelled")
    assert effects == ["do 1", "do 2", "undo 10"]
    assert [event.kind for event in family.reader.history("top@0.0")].count("run.cancelling") == 1
    all_quiet(family)


def test_a_cancel_that_only_redis_knows_of_reaches_the_child(family):
    family.hold = {"long"}
    family.submit(waits)

    family.store.cancel("top", "by a program without an app", token="c")  # noqa: S106
    family.sweep()
    family.let_go("long")

    assert (family.state(), family.state("top@0.0")) == ("cancelled", "cancelled")
    all_quiet(family)


def test_a_child_that_its_own_shard_has_forgotten_is_started_again(family):
    """Its shard was restored from a copy that is a second older."""
    family.hold = {"children.do"}
    family.submit(one, 4)
    for key in family.redis.scan_iter("*top@0.0*"):
        family.redis.delete(key)
    family.held.clear()
    family.hold.clear()
    for shard in range(4):
        family.redis.incrby(family.store.keys.tick(shard), 3600)

    family.sweep()

    assert family.result() == "41"


def test_a_child_that_is_kept_for_a_moment_is_there_until_its_parent_knows(family, monkeypatch):
    family.crash(monkeypatch, "child_end")
    with pytest.raises(Died):
        family.submit(waits_for_brief)
    assert family.redis.pttl(family.store.keys.run("top@0.0")) > 60_000

    family.sweep()

    assert family.result() == "10"
    assert family.redis.pttl(family.store.keys.run("top@0.0")) < 60_000
