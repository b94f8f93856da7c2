"""A rollback stopped at an undo that gave up: an operator tries it again, leaves it out, or leaves all as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import sagas
from canvas import ConfigError, Retry, Run, TerminalError, step, workflow
from leaks import keys_without_end
from saga import Saga, Strategy, operate
from saga.cli import saga as commands
from saga.log import SagaLog
from saga.operate import NothingOwed, Resumed
from saga.resume import resume
from sagas import World, act, effects, log_states, meet, owed, refuse, take_back
from status import api, doctor_store, operating
from status.errors import OrchestrationError, RetryRefused

#: Where undos of `b` go: closed, they give up.
bank = {"open": False}


@step(name="operate.at_the_bank", retry=Retry(1))
def at_the_bank(it: str | None, name: str) -> None:
    meet(f"undo {name}")
    if not bank["open"]:
        raise TerminalError("the bank is closed", 503)
    sagas._effect(name, -1)


async def three(run: Run, strategy: Strategy) -> None:
    """`b` can't be undone while the bank is closed; `a` is undone after it."""
    async with Saga(run, "order", strategy=strategy) as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        await saga.safe_step("b").with_compensation(at_the_bank, "b").execute(act.s("b"))
        await saga.safe_step("c").with_compensation(take_back, "c").execute(act.s("c"))
        await refuse.s("d")


@workflow(name="operate.order")
async def order(run: Run) -> None:
    await three(run, Strategy.COMPENSATE_ALL)


@workflow(name="operate.best_effort")
async def best_effort(run: Run) -> None:
    await three(run, Strategy.BEST_EFFORT)


@workflow(name="operate.twins")
async def twins(run: Run) -> None:
    async with Saga(run, "order") as saga:
        for _ in range(2):
            await saga.safe_step("b").with_compensation(at_the_bank, "b").execute(act.s("b"))
        await refuse.s("d")


@workflow(name="operate.waits")
async def waits(run: Run) -> None:
    async with Saga(run, "order") as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(act.s("a"))
        await saga.safe_step("b").with_compensation(at_the_bank, "b").execute(act.s("b"))
        await run.sleep(3600)


@pytest.fixture(autouse=True)
def _closed() -> None:
    bank["open"] = False


@pytest.fixture
def stopped(world: World) -> World:
    """Run `r`: `c` is undone, the undo of `b` gave up, `a` is owed too."""
    return stop(world)


def stop(world: World, flow: Any = order) -> World:
    world.submit(flow)
    world.go_on()
    assert world.state() == "compensation_failed"
    return world


def carried_out(world: World, given: Resumed) -> str:
    """Let the run that an operator has started go to its end; its state."""
    world.go_on(given.handle.run_id)
    return world.state(given.handle.run_id) or ""


def told(run_id: str = "r") -> list[tuple[str, str, Any]]:
    """What operators did, and what became of the run since."""
    events = [event for event in api.history(run_id) if event.kind.startswith(("operator.", "run."))]
    return [(event.kind, event.name, dict(event.detail)) for event in events[1:]]


# --- retry ----------------------------------------------------------------------------


def test_retry_goes_on_with_the_rollback_where_it_stopped(stopped: World) -> None:
    assert log_states() == {"a": "done", "b": "undo_failed", "c": "undone"}
    bank["open"] = True
    world = stopped

    given = operate.retry("r", by="ada", reason="the bank is open")
    assert carried_out(world, given) == "completed"

    assert effects() == [("a", 1), ("b", 1), ("c", 1), ("c", -1), ("b", -1), ("a", -1)]
    assert log_states() == {"a": "undone", "b": "undone", "c": "undone"}
    assert world.state() == "compensated"
    assert world.error() == "d is refused", "as if the undo had not given up"
    assert told()[-2:] == [
        ("operator.retry", "", {"by": "ada", "reason": "the bank is open", "run": "r:resume"}),
        ("run.compensated", "", told()[-1][2]),
    ]
    listed = [run.run_id for run in api.list_runs(state="compensated").runs]
    assert (listed, api.list_runs(state="compensation_failed").runs) == (["r"], ())
    assert keys_without_end(world.redis) == []


@pytest.mark.parametrize(("code", "state"), [(409, "cancelled"), (408, "timed_out")])
def test_the_run_ends_as_it_would_have(world: World, code: int, state: str) -> None:
    world.submit(waits)
    world.go_on(until=lambda: world.field("open") == "2")
    world.engine.cancel("r", "enough", code)
    world.go_on()
    assert world.state() == "compensation_failed"
    bank["open"] = True

    carried_out(world, operate.retry("r"))

    assert (world.state(), world.error()) == (state, "enough")


def test_an_undo_that_gives_up_again_has_had_all_its_attempts(stopped: World) -> None:
    world = stopped
    before = world.bodies.count("r#1")

    assert carried_out(world, operate.retry("r")) == "compensation_failed"

    assert (before, world.bodies.count("r#1")) == (1, 2), "a TerminalError is not tried again"
    assert world.state() == "compensation_failed"
    assert log_states() == {"a": "done", "b": "undo_failed", "c": "undone"}
    bank["open"] = True
    assert carried_out(world, operate.retry("r")) == "completed"
    assert world.state() == "compensated"


def test_best_effort_retries_only_what_is_left(world: World) -> None:
    stop(world, best_effort)
    assert log_states() == {"a": "undone", "b": "undo_failed", "c": "undone"}
    bank["open"] = True

    carried_out(world, operate.retry("r"))

    assert effects()[-1] == ("b", -1)
    assert [sum(sign for name, sign in effects() if name == one) for one in "abc"] == [0, 0, 0]
    assert world.state() == "compensated"


# --- skip -----------------------------------------------------------------------------


def test_skip_undoes_the_rest(stopped: World) -> None:
    world = stopped

    assert carried_out(world, operate.skip("r", "b", by="ada", reason="refunded by hand")) == "completed"

    assert effects() == [("a", 1), ("b", 1), ("c", 1), ("c", -1), ("a", -1)]
    assert log_states() == {"a": "undone", "b": "skipped", "c": "undone"}
    noted = SagaLog().find("r#1")
    assert noted is not None
    assert (noted.error or "").startswith("skipped by ada: refunded by hand; before: ")
    assert "the bank is closed" in (noted.error or "")
    assert world.state() == "compensated"
    detail = {"by": "ada", "reason": "refunded by hand", "run": "r:resume"}
    assert told()[-2][:3] == ("operator.skip", "b", detail)


def test_skip_of_all_that_is_owed_ends_the_rollback_well(stopped: World) -> None:
    world = stopped

    carried_out(world, operate.skip("r", "#0", "1", reason="by hand"))

    assert log_states() == {"a": "skipped", "b": "skipped", "c": "undone"}
    assert world.state() == "compensated"
    assert effects()[-1] == ("c", -1)


def test_what_is_not_skipped_and_gave_up_is_tried_again(stopped: World) -> None:
    world = stopped

    assert carried_out(world, operate.skip("r", "a", reason="not wanted")) == "compensation_failed"

    assert log_states() == {"a": "skipped", "b": "undo_failed", "c": "undone"}
    assert world.bodies.count("r#1") == 2


def test_entries_of_one_name_are_told_apart_by_number_or_key(world: World) -> None:
    stop(world, twins)

    with pytest.raises(ConfigError, match="2 entries 'b' that are not undone: name one by its key: r#0, r#1"):
        operate.skip("r", "b", reason="by hand")
    carried_out(world, operate.skip("r", "r#0", "#1", reason="by hand"))
    assert world.state() == "compensated"


# --- abort ----------------------------------------------------------------------------


def test_abort_undoes_nothing_more_and_keeps_on_record_what_was_owed(stopped: World) -> None:
    world = stopped
    done = effects()
    bank["open"] = True

    assert carried_out(world, operate.abort("r", by="ada", reason="the customer keeps it")) == "completed"

    assert effects() == done
    assert log_states() == {"a": "aborted", "b": "aborted", "c": "undone"}
    assert world.state() == "compensation_failed", "what it did is not undone"
    assert owed() == []
    assert told()[-1][:2] == ("operator.abort", "b, a")
    for verb in (operate.retry, resume):
        with pytest.raises(NothingOwed, match="run r owes no undo"):
            verb("r")


def test_the_doctor_warns_until_nothing_is_owed_any_more(stopped: World) -> None:
    carried_out(stopped, operate.retry("r"))
    assert stopped.state("r:resume") == "compensation_failed"
    assert doctor_store.still_owing(["r", "r:resume", "unknown"]) == ["r", "r:resume", "unknown"]

    carried_out(stopped, operate.abort("r", reason="so be it"))

    assert doctor_store.still_owing(["r", "r:resume", "unknown"]) == ["unknown"]


def test_an_abandoned_run_that_was_resumed_is_cancelled_and_warned_of_no_more(world: World) -> None:
    world.submit(waits)
    world.go_on(until=lambda: world.field("open") == "2")
    operating.abandon(world.store, "r", "its code is gone", ["a", "b"])
    assert world.state() == "compensation_failed"
    bank["open"] = True

    carried_out(world, resume("r"))

    assert world.state() == "cancelled"
    assert doctor_store.still_owing(["r"]) == []
    with pytest.raises(RetryRefused, match="run r is cancelled, and run r:resume undoes what it did"):
        operating.retry(world.store, "r")


# --- what is refused ------------------------------------------------------------------


def test_a_run_that_goes_on_undoes_what_it_owes_itself(world: World) -> None:
    world.submit(order)
    world.go_on(until=lambda: world.state() == "compensating")

    for verb in (operate.retry, operate.abort, lambda run_id, **why: operate.skip(run_id, "b", **why)):
        with pytest.raises(ConfigError, match="run r is compensating: it undoes what it owes itself"):
            verb("r", reason="why not")


def test_one_instruction_at_a_time(stopped: World) -> None:
    operate.retry("r")

    for verb in (operate.retry, operate.abort, lambda run_id, **why: operate.skip(run_id, "b", **why)):
        with pytest.raises(ConfigError, match="run r:resume undoes what r owes now: wait for it, or `runs cancel"):
            verb("r", reason="why not")
    stopped.go_on("r:resume")
    carried_out(stopped, operate.skip("r", "b", reason="by hand"))
    assert stopped.state() == "compensated"


@pytest.mark.parametrize(
    ("give", "said"),
    [
        (lambda: operate.skip("r", "x", reason="?"), r"no entry 'x'; owed, newest first: b \(#1, gave up\), a \(#0\)"),
        (lambda: operate.skip("r", "c", reason="?"), "the entry 'c' of run r is undone already; owed, newest first: b"),
        (lambda: operate.skip("r", reason="?"), "say which undo of run r is to be skipped: owed, newest first: b"),
        (lambda: operate.skip("r", "b", reason=" "), "skip needs a reason"),
        (lambda: operate.abort("r", reason=""), "abort needs a reason"),
        (lambda: operate.retry("nobody"), "run nobody owes no undo"),
        (lambda: operate.skip("nobody", "b", reason="?"), "run nobody owes no undo"),
        (lambda: operate.retry("r:resume"), "run r:resume undoes what run r owes: name that one"),
    ],
)
def test_what_does_not_apply_is_refused_and_changes_nothing(stopped: World, give: Any, said: str) -> None:
    before = (log_states(), told(), stopped.state())

    with pytest.raises(OrchestrationError, match=said):
        give()

    assert (log_states(), told(), stopped.state()) == before
    assert stopped.inbox == []


def test_a_stopped_step_that_still_runs_is_waited_for(stopped: World) -> None:
    stopped.redis.hset(stopped.store.keys.run("r"), "loose", 1)

    with pytest.raises(ConfigError, match="1 of its stopped steps still run"):
        operate.retry("r")


# --- twice, killed, wiped -------------------------------------------------------------

GIVE: dict[str, Callable[[], Resumed]] = {
    "retry": lambda: operate.retry("r", token="t"),  # noqa: S106
    "skip": lambda: operate.skip("r", "b", reason="by hand", token="t"),  # noqa: S106
    "abort": lambda: operate.abort("r", reason="so be it", token="t"),  # noqa: S106
}


@pytest.mark.parametrize("verb", GIVE)
def test_the_same_token_is_the_same_instruction(stopped: World, verb: str) -> None:
    bank["open"] = True
    first = GIVE[verb]()
    meanwhile = GIVE[verb]()
    carried_out(stopped, first)
    done, ended = effects(), told()
    again = GIVE[verb]()

    assert [one.started for one in (first, meanwhile, again)] == [True, False, False]
    assert {one.handle.run_id for one in (first, meanwhile, again)} == {"r:resume"}
    assert (effects(), told()) == (done, ended)
    assert [kind for kind, _, _ in ended].count(f"operator.{verb}") == 1


@pytest.mark.parametrize(
    ("verb", "left", "state"),
    [
        ("retry", {"a": "undone", "b": "undone", "c": "undone"}, "compensated"),
        ("skip", {"a": "undone", "b": "skipped", "c": "undone"}, "compensated"),
        ("abort", {"a": "aborted", "b": "aborted", "c": "undone"}, "compensation_failed"),
    ],
)
def test_killed_at_each_write(world: World, verb: str, left: dict[str, str], state: str) -> None:
    """The operator's process, or the worker's: who gives the instruction again, with its token, gets what he wanted."""
    kills = 0
    while True:
        world.redis.flushall()
        world.inbox.clear()
        sagas.forget_all()
        world.kill_at, world.died, bank["open"] = -1, "", False
        world.start()
        stop(world)
        bank["open"] = True
        world.kill_at, world.points = kills, 0
        try:
            given = GIVE[verb]()
        except sagas.Killed:
            world.start()
            given = GIVE[verb]()
        assert carried_out(world, given) == "completed", world.died

        assert log_states() == left, world.died
        assert world.state() == state, world.died
        undone = [name for name, sign in effects() if sign < 0]
        assert undone == ["c", *(name for name in "ba" if left[name] == "undone")], world.died
        assert [kind for kind, _, _ in told()].count(f"operator.{verb}") == 1, world.died
        assert keys_without_end(world.redis) == [], world.died
        if not world.died:
            break
        kills += 1
    assert kills > 20


def test_after_a_wiped_redis_resume_is_the_way(stopped: World) -> None:
    stopped.redis.flushall()
    stopped.start()

    with pytest.raises(ConfigError, match="run r is not in Redis any more: `runs saga resume r`"):
        operate.retry("r")
    bank["open"] = True
    assert carried_out(stopped, resume("r")) == "completed"
    assert owed() == []


@pytest.mark.parametrize("verb", ["skip", "abort"])
def test_what_can_not_be_undone_is_settled_from_the_log_alone(stopped: World, verb: str) -> None:
    stopped.redis.flushall()
    stopped.start()
    carried_out(stopped, resume("r"))
    assert log_states()["b"] == "undo_failed"

    carried_out(stopped, GIVE[verb]())

    assert owed() == []
    assert stopped.state() is None


def test_an_instruction_that_is_lost_with_redis_is_given_again(stopped: World) -> None:
    operate.skip("r", "b", reason="by hand")
    stopped.redis.flushall()
    stopped.inbox.clear()
    stopped.start()

    carried_out(stopped, operate.skip("r", "b", reason="by hand"))

    assert log_states() == {"a": "undone", "b": "skipped", "c": "undone"}


def test_a_run_that_failed_is_not_taken_up_while_it_is_undone(world: World) -> None:
    """`retry` of the run and `resume` of what it owes exclude each other, whichever comes first."""
    world.submit(waits)
    world.go_on(until=lambda: world.field("open") == "2")
    operating.abandon(world.store, "r", "", [])  # as if it owed nothing: it may be taken up again
    assert world.state() == "cancelled"
    given = resume("r")
    operating.retry(world.store, "r")

    assert carried_out(world, given) == "failed"
    assert "run r is running again" in world.error(given.handle.run_id)
    assert effects() == [("a", 1), ("b", 1)]


# --- the command line -----------------------------------------------------------------


@pytest.fixture
def shell(stopped: World, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `celery -A … runs saga …` in this process."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("LOGNAME", "ada")
    context = SimpleNamespace(app=stopped.app)
    return lambda *words: CliRunner().invoke(commands, list(words), obj=context)


@pytest.mark.parametrize(
    ("words", "said", "event"),
    [
        (["retry", "r"], "r: 2 owed, is being undone by run r:resume", "operator.retry"),
        (
            ["skip", "r", "b", "--reason", "by hand"],
            "r: without b; 1 owed, is being undone by run r:resume",
            "operator.skip",
        ),
        (["skip", "r", "a", "b", "--reason", "x"], "r: without a, b; that is noted by run r:resume", "operator.skip"),
        (["abort", "r", "--reason", "x"], "r: 2 owed, nothing more is undone; that is noted by", "operator.abort"),
    ],
)
def test_the_command_line_gives_instructions(
    stopped: World, shell: Callable[..., Result], words: list[str], said: str, event: str
) -> None:
    result = shell(*words)

    assert result.exit_code == 0, result.output
    assert said in result.stdout
    stopped.go_on("r:resume")
    (found,) = [one for one in told() if one[0] == event]
    assert found[2]["by"] == "ada", "the user of the shell"


def test_the_command_line_says_who_and_gives_json(stopped: World, shell: Callable[..., Result]) -> None:
    result = shell("skip", "r", "b", "--reason", "by hand", "--by", "grace", "--json")

    assert json.loads(result.stdout) == {"run_id": "r", "verb": "skip", "by": "r:resume", "entries": 2}
    stopped.go_on("r:resume")
    assert "skipped by grace: by hand" in shell("show", "r").stdout
    assert "no saga owes anything" in shell("list", "--open").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["skip", "r", "b"], "Missing option '--reason'"),
        (["skip", "r", "--reason", "x"], "Missing argument 'ENTRY...'"),
        (["skip", "r", "x", "--reason", "x"], "run r has no entry 'x'; owed, newest first: b"),
        (["abort", "r"], "Missing option '--reason'"),
        (["retry", "nobody"], "run nobody owes no undo"),
    ],
)
def test_what_the_command_line_refuses(shell: Callable[..., Result], words: list[str], said: str) -> None:
    result = shell(*words)

    assert result.exit_code == 2
    assert said in result.stderr
