"""Whole turns in this process, on a real Redis: what a turn records, sends, logs and shows. No worker."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from canvas import Cancelled, Run, StepFailed, step, workflow
from canvas.engine import Engine
from canvas.turn import take_turn
from core import current_app
from runs import Runs, refs
from saga import Saga
from status.models import error_from_json

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


class Turns(Runs):
    """A run whose turns are taken here; what they send is in `sent`."""

    def __init__(self, app: Any, client: Any) -> None:
        super().__init__(client)
        self.engine = Engine(app, self.store)
        self.engine.publisher = self  # type: ignore[assignment]
        self.sent: list[tuple[str, int]] = []

    def steps(self, messages: Any, _workflow: str) -> None:
        self.sent += [(ref.step_id, ref.attempt) for ref, _ in messages]

    def turn(self, run_id: str, *_: Any, **__: Any) -> None:
        self.sent.append((run_id, 0))

    def begun(self, flow: Any) -> Turns:
        """Submit a run of `flow` and take its first turn."""
        self.store.submit(self.id, workflow=flow.name, input_json="[[],{}]", digest="d", token="t")  # noqa: S106
        self.take()
        return self

    def take(self, record: Any = None) -> None:
        take_turn(self.engine, self.id, record)

    def end(self, n: int, *, good: bool = True) -> None:
        """Let the one part of await `n` run and end."""
        nonce = self.redis.hget(self.keys.join(self.id, n), "nonce")
        assert self.begin(0, f"t{n}", n=n, nonce=nonce) == "granted"
        assert self.finish("done" if good else "failed", 0, f"t{n}", n=n, nonce=nonce).code == "decided"

    @property
    def parked(self) -> Any:
        assert self.state == "suspended"
        return error_from_json(self.field("error") or "")


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


@pytest.mark.xfail(strict=True, reason="a parked run has no await that a cancel could answer: nothing can end it")
def test_a_parked_run_can_be_cancelled(run):
    path.append("do")
    run.begun(wavering)
    run.end(0)
    path.append("other")
    run.take()
    assert run.state == "suspended"

    run.cancel()
    run.take()

    assert run.state == "cancelled"
