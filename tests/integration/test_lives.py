"""Poison: a step or a turn that kills its process each time is given up, and says so."""

# ruff: noqa: S106, a token here is no password

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from canvas import RunCancelled, RunFailed
from canvas.lives import lives_used_up
from canvas.outcomes import encode_unknown
from processes import client_of, due, queued
from runs import Runs, part, refs
from status import cancel, get_status, operating, retry
from status.models import error_from_json
from waiting import wait_until

USED_UP = encode_unknown(lives_used_up())
GIVEN_UP = '{"error_type":"GivenUp","message":"killed {lost} on {where}","code":500}'


@pytest.fixture
def run(redis_client) -> Runs:
    return Runs(redis_client)


@pytest.fixture
def deadly(redis_url, monkeypatch) -> Iterator[Any]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import deadly

    with client_of(deadly.app, redis_url):
        yield deadly


def die(run: Runs, token: str) -> Any:
    """A process begins part 0 and is gone."""
    assert run.begin(0, token) == "granted"
    return run.store.release(run.ref(), token=token, call_token=f"call {token}", outcome=USED_UP)


# --- steps -----------------------------------------------------------------------------


def test_the_error_of_a_step_that_is_given_up_says_how_often_where_and_what_to_do(run):
    run.started(part())

    answers = [die(run, f"t{life}").code for life in range(5)]

    assert answers == ["start"] * 4 + ["decided"]
    said = error_from_json(run.outcome()[1:]).message
    assert "step s lost its process 5 time(s), on w1, w1, w1, w1, w1, and has 5 such lives" in said
    assert "CELERIAC_MAX_LIVES" in said


def test_a_process_that_was_told_to_stop_costs_no_life(run):
    run.started(part())

    for life in range(12):
        assert run.begin(0, f"t{life}") == "granted"
        assert run.store.leaving(run.id, [(0, "0", f"t{life}")]) == 1
        assert refs(run.release(0, f"t{life}")) == [("0", 1)]

    assert [die(run, f"u{life}").code for life in range(5)] == ["start"] * 4 + ["decided"]


def test_only_the_claim_that_was_told_to_stop_costs_no_life(run):
    run.started(part())
    run.begin(0, "a")
    run.store.leaving(run.id, [(0, "0", "a"), (0, "0", "b"), (3, "0", "a")])
    run.release(0, "a")

    assert [die(run, f"t{life}").code for life in range(5)] == ["start"] * 4 + ["decided"]


def test_a_step_that_is_not_idempotent_is_not_begun_again_after_a_warm_stop(run):
    run.started(part(once=True))
    run.begin(0, "a")
    run.store.leaving(run.id, [(0, "0", "a")])

    assert run.release(0, "a").code == "decided"


def test_a_step_that_was_killed_in_a_warm_stop_is_still_undone_when_its_join_is_decided(run):
    """It may have had its effect: no life is lost, but it did begin."""
    run.started(part(undo=True), part())
    run.begin(0, "a")
    run.store.leaving(run.id, [(0, "0", "a")])
    run.release(0, "a")
    run.begin(1, "b")
    run.fail(1, "b")

    assert run.late()["0.0"] == "u"


def test_a_step_whose_process_died_is_shown_as_waiting_until_another_begins(run):
    run.started(part())
    die(run, "a")
    assert run.step_state() == "waiting"

    run.begin(0, "b")

    assert run.step_state() == "running"


def test_what_was_lost_before_does_not_delay_the_search_for_the_next_message(run):
    run.started(part())
    for _ in range(4):
        run.tick(65)
        assert run.store.repair(run.id, "0", "0") is not None
    die(run, "a")

    assert run.redis.hget(run.keys.join(run.id, 0), "r0") is None


@pytest.mark.parametrize(("flow", "killed"), [("poison", 5), ("poison_once", 1)])
def test_a_step_that_kills_its_process_each_time_is_given_up(deadly, worker, redis_client, flow, killed):
    worker("deadly", concurrency=1)

    with pytest.raises(RunFailed, match=rf"lost its process {killed} time\(s\), on w1@") as raised:
        getattr(deadly, flow).submit(run_id="r").result(timeout_s=40)

    assert raised.value.state == "failed"
    assert redis_client.get("killed") == str(killed)
    wait_until(lambda: not due(), "nothing is due any more")


# --- turns -----------------------------------------------------------------------------


def enter(run: Runs, known: int = 0, token: str = "") -> str:
    return run.store.enter(run.id, known=known, where="w1", error=GIVEN_UP, token=token or uuid4().hex)


def test_enter_reply_lost(run):
    run.submit()

    assert [enter(run, token="a") for _ in range(9)] == ["begin"] * 9
    assert [enter(run) for _ in range(5)] == ["begin"] * 4 + ["given_up"]


def test_a_turn_has_as_many_lives_as_a_step_and_then_the_run_is_parked(run):
    run.submit()

    assert [enter(run) for _ in range(7)] == ["begin"] * 5 + ["given_up"] * 2
    assert run.state == "suspended"
    assert error_from_json(run.field("error")).message == "killed 5 on w1, w1, w1, w1, w1"
    assert run.events().count("run.status") == 1


def test_a_death_that_a_parent_saw_counts_though_nobody_counted_its_turn(run):
    run.submit()

    assert [enter(run, known=1) for _ in range(5)] == ["begin"] * 4 + ["given_up"]


def test_a_turn_that_moves_on_has_all_its_lives_again(run):
    run.submit()
    assert [enter(run) for _ in range(4)] == ["begin"] * 4
    run.open(part())
    run.begin(0, "a")
    run.done(0, "a")

    assert [enter(run) for _ in range(6)] == ["begin"] * 5 + ["given_up"]


def test_a_turn_that_lets_its_process_live_has_cost_none(run):
    run.submit()

    for _ in range(20):
        assert enter(run) == "begin"
        run.store.survived(run.id)


def test_a_turn_of_a_run_whose_steps_run_is_not_counted(run):
    run.started(part())
    before = run.everything()

    assert [enter(run) for _ in range(9)] == ["begin"] * 9
    assert run.everything() == before


def test_a_turn_that_is_given_up_is_not_sent_by_the_sweep(run):
    run.submit()
    for _ in range(6):
        enter(run)

    run.tick(1_000_000)

    assert run.store.repair(run.id) is None


def test_a_turn_that_was_given_up_has_its_lives_back_when_somebody_retries_it(run):
    run.submit()
    for _ in range(6):
        enter(run)

    operating.retry(run.store, run.id)

    assert run.due() == {""}
    assert enter(run) == "begin"


@pytest.mark.parametrize("first", [True, False], ids=["first", "in place"])
def test_turn_that_kills_its_process_is_given_up(deadly, worker, redis_client, first):
    worker("deadly", concurrency=1)
    handle = deadly.turn.submit(first, run_id="r")

    status = handle.wait_for(lambda status: status.error is not None, timeout_s=30)

    # One more, if the sweep sent it again before the parent saw the first death.
    assert redis_client.get("killed") in {"5", "6"}
    assert status.state == "suspended"
    assert "the workflow's own code killed its process 5 time(s), on w1@" in status.error.message
    assert "`runs retry` it" in status.error.message
    # It goes on where it was, once it is mended.
    redis_client.set("mended", 1)
    retry("r")
    assert handle.result(timeout_s=15) == "mended"


def test_a_run_whose_turn_is_given_up_can_be_abandoned(deadly, worker, redis_client):
    worker("deadly", concurrency=1)
    handle = deadly.turn.submit(True, run_id="r")
    handle.wait_for(lambda status: status.error is not None, timeout_s=30)

    cancel("r", "enough")
    wait_until(lambda: queued(redis_client) == 0, "the turn that a cancel sends is taken")
    cancel("r", "enough", abandon=True)

    with pytest.raises(RunCancelled, match="enough"):
        handle.result(timeout_s=15)
    assert redis_client.get("killed") in {"5", "6"}
    wait_until(lambda: not due(), "nothing is due any more")


def test_a_turn_that_kills_whole_workers_is_given_up_and_others_go_on(deadly, worker, redis_client):
    """In a pool of threads there is no parent that sees a death: the sweep sends it again, and it is counted."""
    node = worker("deadly", pool="threads", env={"CELERIAC_MAX_LIVES": "2"})
    deadly.turn.submit(True, run_id="r")

    def given_up() -> bool:
        if not node.alive:
            node.restart()
        return get_status("r").error is not None

    wait_until(given_up, "the turn is given up", timeout_s=60, every_s=0.2)

    assert redis_client.get("killed") == "3"  # the first of them nobody counted
    assert deadly.several.submit(0, 2).result(timeout_s=15)


def test_a_step_that_dies_less_often_than_it_has_lives_succeeds(deadly, worker):
    worker("deadly")

    assert deadly.unlucky.submit(4).result(timeout_s=30) == 5


def test_the_sweep_may_look_at_what_a_worker_left_as_it_stopped(run):
    run.started(part())
    run.begin(0, "a")
    run.store.leaving(run.id, [(0, "0", "a")])
    run.release(0, "a")

    for _ in range(3):
        run.tick(65)
        assert run.store.repair(run.id, "0", "0") is not None
    assert [die(run, f"t{life}").code for life in range(5)] == ["start"] * 4 + ["decided"]
