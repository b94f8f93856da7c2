"""`celery runs` as people and programs run it."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from status import get_status, here, places
from status.cli import runs as commands
from status.cli_watch import Board
from waiting import wait_until

APP = "trips"
ROOT = Path(__file__).parents[2]


@dataclass
class Command:
    """A `celery runs ...` that goes on."""

    process: subprocess.Popen[str]
    shown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.shown.extend(line.rstrip() for line in self.process.stdout)

    def wait_for(self, text: str) -> None:
        wait_until(lambda: any(text in line for line in list(self.shown)), f"{text!r} is shown: {self.shown}", 20)

    def end(self) -> int:
        exit_code = self.process.wait(timeout=20)
        self._reader.join(timeout=5)
        return exit_code


Runs = Callable[..., Result]


@pytest.fixture
def env(worker_env: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **worker_env, "COLUMNS": "120"}


@pytest.fixture
def runs(worker_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """Runs a command to its end, in this process."""
    for name, value in worker_env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "apps"))
    monkeypatch.setenv("COLUMNS", "120")
    places.reset()
    app = importlib.import_module(APP).app
    here.use(None)

    def run(*args: str, given: str | None = None) -> Result:
        return CliRunner().invoke(commands, args, obj=SimpleNamespace(app=app), input=given)

    yield run
    places.reset()


@pytest.fixture
def start(env: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts a command that goes on."""
    started: list[Command] = []

    def begin(*args: str) -> Command:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", APP, "runs", *args],
            env={**env, "PYTHONUNBUFFERED": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(Command(process))
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.wait()


def jsons(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


TRIPS = """\
{"run_id": "rome", "args": ["Rome"], "kwargs": {"nights": 2}}
{"run_id": "sunk", "args": ["Atlantis"]}
"""


def test_a_file_is_submitted_waited_for_listed_and_shown(worker, runs):
    worker(APP, pool="solo", concurrency=1, queues=["celery"])

    submitted = runs("submit", "trips.book", "-", "--wait", "--json", given=TRIPS)
    listed = runs("list", "--json")
    failed = runs("list", "--state", "failed")
    shown = runs("show", "sunk")
    watched = runs("watch", "rome", "--json")

    assert submitted.exit_code == 1
    assert {line["run_id"]: line["state"] for line in jsons(submitted)} == {"rome": "completed", "sunk": "failed"}
    assert "1 of 2 runs completed" in submitted.stderr
    assert {run["run_id"] for run in jsons(listed)[0]["runs"]} == {"rome", "sunk"}
    assert "sunk" in failed.stdout
    assert "rome" not in failed.stdout
    assert "StepFailed" in shown.stdout or "TerminalError" in shown.stdout
    assert "there is no way to Atlantis" in shown.stdout
    assert [event["kind"] for event in jsons(watched) if event["kind"].startswith("run.")] == [
        "run.submitted", "run.status", "run.status", "run.completed",
    ]  # fmt: skip
    assert watched.exit_code == 0


def test_a_run_that_waits_for_a_queue_without_workers_says_so_and_can_be_watched_and_cancelled(worker, runs, start):
    worker(APP, pool="solo", concurrency=1, queues=["celery"])
    assert runs("submit", "trips.pack", "-", given='{"run_id": "bag", "args": ["Rome"]}').stdout == "bag\n"
    watching = start("watch", "bag")
    watching.wait_for("join.opened")

    shown = runs("show", "bag")
    cancelled = runs("cancel", "bag", "--reason", "rain")

    assert "no worker listens on queue 'attic': start one with `celery -A trips worker -Q attic`" in shown.stdout
    assert cancelled.exit_code == 0
    watching.wait_for("run.cancelled")
    assert watching.end() == 0
    assert "rain" in runs("show", "bag").stdout


def test_a_run_that_failed_is_retried_and_one_that_did_not_is_refused(worker, runs):
    worker(APP, pool="solo", concurrency=1, queues=["celery"])
    runs("submit", "trips.book", "-", "--wait", given=TRIPS)

    again = runs("retry", "sunk")
    here.reader().wait("sunk", timeout_s=20)
    refused = runs("retry", "rome")

    assert (again.exit_code, again.stdout) == (0, "sunk goes on; see how: runs watch sunk\n")
    kinds = [event["kind"] for event in jsons(runs("show", "sunk", "--json"))[0]["history"]]
    assert (kinds.count("step.failed"), kinds.count("operator.retry")) == (2, 1)
    assert refused.exit_code == 2
    assert "run rome is completed: nothing of it failed" in refused.stderr


def test_a_run_that_nobody_can_take_further_is_abandoned(runs):
    runs("submit", "trips.pack", "-", given='{"run_id": "bag", "args": ["Rome"]}')

    abandoned = runs("cancel", "bag", "--reason", "rain", "--abandon")

    assert (abandoned.exit_code, abandoned.stdout) == (0, "bag is abandoned, it is cancelled\n")
    assert "abandoned: rain" in runs("show", "bag").stdout


@pytest.mark.parametrize(("options", "shown"), [((), "bag  run.submitted"), (("--json",), '"kind": "run.submitted"')])
def test_all_runs_are_watched_an_event_a_line_until_ctrl_c(runs, start, options, shown):
    watching = start("watch", *options)

    runs("submit", "trips.pack", "-", given='{"run_id": "bag", "args": ["Rome"]}')

    watching.wait_for(shown)
    watching.process.send_signal(signal.SIGINT)
    assert watching.end() == 0
    assert not [line for line in watching.shown if "Traceback" in line]


def test_the_board_shows_runs_that_come_later_and_lets_go_of_those_that_end(runs):
    board = Board(here.reader())
    board.look(limit=10)
    runs("submit", "trips.pack", "-", given='{"run_id": "bag", "args": ["Rome"]}')
    board.look(limit=10)

    assert [event.kind for event in board.read(5)] == ["run.submitted"]
    assert "bag" in drawn(board)
    assert "1 runs go on   1 pending" in drawn(board)

    runs("cancel", "bag")

    assert [event.kind for event in board.read(5)] == ["run.cancelling"]
    assert "cancelling" in drawn(board)


def drawn(board: Board) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(board.render(height=20))
    return console.export_text()


@pytest.mark.parametrize(
    ("args", "given", "said"),
    [
        (["submit", "trips.book", "-"], '["Rome"]\n{"args": [["Oslo"]]}', "<stdin>:1: argument city of trips.book"),
        (["submit", "trips.bok", "-"], '"Rome"', "no workflow is called 'trips.bok', did you mean 'trips.book'?"),
        (["submit", "trips.book", "nowhere.jsonl"], None, "'nowhere.jsonl': No such file or directory"),
        (["show", "nobody"], None, "no run has the id 'nobody'"),
        (["cancel", "nobody"], None, "no run has the id 'nobody'"),
    ],
)
def test_a_mistake_is_said_in_a_line_with_exit_code_2(runs, redis_client, args, given, said):
    result = runs(*args, given=given)

    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert redis_client.keys("celeriac:*run:*") == []


def test_an_id_that_is_taken_is_refused_before_anything_is_submitted(runs, redis_client):
    runs("submit", "trips.book", "-", given='{"run_id": "a", "args": ["Rome"]}')

    again = runs("submit", "trips.book", "-", given='{"run_id": "a", "args": ["Rome"]}')
    other = runs(
        "submit", "trips.book", "-", given='{"run_id": "b", "args": ["Rome"]}\n{"run_id": "a", "args": ["Oslo"]}'
    )

    assert (again.exit_code, again.stdout) == (0, "a\n")
    assert other.exit_code == 2
    assert "<stdin>:2: run id 'a' is taken by a run of other arguments" in other.stderr
    assert len(redis_client.keys("celeriac:*run:*")) == 1


def test_redis_down_is_said_soon(start, env):
    env["REDIS_URL"] = "redis://127.0.0.1:1/0"
    command = start("list")

    assert command.end() == 2
    (line,) = command.shown
    assert line.startswith("Error: Redis at redis://127.0.0.1:1/0 does not answer")


def planned(runs: Runs, run_id: str) -> None:
    """A run that waits for its budget."""
    runs("submit", "trips.plan", "-", given=json.dumps({"run_id": run_id, "args": ["Rome"]}))
    wait_until(lambda: get_status(run_id).state == "suspended", f"{run_id} waits for its budget")


def test_a_promise_that_a_run_waits_for_is_shown_and_resolved(worker, runs):
    worker(APP, pool="solo", concurrency=1, queues=["celery"])
    planned(runs, "rome")
    hint = "it waits for promise 'budget': `celery -A trips runs resolve rome budget JSON`"

    assert hint in runs("show", "rome").output
    assert jsons(runs("show", "rome", "--json"))[0]["promises"] == ["budget"]
    early = runs("resolve", "rome", "bugdet", "-500")
    assert (early.exit_code, early.output) == (0, "bugdet of rome is resolved; it waits for 'budget' now\n")
    resolved = runs("resolve", "rome", "budget", "-500")
    assert (resolved.exit_code, resolved.output) == (0, "budget of rome is resolved\n")
    wait_until(lambda: get_status("rome").finished, "rome is planned")
    assert hint not in runs("show", "rome").output

    planned(runs, "oslo")
    assert runs("resolve", "oslo", "budget", "--reject", "no money", "--code", "402").exit_code == 0
    wait_until(lambda: get_status("oslo").finished, "oslo is given up")
    error = get_status("oslo").error
    assert (get_status("oslo").state, error and (error.message, error.code)) == ("failed", ("no money", 402))


def test_a_promise_that_can_not_be_resolved_so_is_left_as_it_is(worker, runs):
    worker(APP, pool="solo", concurrency=1, queues=["celery"])
    planned(runs, "rome")
    for args, said in [
        (("rome", "budget", "much"), "'much' is not JSON"),
        (("rome", "budget", '"much"'), "promise budget: Input should be a valid integer"),
        (("rome", "budget", "NaN"), "must be JSON"),
        (("rome", "budget"), "give 'budget' a value as JSON, or --reject MESSAGE; one of them"),
        (("rome", "budget", "1", "--reject", "no"), "one of them"),
        (("rome", "budget", "1", "--code", "500"), "--code belongs to --reject"),
        (("rome", "", "1"), "the name of a promise is"),
        (("paris", "budget", "1"), "no run has the id 'paris'"),
        (("no id", "budget", "1"), "run id 'no id' won't do"),
    ]:
        refused = runs("resolve", *args)
        assert (refused.exit_code, said in refused.output) == (2, True), refused.output
        assert refused.output.count("\n") == 1
    assert get_status("rome").state == "suspended"

    assert runs("resolve", "rome", "visa", "[1]").exit_code == 0  # nobody knows its type yet
    again = runs("resolve", "rome", "visa", "[2]")
    assert (again.exit_code, "has its value already" in again.output) == (2, True)
    runs("resolve", "rome", "budget", "1")
    wait_until(lambda: get_status("rome").finished, "rome is planned")
    late = runs("resolve", "rome", "late", "1")
    assert (late.exit_code, "has ended already, it is completed" in late.output) == (2, True)


def test_a_channel_that_a_run_waits_for_is_shown_and_sent_to(worker, runs):
    worker(APP, pool="solo", concurrency=1, queues=["celery"])
    runs("submit", "trips.tour", "-", given='{"run_id": "tour", "args": [[]]}')
    wait_until(lambda: get_status("tour").state == "suspended", "it waits for a stop")
    hint = "it waits for a message on channel 'stops': `celery -A trips runs send tour stops JSON`"
    assert hint in runs("show", "tour").output
    assert jsons(runs("show", "tour", "--json"))[0]["channels"] == ["stops"]

    for args, said in [
        (("tour", "stops", "home"), "'home' is not JSON"),
        (("tour", "stops", "7"), "channel stops: Input should be a valid string"),
        (("tour", "stops", "NaN"), "a message must be JSON"),
        (("tour", "", "1"), "the name of a channel is"),
        (("nobody", "stops", "1"), "no run has the id 'nobody'"),
        (("no id", "stops", "1"), "run id 'no id' won't do"),
    ]:
        refused = runs("send", *args)
        assert (refused.exit_code, said in refused.output) == (2, True), refused.output
        assert refused.output.count("\n") == 1
    early = runs("send", "tour", "stop", "-5")
    assert early.output == "stop of tour has the message; it waits for a message on 'stops' now\n"
    assert runs("send", "tour", "stops", '"Rome"').output == "stops of tour has the message\n"
    wait_until(lambda: get_status("tour").round == 2, "the next round has begun")
    assert "round 2" in runs("show", "tour").output
    wait_until(lambda: get_status("tour").state == "suspended", "it waits for the next stop")
    runs("send", "tour", "stops", '"home"')

    wait_until(lambda: get_status("tour").finished, "the tour is home")
    late = runs("send", "tour", "stops", '"Oslo"')
    assert (late.exit_code, "has ended already, it is completed" in late.output) == (2, True)
    assert hint not in runs("show", "tour").output


def completed(env: dict[str, str], *words: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    line = ["celery", "-A", APP, "runs", *words]
    asked = {"_CELERY_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
    celery = str(Path(sys.executable).parent / "celery")
    answer = subprocess.run([celery], env=env | asked, capture_output=True, text=True, timeout=60, check=False)
    return [offer.partition(",")[2] for offer in answer.stdout.splitlines() if offer]


def test_the_shell_completes_run_ids_workflows_and_promises(runs: Runs, env: dict[str, str]) -> None:
    for run_id in ("trip-1", "trip-2", "other"):
        text = json.dumps({"run_id": run_id, "args": ["Rome"]})
        assert runs("submit", "trips.book", "-", given=text).exit_code == 0

    assert completed(env, "show", "trip") == ["trip-2", "trip-1"]
    assert completed(env, "cancel", "o") == ["other"]
    assert completed(env, "submit", "trips.b") == ["trips.book"]
    assert completed(env, "list", "--state", "canc") == ["cancelling", "cancelled"]


def test_completion_is_silent_and_starts_nothing_where_no_redis_runs(env: dict[str, str], tmp_path: Path) -> None:
    nobody = {name: value for name, value in env.items() if name != "REDIS_URL"}

    assert completed(nobody | {"CELERIAC_DATA_DIR": str(tmp_path / "none")}, "show", "t") == []
    assert not (tmp_path / "none").exists()


def test_metrics_are_printed_for_prometheus_and_as_json(runs: Runs) -> None:
    assert runs("submit", "trips.book", "-", given='{"args": ["Rome"]}').exit_code == 0

    assert 'celeriac_runs_submitted_total{workflow="trips.book"} 1.0' in runs("metrics").stdout
    told = json.loads(runs("metrics", "--json").stdout)
    assert told["submitted"] == [{"workflow": "trips.book", "count": 1}]
    assert {queue["queue"]: queue["messages"] for queue in told["queues"]}["celery"] == 1
