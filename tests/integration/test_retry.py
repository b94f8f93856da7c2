"""`retry(run)`: a run that failed goes on from the step that failed. Real Redis, no worker."""

from __future__ import annotations

from typing import Any

import pytest

from canvas import AllFailed, Run, StepFailed, fan_out, fan_out_fail, promise, race, step, with_timeout, workflow
from core import current_app
from leaks import keys_without_end
from runs import ERROR
from saga import Saga
from status import operating
from status.errors import RetryRefused, RunNotFound
from status.records import Generations
from turns import Turns

switch: list[str] = []


@step(name="retry.do")
def do(what: str = "") -> int:
    return 1


@step(name="retry.other")
def other() -> int:
    return 1


@step(name="retry.undo")
def undo(it: int | None) -> None: ...


@workflow(name="retry.three")
async def three(run: Run) -> list[int]:
    return [await do.s("a"), await do.s("b"), await do.s("c")]


@workflow(name="retry.tidies")
async def tidies(run: Run) -> int:
    """Makes another await between the one that fails and its end."""
    await do.s()
    try:
        return await other.s()
    except StepFailed:
        await do.s("tidy up")
        raise


@workflow(name="retry.all_of")
async def all_of(run: Run) -> list[int]:
    return list(await fan_out_fail(do.s("a"), do.s("b"), do.s("c")))


@workflow(name="retry.whatever")
async def whatever(run: Run) -> Any:
    found = await fan_out(do.s("a"), do.s("b"))
    for _, error in found.bad:
        raise error
    return found.results


@workflow(name="retry.first")
async def first(run: Run) -> int:
    try:
        return (await race(do.s("a"), do.s("b"))).value
    except AllFailed:
        await other.s()
        raise


@workflow(name="retry.timely")
async def timely(run: Run) -> int:
    return await with_timeout(do.s(), 60)


@workflow(name="retry.itself")
async def itself(run: Run) -> int:
    await do.s()
    if switch[-1] == "bad":
        raise ValueError("a bug of the workflow")
    return await do.s()


@workflow(name="retry.changes")
async def changes(run: Run) -> list[int]:
    """Asks for something else at the same place once its code is another."""
    if switch[-1] == "old":
        return list(await fan_out_fail(do.s("a"), do.s("b")))
    return list(await fan_out_fail(other.s(), other.s()))


@workflow(name="retry.approved")
async def approved(run: Run) -> int:
    amount, ok = await fan_out_fail(do.s(), promise("approval", bool))
    return amount if ok else 0


@workflow(name="retry.asks_twice")
async def asks_twice(run: Run) -> bool:
    """Gets over the first rejection, and then fails at something else."""
    try:
        await promise("early", bool)
    except StepFailed:
        await other.s()
    return await promise("late", bool)


@workflow(name="retry.safe")
async def safe(run: Run) -> int:
    async with Saga(run, "s") as saga:
        await saga.safe_step("a").with_compensation(undo).execute(do.s())
        return await saga.safe_step("b").with_compensation(undo).execute(other.s())


@pytest.fixture
def run(redis_client):
    with current_app("retry") as app:
        yield Turns(app, redis_client)


def nonce(run: Turns, n: int) -> str:
    found = run.redis.hget(run.keys.join(run.id, n), "nonce")
    assert found
    return found


def end(run: Turns, n: int, p: int = 0, *, good: bool = True, value: str = "v1") -> None:
    """Let a part run and end, and take the turn that it may owe."""
    assert run.begin(p, f"t{n}.{p}", n=n, nonce=nonce(run, n)) == "granted"
    kind, outcome = ("done", value) if good else ("failed", ERROR)
    if run.finish(kind, p, f"t{n}.{p}", n=n, nonce=nonce(run, n), outcome=outcome).code == "decided":
        run.take()


def retry(run: Turns) -> list[str]:
    """Retry the run; gives the parts that its turn sends."""
    before = len(run.sent)
    operating.retry(run.store, run.id)
    run.take()
    return [step_id.removeprefix("r/") for step_id, _ in run.sent[before:]]


def test_a_failed_run_goes_on_from_the_step_that_failed(run):
    run.begun(three)
    end(run, 0, value="v10")
    end(run, 1, good=False)
    assert run.state == "failed"

    assert retry(run) == ["1.0"]

    end(run, 1, value="v20")
    end(run, 2, value="v30")
    assert (run.state, run.field("result")) == ("completed", "[10,20,30]")
    assert keys_without_end(run.redis) == []


def test_a_run_that_was_taken_up_again_is_listed_and_kept_as_one_that_goes_on(run):
    run.begun(three)
    end(run, 0, good=False)
    shard = run.shard
    assert run.redis.zcard(run.keys.state(shard, "failed")) == 1

    retry(run)

    assert run.redis.zrange(run.keys.state(shard, "failed"), 0, -1) == []
    assert run.redis.zrange(run.keys.state(shard, "running"), 0, -1) == ["r"]
    assert run.redis.zcard(run.keys.of_run("r")[10]) == 0
    own = [key for key in run.redis.scan_iter("*") if ":r" in key]
    assert {key: run.redis.ttl(key) for key in own} == dict.fromkeys(own, -1)
    assert run.field("error") is None
    assert "operator.retry" in run.events()


def test_what_was_done_about_the_failure_is_forgotten_with_it(run):
    run.begun(tidies)
    end(run, 0)
    end(run, 1, good=False)
    end(run, 2)
    assert run.state == "failed"

    assert retry(run) == ["1.0"]
    assert run.decision(2) is None


def test_siblings_that_had_succeeded_are_not_run_again(run):
    run.begun(all_of)
    end(run, 0, 1, value="v20")
    end(run, 0, 0, good=False)
    assert run.state == "failed"

    assert retry(run) == ["0.0", "0.2"]

    end(run, 0, 0, value="v10")
    end(run, 0, 2, value="v30")
    assert (run.state, run.field("result")) == ("completed", "[10,20,30]")


def test_a_sibling_that_succeeded_after_the_failure_is_not_run_again(run):
    run.begun(all_of)
    end(run, 0, 1, value="v20")
    old = nonce(run, 0)
    run.begin(2, "slow", nonce=old)
    end(run, 0, 0, good=False)
    assert run.state == "failed"
    with pytest.raises(RetryRefused, match="1 of its stopped steps still run"):
        retry(run)
    run.done(2, "slow", nonce=old, outcome="v30")

    assert retry(run) == ["0.0"]

    end(run, 0, 0, value="v10")
    assert run.field("result") == "[10,20,30]"


def test_a_stopped_step_that_succeeded_after_all_is_what_the_retry_finds(run):
    run.begun(timely)
    old = nonce(run, 0)
    run.begin(0, "slow", nonce=old)
    run.store.fire(_due(run, "join", old), token="t")  # noqa: S106
    run.take()
    assert run.state == "failed"
    run.done(0, "slow", nonce=old, outcome="v7")

    assert retry(run) == []
    assert (run.state, run.field("result")) == ("completed", "7")


def _due(run: Turns, kind: str, old: str) -> Any:
    from status.records import Timer

    timer = Timer(kind, "r", "0", "", old)
    assert run.redis.zadd(run.keys.timers(run.shard), {"|".join(timer): 1}, xx=True, ch=True)
    return timer


def test_a_fan_out_whose_error_the_workflow_raised_is_made_again(run):
    run.begun(whatever)
    end(run, 0, 0, good=False)
    end(run, 0, 1)

    assert retry(run) == ["0.0"]


def test_a_race_that_was_lost_is_run_again(run):
    run.begun(first)
    end(run, 0, 0, good=False)
    end(run, 0, 1, good=False)
    end(run, 1)
    assert run.state == "failed"

    assert retry(run) == ["0.0", "0.1"]


def answer(run: Turns, name: str, outcome: str) -> str:
    """Answer a promise, and take the turn that it may owe."""
    code, ending = run.store.resolve("r", name, outcome, token=f"{name} {outcome}")
    if ending.code == "decided":
        run.take()
    return str(code)


def test_a_promise_that_was_rejected_is_answered_anew(run):
    run.begun(approved)
    end(run, 0, 0, value="v7")
    assert answer(run, "approval", ERROR) == "accepted"
    assert run.state == "failed"

    retry(run)
    assert run.begin(0, "again", nonce=nonce(run, 0)) == "ended", "what had succeeded is kept"
    assert run.state != "failed", "and the rejection is not"

    assert answer(run, "approval", "vtrue") == "accepted"
    assert (run.state, run.field("result")) == ("completed", "7")
    assert answer(run, "approval", "vfalse") == "late"


def test_a_rejection_that_the_workflow_got_over_stays(run):
    run.begun(asks_twice)
    answer(run, "early", ERROR)
    end(run, 1)
    answer(run, "late", ERROR)
    assert run.state == "failed"

    assert retry(run) == []

    assert answer(run, "early", "vtrue") == "late"
    assert answer(run, "late", "vtrue") == "accepted"
    assert (run.state, run.field("result")) == ("completed", "true")


def test_a_value_that_came_before_the_failure_stays_the_promises(run):
    run.begun(approved)
    answer(run, "approval", "vtrue")
    end(run, 0, 0, good=False)

    assert retry(run) == ["0.0"]
    assert answer(run, "approval", "vfalse") == "late"
    end(run, 0, 0, value="v7")
    assert run.field("result") == "7"


def test_a_workflow_that_failed_by_itself_is_run_again_with_all_it_had(run):
    switch.append("bad")
    run.begun(itself)
    end(run, 0)
    assert run.state == "failed"
    switch.append("good")

    assert retry(run) == ["1.0"]
    end(run, 1)
    assert run.state == "completed"


def test_a_workflow_that_fails_by_itself_once_more_can_be_retried_once_more(run):
    switch.append("bad")
    run.begun(itself)
    end(run, 0)
    assert (retry(run), run.state) == ([], "failed")
    switch.append("good")

    assert retry(run) == ["1.0"]


def test_same_step_id_other_step_after_retry(run):
    switch.append("old")
    run.begun(changes)
    end(run, 0, 0)
    old = run.ref(0, nonce=nonce(run, 0))
    run.begin(1, "before", nonce=old.nonce)
    end_of_old = run.fail(1, "before", nonce=old.nonce)
    assert end_of_old == "decided"
    run.take()
    switch.append("new")

    assert retry(run) == ["0.0", "0.1"], "the outcome of `do` is none of `other`"

    new = run.ref(0, nonce=nonce(run, 0))
    assert run.begin(0, "late message", nonce=old.nonce) == "gone"
    assert run.done(1, "before", nonce=old.nonce) == "gone"
    assert (old.step_id, old.idempotency_key) == (new.step_id, "r/0.0")
    assert new.idempotency_key == "r~1/0.0"
    end(run, 0, 0, value="v5")
    end(run, 0, 1, value="v6")
    assert run.field("result") == "[5,6]"


def test_a_turn_that_has_read_the_run_before_its_retry_opens_nothing(run):
    run.begun(three)
    end(run, 0)
    stale = run.store.load("r")
    end(run, 1, good=False)
    operating.retry(run.store, "r")
    before = run.everything()

    assert run.open(seen=nonce_of_last(stale), n=1, nonce="stale") == "moved"
    assert run.complete(seen=nonce_of_last(stale)) == "moved"
    assert run.everything() == before


def nonce_of_last(record: Any) -> str:
    from canvas.parking import seen_of

    return seen_of(record)


def test_every_generation_has_its_keys_and_what_is_kept_has_its_own():
    generations = Generations.of({"gens": "5,7,2", "kept": "5.0=0 2.1=2"})

    assert [generations.of_await(n) for n in (0, 1, 2, 5, 7, 9)] == [0, 0, 3, 3, 3, 3]
    assert (generations.of_part("2.1"), generations.of_part("2.0")) == (2, 3)


def test_a_second_failure_after_a_retry_can_be_retried_too(run):
    run.begun(three)
    end(run, 0)
    for generation in (1, 2):
        end(run, 1, good=False)
        assert retry(run) == ["1.0"]
        assert run.ref(0, 1, nonce=nonce(run, 1)).idempotency_key == f"r~{generation}/1.0"
    end(run, 1)
    end(run, 2, good=False)
    assert retry(run) == ["2.0"]
    assert run.ref(0, 2, nonce=nonce(run, 2)).idempotency_key == "r~3/2.0"


def test_retry_reply_lost(run):
    run.begun(three)
    end(run, 0, good=False)
    ended = run.field("finished_ms") or ""
    assert run.store.retry("r", 0, finished_ms=ended, token="a") == "retried"  # noqa: S106
    before = run.everything()

    assert run.store.retry("r", 0, finished_ms=ended, token="a") == "retried"  # noqa: S106
    assert run.everything() == before


def test_a_run_that_goes_on_is_not_retried(run):
    run.begun(three)
    before = run.everything()

    with pytest.raises(RetryRefused, match="run r is running: there is nothing to try again"):
        retry(run)
    assert run.everything() == before
    with pytest.raises(RunNotFound):
        operating.retry(run.store, "never-was")


@pytest.mark.parametrize("state", ["completed", "compensated", "compensation_failed"])
def test_only_what_failed_is_retried(run, state):
    run.submit()
    run.complete(seen="", state=state)

    with pytest.raises(RetryRefused, match=f"run r is {state}"):
        retry(run)


def test_retry_after_compensation_refused(run):
    run.begun(safe)
    end(run, 0)
    run.cancel()
    run.take()
    end(run, 3, value="vnull")
    assert run.state == "cancelled", "its undos succeeded"
    before = run.everything()

    with pytest.raises(RetryRefused, match="run r is cancelled and has begun to undo"):
        retry(run)
    assert run.everything() == before


def test_a_cancelled_run_goes_on_where_it_was_stopped(run):
    run.begun(three)
    end(run, 0)
    run.cancel()
    run.take()
    assert run.state == "cancelled"

    assert retry(run) == ["1.0"]
    end(run, 1)
    end(run, 2)
    assert run.state == "completed"


def test_a_run_whose_time_was_up_has_the_same_time_again(run):
    run.store.submit("r", workflow=three.name, input_json="[[],{}]", digest="d", token="t", timeout_ms=60_000)  # noqa: S106
    run.take()
    run.redis.hincrby(run.keys.run("r"), "submitted_ms", -100_000)
    run.redis.hincrby(run.keys.run("r"), "deadline_ms", -100_000)
    run.cancel(code=408)
    run.take()
    assert run.state == "timed_out"

    retry(run)

    left_ms = int(run.field("deadline_ms") or 0) - int(run.field("since_ms") or 0)
    assert left_ms == 60_000
    assert run.timers() == {"run"}


def test_a_parked_run_that_is_retried_looks_again_at_once(run):
    run.submit()
    run.store.park("r", seen="", error="{}", look_in_ticks=60)

    operating.retry(run.store, "r")

    due = run.redis.zscore(run.keys.due(run.shard), "r")
    assert due is not None
    assert due < 10
