"""Real workers, real messages, real time: what the smaller tests can't show."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import Any

import pytest
from celery import chain, chord, group

import saga
from canvas import RunCancelled, RunConflict, RunFailed, TimedOut
from status import State, get_status, here, history, watch
from waiting import wait_until


@pytest.fixture
def notes(redis_client):
    return lambda: redis_client.lrange("notes", 0, -1)


def times(run_id: str) -> dict[str, list[float]]:
    """When each kind of event happened, s."""
    seen: dict[str, list[float]] = {}
    for event in history(run_id):
        seen.setdefault(event.kind, []).append(event.at.timestamp())
    return seen


def ended(run_id: str, timeout_s: float = 20) -> State:
    wait_until(lambda: get_status(run_id).finished, f"{run_id} has ended", timeout_s)
    return get_status(run_id).state


EVERYTHING = {
    "single": 8,
    "all": [1, 2, 3],
    "each": [[1, None, 2], [[1, "bad"]]],
    "race": [1, "second", 5],
    "quorum": 2,
    "slept": True,
    "flaky": 3,
    "timed out": True,
    "failed": ["gone", 422, True],
    "uuid": True,
}


@pytest.mark.parametrize(("pool", "concurrency"), [("prefork", 2), ("threads", 4), ("solo", 1)])
def test_each_pool_runs_the_same_workflow_to_the_same_end(flow, workers, pool, concurrency):
    workers(pool=pool, concurrency=concurrency)

    handle = flow.everything.submit(7)

    assert handle.result(timeout_s=30) == EVERYTHING
    status = handle.status()
    assert (status.state, status.phase, status.progress, dict(status.metadata)) == ("completed", "done", 1.0, {})
    assert {step.state for step in status.steps} <= {"done", "failed", "stopped"}


def test_retries_are_durable_and_counted(flow, workers):
    workers()

    handle = flow.retries.submit(2)

    assert handle.result(timeout_s=20) == 3
    (step,) = handle.status().steps
    assert (step.state, step.attempt) == ("done", 3)
    kinds = [event.kind for event in handle.watch()]
    assert kinds.count("step.retrying") == 2
    assert kinds.count("step.started") == 3


def test_retries_that_are_used_up_fail_the_run_with_the_last_error(flow, workers):
    workers()

    with pytest.raises(RunFailed, match="failed: ConnectionError: attempt 3") as raised:
        flow.retries.submit(9, run_id="r").result(timeout_s=20)

    assert (raised.value.state, raised.value.error_type, raised.value.code) == ("failed", "ConnectionError", 500)


def test_a_fail_fast_join_decides_at_its_first_failure(flow, workers, notes):
    workers(concurrency=4)
    flow.meeting.submit("warm", 4).result(timeout_s=20)

    handle = flow.fail_fast.submit(run_id="r")

    assert handle.result(timeout_s=10) == "first"
    seen = times("r")
    assert seen["join.decided"][0] - seen["join.opened"][0] < 0.5
    assert seen["run.completed"][0] - seen["run.submitted"][0] < 1
    # Their slots are free again, so nobody is left who could write a note.
    assert flow.meeting.submit("after", 4).result(timeout_s=10) == 16
    wait_until(lambda: not _due(flow), "nothing is due any more")
    assert "late" not in notes()
    assert [step.state for step in get_status("r").steps] == ["failed", "stopped", "stopped", "stopped"]


def test_a_race_answers_at_once_and_its_losers_slot_is_free(flow, workers, notes):
    workers(concurrency=2)
    flow.meeting.submit("warm", 2).result(timeout_s=20)

    for lap in range(10):
        handle = flow.racing.submit(0.05, 5, run_id=f"race-{lap}")
        assert handle.result(timeout_s=10) == "quick"
        # Two steps that each wait a second for the other: both slots must be free by then.
        assert flow.meeting.submit(f"lap-{lap}", 2).result(timeout_s=10) == 4, f"lap {lap}"

    took = sorted(seen["join.decided"][0] - seen["join.opened"][0] for seen in (times(f"race-{n}") for n in range(10)))
    assert took[5] < 0.15
    assert took[-1] < 0.5
    assert notes() == ["quick"] * 10


def test_status_shows_every_phase_and_watch_every_transition_once(flow, workers):
    workers()
    names = ["one", "two", "three"]
    handle = flow.phases.submit(names, run_id="r")
    seen: list[str] = []

    def look() -> bool:
        status = get_status("r")
        if status.phase not in seen[-1:]:
            seen.append(status.phase)
        return status.finished

    wait_until(look, "the run has ended", every_s=0.005)
    watched = list(watch("r", timeout_s=10))

    assert [phase for phase in seen if phase] == names
    assert [event.name for event in watched if event.kind == "run.status"] == names
    assert [event.kind for event in watched] == [
        "run.submitted",
        *["run.status", "join.opened", "step.started", "step.done", "join.decided"] * 3,
        "run.completed",
    ]
    assert all(sooner.at <= later.at for sooner, later in pairwise(watched))
    assert handle.result(timeout_s=1) is None


def test_watch_gives_events_as_they_happen_and_ends_with_the_run(flow, workers):
    workers()

    watched = [event.kind for event in flow.phases.submit(["a", "b"]).watch(timeout_s=20)]

    assert watched[0] == "run.submitted"
    assert watched[-1] == "run.completed"
    assert watched.count("join.decided") == 2


def test_a_watch_that_takes_too_long_says_so(flow):
    flow.phases.submit(["a"], run_id="r")

    with pytest.raises(TimedOut, match=r"had not ended after 0\.2 s"):
        list(watch("r", timeout_s=0.2))
    with pytest.raises(TimedOut, match=r"had not ended after 0\.2 s; it goes on"):
        flow.phases.handle("r").result(timeout_s=0.2)


def test_a_part_starts_after_its_delay(flow, workers):
    workers()

    assert 0.4 <= flow.delayed.submit().result(timeout_s=20) < 1.0


def test_within_gives_up_a_step_that_runs(flow, workers, notes):
    workers()

    assert flow.waiting.submit().result(timeout_s=20) == "flow.hog 408"
    assert notes() == ["slow"]


def test_an_attempt_has_its_time_and_then_the_next(flow, workers):
    workers()
    handle = flow.limits.submit()

    assert handle.result(timeout_s=20) == [1, "flow.limited", 408]
    assert handle.status().steps[1].attempt == 2


def test_a_run_that_takes_too_long_is_timed_out(flow, workers, notes):
    workers()

    with pytest.raises(RunFailed, match="its time was up") as raised:
        flow.long.submit(run_id="r", timeout_s=0.5).result(timeout_s=20)

    assert (raised.value.state, raised.value.code) == ("timed_out", 408)
    assert "cleaned up" in notes()


def test_cancel_stops_a_running_step_and_lets_the_workflow_clean_up(flow, workers, notes):
    workers()
    handle = flow.long.submit(run_id="r")
    handle.wait_for(lambda status: any(step.state == "running" for step in status.steps), timeout_s=20)

    handle.cancel("enough")

    with pytest.raises(RunCancelled, match="enough") as raised:
        handle.result(timeout_s=10)
    assert (raised.value.state, raised.value.code) == ("cancelled", 409)
    wait_until(lambda: sorted(notes()) == ["cleaned up", "heeded"], "both have noticed")


def test_cancel_still_compensates(flow, workers, notes):
    workers()
    handle = flow.cancelled_in_saga.submit(run_id="r")
    handle.wait_for(lambda status: any(step.name == "flow.heeds" for step in status.steps), timeout_s=20)

    handle.cancel("enough")

    with contextlib.suppress(RunFailed):
        handle.result(timeout_s=20)
    assert get_status("r").state == "cancelled"
    assert [note for note in notes() if note != "heeded"] == ["a", "undo a"]


def test_cancel_of_a_run_that_has_ended_changes_nothing(flow, workers):
    workers()
    handle = flow.retries.submit(0)
    assert handle.result(timeout_s=20) == 1

    handle.cancel("too late")

    assert handle.status().state == "completed"


def test_loser_succeeds_late_and_is_undone_once(flow, workers, notes):
    workers()

    assert flow.late_loser.submit(run_id="r").result(timeout_s=20) == "quick"

    wait_until(lambda: "undo late" in notes(), "the loser is undone")
    wait_until(lambda: not _due(flow), "nothing is due any more")
    assert notes() == ["quick", "late", "undo late"]
    assert get_status("r").state == "completed"


def test_a_failed_saga_undoes_newest_first_and_waits_for_what_still_runs(flow, workers, notes):
    workers(concurrency=4)

    with pytest.raises(RunFailed, match="c failed") as raised:
        flow.undone.submit(run_id="r").result(timeout_s=30)

    assert raised.value.state == "compensated"
    said = notes()
    assert said[:3] == ["a", "b", "c"]
    assert said[-2:] == ["undo b!", "undo a"]
    assert sorted(said[3:-2]) == ["undo c", "undo unknown"]


def test_a_chain_with_undos_in_plain_canvas(flow, workers, notes):
    workers()

    saga.chain(
        (flow.note.s("a"), flow.undo), (flow.note.s("b"), flow.undo_call.s("b!")), (flow.fail.s(), flow.undo)
    ).apply_async()

    wait_until(lambda: "undo a" in notes(), "the first one is undone")
    assert notes() == ["a", "b", "undo ?", "undo b!", "undo a"]


def test_stock_canvas_of_steps_works_on_the_same_app(flow, workers, notes):
    workers()

    (chain(flow.add.s(1, 2), flow.add.s(3)) | flow.total.si([4]).set(ignore_result=False)).apply_async().get(timeout=20)
    chord([flow.add.s(1, 1), flow.add.s(2, 2)], flow.total.s().set(ignore_result=False))().get(timeout=20)
    summed = chord([flow.add.s(n, n) for n in range(4)])(flow.total.s().set(ignore_result=False))
    assert summed.get(timeout=20) == 12
    group(flow.note.s("a"), flow.note.s("b")).apply_async()
    wait_until(lambda: sorted(notes()) == ["a", "b"], "both of the group have run")


def test_a_run_id_used_twice(flow, workers):
    workers()
    first = flow.retries.submit(0, run_id="r")

    assert flow.retries.submit(0, run_id="r").result(timeout_s=20) == first.result(timeout_s=20) == 1
    assert flow.retries.submit(failures=0, run_id="r").run_id == "r"
    with pytest.raises(RunConflict, match="'r' is taken"):
        flow.retries.submit(1, run_id="r")
    with pytest.raises(RunConflict, match="'r' is taken"):
        flow.delayed.submit(run_id="r")


def test_child_killed_parent_lives(flow, workers):
    workers()

    assert flow.fragile.submit("lives").result(timeout_s=20) == 2


def test_a_worker_that_is_killed_loses_no_run(flow, workers, redis_client):
    first = workers(concurrency=1, name="w1")
    handle = flow.orphan.submit("lives", run_id="r")
    wait_until(lambda: redis_client.get("lives") == "1", "the step runs")
    workers(concurrency=1, name="w2")

    first.kill()

    assert handle.result(timeout_s=15)
    assert redis_client.get("lives") == "2"


def _due(flow: Any) -> list[str]:
    store = here.store()
    return [member for shard in range(store.keys.shards) for member in store.redis.zrange(store.keys.due(shard), 0, -1)]
