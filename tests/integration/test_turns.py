"""Whole turns in this process, on a real Redis: what a turn records, sends, logs and shows. No worker."""

from __future__ import annotations

import logging
from itertools import count
from typing import Any

import pytest

from canvas import Cancelled, Run, StepFailed, step, workflow
from canvas.turn import STARTS
from core import current_app
from runs import refs, stops
from saga import Saga
from status import operating
from status.models import error_from_json
from status.records import Opening
from turns import Turns

path: list[str] = []


@step(name="turns.do")
def do(what: str = "") -> int:
    return 1


@step(name="turns.other")
def other() -> int:
    return 1


@step(name="turns.undo")
def undo(it: int | None) -> None: ...


@workflow(name="turns.two")
async def two(run: Run) -> int:
    return await do.s() + await other.s()


@workflow(name="turns.wavering")
async def wavering(run: Run) -> int:
    """Goes where `path` says, as code does that asks the clock."""
    if path[-1] == "ends":
        return 0
    return await (do.s() if path[-1] == "do" else other.s())


@workflow(name="turns.two_ways")
async def two_ways(run: Run) -> int:
    await (do.s() if path[-1] == "two" else other.s())
    return await other.s()


@workflow(name="turns.endless")
async def endless(run: Run) -> int:
    while True:
        try:
            return await do.s()
        except BaseException:  # noqa: BLE001, S110
            pass


@workflow(name="turns.talks")
async def talks(run: Run) -> None:
    async with Saga(run, "s") as saga:
        try:
            await saga.safe_step("a").with_compensation(undo).execute(do.s())
        except (StepFailed, Cancelled):
            run.log.error("it went wrong", n=1)  # noqa: TRY400  # a log of ours
            raise


@pytest.fixture
def run(redis_client):
    with current_app("turns") as app:
        yield Turns(app, redis_client)


def test_a_run_goes_from_await_to_await_to_its_end(run):
    run.begun(two)
    assert run.sent == [("r/0.0", 1)]
    run.end(0)
    run.take()
    assert run.sent[1:] == [("r/1.0", 1)]
    run.end(1)
    run.take()

    assert (run.state, run.field("result")) == ("completed", "2")
    assert run.due() == set()


def test_a_second_turn_sends_what_nobody_has_begun_and_opens_nothing(run):
    run.begun(two)
    before = run.everything()

    run.take()

    assert run.sent == [("r/0.0", 1)] * 2
    assert run.everything() == before


def test_a_turn_that_was_overtaken_starts_over_by_itself(run):
    run.begun(two)
    stale = run.store.load("r")
    run.end(0)

    run.take(stale)

    assert run.sent[1:] == [("r/1.0", 1)]


@pytest.mark.parametrize("then", ["other", "ends"])
@pytest.mark.parametrize("recorded", [False, True], ids=["open", "recorded"])
def test_another_way_than_before_parks_the_run_and_the_old_way_goes_on(run, then, recorded):
    path.append("do")
    run.begun(wavering)
    if recorded:
        run.end(0)
    path.append(then)
    run.take()

    assert run.parked.error_type == "status.errors.NonDeterministic"
    assert "await 0 of run r" in run.parked.message

    path.append("do")
    if not recorded:
        run.end(0)
    run.take()
    assert (run.state, run.field("result"), run.field("error")) == ("completed", "1", None)


def test_a_workflow_that_does_not_let_go_is_shown(run):
    run.begun(endless)

    assert "does not let go" in run.parked.message


def test_what_a_workflow_logs_is_let_out_once(run, caplog):
    caplog.set_level(logging.INFO, "celeriac.run")
    run.begun(talks)
    run.end(0, good=False)
    for _ in range(3):
        run.take()

    said = [record.getMessage() for record in caplog.records if record.name == "celeriac.run"]
    assert said == ["r: it went wrong (n=1)"]
    assert refs(run.release(0, n=2)) == []
    assert run.state == "compensating"


def test_cancel_between_decision_and_next_open_logs_once(run, caplog):
    caplog.set_level(logging.INFO, "celeriac.run")
    run.store.submit("r", workflow=talks.name, input_json="[[],{}]", digest="d", token="t")  # noqa: S106
    run.cancel()

    run.take()

    assert run.state == "cancelled"
    assert [record.getMessage() for record in caplog.records if record.name == "celeriac.run"] == [
        "r: it went wrong (n=1)"
    ]


def parked(run) -> Any:
    """Await 0 has succeeded, and the code no longer fits."""
    path.append("do")
    run.begun(wavering)
    run.end(0)
    path.append("other")
    run.take()
    assert run.state == "suspended"
    return run


def test_a_parked_run_can_be_cancelled(run):
    parked(run).cancel()

    run.take()

    assert run.state == "cancelling"
    assert error_from_json(run.field("error")).error_type == "status.errors.NonDeterministic"


def test_a_parked_run_that_was_cancelled_stops_once_the_code_fits(run):
    path.append("two")
    run.begun(two_ways)
    run.end(0)
    path.append("other")
    run.take()
    run.cancel()
    path.append("two")

    run.take()

    assert (run.state, error_from_json(run.field("error")).code) == ("cancelled", 409)


def test_a_parked_run_can_be_abandoned(run):
    ending = operating.abandon(parked(run).store, "r", "of no use", [])

    assert (ending.code, run.state) == ("abandoned", "cancelled")
    assert error_from_json(run.field("error")).message == "abandoned: of no use"
    assert run.due() == set()


def test_what_an_abandoned_run_owes_is_in_its_state_and_error(run):
    operating.abandon(parked(run).store, "r", "", ["charge", "reserve"])

    assert run.state == "compensation_failed"
    assert error_from_json(run.field("error")).message == "abandoned; not undone: charge, reserve"


def test_abandoning_stops_what_runs_and_lets_no_outcome_in(run):
    run.begun(two)
    nonce = run.redis.hget(run.keys.join("r", 0), "nonce")
    run.begin(0, "a", nonce=nonce, interruptible=True)

    ending = run.store.abandon("r", "", token="x", state="cancelled", error="{}")  # noqa: S106
    again = run.store.abandon("r", "", token="x", state="cancelled", error="{}")  # noqa: S106

    assert (stops(ending), again) == (["a"], ending)
    assert run.store.abandon("r", "", token="y", state="cancelled", error="{}").code == "late"  # noqa: S106
    run.done(0, "a", nonce=nonce)
    run.take()
    assert (run.state, run.loose(), run.joined()) == ("cancelled", 0, False)


@pytest.mark.parametrize("moves_on", [False, True])
def test_a_turn_that_starts_over_and_over_leaves_its_process_to_others(run, monkeypatch, moves_on):
    run.store.submit(run.id, workflow=two.name, input_json="[[],{}]", digest="d", token="t")  # noqa: S106
    opens = count(1)

    def moved(*_: Any, **__: Any) -> Opening:
        number = next(opens)
        if moves_on:
            run.redis.hset(run.keys.run(run.id), "seen", f"n{number}")
        return Opening("moved")

    monkeypatch.setattr(run.store, "open_join", moved)

    run.take()

    assert next(opens) == STARTS + 1
    # Where nothing moves nothing is gained by another turn at once: it is due, and the sweep looks again later.
    assert run.sent == ([(run.id, 0)] if moves_on else [])
