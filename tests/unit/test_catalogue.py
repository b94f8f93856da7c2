"""The catalogue without workers: how patterns are found, what the checks of money see, what the steps refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from sqlalchemy import update

from canvas.doctor_workers import Node
from saga import database
from shop import Shop
from status.errors import ConfigError, TerminalError
from tasks import accounts, app, catalogue, jobs, sources
from tasks.accounts import Transaction, book, credit_account, debit_account, remove_analytics, update_analytics
from tasks.catalogue_models import AccountRow
from tasks.domain import Behaviour, Provider
from tasks.jobs import Job
from tasks.rehearsal import ProviderDown, tell
from tasks.showcase.cli import demo
from tasks.showcase.crew import able, tasks_of
from tasks.showcase.patterns import PATTERNS, find
from tasks.showcase.report import Check, Report
from tasks.sources import Version

ROOT = Path(__file__).parents[2]

# --- finding


@pytest.mark.parametrize("asked", ["race", "RACE", "4", "Race"])
def test_a_pattern_is_found_by_its_name_its_number_and_the_guides_name(asked: str) -> None:
    assert find(asked).name == "race"


def test_no_two_patterns_share_a_name() -> None:
    names = [name for pattern in PATTERNS for name in pattern.names]

    assert sorted(names) == sorted(set(names))
    assert [pattern.number for pattern in PATTERNS] == list(range(1, len(PATTERNS) + 1))


def test_an_unknown_pattern_is_refused_with_all_there_are() -> None:
    with pytest.raises(ConfigError) as raised:
        find("raice")

    assert [pattern.name for pattern in PATTERNS if pattern.name not in str(raised.value)] == []


def test_each_workflow_that_a_pattern_names_is_in_the_catalogue_and_each_of_those_is_named() -> None:
    named = {name for pattern in PATTERNS for name in pattern.workflows}
    there = {name for name, thing in vars(catalogue).items() if getattr(thing, "is_workflow", False)}

    assert named == there


def test_the_list_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("status.here.check", lambda: pytest.fail("it asked for Redis"))

    listed = CliRunner().invoke(demo, ["--list", "--json"])

    assert [one["name"] for one in json.loads(listed.output)["patterns"]] == [one.name for one in PATTERNS]


def test_every_pattern_has_its_page_and_its_command_there() -> None:
    page = (ROOT / "docs/patterns.md").read_text()

    for pattern in PATTERNS:
        assert f"$ celery -A tasks runs demo {pattern.name}\n" in page
        for name in pattern.workflows:
            assert f"async def {name}(" in page


# --- who works


def node(name: str, queues: list[str], *, knows: bool = True) -> Node:
    names = [task.name for task in tasks_of(app)] if knows else ["other.task"]
    return Node(
        name=name,
        pool="prefork",
        slots=1,
        prefetch=1,
        queues=frozenset(queues),
        info={"steps": names, "workflows": []},
        off_s=0.0,
    )


def test_the_workers_that_run_are_used_if_together_they_serve_all_queues_and_know_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.showcase.crew.queues_of", lambda _app: ["a", "b"])

    assert able(app, [node("w1", ["a"]), node("w2", ["b", "c"])])
    assert not able(app, [node("w1", ["a"])])
    assert not able(app, [node("w1", ["a"]), node("w2", ["b"], knows=False)])
    assert not able(app, [])


# --- what a report says


def test_a_demo_that_checked_nothing_has_not_shown_that_anything_holds() -> None:
    report = Report("p", "")
    assert not report.holds

    report.checks.append(Check("good", True, ""))
    assert report.holds

    report.checks.append(Check("bad", False, "seen"))
    assert not report.holds
    console = Console(record=True, width=100)
    report.show(console)
    assert re.search(r"BROKEN +bad +\(seen\)", console.export_text())
    assert json.loads(report.as_json())["holds"] is False


# --- accounts


@pytest.fixture
def money(shop: Shop) -> Shop:
    """Two accounts with 100 and 0 cents, and a closed one."""
    accounts.open_accounts("m/", [100, 0, 0], closed=[2])
    return shop


def test_a_transfer_moves_its_money_once_however_often_its_steps_run(money: Shop) -> None:
    for _ in range(2):
        money.run(debit_account, "m/0", 30, "t1")
        money.run(credit_account, "m/1", 30, "t1")

    assert accounts.balances("m/") == {"m/0": 70, "m/1": 30, "m/2": 0}
    assert accounts.violations("m/", {"t1": True}) == []


@pytest.mark.parametrize(("account", "code"), [("m/1", 402), ("m/9", 404)])
def test_what_is_not_there_is_not_taken(money: Shop, account: str, code: int) -> None:
    with pytest.raises(TerminalError) as raised:
        money.run(debit_account, account, 30, "t1")

    assert raised.value.code == code
    assert accounts.violations("m/", {"t1": False}) == []


def test_a_closed_account_takes_no_money_but_gets_its_own_back(money: Shop) -> None:
    with pytest.raises(TerminalError, match="is closed"):
        money.run(credit_account, "m/2", 30, "t1")

    money.run(debit_account, "m/0", 30, "t2", key="debit")
    money.run(lambda: _close("m/0"))
    money.run(credit_account, "m/0", 30, "t2", key="undo", undoes="debit")

    assert accounts.balances("m/")["m/0"] == 100


def test_an_undo_of_a_debit_that_never_was_gives_nothing_and_the_debit_never_will_be(money: Shop) -> None:
    money.run(credit_account, "m/0", 30, "t1", key="undo", undoes="debit")
    with pytest.raises(TerminalError, match="was undone by"):
        money.run(debit_account, "m/0", 30, "t1", key="debit")

    assert accounts.balances("m/")["m/0"] == 100


def test_a_credit_is_taken_back_though_its_money_is_spent(money: Shop) -> None:
    money.run(debit_account, "m/0", 30, "t1")
    money.run(credit_account, "m/1", 30, "t1", key="credit")
    money.run(debit_account, "m/1", 30, "t2", key="spent")
    money.run(credit_account, "m/0", 30, "t2", key="spent too")

    for _ in range(2):
        money.run(accounts.take_back, "m/1", 30, "t1", key="undo", undoes="credit")

    assert accounts.balances("m/")["m/1"] == -30


def test_the_ledger_is_asked_for_a_credit_and_not_for_its_undo(money: Shop) -> None:
    tell({"r1": {Provider.LEDGER: Behaviour(error="holiday", failing_attempts=9)}})
    money.run(debit_account, "m/0", 30, "t1", key="debit")

    with pytest.raises(ProviderDown, match="holiday"):
        money.run(credit_account, "m/1", 30, "t1")
    money.run(credit_account, "m/0", 30, "t1", key="undo", undoes="debit")

    assert accounts.violations("m/", {"t1": False}) == []


def test_analytics_are_removed_by_whoever_made_them(money: Shop) -> None:
    tx = Transaction("t1", "m/0", "m/1", 30)
    money.run(update_analytics, tx, key="made")
    assert accounts.violations("m/", {"t1": False}) == ["transfer t1 did not move and is counted"]

    money.run(remove_analytics, None, key="undo", undoes="made")

    assert accounts.violations("m/", {"t1": False}) == []


def test_money_that_is_lost_made_or_half_moved_is_seen(money: Shop) -> None:
    with database.transaction() as session:
        session.execute(update(AccountRow).where(AccountRow.account_id == "m/1").values(cents=5))
        book(session, "half", "m/0", "t1", -30)

    assert accounts.violations("m/", {"t1": True, "t2": False}) == [
        "there were 100 cents at the start, now there are 75",
        "account m/1 has 5 cents, its entries say 0",
        "transfer t1 moved, and changed accounts by [-30]",
    ]


def _close(account_id: str) -> None:
    with database.transaction() as session:
        session.execute(update(AccountRow).where(AccountRow.account_id == account_id).values(closed=True))


# --- copies, visits, jobs


def test_a_copy_never_goes_back_to_an_older_version(shop: Shop) -> None:
    for number in (1, 3, 2):
        sources.write_copy("a", "n", Version(number, f"v{number}"))

    assert sources.copy_of("a", "n") == Version(3, "v3")


def test_who_arrives_counts_those_that_are_there_and_itself_once(shop: Shop) -> None:
    for key in ("k1", "k2", "k2", "k3"):
        shop.run(sources.arrive, f"user of {key}", key=key)
    for key in ("k1", "k2"):
        shop.run(sources.leave, key=key)
    shop.run(sources.arrive, "user of k2", key="k2")  # a second attempt: it is there again
    shop.run(sources.arrive, "late", key="k4")

    assert [visit.alongside for visit in sorted(sources.visits("r1"), key=lambda visit: visit.key)] == [1, 2, 3, 3]


def test_a_request_is_decided_once(shop: Shop) -> None:
    assert shop.run(sources.decide, "q", "carried out", key="k1") == "carried out"
    assert shop.run(sources.decide, "q", "carried out", key="k1") == "carried out"

    with pytest.raises(TerminalError, match="is decided already"):
        shop.run(sources.decide, "q", "escalated", key="k2")


def test_a_job_goes_from_table_to_report(shop: Shop) -> None:
    job = Job("j", "product,cents\nlamp,1250\ndesk,9900\nlamp,1250\n")

    for stage in (jobs.download, jobs.validate, jobs.transform, jobs.upload, jobs.complete):
        shop.run(stage, job)

    assert jobs.artefact("j", "upload") == "desk: 99.00\nlamp: 25.00\n"
    assert jobs.stages_of("j") == {"download", "validate", "transform", "upload", "notify"}


@pytest.mark.parametrize(("line", "said"), [("lamp,twelve", "line 3: 'twelve'"), ("lamp", "line 3: None")])
def test_a_wrong_line_is_named(shop: Shop, line: str, said: str) -> None:
    job = Job("j", f"product,cents\ndesk,1\n{line}\n")
    shop.run(jobs.download, job)

    with pytest.raises(TerminalError, match=said):
        shop.run(jobs.validate, job)


def test_a_stage_without_the_one_before_it_says_so(shop: Shop) -> None:
    with pytest.raises(TerminalError, match="stage download of job j has left nothing"):
        shop.run(jobs.validate, Job("j", ""))
