"""`celery runs` without a Redis: what is read from files, what is shown, and what errors look like."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from redis.exceptions import ConnectionError as RedisConnectionError
from rich.console import Console

from status import api, cli_lines, cli_show, cli_text, cli_watch, here
from status.cli import runs
from status.errors import (
    ConfigError,
    ErrorInfo,
    PayloadError,
    RunNotFound,
    StoreUnavailable,
    UnknownWorkflow,
)
from status.models import Event, Page, RunStatus, StepStatus
from status.states import State

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ERROR = ErrorInfo(
    None,
    "builtins.RuntimeError",
    "no hotel",
    500,
    cause=ErrorInfo("reserve", "shop.Full", "all taken", 409, attempts=3),
)
RUN = RunStatus(
    run_id="trip-1",
    workflow="trips.book",
    state=State.RUNNING,
    phase="booking",
    progress=0.5,
    metadata={"nights": 2},
    error=None,
    started_at=START,
    updated_at=START,
    finished_at=None,
    steps=(
        StepStatus("trip-1/0.0", "reserve", "done", 2, "hotels", START, START + timedelta(milliseconds=85), None),
        StepStatus("trip-1/1.0", "fetch", "waiting", 1, "attic", None, None, None),
    ),
)


def event(kind: str, name: str = "", after_s: float = 1.0, **detail: Any) -> Event:
    return Event("trip-1", START + timedelta(seconds=after_s), kind, name, detail)


class Trips:
    """A workflow as far as the command line knows one; keeps what it is given."""

    name = "trips.book"
    is_workflow = True

    def __init__(self, fails_at: str = "") -> None:
        self.submitted: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.fails_at = fails_at

    def write_input(self, args: Any, kwargs: Any) -> str:
        if len(args) != 1 or not isinstance(args[0], str | dict):
            raise PayloadError(f"argument city of trips.book: Input should be a city, got {args!r}")
        return json.dumps([args, kwargs])

    def submit(self, *args: Any, run_id: str, **kwargs: Any) -> None:
        if run_id == self.fails_at:
            raise StoreUnavailable("Redis does not answer")
        self.submitted.append((run_id, args, kwargs))


def an_app(**tasks: Any) -> Any:
    def inspect(*, timeout: float) -> Any:
        assert timeout <= 1.0
        return SimpleNamespace(active_queues=lambda: None)

    return SimpleNamespace(
        main="trips",
        tasks={"trips.book": Trips(), "trips.reserve": object(), **tasks},
        user_options={"preload": []},
        loader=SimpleNamespace(import_default_modules=lambda: None),
        control=SimpleNamespace(inspect=inspect),
    )


@pytest.fixture
def redis_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "check", lambda: None)
    monkeypatch.setattr(here, "where", lambda: "redis://there")


def call(*args: str, app: Any = None, **more: Any) -> Result:
    return CliRunner().invoke(runs, args, obj=SimpleNamespace(app=app or an_app()), **more)


def lines_of(*lines: str | bytes) -> io.BytesIO:
    file = io.BytesIO(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    file.name = "trips.jsonl"
    return file


def read(*lines: str | bytes, **ids: str) -> list[cli_lines.Line]:
    return cli_lines.read_lines(Trips(), lines_of(*lines), cli_lines.RunIds(**ids))


# --- reading lines ----------------------------------------------------------------


def test_a_line_is_the_one_argument_or_says_how_to_call():
    lines = read(
        '"Rome"', "", '{"run_id": "b", "args": ["Oslo"], "kwargs": {"nights": 2}}', '{"args": "no call", "n": 1}'
    )

    assert [(line.number, list(line.args), dict(line.kwargs)) for line in lines] == [
        (1, ["Rome"], {}),
        (3, ["Oslo"], {"nights": 2}),
        (4, [{"args": "no call", "n": 1}], {}),
    ]
    assert lines[1].run_id == "b"
    assert lines[0].run_id.startswith("book-")


def test_run_ids_are_made_of_a_field():
    lines = read('{"id": "a"}', '{"id": 7}', field="id", prefix="trip-")

    assert [line.run_id for line in lines] == ["trip-a", "trip-7"]


@pytest.mark.parametrize(
    ("line", "ids", "said"),
    [
        ("{nope", {}, "is not JSON (Expecting property name enclosed in double quotes at column 2, near '{nope')"),
        ("[NaN]", {}, "NaN is not JSON: write a number, or null"),
        (b'"\xff"', {}, "is not UTF-8 (byte 0xff): save the file as UTF-8"),
        ("7", {}, "argument city of trips.book: Input should be a city, got [7]: correct this line"),
        ('"Oslo"', {"field": "id"}, "has no field 'id' to make a run id of: add it, or change --run-id-field"),
        ('{"id": null}', {"field": "id"}, "the field 'id' must be text or a whole number for a run id, got None"),
        ('{"id": "a b"}', {"field": "id"}, "run id 'a b' won't do"),
        ('{"run_id": 7, "args": []}', {}, "run_id must be text, got 7"),
        ('{"args": {}}', {}, "args must be a list and kwargs an object"),
    ],
)
def test_a_bad_line_is_refused_with_file_line_value_and_remedy(line, ids, said):
    good = '{"id": "first"}'

    with pytest.raises(PayloadError) as refused:
        read(good, line, **ids)

    assert str(refused.value).startswith("trips.jsonl:2: ")
    assert said in str(refused.value)
    assert str(refused.value).endswith("; nothing was submitted")


def test_two_lines_with_one_id_are_refused():
    with pytest.raises(PayloadError, match=r"trips.jsonl:3: the run id 'a' is in line 1 already"):
        read('{"id": "a"}', '{"id": "b"}', '{"id": "a"}', field="id")


def test_a_file_without_lines_is_refused():
    with pytest.raises(PayloadError, match=r"trips.jsonl: there is nothing in it: write one JSON value a line"):
        read("", "  ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "trips.bok",
            "no workflow is called 'trips.bok', did you mean 'trips.book'? This app's workflows are: trips.book",
        ),
        ("zzz", "no workflow is called 'zzz'. This app's workflows are: trips.book"),
        ("trips.reserve", "'trips.reserve' is a task, not a workflow"),
    ],
)
def test_an_unknown_workflow_is_refused_with_those_there_are(name, said):
    with pytest.raises(UnknownWorkflow) as refused:
        cli_lines.find_workflow(an_app(), name)

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("again", "remedy"),
    [(True, "run the same command again, runs that exist are not started twice"), (False, "from line 2 on")],
)
def test_a_submit_that_breaks_off_says_how_far_it_came(again, remedy):
    workflow = Trips(fails_at="b")
    lines = read('{"id": "a"}', '{"id": "b"}', '{"id": "c"}', field="id")

    with pytest.raises(StoreUnavailable, match=r"1 of 3 runs were submitted, then: Redis does not answer") as broken:
        list(cli_lines.submit_all(workflow, lines, again=again))

    assert remedy in str(broken.value)
    assert [run_id for run_id, _, _ in workflow.submitted] == ["a"]


# --- what is shown ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.085, "85 ms"),
        (0.9999, "1.0 s"),
        (59.96, "1 m 0 s"),
        (200, "3 m 20 s"),
        (18120, "5 h 2 m"),
        (273600, "3 d 4 h"),
    ],
)
def test_a_length_of_time_is_readable(seconds, shown):
    assert cli_text.length(seconds) == shown


def test_an_error_is_shown_with_its_causes():
    assert cli_text.error_lines(ERROR) == [
        "RuntimeError (code 500): no hotel",
        "caused by Full in reserve after 3 attempts (code 409): all taken",
    ]


def test_an_error_of_the_workflows_own_code_says_its_place():
    trace = 'Traceback\n  File "replay.py", line 95, in _drive\n    go()\n  File "trips.py", line 8, in book\n    x()\n'
    own = replace(ERROR, step=None, error_type="builtins.TypeError", traceback=trace)

    assert cli_text.raised_at(own) == ['at "trips.py", line 8, in book']
    assert cli_text.raised_at(replace(own, step="reserve")) == []
    assert cli_text.raised_at(replace(own, error_type="status.errors.TerminalError")) == []


@pytest.mark.parametrize(
    ("happened", "shown"),
    [
        (event("step.started", "reserve", detail="1"), "step.started     reserve"),
        (event("step.started", "reserve", detail="2"), "step.started     reserve  attempt 2"),
        (event("run.status", "paid", phase="paid", progress=0.5, nights=2), "run.status       paid  50% nights=2"),
        (event("run.failed", error_type="a.Full", message="taken", traceback="…"), "run.failed        Full: taken"),
    ],
)
def test_an_event_is_a_line(happened, shown):
    assert cli_text.event_line(happened, with_run=False).plain.partition("  ")[2].rstrip() == shown.rstrip()


def test_a_run_is_shown_with_phases_steps_undos_and_error():
    history = [
        event("run.status", "booking", 0.25, phase="booking", progress=0.5),
        event("saga.undone", "reserve", 2.0),
    ]
    console = Console(width=100, record=True, file=io.StringIO())

    console.print(cli_show.run_page(replace(RUN, error=ERROR), history, START + timedelta(seconds=3)))

    text = console.export_text()
    assert "trip-1  trips.book  running  for 3.0 s" in text
    assert "50% booking" in text
    assert "nights=2" in text
    assert "phases  booking +250 ms" in text
    assert "reserve  done       2  hotels  85 ms" in text
    assert "saga.undone" in text
    assert "caused by Full in reserve after 3 attempts (code 409): all taken" in text


def test_json_of_a_run_can_be_read_by_programs():
    shown = json.loads(cli_text.dumps(cli_text.run_json(replace(RUN, error=ERROR), steps=True)))

    assert shown["started_at"] == "2026-11-23T12:00:00+00:00"
    assert shown["steps"][0]["duration_s"] == 0.085
    assert shown["error"]["cause"]["message"] == "all taken"


@pytest.mark.parametrize(
    ("happened", "changed"),
    [
        (event("run.status", "paid", progress=0.7), {"phase": "paid", "progress": 0.7}),
        (event("saga.undoing", "reserve", saga="trip"), {"state": State.COMPENSATING}),
        (event("saga.undoing", "undo charge"), {}),
        (event("run.cancelling"), {"state": State.CANCELLING}),
        (event("run.failed"), {"state": State.FAILED, "finished_at": START + timedelta(seconds=1)}),
        (event("join.opened", "1"), {}),
    ],
)
def test_the_board_follows_events(happened, changed):
    assert cli_watch.after(RUN, happened) == replace(RUN, updated_at=happened.at, **changed)


# --- the commands -----------------------------------------------------------------


@pytest.mark.usefixtures("redis_is_there")
def test_list_as_table_and_as_json(monkeypatch):
    asked: list[dict[str, Any]] = []

    def list_runs(**options: Any) -> Page:
        asked.append(options)
        return Page((RUN,), "next")

    monkeypatch.setattr(api, "list_runs", list_runs)

    table = call("list", "--state", "running", "--limit", "1")
    as_json = call("list", "--workflow", "trips.book", "--json")

    assert "trip-1  trips.book  running  booking" in table.output
    assert "--cursor next" in table.output
    assert json.loads(as_json.output)["runs"][0]["run_id"] == "trip-1"
    assert json.loads(as_json.output)["cursor"] == "next"
    assert asked[0] == {"workflow": None, "state": "running", "limit": 1, "cursor": None}
    assert asked[1]["workflow"] == "trips.book"


@pytest.mark.usefixtures("redis_is_there")
def test_show_says_which_queue_nobody_listens_on(monkeypatch):
    monkeypatch.setattr(api, "get_status", lambda _: RUN)
    monkeypatch.setattr(api, "history", lambda _: ())

    result = call("show", "trip-1")

    assert result.exit_code == 0
    assert "no worker listens on queue 'attic': start one with `celery -A trips worker -Q attic`" in result.output


@pytest.mark.usefixtures("redis_is_there")
def test_show_asks_no_worker_about_a_run_that_has_ended(monkeypatch):
    monkeypatch.setattr(api, "get_status", lambda _: replace(RUN, state=State.CANCELLED))
    monkeypatch.setattr(api, "history", lambda _: ())
    app = an_app()
    app.control = None

    assert call("show", "trip-1", app=app).exit_code == 0


@pytest.mark.usefixtures("redis_is_there")
@pytest.mark.parametrize(
    ("state", "exit_code", "said"),
    [
        (State.RUNNING, 0, "trip-1 is asked to stop"),
        (State.CANCELLED, 0, "trip-1 is cancelled already"),
        (State.COMPLETED, 2, "Error: run trip-1 has ended already, it is completed: there is nothing to cancel"),
    ],
)
def test_cancel(monkeypatch, state, exit_code, said):
    cancelled: list[tuple[str, str]] = []
    monkeypatch.setattr(api, "get_status", lambda _: replace(RUN, state=state))
    monkeypatch.setattr(api, "cancel", lambda run_id, reason: cancelled.append((run_id, reason)))

    result = call("cancel", "trip-1", "--reason", "rain")

    assert (result.exit_code, said in result.output) == (exit_code, True)
    assert cancelled == ([("trip-1", "rain")] if state is State.RUNNING else [])


@pytest.mark.usefixtures("redis_is_there")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RunNotFound("trip-1"), "Error: no run has the id 'trip-1'"),
        (ConfigError("CELERIAC_SHARDS must\nbe 16"), "Error: CELERIAC_SHARDS must be 16"),
        (RedisConnectionError("Connection reset"), "Error: Redis at redis://there went away (Connection reset)"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_code_2(monkeypatch, error, said):
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr(api, "get_status", fail)

    result = call("show", "trip-1")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 1


def test_a_redis_that_is_down_is_said_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(here, "_url", "redis://127.0.0.1:1/0")

    result = call("list")

    assert result.exit_code == 2
    assert result.stderr.startswith("Error: Redis at redis://127.0.0.1:1/0 does not answer")
    assert "set REDIS_URL" in result.stderr


@pytest.mark.usefixtures("redis_is_there")
@pytest.mark.parametrize("command", ["show", "watch", "cancel"])
def test_a_malformed_id_is_refused(command):
    result = call(command, "a b")

    assert (result.exit_code, "run id 'a b' won't do" in result.stderr) == (2, True)


@pytest.mark.parametrize("command", sorted(runs.commands))
def test_each_help_has_an_example(command):
    result = call(command, "--help")

    assert isinstance(runs.commands[command], click.Command)
    assert f"celery -A tasks runs {command}" in result.output


def test_cancel_without_an_app_goes_through_the_store(monkeypatch):
    cancelled: list[tuple[str, str]] = []

    class Store:
        def cancel(self, run_id: str, reason: str, *, token: str) -> None:
            assert token
            cancelled.append((run_id, reason))

    monkeypatch.setattr(here, "_cancel", None)
    monkeypatch.setattr(here, "store", Store)

    api.cancel("trip-1", "rain")

    assert cancelled == [("trip-1", "rain")]


def test_a_sleep_and_a_promise_wait_on_no_queue():
    steps = tuple(StepStatus("r/0.0", name, "waiting", 1, "", None, None, None) for name in ("sleep", "promise ok"))
    run = replace(RUN, steps=steps)

    assert cli_show.unserved(None, run) == []
    assert cli_show.awaited_promises(run) == ["ok"]
    assert cli_show.awaited_promises(replace(run, state=State.FAILED)) == []


def shown_run(run, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(cli_show.run_page(run, [], START + timedelta(seconds=3)))
    return console.export_text()


def test_a_run_that_ended_without_a_word_has_no_empty_bar():
    silent = replace(RUN, phase="", progress=0.0)

    assert "no phase yet" in shown_run(silent)
    ended = shown_run(replace(silent, state=State.COMPLETED, finished_at=START + timedelta(seconds=2)))
    assert "no phase yet" not in ended
    assert "0%" not in ended


def test_a_long_batch_says_that_parts_are_left_out():
    parts = [replace(RUN.steps[0], step_id=f"trip-1/0.{n}") for n in range(cli_show.BATCH_SHOWN)]

    assert "1,000 parts and as many failures are shown" in shown_run(replace(RUN, steps=parts))
    assert "are shown" not in shown_run(replace(RUN, steps=parts[1:]))


def test_a_state_is_never_cut_off():
    console = Console(width=80, record=True, file=io.StringIO())
    ended = replace(RUN, run_id="a-long-run-id:resume.2", workflow="saga.resume", state=State.COMPENSATION_FAILED)

    console.print(cli_show.runs_table([ended], START + timedelta(seconds=80)))

    assert "compensation_failed" in console.export_text()
