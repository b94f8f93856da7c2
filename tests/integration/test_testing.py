"""`canvas.testing`: what users are told of it, each by a test; what passes there passes in life."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pytest

from canvas import (
    Cancelled,
    ConfigError,
    Retry,
    Run,
    RunCancelled,
    RunFailed,
    ServiceClient,
    TerminalError,
    TimedOut,
    channel,
    process_batch,
    promise,
    race,
    race_promise_with_timeout,
    step,
    workflow,
)
from canvas.testing import Fake, Workflows
from core import current_app
from processes import client_of
from saga import Saga
from status import RunStatus, State, get_status, history, virtual
from status.scripts import RUN_SCRIPTS
from waiting import wait_until

approval = promise("approval", bool)
amounts = channel("amounts", int)


@step(name="played.pay", retry=Retry(4, first_s=10, factor=2))
def pay(cents: int) -> str:
    return f"paid {cents}"


@step(name="played.refund")
def refund(receipt: str | None, why: str = "") -> None: ...


@step(name="played.ship", timeout_s=5, retry=Retry(2, first_s=1))
def ship(to: str) -> str:
    return f"shipped to {to}"


@step(name="played.stop", interruptible=True)
def stoppable(name: str) -> str:
    return name


@workflow(name="played.order")
async def order(run: Run, cents: int, to: str) -> str:
    async with Saga(run, "order") as saga:
        run.update_status(phase="paying")
        paid = await saga.safe_step("pay").with_compensation(refund, "undone").execute(pay.s(cents))
        run.update_status(phase="asking", progress=0.5)
        answer = await race_promise_with_timeout(approval, 24 * 3600)
        if answer.timed_out or not answer.value:
            raise TerminalError("nobody said yes", code=403)
        run.update_status(phase="shipping")
        shipped = await ship.s(to)
    return f"{paid}, {shipped}"


@workflow(name="played.parent")
async def parent(run: Run, cents: int) -> str:
    return "child: " + await order.s(cents, "Oslo")


@workflow(name="played.sleepy")
async def sleepy(run: Run) -> str:
    before = run.now()
    try:
        await run.sleep(3600)
    except Cancelled:
        await pay.s(1)
        raise
    return f"{(run.now() - before).total_seconds():.0f}"


@workflow(name="played.racing")
async def racing(run: Run) -> str:
    winner = await race(pay.s(1).named("stripe"), pay.s(2).named("paypal").after(5))
    return f"{winner.name} {winner.value}"


stock = ServiceClient("elsewhere", "reserve", int, str, timeout_s=60, retry=Retry(2, first_s=3))


@workflow(name="played.serviced")
async def serviced(run: Run, n: int) -> str:
    return await stock.s(n)


@workflow(name="played.batch")
async def batch(run: Run, n: int) -> int:
    found = await process_batch(pay, range(n), 3, settle=True)
    return found.failed


@pytest.fixture(scope="module", autouse=True)
def app() -> Iterator[Any]:
    with current_app("played") as made:
        yield made


@pytest.fixture
def flows(app: Any) -> Iterator[Workflows]:
    with Workflows(app) as made:
        yield made


# --- going on ----------------------------------------------------------------------


def test_a_step_without_a_fake_runs_for_real(flows):
    run = flows.start(order.s(5, "Oslo"))
    run.resolve(approval, True)

    assert run.result() == "paid 5, shipped to Oslo"
    assert run.calls() == [(5,), ("Oslo",)]


def test_a_day_of_waiting_takes_no_time(flows):
    began_s = monotonic()

    run = flows.start(order.s(5, "Oslo"))
    run.advance(hours=23, minutes=59)
    assert (run.state, run.phase) == (State.SUSPENDED, "asking")
    run.advance(minutes=1)

    assert monotonic() - began_s < 10
    assert run.state is State.COMPENSATED
    assert run.undone == ["pay"]
    assert run.calls(refund) == [("paid 5", "undone")]
    with pytest.raises(RunFailed, match="nobody said yes") as failed:
        run.result()
    assert failed.value.code == 403


def test_what_the_outside_says_may_be_planned(flows):
    run = flows.start(order.s(5, "Oslo"))
    flows.later(lambda: run.resolve(approval, True), hours=7)

    assert run.result() == "paid 5, shipped to Oslo"
    assert [seen.at_s for seen in run.attempts(ship)] == [7 * 3600]


def test_a_promise_may_be_rejected_or_answered_by_its_name(flows):
    first, second = flows.start(order.s(5, "Oslo")), flows.start(order.s(5, "Oslo"))

    first.reject(approval, "no way", code=451)
    assert second.resolve("approval", True) == "accepted"
    assert second.resolve("approval", False) == "late"

    with pytest.raises(RunFailed, match="no way"):
        first.result()
    assert second.result() == "paid 5, shipped to Oslo"


def test_messages_are_sent_to_a_run(flows):
    @workflow(name="played.adds")
    async def adds(run: Run) -> int:
        return await amounts.receive() + await amounts.receive()

    flows.app.finalize()
    run = flows.start(adds.s())
    with pytest.raises(TimedOut, match="waits for a message on channel amounts"):
        run.result()

    assert [run.send(amounts, amount) for amount in (3, 4)] == ["accepted", "accepted"]
    assert run.result() == 7


def test_a_cancel_is_seen_by_the_workflow(flows):
    run = flows.start(sleepy.s())
    run.cancel("we close")

    with pytest.raises(RunCancelled, match="we close"):
        run.result()
    assert run.calls(pay) == [(1,)]


def test_time_in_the_workflow_is_the_virtual_one(app):
    with Workflows(app, now=datetime(2030, 1, 1, tzinfo=UTC)) as flows:
        run = flows.start(sleepy.s())

        assert run.result() == "3600"
        assert flows.now == datetime(2030, 1, 1, 1, tzinfo=UTC)
        assert run.events[0].at == datetime(2030, 1, 1, tzinfo=UTC)
        assert run.events[-1].at == flows.now


def test_a_deadline_of_the_run_is_kept(flows):
    run = flows.start(order.s(5, "Oslo"), timeout_s=60)
    run.advance(seconds=61)

    assert run.state is State.TIMED_OUT
    assert run.undone == ["pay"]


# --- fakes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fake", "attempts"),
    [
        ("a value", 1),
        (lambda cents: f"got {cents}", 1),
        (Fake.returns("x", takes_s=60), 1),
        (Fake.sequence(OSError("x"), ValueError, "x"), 3),
        (Fake.fails(OSError("x")).times(3).then("x"), 4),
        (Fake.calls(str), 1),
    ],
)
def test_a_fake_is_what_the_step_does(flows, fake, attempts):
    run = flows.start(order.s(5, "Oslo"), fakes={pay: fake, "played.ship": "nowhere"})
    flows.play_until(lambda: run.phase == "asking")
    run.resolve(approval, True)

    assert run.result().endswith(", nowhere")
    assert len(run.attempts(pay)) == attempts


def test_a_failing_fake_is_retried_as_the_step_says(flows):
    run = flows.start(order.s(5, "Oslo"), fakes={pay: OSError("no line")})

    with pytest.raises(RunFailed, match="no line"):
        run.result()
    assert [(seen.number, seen.at_s, seen.outcome) for seen in run.attempts(pay)] == [
        (1, 0, "retried"),
        (2, 10, "retried"),
        (3, 30, "retried"),
        (4, 70, "failed"),
    ]


def test_a_text_fails_for_good(flows):
    run = flows.start(order.s(5, "Oslo"), fakes={pay: Fake.fails("card refused", code=402)})

    with pytest.raises(RunFailed, match="card refused") as failed:
        run.result()
    assert failed.value.code == 402
    assert len(run.attempts(pay)) == 1


def test_calls_of_one_step_are_told_apart_by_their_labels(flows):
    run = flows.start(
        racing.s(), fakes={"stripe": Fake.returns("s", takes_s=60), "paypal": Fake.returns("p", takes_s=1)}
    )

    assert run.result() == "paypal p"
    assert [(seen.label, seen.at_s) for seen in run.attempts(pay)] == [("stripe", 0), ("paypal", 5)]


def test_a_step_that_hangs_runs_into_its_time_limit_and_is_retried(flows):
    run = flows.start(order.s(5, "Oslo"), fakes={ship: Fake.hangs()})
    run.resolve(approval, True)

    with pytest.raises(RunFailed) as failed:
        run.result()
    assert failed.value.error_type.endswith("StepTimeout")
    assert [(seen.at_s, seen.outcome) for seen in run.attempts(ship)] == [(0, "stopped"), (6, "stopped")]


def test_a_workflow_may_have_a_fake_where_it_is_a_child(flows):
    assert flows.start(parent.s(5), fakes={order: "done"}).result() == "child: done"
    slow = flows.start(parent.s(5), fakes={order: Fake.fails("no", code=410).then("x")})

    with pytest.raises(RunFailed, match="no") as failed:
        slow.result()
    assert failed.value.code == 410
    assert slow.calls(order) == [(5, "Oslo")]


def test_a_child_has_its_parents_fakes(flows):
    run = flows.start(parent.s(5), fakes={pay: "faked", ship: "nothing"})
    child = flows.run(f"{run.run_id}@0.0")
    child.resolve(approval, True)

    assert run.result() == "child: faked, nothing"
    assert child.result() == "faked, nothing"
    assert flows.attempts(pay) == child.attempts(pay)


def test_a_service_is_its_fake(flows):
    run = flows.start(serviced.s(7), fakes={stock: Fake.fails(OSError("no line")).then("r7")})

    assert run.result() == "r7"
    assert [(seen.args, seen.at_s) for seen in run.attempts("elsewhere.reserve")] == [((7,), 0), ((7,), 3)]
    with pytest.raises(RunFailed, match="no answer within 60 s from queue 'celery'"):
        flows.start(serviced.s(7), fakes={stock: Fake.hangs()}).result()
    with pytest.raises(ConfigError, match=r"'elsewhere.reserve' lives in another code base: give it a fake"):
        flows.start(serviced.s(7))


def test_fakes_of_a_run_go_before_those_of_all(app):
    with Workflows(app, fakes={pay: "all", ship: "all"}) as flows:
        run = flows.start(order.s(5, "Oslo"), fakes={pay: "own"})
        run.resolve(approval, True)

        assert run.result() == "own, all"


def test_each_item_of_a_batch_asks_its_fake(flows):
    def odd_ones_fail(cents: int) -> str:
        if cents % 2:
            raise TerminalError("odd")
        return "x"

    run = flows.start(batch.s(10), fakes={pay: odd_ones_fail})

    assert run.result() == 5
    assert sorted(run.calls(pay)) == [(n,) for n in range(10)]


# --- what dies ---------------------------------------------------------------------


def test_a_worker_that_dies_before_the_effect_is_replaced(flows):
    run = flows.start(order.s(5, "Oslo"), fakes={pay: Fake.dies().then("x")})
    flows.play_until(lambda: run.phase == "asking")

    assert [(seen.number, seen.outcome) for seen in run.attempts(pay)] == [(1, "died"), (1, "done")]
    assert len({seen.idempotency_key for seen in run.attempts(pay)}) == 1


def test_a_worker_that_dies_after_the_effect_has_it_twice(flows):
    booked = []
    run = flows.start(
        order.s(5, "Oslo"),
        fakes={
            pay: Fake.dies_after(lambda cents: booked.append(cents) or "x").then(
                lambda cents: booked.append(cents) or "y"
            )
        },
    )
    flows.play_until(lambda: run.phase == "asking")

    assert booked == [5, 5]


MOMENTS = [
    f"{side} {what}"
    for what in ("submit", "open_join", "publish", "begin", "finish", "complete", "resolve")
    for side in ("before", "after")
]


@pytest.mark.parametrize("when", MOMENTS)
def test_a_run_goes_on_whatever_dies(flows, when):
    flows.crash(when)
    run = flows.start(order.s(5, "Oslo"))
    flows.play_until(lambda: run.phase == "asking")
    run.resolve(approval, True)

    assert run.result() == "paid 5, shipped to Oslo"
    assert run.phases == ["paying", "asking", "shipping"]


@pytest.mark.parametrize("when", [f"{side} {what}" for side in ("before", "after") for what in ("fire", "release")])
def test_a_run_goes_on_when_whoever_sweeps_dies(flows, when):
    flows.crash(when)
    run = flows.start(order.s(5, "Oslo"), fakes={pay: Fake.fails(OSError("x")).then(Fake.dies()).then("x")})
    run.advance(minutes=2)

    assert run.phase == "asking"


@pytest.mark.parametrize("when", [f"{side} {what}" for side in ("before", "after") for what in ("child", "told")])
def test_a_parent_goes_on_when_a_process_between_it_and_its_child_dies(flows, when):
    flows.crash(when)
    run = flows.start(parent.s(5))
    run.advance(minutes=1)
    flows.run(f"{run.run_id}@0.0").resolve(approval, True)

    assert run.result() == "child: paid 5, shipped to Oslo"


def test_a_cancel_whose_client_dies_is_done(flows):
    flows.crash("after cancel")
    run = flows.start(sleepy.s())
    run.cancel()

    assert run.end() is State.CANCELLED


def test_a_crash_may_be_for_one_step(flows):
    flows.crash("before finish", step=pay, times=2)
    run = flows.start(order.s(5, "Oslo"))
    flows.play_until(lambda: run.phase == "asking")
    run.resolve(approval, True)

    assert run.result() == "paid 5, shipped to Oslo"
    assert [len(run.attempts(it)) for it in (pay, ship)] == [3, 1]


def test_a_killed_loser_is_stopped(flows):
    @workflow(name="played.losing")
    async def losing(run: Run) -> str:
        return (await race(stoppable.s("slow"), pay.s(1))).value

    flows.app.finalize()
    run = flows.start(losing.s(), fakes={stoppable: Fake.returns("x", takes_s=99), pay: Fake.returns("y", takes_s=2)})

    assert run.result() == "y"
    assert [seen.outcome for seen in run.attempts(stoppable)] == ["stopped"]


# --- looking -----------------------------------------------------------------------


def test_what_happened_can_be_asserted_in_order(flows):
    run = flows.start(order.s(5, "Oslo"))
    run.resolve(approval, False)

    run.assert_in_order("step.done played.pay", "promise.resolved approval", "saga.undone pay", "run.compensated")
    with pytest.raises(AssertionError, match=r"'saga.undone pay' did not happen after 'run.compensated'") as said:
        run.assert_in_order("run.compensated", "saga.undone pay")
    assert "step.done played.pay" in str(said.value)


def test_the_status_functions_see_the_run(flows):
    run = flows.start(order.s(5, "Oslo"), run_id="order-5")

    assert get_status("order-5") == run.status
    assert run.status.progress == 0.5


# --- mistakes ----------------------------------------------------------------------


def test_strict_refuses_a_step_without_a_fake(app):
    with Workflows(app, strict=True, fakes={pay: "x"}) as flows:
        run = flows.start(order.s(5, "Oslo"))
        with pytest.raises(ConfigError, match=r"step 'played.ship' has no fake, and strict=True: .* Fake.real\(\)"):
            run.resolve(approval, True)


def test_strict_runs_what_is_said_to_be_real(app):
    with Workflows(app, strict=True, fakes={pay: Fake.real(), ship: "x"}) as flows:
        run = flows.start(order.s(5, "Oslo"))
        run.resolve(approval, True)

        assert run.result() == "paid 5, x"


def test_a_run_that_waits_for_the_outside_says_for_what(flows):
    @workflow(name="played.waiting")
    async def waiting(run: Run) -> bool:
        return await approval

    flows.app.finalize()
    run = flows.start(waiting.s())

    with pytest.raises(TimedOut, match=r"waits for the promise 'approval': run.resolve\('approval', value\)"):
        run.result()


def test_a_run_without_an_end_is_given_up(app):
    @workflow(name="played.endless")
    async def endless(run: Run) -> None:
        while True:
            await run.sleep(1)

    with Workflows(app, patience=50) as flows, pytest.raises(TimedOut, match="50 messages and timers"):
        flows.start(endless.s()).result()


def test_a_parked_run_says_why(flows):
    turns = []

    @workflow(name="played.fickle")
    async def fickle(run: Run) -> str:
        turns.append(1)
        return await (pay.s(1) if len(turns) == 1 else ship.s("x"))

    flows.app.finalize()
    with pytest.raises(RunFailed, match=r"suspended: NonDeterministic: .*run.uuid"):
        flows.start(fickle.s()).result()


def test_a_fake_whose_value_does_not_fit_fails_the_test(flows):
    with pytest.raises(ConfigError, match=r"the fake of played.pay: the result of played.pay: .* got 7"):
        flows.start(order.s(5, "Oslo"), fakes={pay: 7})


def test_an_assertion_in_a_fake_fails_the_test(flows):
    def check(cents: int) -> str:
        assert cents == 6
        return "x"

    with pytest.raises(AssertionError, match="5 == 6"):
        flows.start(order.s(5, "Oslo"), fakes={pay: check})


def test_a_fake_for_nothing_is_refused(app):
    with pytest.raises(ConfigError, match=r"fakes for 'played.pya' were never asked for"), Workflows(app) as flows:
        flows.start(order.s(5, "Oslo"), fakes={"played.pya": 1})
    with pytest.raises(ConfigError, match="3 is no step"), Workflows(app, fakes={3: 1}):
        pass


def test_an_unknown_moment_is_refused(flows):
    with pytest.raises(ConfigError, match=r"write `before` or `after` and one of .*\bfinish\b"):
        flows.crash("during finish")


def test_a_crash_that_did_not_happen_is_refused(app):
    flows = Workflows(app)
    with flows:
        flows.crash("before told", times=2)
        flows.start(parent.s(5), fakes={order: "x"})
        flows.close()

    with pytest.raises(ConfigError, match="nobody came by where a process was to die: before told"), flows:
        flows.crash("before told")


def test_one_world_at_a_time(app, flows):
    with pytest.raises(ConfigError, match="open Workflows"), Workflows(app):
        pass


def test_a_world_is_used_by_with(app):
    with pytest.raises(ConfigError, match="with Workflows"):
        Workflows(app).start(order.s(5, "Oslo"))


def test_a_run_is_what_it_is_with_a_worker(worker, redis_url, monkeypatch):
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import trips

    cities = ("Oslo", "Atlantis")
    with client_of(trips.app, redis_url):
        worker("trips", pool="threads", queues=["celery"])
        for city in cities:
            trips.book.submit(city, run_id=city)
        wait_until(lambda: all(get_status(city).finished for city in cities), "both have ended", timeout_s=30)
        real = {
            city: (_lasting(get_status(city)), [f"{e.kind} {e.name}".rstrip() for e in history(city)])
            for city in cities
        }

    with Workflows(trips.app) as flows:
        runs = {city: flows.start(trips.book.s(city), run_id=city) for city in cities}
        assert {city: (_lasting(run.status), run.story) for city, run in runs.items()} == real


def _lasting(status: RunStatus) -> Any:
    """What does not differ from run to run."""
    error = status.error
    steps = [(step.step_id, step.name, step.state, step.attempt, step.queue) for step in status.steps]
    return status.state, status.phase, status.progress, status.metadata, error and (error.message, error.code), steps


@pytest.mark.parametrize("name", sorted(RUN_SCRIPTS))
def test_no_script_asks_the_server_for_the_time(name):
    text, _ = virtual.source(name)

    assert "'TIME'" not in text
    assert text.count("'XADD', EVENTS,") == text.count("int(now_ms()) .. '-*'")


def test_nothing_of_a_world_is_left(app):
    from status import here

    before = here.canceller(), app.__dict__.get("_celeriac")
    for _ in range(2):
        with Workflows(app) as flows:
            flows.start(order.s(5, "Oslo"), run_id="same")

    assert (here.canceller(), app.__dict__.get("_celeriac")) == before


# --- with pytest -------------------------------------------------------------------

CONFTEST = """
import pytest
from celery import Celery
import canvas
from canvas import Run, step, workflow

pytest_plugins = ["canvas.testing.fixtures"]
app = Celery("by_pytest")
canvas.install(app)

@step(name="by_pytest.one")
def one() -> int:
    return 1

@workflow(name="by_pytest.flow")
async def flow(run: Run) -> int:
    return await one.s()

@pytest.fixture
def celeriac_app():
    return app
"""

TESTS = """
from conftest import flow, one

def test_it_plays(workflows):
    assert workflows.start(flow.s(), fakes={one: 2}).result() == 2

def test_it_is_empty_each_time(workflows):
    assert workflows.start(flow.s(), run_id="run-1").result() == 1

def test_a_typo_is_an_error(workflows):
    workflows.start(flow.s(), fakes={"by_pytest.once": 2})

def test_a_failure_is_not_told_twice(workflows):
    workflows.start(flow.s(), fakes={"by_pytest.once": 2})
    assert False
"""


def test_pytest_has_a_fixture(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_flow.py").write_text(TESTS)
    # The machine's own servers are none of its business.
    env = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:valkey", "test_flow.py"]
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)

    assert "1 failed, 3 passed, 1 error" in said.stdout, said.stdout + said.stderr
    assert "ERROR test_flow.py::test_a_typo_is_an_error" in said.stdout
    assert not (tmp_path / ".data").exists(), "nothing is left in the user's folder"
