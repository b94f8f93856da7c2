"""`celery -A tasks runs demo`: every pattern of the catalogue, from the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from canvas.up_workers import groups_of
from showroom import Showroom, _show_its_log, showroom  # noqa: F401  # fixtures
from status.embedded import remembered_port
from tasks import app
from tasks.showcase.crew import queues_of
from tasks.showcase.patterns import PATTERNS
from waiting import wait_until

ROOT = Path(__file__).parents[2]


def begin(folder: Path, *args: str, **env: str) -> subprocess.Popen[str]:
    """A demo on a bare machine: no Redis, no worker, an empty folder."""
    clean = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "runs", "demo", *args],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), "CELERIAC_DATA_DIR": str(folder), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(folder: Path) -> list[str]:
    """Those that still live off this folder's data."""
    return [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


@pytest.mark.parametrize("name", [pattern.name for pattern in PATTERNS])
def test_each_pattern_runs_from_the_command_line_and_keeps_what_it_promises(showroom: Showroom, name: str) -> None:  # noqa: F811
    exit_code, said = showroom.command(f"celery -A tasks runs demo {name} --wait 0 --json")

    assert exit_code == 0, said
    report = json.loads(said.splitlines()[-1])
    assert (report["pattern"], report["holds"]) == (name, True)
    assert len(report["checks"]) >= 2
    assert report["shown"]
    assert "done by the workers that run: showroom@" in said


def test_on_a_bare_machine_all_it_needs_is_started_and_ended(tmp_path: Path) -> None:
    demo = begin(tmp_path, "FanOutFail")  # as the guide calls it

    shown, complaints = demo.communicate(timeout=110)

    assert (demo.returncode, complaints) == (0, "")
    assert "no worker runs: one is started, and ends with the demo" in shown
    assert re.search(r"mallory +\S+ +run\.failed +TerminalError: mallory is on the blacklist", shown)
    assert "holds   the sibling of the check that failed was stopped" in shown
    assert processes_of(tmp_path) == []
    assert not list(tmp_path.glob("demo-worker-*.log"))


def test_what_does_not_hold_is_said_and_the_exit_code_is_1(tmp_path: Path) -> None:
    broken = json.dumps({"copy-a": {"error": "flooded"}, "copy-b": {"error": "flooded"}})

    demo = begin(tmp_path, "quorum", SHOP_SIMULATE=broken)

    shown, _ = demo.communicate(timeout=110)
    assert demo.returncode == 1, shown
    assert "BROKEN  two copies have confirmed each write" in shown
    assert "holds   with two copies down nothing is read" in shown


def test_a_person_answers_from_another_terminal_by_the_command_that_is_shown(showroom: Showroom) -> None:  # noqa: F811
    demo = begin(showroom.folder, "approval", "--wait", "100", **showroom.env)
    assert demo.stdout is not None
    command = next(line for line in demo.stdout if line.startswith("celery -A tasks runs resolve "))

    exit_code, answered = showroom.command(command.strip())

    assert (exit_code, answered.strip()) == (0, f"{shlex.split(command)[6]} of {shlex.split(command)[5]} is resolved")
    shown, complaints = demo.communicate(timeout=110)
    assert demo.returncode == 0, shown + complaints
    assert "yours: decided once, as the run says  (completed, carried out)" in shown
    assert "nobody: decided once, as the run says  (completed, escalated)" in shown


def test_ctrl_c_ends_all_that_was_started_and_cancels_what_waits(tmp_path: Path) -> None:
    demo = begin(tmp_path, "approvals", "--wait", "3000")
    assert demo.stdout is not None
    next(line for line in demo.stdout if line.startswith("celery -A tasks runs resolve "))
    assert remembered_port(tmp_path / "valkey")

    demo.send_signal(signal.SIGINT)
    _, complaints = demo.communicate(timeout=60)

    assert (demo.returncode, complaints.splitlines()[-1]) == (130, "interrupted; what was started is ended")
    wait_until(lambda: not processes_of(tmp_path), "all have ended")
    assert not list(tmp_path.glob("demo-worker-*.log"))


def test_an_unknown_pattern_is_refused_with_those_there_are_before_anything_starts(tmp_path: Path) -> None:
    demo = begin(tmp_path, "raice")

    shown, complaints = demo.communicate(timeout=60)

    assert (demo.returncode, shown) == (2, "")
    assert "there is no pattern 'raice'; there are validation, enrichment, batch, race, approval, saga," in complaints
    assert list(tmp_path.iterdir()) == []


def test_the_list_names_all_patterns_for_people_and_for_programs(showroom: Showroom) -> None:  # noqa: F811
    _, table = showroom.command("celery -A tasks runs demo --list")
    _, as_json = showroom.command("celery -A tasks runs demo --list --json")

    listed = json.loads(as_json)["patterns"]
    assert [pattern["name"] for pattern in listed] == [pattern.name for pattern in PATTERNS]
    assert [name for name in (pattern["name"] for pattern in listed) if name not in table] == []
    assert showroom.command("celery -A tasks runs demo --help")[0] == 0


def test_every_queue_of_the_catalogue_is_one_of_the_app_and_has_a_worker_in_its_settings(showroom: Showroom) -> None:  # noqa: F811
    served = {queue for group in groups_of(app) for queue in group.queues}

    assert set(queues_of(app)) <= set(app.amqp.queues) & served
