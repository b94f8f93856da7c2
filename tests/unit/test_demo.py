"""What the demo makes of events, and of a folder that is not its own."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from status import Event, State
from status.errors import ConfigError
from tasks.demo_crew import fresh_folder
from tasks.demo_stop import Interrupted, Stop
from tasks.demo_summary import Summary
from tasks.demo_tally import Tally, path, run_id
from tasks.demo_view import choose, line, screen

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def event(kind: str, name: str = "", order: str = "a", after_s: float = 0.0, **detail: Any) -> Event:
    return Event(run_id(order), START + timedelta(seconds=after_s), kind, name, detail)


def tally_of(*events: Event, orders: str = "abc") -> Tally:
    tally = Tally.of(orders)
    for happened in events:
        tally.apply(happened)
    return tally


SOLD = (
    event("run.submitted"),
    event("step.started", "inventory.check", after_s=0.5),
    event("run.status", "paid", phase="paid", progress=0.6),
    event("step.done", "inventory.check", after_s=0.6),
    event("run.completed", after_s=2.0),
)


def test_a_tally_follows_the_events():
    tally = tally_of(*SOLD, event("run.submitted", order="b"), event("step.started", "fraud.check", order="b"))

    assert (tally.ended, tally.steps, tally.elapsed_s, tally.orders_per_s) == (1, 1, 2.0, 0.5)
    assert [row.state for row in tally.rows.values()] == [State.COMPLETED, State.RUNNING, State.PENDING]
    assert [row.order_id for row in tally.unfinished] == ["b", "c"]
    assert line(tally, 2.0) == "  2.0 s: 1 of 3 orders ended (1 completed, 0 refused, 0 compensated), 1 steps"


def test_an_order_stays_ended_when_a_late_loser_of_its_race_is_undone():
    tally = tally_of(*SOLD, event("saga.undoing", "undo charge payment-stripe", after_s=2.1), orders="a")

    assert (tally.ended, tally.unfinished) == (1, [])
    assert tally_of(event("saga.undoing", "charge", saga="order")).rows["order-a"].state is State.COMPENSATING


@pytest.mark.parametrize(
    ("end", "history", "error", "shown"),
    [
        ("completed", [event("step.done", "payment-paypal")], "", "paid by paypal"),
        (
            "completed",
            [
                event("step.retrying", "payment-stripe"),
                event("step.done", "payment-paypal"),
                event("step.failed", "notification.send_sms"),
                event("step.done", "payment-stripe", detail="late"),
                event("saga.undone", "undo charge payment-stripe"),
            ],
            "",
            "paid by paypal; notification.send_sms failed; payment-stripe tried 2 times; late payment-stripe undone",
        ),
        (
            "failed",
            [event("join.opened", "0", detail="fan_out_fail(inventory.check, fraud.check)")],
            "validation 1 failed",
            "validation 1 failed (fraud.check)",
        ),
        (
            "compensated",
            [event("saga.undone", "charge"), event("saga.undone", "reserve")],
            "aisle closed",
            "aisle closed → undone: charge, reserve",
        ),
    ],
)
def test_the_path_of_an_order(end, history, error, shown):
    row = tally_of(event(f"run.{end}")).rows["order-a"]

    assert path(row, history, error) == shown


def test_those_that_run_come_first_where_room_is_short():
    tally = tally_of(*SOLD, event("step.started", "fraud.check", order="c"), orders="abcd")
    rows = list(tally.rows.values())

    assert [row.order_id for row in choose(rows, 4)] == ["a", "b", "c", "d"]
    assert [row.order_id for row in choose(rows, 3)] == ["c", "a", "b"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_view_fits_the_terminal(width):
    tally = tally_of(*SOLD, orders="".join(chr(97 + i) for i in range(26)))
    console = Console(width=width, file=io.StringIO(), record=True)

    console.print(screen(tally, 3.0, height=20, width=width))

    lines = console.export_text().splitlines()
    assert len(lines) <= 19
    assert max(map(len, lines)) <= width
    assert "… and" in lines[-1]


@pytest.mark.parametrize(
    ("ends", "violations", "unsettled", "exit_code"),
    [
        ("completed failed compensated", [], [], 0),
        ("completed failed compensation_failed", [], [], 1),
        ("completed failed compensated", ["A: 1 unit is gone"], [], 1),
        ("completed failed compensated", None, ["order-a"], 1),
        ("completed failed", None, [], 1),
    ],
)
def test_the_exit_code_is_0_only_if_all_is_well(ends, violations, unsettled, exit_code):
    events = [event(f"run.{end}", order=order) for order, end in zip("abc", ends.split(), strict=False)]

    assert Summary(tally_of(*events), {}, violations, unsettled).exit_code == exit_code


def test_the_json_line_has_what_else_happened():
    tally = tally_of(event("run.submitted"), event("run.compensation_failed", after_s=2.0), orders="a")

    assert Summary(tally, {}, []).as_json() == (
        '{"orders": 1, "completed": 0, "refused": 0, "compensated": 0, "stuck": 0, "orders_per_s": 0.5, '
        '"invariants": "hold", "compensation_failed": 1}'
    )


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "diary.txt").write_text("dear diary")

    with pytest.raises(ConfigError, match="holds something that is not of a demo"), fresh_folder(tmp_path):
        pass

    assert (tmp_path / "diary.txt").exists()


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    for name in ("REDIS_URL", "DATABASE_URL", "CELERIAC_DATA_DIR"):
        monkeypatch.setenv(name, "kept")  # what the folder changes is put back after the test

    with fresh_folder(tmp_path / "demo") as folder:
        (folder / "left").write_text("by the first")
        with pytest.raises(ConfigError, match="another demo runs in"), fresh_folder(folder):
            pass
    with fresh_folder(folder):
        assert not (folder / "left").exists()


def test_a_signal_is_heard_at_the_next_check_and_a_second_one_hurries():
    stop, hurried = Stop(), []
    stop.hurry = lambda: hurried.append(True)
    stop.check()

    stop._note(2, None)

    assert hurried == []
    with pytest.raises(Interrupted):
        stop.check()
    stop._note(2, None)
    assert hurried == [True]
