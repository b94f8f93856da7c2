"""Promises: what the outside says, before, while and after somebody waits. Real Redis, real turns, no worker."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from canvas import (
    Answer,
    ConfigError,
    PayloadError,
    Run,
    StepFailed,
    TimedOut,
    fan_out,
    fan_out_fail,
    promise,
    quorum,
    race,
    race_promise_with_timeout,
    step,
    with_timeout,
    workflow,
)
from canvas import engine as engines
from core import current_app
from runs import Runs, part, refs, sleep, stops
from status import get_status, here, reject_promise, resolve_promise
from status.promises import REJECTED
from status.records import NewPart
from turns import Turns

REJECTION = 'e{"step":"ok","error_type":"Rejected","message":"no","code":403}'


def waits(name: str = "ok") -> NewPart:
    return NewPart("promise", "", name)


@pytest.fixture
def run(redis_client) -> Runs:
    return Runs(redis_client)


def resolve(run: Runs, outcome: str = "v1", name: str = "ok", token: str = "") -> Any:
    return run.store.resolve(run.id, name, outcome, token=token or f"resolve{next(run._number)}")


# --- the transition --------------------------------------------------------------------


def test_a_value_decides_the_await_that_waits_for_it_and_owes_a_turn(run):
    run.started(waits())
    assert (run.due(), run.timers(), run.step_state()) == (set(), set(), "waiting")

    answer, ending = resolve(run)

    assert (answer, ending.code) == ("accepted", "decided")
    assert (run.decision(), run.outcome(), run.due(), run.step_state()) == (("all", ""), "v1", {""}, "done")
    assert run.events()[-2:] == ["promise.resolved", "join.decided"]
    assert not run.joined()


def test_resolve_between_check_and_open(run):
    """The value comes after the turn has read the journal and before it opens the await: it is not missed."""
    run.submit()
    answer, ending = resolve(run)
    assert (answer, ending.code, run.due()) == ("accepted", "recorded", {""})

    assert run.open(waits()) == "answered"

    assert (run.decision(), run.outcome(), run.due()) == (("all", ""), "v1", {""})
    assert not run.joined()


def test_a_value_that_came_while_something_else_was_awaited_is_there_when_asked_for(run):
    run.started(part())
    assert resolve(run)[0] == "accepted"
    run.begin()
    assert run.done() == "decided"

    assert run.open(waits(), n=1) == "answered"
    assert run.outcome(n=1) == "v1"


def test_resolve_twice(run):
    run.started(waits())
    assert resolve(run, "v1")[0] == "accepted"
    before = run.everything()

    for outcome in ("v1", "v2", REJECTION):
        answer, ending = resolve(run, outcome)
        assert (answer, ending.code) == ("late", "none")

    assert run.everything() == before
    assert run.open(waits(), n=1) == "answered"
    assert run.outcome(n=1) == "v1"


def test_resolve_reply_lost(run):
    run.started(waits(), part(), policy="first")
    run.begin(1)
    first = resolve(run, token="t")
    before = run.everything()

    again = resolve(run, token="t")

    assert (again, stops(again[1])) == (first, ["a"])
    assert run.everything() == before


def test_resolve_reply_lost_before_anybody_waits(run):
    run.submit()
    first = resolve(run, token="t")

    assert resolve(run, token="t") == first
    assert run.events().count("promise.resolved") == 1


def test_resolve_unknown_run(run):
    assert resolve(run)[0] == "unknown"
    assert run.everything() == {}


def test_resolve_after_the_end_is_late_and_writes_nothing(run):
    run.started(part())
    run.begin()
    run.done()
    run.complete(seen="n0")
    before = run.everything()

    assert resolve(run)[0] == "late"
    assert run.everything() == before


def test_what_was_said_goes_with_its_run(run):
    run.submit()
    resolve(run)
    run.complete(seen="")

    assert run.redis.pexpiretime(run.keys.promises(run.id)) == run.redis.pexpiretime(run.keys.run(run.id)) > 0


@pytest.mark.parametrize("timer_first", [True, False])
def test_resolve_at_due_ms(run, timer_first):
    """Value and timer in the same ms: the first script decides, the other finds nothing, the value stays."""
    run.started(waits(), timeout_ms=60_000)
    if timer_first:
        assert run.fire("join").code == "decided"
        assert (resolve(run)[0], resolve(run)[0]) == ("accepted", "late")
    else:
        assert resolve(run)[1].code == "decided"
        assert run.fire("join").code == "none"

    assert run.decision() == (("timed_out" if timer_first else "all"), "")
    assert (run.timers(), run.due()) == (set(), {""})
    assert run.open(waits(), n=1) == "answered"
    assert run.outcome(n=1) == "v1"


def test_resolve_after_timeout(run):
    """Awaited, timed out, awaited again: what came between the two waits is what the second one sees."""
    run.started(waits(), timeout_ms=60_000)
    run.fire("join")
    assert (run.step_state(), run.due()) == ("stopped", {""})
    assert run.open(waits(), n=1, timeout_ms=60_000) == "opened"

    answer, ending = resolve(run)

    assert (answer, ending.code) == ("accepted", "decided")
    assert (run.outcome(n=1), run.timers()) == ("v1", set())


def test_a_rejection_fails_its_part_and_lets_the_next_of_a_race_begin(run):
    run.started(waits(), part(after_ms=60_000), policy="first")

    answer, ending = resolve(run, REJECTION)

    assert (answer, ending.code, refs(ending)) == ("accepted", "recorded", [("1", 1)])
    assert (run.outcome(), run.step_state(), run.timers(), run.due()) == (REJECTION, "failed", set(), {"0.1"})


def test_an_earlier_rejection_lets_the_next_of_a_race_begin_at_once(run):
    run.submit()
    resolve(run, REJECTION)

    opening = run.opening(waits(), part(after_ms=60_000), part(), policy="first")

    assert (opening.code, opening.waiting) == ("opened", {"1": 1, "2": 1})
    assert (run.timers(), run.due()) == (set(), {"0.1", "0.2"})
    again = run.opening(waits(), part(after_ms=60_000), part(), policy="first")
    assert again == opening


def test_a_promise_that_is_stopped_leaves_nothing_and_can_be_awaited_again(run):
    run.started(waits(), part(), policy="first")
    run.begin(1)
    assert run.done(1) == "decided"
    assert (run.step_state(), run.joined(), run.due(), run.loose(), run.late()) == ("stopped", False, {""}, 0, {})

    assert run.open(waits(), n=1) == "opened"
    assert resolve(run)[1].code == "decided"


def test_a_cancel_stops_a_promise_that_can_be_awaited_again(run):
    run.started(waits())
    assert run.cancel().code == "decided"
    assert not run.joined()

    assert run.open(waits(), n=1) == "opened"
    assert resolve(run)[1].code == "decided"


def test_an_earlier_value_wins_a_race_before_anything_of_it_is_sent(run):
    run.submit()
    resolve(run)

    assert run.open(part(), waits(), part(after_ms=9), sleep(), policy="first") == "answered"

    assert (run.decision(), run.due(), run.timers()) == (("won", "1"), {""}, set())
    assert [run.step_state(p) for p in range(4)] == ["stopped", "done", "stopped", "stopped"]


@pytest.mark.parametrize("early", [True, False])
def test_the_same_promise_twice_in_one_await_ends_in_both_places(run, early):
    run.submit()
    if early:
        resolve(run)
    opened = run.open(waits(), waits("other"), waits(), policy="quorum", need=2)
    assert opened == ("answered" if early else "opened")
    if not early:
        assert resolve(run)[1].code == "decided"

    assert (run.outcome(0), run.outcome(1), run.outcome(2)) == ("v1", None, "v1")
    assert run.redis.hget(run.keys.journal("r"), "0:order") == "0,2"


@pytest.mark.parametrize("outside", [waits(), sleep()])
def test_a_run_is_suspended_once_only_the_outside_is_left_to_wait_for(run, outside):
    run.started(part(), outside, part(), policy="settle")
    run.begin(0)
    run.done(0)
    assert run.state == "running"
    run.begin(2)
    run.retry(2)
    assert run.state == "running"
    run.fire("retry", 2)
    run.begin(2, "b", attempt=2)
    assert run.fail(2, "b", attempt=2) == "recorded"

    assert run.state == "suspended"
    assert run.redis.zrange(run.keys.state(run.shard, "running"), 0, -1) == []


def test_a_cancelled_run_that_waits_for_the_outside_stays_cancelling(run):
    run.started(part())
    run.cancel()
    run.open(part(), waits(), policy="settle", n=1)
    run.begin(n=1)
    run.done(n=1)

    assert run.state == "cancelling"


def test_names_are_taken_as_they_are(run):
    for n, name in enumerate(["|", "a|b", "p", "s0", "-", "0,1", "ü: %d+"]):
        run.submit()
        assert run.open(waits(name), waits("other"), policy="first", n=n) == "opened"
        assert resolve(run, f"v{n}", name)[1].code == "decided"
        assert run.outcome(n=n) == f"v{n}"


# --- in a workflow ---------------------------------------------------------------------

approval = promise("approval", bool)


@step(name="promises.do")
def do(what: str = "") -> int:
    return 1


@workflow(name="promises.waits")
async def waiting(run: Run) -> Any:
    return await approval


@workflow(name="promises.twice")
async def twice(run: Run) -> Any:
    first = await race_promise_with_timeout("approval", bool, 3600)
    try:
        said: Any = first.value
    except TimedOut as error:
        said = str(error)
    second = await race_promise_with_timeout(approval, 3600)
    return [first.timed_out, said, second.timed_out, second.value]


@workflow(name="promises.joined")
async def joined(run: Run, kind: str) -> Any:
    match kind:
        case "fan_out":
            result = await fan_out(do.s(), approval)
            return [list(result.results), [(index, error.message) for index, error in result.bad]]
        case "fan_out_fail":
            return list(await fan_out_fail(approval, approval))
        case "race":
            won = await race(approval, run.sleep(3600))
            return [won.index, won.name, won.value]
        case "quorum":
            return await quorum(2, do.s(), approval, promise("never", str))
        case _:
            return await with_timeout(fan_out_fail(approval, promise("day", date)), 3600)


@pytest.fixture
def turns(redis_client, valkey):
    """A run in this process, of which the world outside knows too."""
    with current_app("promises") as app:
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


def result(turns: Turns) -> Any:
    turns.take()
    assert turns.state == "completed", turns.field("error")
    return json.loads(turns.field("result") or "null")


def begin(turns: Turns, flow: Any, *args: Any) -> None:
    turns.store.submit(
        turns.id, workflow=flow.name, input_json=json.dumps([args, {}]), digest="d", token="t", retention_ms=60_000
    )
    turns.take()


def test_a_run_that_waits_for_a_promise_is_suspended_and_goes_on_with_its_value(turns):
    begin(turns, waiting)
    assert (turns.state, turns.sent, turns.due()) == ("suspended", [], set())

    assert approval.resolve("r", True) is Answer.ACCEPTED

    assert turns.sent == [("r", 0)]
    assert result(turns) is True


def test_a_value_before_the_wait_costs_no_turn_of_its_own(turns):
    turns.submit()
    turns.store.redis.hset(turns.keys.run("r"), "workflow", waiting.name)
    assert resolve_promise("r", "approval", False) == "accepted"
    assert turns.sent == []

    assert result(turns) is False


def test_a_time_that_is_up_and_then_a_value(turns):
    begin(turns, twice)
    assert turns.state == "suspended"
    turns.fire_only()
    assert approval.resolve("r", True) == "accepted"

    assert result(turns) == [True, "promise approval was not resolved within 3600 s", False, True]


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("fan_out", "running", [[1, True], []]),
        ("fan_out_fail", "suspended", [True, True]),
        ("race", "suspended", [0, "approval", True]),
        ("quorum", "running", [[1, True], [0, 1]]),
        ("with_timeout", "suspended", [True, "2026-11-24"]),
    ],
)
def test_a_promise_is_a_part_of_any_join(turns, kind, state, expected):
    begin(turns, joined, kind)
    assert turns.state == state
    resolve_promise("r", "approval", True)
    resolve_promise("r", "day", "2026-11-24")
    if state == "running":
        nonce = turns.redis.hget(turns.keys.join("r", 0), "nonce")
        turns.begin(0, "t", nonce=nonce)
        assert turns.finish("done", 0, "t", nonce=nonce).code == "decided"

    assert result(turns) == expected


def test_a_rejected_promise_is_a_step_that_failed(turns):
    begin(turns, waiting)
    assert approval.reject("r", "not in the budget", code=403) == "accepted"
    turns.take()

    error = get_status("r").error
    assert (turns.state, error.code) == ("failed", 403)
    assert (error.step, error.error_type, error.message) == ("approval", REJECTED, "not in the budget")
    assert reject_promise("r", "approval", "again") == "late"


def test_a_value_that_does_not_fit_parks_the_run_and_undoes_nothing(turns):
    begin(turns, waiting)
    resolve_promise("r", "approval", "perhaps")
    turns.take()

    assert "promise approval" in turns.parked.message


@pytest.mark.parametrize("value", ["perhaps", 3, None])
def test_a_value_of_another_type_is_refused_where_the_type_is_known(turns, value):
    begin(turns, waiting)
    with pytest.raises(PayloadError, match="promise approval"):
        approval.resolve("r", value)

    assert approval.resolve("r", True) == "accepted"


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, "\ud800"])
def test_what_is_not_json_is_refused_where_the_type_is_not_known(turns, value):
    with pytest.raises(PayloadError, match="must be JSON"):
        resolve_promise("r", "approval", value)


def test_mistakes_are_said():
    for name in ["", "x" * 201, "a\nb", 5]:
        with pytest.raises(ConfigError, match="the name of a promise"):
            promise(name, bool)
    with pytest.raises(ConfigError, match="use a dataclass"):
        promise("x", type("Odd", (), {}))
    for time_s in [0, -1, float("nan"), float("inf")]:
        with pytest.raises(ConfigError, match="more than 0 seconds"):
            race_promise_with_timeout("x", bool, time_s)
    with pytest.raises(ConfigError, match="write race_promise_with_timeout"):
        race_promise_with_timeout(approval, bool, 5)
    with pytest.raises(ConfigError, match="run id"):
        approval.resolve("not an id", True)
    with pytest.raises(ConfigError, match="whole number"):
        approval.reject("r", "no", code="403")


def test_a_workflow_can_not_resolve(turns):
    @workflow(name="promises.resolves")
    async def resolves(run: Run) -> None:
        approval.resolve("r", True)

    begin(turns, resolves)

    error = get_status("r").error
    assert (turns.state, error.error_type) == ("failed", "status.errors.ConfigError")
    assert "let a step do it" in error.message


def test_a_promise_keeps_its_own_shorter_time_within_a_longer_one(turns):
    @workflow(name="promises.nested")
    async def nested(run: Run) -> bool:
        return (await with_timeout(race_promise_with_timeout(approval, 5), 3600)).timed_out

    begin(turns, nested)
    turns.fire_only()

    assert result(turns) is True


def test_step_failed_names_the_promise():
    error = approval.failure(REJECTION, 2)
    assert isinstance(error, StepFailed)
    assert (error.step, error.index, error.code, error.message) == ("approval", 2, 403, "no")
