"""What an operator does on a run's page, and who is let to."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
import redis
from playwright.sync_api import Page, expect

from apps import gallery
from browser import PATIENCE_MS, Flower, Open, Stage, shoot
from status import history
from waiting import wait_until

expect.set_options(timeout=PATIENCE_MS)

ADA = ("ada", "lovelace")


def operators(run_id: str) -> list[tuple[str, str]]:
    """Verb and name of whoever acted on a run."""
    return [
        (event.kind.removeprefix("operator."), event.detail["by"])
        for event in history(run_id)
        if event.kind.startswith("operator.")
    ]


def waits(run_id: str) -> None:
    wait_until(lambda: any(event.kind == "join.opened" for event in history(run_id)), f"{run_id} waits", 30)


def confirm(page: Page, name: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()


def test_a_run_is_cancelled_after_a_question(visit: Open):
    gallery.long_sleep.submit(run_id="to-cancel")
    page = visit("/workflows/run/to-cancel")
    page.get_by_role("button", name="Cancel…").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert operators("to-cancel") == []

    page.get_by_role("button", name="Cancel…").click()
    page.get_by_label("Reason").fill("of no use")
    confirm(page, "Cancel the run")

    expect(page.locator(".wf-head").get_by_text("cancelled")).to_be_visible()
    expect(page.locator(".wf-operator")).to_contain_text("by flower: of no use")
    assert operators("to-cancel") == [("cancel", "flower")]


def test_a_failed_run_is_taken_up_again(visit: Open, stage: Stage):
    gallery.mended.submit("mend-key", run_id="to-retry")
    page = visit("/workflows/run/to-retry")
    expect(page.locator(".wf-head").get_by_text("failed")).to_be_visible()
    with redis.Redis.from_url(stage.valkey.url) as client:
        client.set("mend-key", "1", ex=300)

    page.get_by_role("button", name="Retry…").click()
    confirm(page, "Retry")

    expect(page.locator(".wf-head").get_by_text("completed")).to_be_visible()
    expect(page.get_by_text("1 time", exact=True)).to_be_visible()
    assert operators("to-retry") == [("retry", "flower")]


def test_an_approval_is_given_in_a_form_of_its_type(visit: Open):
    handle = gallery.approve.submit(500, run_id="to-approve")
    page = visit("/workflows/run/to-approve")
    expect(page.locator(".wf-tl-now")).to_be_visible()

    page.get_by_role("button", name="Resolve…").click()
    expect(page.get_by_role("radio")).to_have_count(2)
    shoot(page, "dialog")
    page.get_by_label("yes").check()
    confirm(page, "Resolve")

    assert handle.result(timeout_s=20) == "refunded"
    expect(page.locator(".wf-head").get_by_text("completed")).to_be_visible()
    expect(page.locator("#wf-data")).to_contain_text("approval resolved: true")
    expect(page.locator(".wf-tl-now")).to_be_hidden()
    assert operators("to-approve") == [("resolve", "flower")]
    shoot(page, "run-approval", full=True)


def test_a_promise_that_has_its_value_keeps_it(visit: Open, console: list[str]):
    gallery.approve.submit(500, run_id="twice")
    page = visit("/workflows/run/twice")
    page.get_by_role("button", name="Resolve…").click()
    page.get_by_label("yes").check()
    gallery.approval.resolve("twice", False)  # somebody was faster

    confirm(page, "Resolve")

    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("nothing was changed")
    assert operators("twice") == []
    assert [line for line in console if "409" not in line] == []
    console.clear()  # the browser says so of each answer that is none


def test_a_promise_is_rejected_with_a_message(visit: Open):
    handle = gallery.ask_budget.submit(run_id="to-reject")
    page = visit("/workflows/run/to-reject")
    page.get_by_role("button", name="Reject…").click()
    page.get_by_label("Message").fill("not <b>this</b> year")
    page.get_by_label("Code", exact=True).fill("403")
    confirm(page, "Reject")

    wait_until(lambda: handle.status().finished, "the run has failed", 20)
    error = handle.status().error
    assert error is not None
    assert (error.message, error.code) == ("not <b>this</b> year", 403)
    expect(page.locator(".wf-error")).to_contain_text("not <b>this</b> year")
    assert operators("to-reject") == [("reject", "flower")]


def stopped(run_id: str) -> None:
    """A run whose rollback stopped at an undo that gave up."""
    handle = gallery.stuck.submit("carrier-is-back", run_id=run_id)
    wait_until(lambda: handle.status().state == "compensation_failed", "its undo gave up", 30)


def test_an_undo_that_gave_up_is_left_out_and_the_rest_undone(visit: Open):
    stopped("to-skip")
    page = visit("/workflows/run/to-skip")
    entries = page.get_by_role("region", name="Saga entries")
    entries.get_by_role("row", name="carrier").get_by_role("button", name="Leave out…").click()
    confirm(page, "Leave it out")
    expect(page.get_by_role("dialog")).to_be_visible()  # it wants a reason
    page.get_by_label("Reason").fill("called them")
    confirm(page, "Leave it out")

    expect(entries.get_by_text("skipped", exact=True)).to_be_visible()
    expect(entries.get_by_text("undone", exact=True)).to_be_visible()
    expect(page.locator(".wf-head").get_by_text("compensated")).to_be_visible()
    assert operators("to-skip") == [("skip", "flower")]
    shoot(page, "run-skipped", full=True)


def test_a_rollback_that_stopped_is_ended_or_tried_again(visit: Open, stage: Stage):
    stopped("to-abort")
    page = visit("/workflows/run/to-abort")
    page.get_by_role("button", name="Undo no more…").click()
    page.get_by_label("Reason").fill("lost")
    confirm(page, "Undo no more")
    expect(page.locator("#wf-data").get_by_text("aborted", exact=True)).to_have_count(2)

    stopped("to-undo-again")
    with redis.Redis.from_url(stage.valkey.url) as client:
        client.set("carrier-is-back", "1", ex=300)
    page = visit("/workflows/run/to-undo-again")
    page.get_by_role("button", name="Undo again…").click()
    confirm(page, "Undo")
    expect(page.locator(".wf-head").get_by_text("compensated")).to_be_visible()
    assert (operators("to-abort"), operators("to-undo-again")) == ([("abort", "flower")], [("retry", "flower")])


# --- who is let to ---------------------------------------------------------------------


def ask(flower: Flower, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Ask as a program does; gives the status and what was said."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(flower.url + path, body, named)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    "path", ["", "/run/x", "/api/runs", "/api/live", "/api/run/x", "/api/run/x/live", "/api/run/x/step/0.0"]
)
def test_nothing_is_shown_to_whom_flower_does_not_know(stage: Stage, path: str):
    assert ask(stage.guarded, f"/ops/workflows{path}")[0] == 401


def test_nothing_is_done_for_whom_flower_does_not_know(stage: Stage):
    gallery.ask_budget.submit(run_id="guarded")

    status, _ = ask(stage.guarded, "/ops/workflows/api/run/guarded/act/cancel", b"{}", Content_Type="application/json")

    assert status == 401
    assert operators("guarded") == []


def test_the_tab_is_below_the_prefix_and_says_who_acted(visit: Open, stage: Stage):
    gallery.ask_budget.submit(run_id="by-ada")
    page = visit("/ops/", user=ADA, url=stage.guarded.url)
    page.get_by_role("link", name="Workflows").click()
    assert page.url == f"{stage.guarded.url}/ops/workflows"
    page.locator('tr[data-run="by-ada"]').get_by_role("link").click()

    page.get_by_role("button", name="Resolve…").click()
    page.get_by_label("Value").fill("12")
    expect(page.get_by_role("dialog")).to_contain_text("done by ada")
    confirm(page, "Resolve")

    expect(page.locator(".wf-head").get_by_text("completed")).to_be_visible()
    assert operators("by-ada") == [("resolve", "ada")]


def test_a_page_goes_on_when_flower_is_back_and_nothing_is_lost(visit: Open, stage: Stage, console: list[str]):
    gallery.ask_budget.submit(run_id="before-restart")
    page = visit("/ops/workflows?text=restart", user=ADA, url=stage.guarded.url)
    expect(page.locator('tr[data-run="before-restart"]')).to_be_visible()

    stage.guarded.stop()
    expect(page.get_by_role("alert")).to_contain_text("connection to Flower is lost")
    gallery.ask_budget.submit(run_id="during-restart")
    stage.guarded.start()

    expect(page.locator('tr[data-run="during-restart"]')).to_be_visible()
    expect(page.locator('tr[data-run="before-restart"]')).to_be_visible()
    expect(page.locator("#wf-trouble")).to_be_hidden()
    console.clear()  # the browser said that nobody answered


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain"}, 403),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 403),
        ({"Content_Type": "application/json", "Sec_Fetch_Site": "cross-site"}, 403),
    ],
)
def test_another_sites_page_can_do_nothing(stage: Stage, headers: dict[str, str], status: int):
    gallery.ask_budget.submit(run_id="not-forged")

    assert ask(stage.flower, "/workflows/api/run/not-forged/act/cancel", b"{}", **headers)[0] == status

    assert operators("not-forged") == []


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("run/never-was/act/cancel", b"{}", 404, "never-was"),
        ("run/a%20b/act/cancel", b"{}", 400, "won't do"),
        ("run/odd-ask/act/explode", b"{}", 404, "there is no explode"),
        ("run/odd-ask/act/resolve", b"{}", 400, "needs other values"),
        ("run/odd-ask/act/resolve", b"not json", 400, "needs other values"),
        ("run/odd-ask/act/resolve", b'{"promise": "budget", "value": "{"}', 400, "is not JSON"),
        ("run/odd-ask/act/resolve", b'{"promise": "budget", "value": "\\"x\\""}', 400, "integer"),
        ("run/odd-ask/act/retry", b"{}", 409, "nothing to try again"),
    ],
)
def test_what_can_not_be_done_is_refused_with_a_reason(stage: Stage, path: str, body: bytes, status: int, said: str):
    gallery.ask_budget.submit(run_id="odd-ask")
    waits("odd-ask")

    answer = ask(stage.flower, f"/workflows/api/{path}", body, Content_Type="application/json")

    assert answer[0] == status, answer
    assert said in json.loads(answer[1])["error"]


def test_a_flower_that_is_read_only_has_no_buttons_and_does_nothing(visit: Open, stage: Stage):
    gallery.ask_budget.submit(run_id="read-only")
    waits("read-only")
    flower = Flower(stage.folder, stage.env, "--read-only=True")
    flower.start()
    try:
        page = visit("/workflows/run/read-only", url=flower.url)
        expect(page.locator("#wf-data")).to_contain_text("budget waited for")
        expect(page.locator(".wf-actions button")).to_have_count(0)
        url = "/workflows/api/run/read-only/act/cancel"
        status, said = ask(flower, url, b"{}", Content_Type="application/json")
        page.context.close()  # else it says that its Flower is gone
    finally:
        flower.stop()

    assert (status, "read-only mode" in said) == (403, True)
    assert operators("read-only") == []
