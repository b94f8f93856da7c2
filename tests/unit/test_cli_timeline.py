"""A run's time as text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from status.cli_timeline import timeline
from status.models import Event, RunStatus, StepStatus
from status.states import State

BEGAN = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
WIDTH = 28 + 20 + 12 + 3  # bars of 20 columns


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def step(place: str, name: str, start_s: float | None, end_s: float | None, state: str = "done", *, attempt: int = 1):
    start, end = (None if one is None else at(one) for one in (start_s, end_s))
    return StepStatus(f"r/{place}", name, state, attempt, "q", start, end, None)


RUN = RunStatus("r", "w", State.COMPLETED, "", 1.0, {}, None, BEGAN, at(10), at(10))


def lines(run: RunStatus, events: tuple[Event, ...] = (), now_s: float = 10) -> list[str]:
    return [line.plain for line in timeline(run, events, at(now_s), WIDTH)]


def test_each_step_is_a_bar_on_the_runs_time():
    run = replace(RUN, steps=(step("0.0", "pay", 0, 5), step("1.0", "pack", 5, 10)))

    assert lines(run) == [
        f"{'timeline':<28} 0             10.0 s",
        f"{'0.0 pay':<28} ━━━━━━━━━━━          5.0 s",
        f"{'1.0 pack':<28}           ━━━━━━━━━━ 5.0 s",
    ]


def test_earlier_attempts_are_shown_where_they_can_be_told():
    run = replace(RUN, steps=(step("0.0", "pay", 5, 10, attempt=2), step("1.0", "pack", None, None, "waiting")))
    told = [("step.started", 0), ("step.retrying", 2), ("step.started", 5), ("step.done", 10)]
    events = tuple(Event("r", at(seconds), kind, "pay", {}) for kind, seconds in told)

    (_, line) = lines(run, events)

    assert line == f"{'0.0 pay':<28} ╌╌╌╌╌     ━━━━━━━━━━ 5.0 s"


def test_a_step_that_runs_goes_on_to_now_and_a_short_one_is_seen_too():
    run = replace(
        RUN, state=State.RUNNING, finished_at=None, steps=(step("0.0", "a", 0, 0), step("1.0", "b", 1, None, "running"))
    )

    axis, short, long = lines(run, now_s=2)

    assert axis.endswith("2.0 s now")
    assert short == f"{'0.0 a':<28} ━                    0 ms"
    assert long == f"{'1.0 b':<28}           ━━━━━━━━━━ 1.0 s …"


def test_a_run_in_which_nothing_has_begun_has_no_timeline():
    assert lines(replace(RUN, steps=(step("0.0", "a", None, None, "waiting"),))) == []


def test_of_a_long_run_the_rest_is_counted():
    run = replace(RUN, steps=tuple(step(f"{n}.0", "a", 0, 1) for n in range(70)))

    assert lines(run)[-1] == "10 more: --json has them all"
