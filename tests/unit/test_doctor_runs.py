"""What the doctor says of runs, shards and keys, from plain data; and how it says it."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner
from rich.console import Console

from status import cli_doctor, doctor, doctor_keys, doctor_store, here
from status.cli import runs
from status.doctor_store import Shard
from status.doctor_words import Finding, Severity, some, worst
from status.errors import ConfigError, LogUnavailable
from status.keys import Keys, possible_owners
from status.states import State
from status.survey import Survey, Unfinished, waiting_runs, waits_on

IDLE = Survey(counts={}, parked={})


def said(findings: Any) -> list[tuple[str, str]]:
    return [(found.severity.value, found.check) for found in findings]


# --- the sweep ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shards", "severity", "words"),
    [
        ([Shard(number=0, moved=True, sweeper="w1@here"), Shard(number=1, moved=True)], "ok", "swept by w1@here"),
        ([Shard(number=0), Shard(number=1)], "info", "nobody sweeps"),
        ([Shard(number=0), Shard(number=1, waiting=2)], "error", "nobody sweeps"),
        ([Shard(number=0, moved=True), Shard(number=1, waiting=1)], "error", "tick of shard 01 stands still"),
        ([Shard(number=0, moved=True), Shard(number=1)], "info", "stands still; nothing there waits"),
    ],
)
def test_a_tick_that_stands_still_is_an_error_where_something_waits(shards: list[Shard], severity: str, words: str):
    found = doctor_store.sweep(shards)

    assert (found.severity, words in found.seen) == (severity, True), found


def test_who_holds_the_lease_of_a_shard_that_stands_still_is_named():
    assert "see the log of w1@here" in doctor_store.sweep([Shard(number=0, waiting=1, sweeper="w1@here")]).remedy


def test_what_is_overdue_is_an_error_only_where_somebody_sweeps():
    late = Shard(number=0, moved=True, late=1, late_timers=3)
    unswept = Shard(number=1, late=7, late_timers=7)

    assert said(doctor_store.backlog([unswept])) == []
    assert [found.seen.split(":")[0] for found in doctor_store.backlog([late, unswept])] == [
        "1 thing that is due was not looked at for long",
        "3 timers that are due were not looked at for long",
    ]


# --- runs -----------------------------------------------------------------------------


def test_parked_runs_are_told_by_their_reason():
    found = list(doctor_store.parked({"b": "NonDeterministic: x", "a": "NonDeterministic: x", "c": "Unknown: y"}))

    assert said(found) == [("warning", "runs.parked")] * 2
    assert found[0].seen == "2 runs parked (a, b): NonDeterministic: x"
    assert "runs cancel a --abandon" in found[0].remedy


def test_failed_undos_are_a_warning_and_stuck_runs_an_error():
    bad = Survey(counts={}, parked={}, undo_failed=("a",), stuck=("b",))

    assert said(doctor_store.undo_failed(bad.undo_failed)) == [("warning", "runs.undo_failed")]
    assert said(doctor_store.stuck(bad)) == [("error", "runs.stuck")]
    assert said([*doctor_store.undo_failed(()), *doctor_store.stuck(IDLE)]) == []


def test_a_run_whose_rollback_stopped_is_told_of_until_it_is_known_to_owe_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(here, "settled", [lambda run_id: run_id == "settled"])
    assert doctor_store.still_owing(["owes", "settled"]) == ["owes"]

    def unreachable(_run_id: str) -> bool:
        raise LogUnavailable("the saga log is not reachable")

    monkeypatch.setattr(here, "settled", [unreachable])
    assert doctor_store.still_owing(["owes", "settled"]) == ["owes", "settled"], (
        "who can't look must not say all is well"
    )
    monkeypatch.setattr(here, "settled", [])
    assert doctor_store.still_owing(["a"]) == ["a"]


def test_a_run_waits_on_the_queues_of_steps_that_nobody_has_begun():
    steps = {
        "0.0": "mail|send", "0.0:s": "done|1|1|2",
        "1.0": "pay|charge", "1.0:s": "running|1|1|",
        "1.1": "ship|book", "1.1:s": "retrying|1|1|2",
        "1.2": "attic|fetch",
    }  # fmt: skip

    assert waits_on(steps) == {"ship", "attic"}


def test_a_run_that_has_not_begun_waits_on_the_queue_of_its_turns():
    sample = (
        Unfinished(run_id="a", workflow="w", state=State.PENDING),
        Unfinished(run_id="b", workflow="w", state=State.RUNNING, waits_on=frozenset({"mail", "turns"})),
    )

    assert waiting_runs(Survey(counts={}, parked={}, sample=sample), {"w": "turns"}) == {"turns": 2, "mail": 1}


# --- keys -----------------------------------------------------------------------------


def test_each_key_of_a_run_is_known_as_its_own():
    keys, run_id = Keys(4), "order:7"
    mine = [key for key in keys.of_run(run_id) if run_id in key]

    assert len(mine) >= 6
    for key in [*mine, keys.join(run_id, 3)]:
        assert possible_owners(key).get(run_id) == keys.run(run_id), key


def test_keys_of_shards_are_of_no_run():
    keys = Keys(4)
    shared = [keys.due(0), keys.timers(1), keys.tick(2), keys.state(3, "running"), keys.lease(0), Keys.layout(), "q"]

    assert [possible_owners(key) for key in shared] == [{}] * len(shared)


@pytest.mark.parametrize(("states", "goes_on"), [(["running"], True), (["failed"], False), ([None], False)])
def test_a_key_may_stay_while_its_run_goes_on(states: list[str | None], goes_on: bool):
    owners = {str(at): f"run:{at}" for at in range(len(states))}

    assert doctor_keys.goes_on(owners, dict(zip(owners.values(), states, strict=True))) is goes_on


def test_a_key_without_end_is_a_warning_that_says_how_much_was_looked_at():
    assert doctor_keys.verdict([], 3, complete=True).severity is Severity.OK
    found = doctor_keys.verdict(["b", "a", "b"], 50_000, complete=False)

    assert found.severity is Severity.WARNING
    assert found.seen.startswith("2 of the first 50,000 keys")
    assert "(a, b)" in found.seen


# --- how it is said -------------------------------------------------------------------

FINDINGS = [
    Finding("redis.eviction", Severity.ERROR, "maxmemory-policy is allkeys-lru", "set noeviction"),
    Finding("redis", Severity.OK, "Valkey 9.1"),
]


def drawn(findings: list[Finding], **options: Any) -> str:
    console = Console(file=io.StringIO(), width=80, **options)
    cli_doctor.show(console, findings, 1.5)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_into_a_pipe_each_finding_is_one_line():
    long = Finding("runs.parked", Severity.WARNING, "x" * 200, "y" * 100)

    lines = drawn([*FINDINGS, long]).splitlines()

    assert lines[0] == "error    redis.eviction     maxmemory-policy is allkeys-lru → set noeviction"
    assert len(lines) == len(FINDINGS) + 2
    assert lines[-1] == "1 error, 1 warning, 1 ok in 1.5 s"


def test_a_terminal_of_80_columns_holds_the_table():
    long = Finding("runs.undo_failed", Severity.WARNING, "word " * 60, "word " * 30)

    plain = drawn([*FINDINGS, long], force_terminal=True, no_color=True, color_system=None)

    assert max(map(len, plain.splitlines())) <= 80
    assert "→ set noeviction" in plain
    assert "\x1b[" not in plain
    assert "\x1b[1;31m" in drawn(FINDINGS, force_terminal=True, color_system="standard")


@pytest.mark.parametrize(
    ("severities", "code"),
    [([], 0), (["ok", "info"], 0), (["ok", "warning", "info"], 1), (["warning", "error"], 2)],
)
def test_the_exit_code_is_that_of_the_worst_finding(severities: list[str], code: int):
    assert worst(Finding("x", Severity(severity), "") for severity in severities).exit_code == code


def test_of_many_names_the_first_are_said():
    assert some(["c", "a", "b"]) == "a, b, c"
    assert some("edcba") == "a, b, c and 2 more"


# --- looks ----------------------------------------------------------------------------

VISIT: Any = None
APP = Celery("unit", set_as_current=False)


def test_a_look_that_fails_or_hangs_is_a_finding_and_keeps_none_of_the_others(monkeypatch: pytest.MonkeyPatch):
    hung = threading.Event()

    def hang(_: Any) -> list[Finding]:
        hung.wait(60)
        return []

    functions = {
        "canvas.doctor:look": lambda _: (_ for _ in ()).throw(ConnectionError("gone")),
        "saga.doctor:look": hang,
        "status.doctor_store:look": lambda _: FINDINGS,
    }
    monkeypatch.setattr(doctor, "_function", functions.get)

    found = doctor.take(list(functions), VISIT, limit_s=0.2)
    hung.set()

    assert [(each.check, each.severity.value) for each in found] == [
        ("doctor", "error"), ("doctor", "error"), ("redis.eviction", "error"), ("redis", "ok"),
    ]  # fmt: skip
    assert "ConnectionError: gone" in found[0].seen
    assert "no answer" in found[1].seen


def doctor_says(*options: str) -> Any:
    return CliRunner().invoke(runs, ["doctor", *options], obj=SimpleNamespace(app=APP))


def test_without_redis_the_doctor_says_so_in_one_line_and_ends_with_2(monkeypatch: pytest.MonkeyPatch):
    here.use("redis://127.0.0.1:1/0")
    try:
        told, as_json = doctor_says(), doctor_says("--json")
    finally:
        here.use(None)

    assert (told.exit_code, as_json.exit_code) == (2, 2)
    assert told.stdout.splitlines()[0].startswith("error    redis              Redis at redis://127.0.0.1:1/0 does not")
    assert "set REDIS_URL to one that runs" in told.stdout.splitlines()[0]
    assert [found["check"] for found in json.loads(as_json.stdout)["findings"]] == ["redis"]


def test_an_address_that_is_none_is_a_finding_too(monkeypatch: pytest.MonkeyPatch):
    def address() -> str:
        raise ConfigError("REDIS_URL=http://x is not the address of a Redis")

    monkeypatch.setattr(here, "address", address)

    told = doctor_says()

    assert told.exit_code == 2
    assert "REDIS_URL=http://x" in told.stdout


# --- papers ---------------------------------------------------------------------------


def test_each_check_is_in_the_reference():
    root = Path(__file__).parents[2]
    called = re.compile(r'\b(?:ok|info|warning|error|say|Finding)\(\s*"([a-z_.]+)"')
    named = {
        name
        for folder in ("status", "canvas", "saga")
        for file in (root / folder).glob("doctor*.py")
        for name in called.findall(file.read_text())
    }
    table = (root / "docs/reference.md").read_text().partition("## Findings of the doctor")[2].partition("\n## ")[0]

    assert len(named) > 30
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", table, re.MULTILINE)) == named
