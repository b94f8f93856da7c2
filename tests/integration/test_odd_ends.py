"""Whatever a step does, it has an outcome, once, and the process goes on. Real workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from processes import client_of
from status import State, get_status
from status.errors import ConfigError, RunFailed
from waiting import wait_until

BARE = ("--without-mingle", "--without-gossip")
WITHIN_S = 15


@pytest.fixture
def odd(redis_url, monkeypatch) -> Iterator[Any]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import odd

    with client_of(odd.app, redis_url):
        yield odd


@pytest.fixture
def start(odd, worker) -> Callable[[str], Any]:
    return lambda pool="prefork", slots=1: worker("odd", pool=pool, concurrency=slots, options=BARE)


def failure_of(handle: Any) -> str:
    with pytest.raises(RunFailed) as failed:
        handle.result(timeout_s=WITHIN_S)
    return str(failed.value)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_no_exception_is_fails_the_step_and_its_slot_is_free_again(start, odd, redis_client, pool, local):
    start(pool)
    raised = {"exits": "SystemExit: 3", "cancelled": "Cancelled: I give up", "asyncio": "CancelledError"}

    failed = {how: failure_of(odd.asks.submit(how, local, run_id=f"r-{how}")) for how in raised}

    assert all(said in failed[how] for how, said in raised.items())
    assert redis_client.get("odd:wrong") == "3"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_workflow_that_exits_fails_its_run_and_no_process(start, odd, pool):
    node = start(pool)

    said = failure_of(odd.wrong_itself.submit("exits", run_id="r"))

    assert "the workflow raised SystemExit: 3" in said
    assert "exited prematurely" not in node.output()


@pytest.mark.parametrize("local", [False, True])
def test_an_error_that_cannot_say_what_it_is_is_an_outcome_all_the_same(start, odd, redis_client, local):
    start()

    assert "Mute can't say what it is: __str__ raised TypeError" in failure_of(odd.asks.submit("mute", local))
    assert "Mute can't say what it is: __str__ raised TypeError" in failure_of(odd.wrong_itself.submit("mute"))
    assert redis_client.get("odd:wrong") == "1"


def test_a_hook_that_raises_before_a_step_is_its_failure(start, odd, redis_client):
    start()

    assert "not today" in failure_of(odd.refused_first.submit(run_id="r"))
    assert [step.state for step in get_status("r").steps] == ["failed"]
    assert redis_client.get("odd:refused") is None


@pytest.mark.parametrize("hook", ["on_retry", "after_return", "__call__"])
def test_hooks_that_end_a_step_are_refused_with_what_to_use(odd, hook):
    with pytest.raises(ConfigError, match=hook):
        odd.step(name="odd.hooked", **{hook: odd.refuse})(odd.refuse)


def test_a_soft_time_limit_is_over_with_the_body_of_its_step(start, odd):
    start()

    assert odd.goes_on.submit(0.35, 0.3, run_id="r").result(timeout_s=WITHIN_S) == ["in time", "near"]
    assert get_status("r").state is State.COMPLETED


def test_a_soft_time_limit_of_all_tasks_is_over_with_the_body_of_its_step(start, odd, worker_env):
    worker_env["ODD_SOFT_TIME_LIMIT_S"] = "0.5"
    start()

    handle = odd.goes_on_unlimited.submit(0.35, 0.3)

    assert handle.result(timeout_s=WITHIN_S) == ["in time", "near"]


def test_a_soft_time_limit_that_ends_while_the_outcome_is_recorded_loses_nothing(start, odd, redis_client):
    start()

    assert odd.records_late.submit().result(timeout_s=WITHIN_S) == "in time"
    assert redis_client.get("odd:slow") == "1"


def test_a_body_that_takes_longer_than_its_soft_time_limit_is_ended_by_it(start, odd, redis_client):
    start()

    assert "SoftTimeLimitExceeded" in failure_of(odd.goes_on.submit(5.0, 0.0, run_id="first"))
    # And so is the next of the same process.
    assert "SoftTimeLimitExceeded" in failure_of(odd.goes_on.submit(5.0, 0.0, run_id="second"))
    assert redis_client.get("odd:limited") == "2"


def test_stock_tasks_of_the_same_process_keep_their_soft_time_limit(start, odd):
    node = start()
    assert odd.goes_on.submit(0.0, 0.0).result(timeout_s=WITHIN_S) == ["in time", "near"]

    odd.stock.delay()

    wait_until(lambda: "raised unexpected: SoftTimeLimitExceeded" in node.output(), "the task was ended by its limit")


def test_a_race_is_decided_where_celery_may_keep_one_connection_alone(start, odd, worker_env):
    worker_env["ODD_POOL_LIMIT"] = "1"
    start(slots=2)

    assert odd.races.submit().result(timeout_s=WITHIN_S) == "swift"
