"""One run in a browser: timeline, graph, values."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from apps import gallery
from bench.filling import Filler
from browser import PATIENCE_MS, Open, Stage, shoot

expect.set_options(timeout=PATIENCE_MS)


def step(page: Page, place: str):
    return page.locator(f'[id="step-{place}"]')


def node(page: Page, place: str):
    return page.locator(f'a[data-place="{place}"]')


def test_a_success_is_seen_as_it_goes_on(visit: Open):
    handle = gallery.order.submit("ada@example.org", "Anvil", 2250, failures=2, card_number="4111", run_id="shown")
    page = visit("/workflows/run/shown")
    expect(page.get_by_role("heading", name="shown")).to_be_visible()
    handle.result(timeout_s=30)

    expect(page.locator(".wf-head").get_by_text("completed")).to_be_visible()
    expect(page.locator(".wf-tl-now")).to_be_hidden()
    expect(page.locator(".wf-phases li span")).to_have_text(["validate", "reserve", "pay", "ship", "notify", "done"])
    # Each attempt is a bar, and what lies between them a dotted line.
    expect(step(page, "3.0").locator(".wf-b-try")).to_have_count(3)
    expect(step(page, "3.0").locator(".wf-b-try.wf-s-failed")).to_have_count(2)
    expect(step(page, "3.0").locator(".wf-b-wait")).to_have_count(3)
    expect(page.get_by_label("Result")).to_contain_text("stripe took 2250")
    expect(page.get_by_label("Input")).to_contain_text('"customer": "ada@example.org"')
    assert "4111" not in page.content()
    assert "hunter2" not in page.content()
    expect(page.get_by_role("region", name="Saga entries").get_by_text("kept", exact=True).first).to_be_visible()
    shoot(page, "run-success", full=True)


def test_a_race_shows_who_won_and_who_was_stopped(visit: Open):
    gallery.order.submit("ada@example.org", "Anvil", 2250, run_id="raced").result(timeout_s=30)
    page = visit("/workflows/run/raced")

    expect(page.locator(".wf-join-verdict", has_text="won by stripe")).to_be_visible()
    expect(node(page, "2.0")).to_have_class("wf-node wf-s-done wf-k-step wf-won")
    expect(node(page, "2.1")).to_have_class(re.compile(r"wf-k-step wf-lost$"))
    expect(page.locator(".wf-edge-won")).to_have_count(2)


def test_a_compensation_shows_what_undoes_what(visit: Open):
    gallery.order.submit("bob@example.org", "Bell", 250, broken="7", run_id="order-1042")
    page = visit("/workflows/run/order-1042", height=1240)

    expect(page.locator(".wf-head").get_by_text("compensated")).to_be_visible()
    expect(page.locator(".wf-error")).to_contain_text("TerminalError in shelf.pick: aisle 7 is closed")
    expect(node(page, "3.0")).to_have_class("wf-node wf-s-failed wf-k-step")
    # Two or three: the loser may have been stopped before it began.
    expect(node(page, "5.0")).to_have_attribute("aria-label", re.compile("undo payment stripe, undo · done"))
    expect(node(page, "6.0")).to_have_attribute("aria-label", re.compile("undo reservation, undo · done"))
    expect(page.locator(".wf-undoes")).to_have_count(page.locator(".wf-node.wf-k-undo").count())
    expect(page.get_by_role("region", name="Saga entries").get_by_text("undone", exact=True).nth(1)).to_be_visible()
    shoot(page, "run")
    page.get_by_text("Traceback", exact=True).click()
    expect(page.locator(".wf-error pre")).to_contain_text("await pick.s(broken)")
    shoot(page, "run-compensated", full=True)


def test_children_batches_quorums_and_timers_are_in_the_graph(visit: Open):
    gallery.report.submit(30, run_id="report").result(timeout_s=60)
    page = visit("/workflows/run/report")

    expect(page.locator(".wf-cell.wf-s-done")).to_have_attribute("data-parts", "30")
    expect(page.locator(".wf-node.wf-k-sleep")).to_have_count(1)
    expect(page.locator(".wf-node.wf-won")).to_have_count(2)
    shoot(page, "run-report", full=True)
    node(page, "0.0").click()
    expect(page.get_by_role("heading", name="report-first")).to_be_visible()
    page.get_by_role("link", name="report/0.0").click()
    expect(page.get_by_role("heading", name="report", exact=True)).to_be_visible()


def test_a_run_of_a_thousand_steps_is_shown_as_a_whole(visit: Open, stage: Stage):
    with stage.valkey.client() as client:
        filler = Filler(client)
        filler.wide("wide", 1000)
        filler.long("long", 1000)

    page = visit("/workflows/run/wide")
    expect(page.locator(".wf-cell.wf-s-done")).to_have_attribute("data-parts", "1000")
    page.locator(".wf-cells").hover(position={"x": 9 + 4, "y": 4})
    expect(page.locator(".wf-cells title")).to_have_text("0.1 resize 1: done")
    expect(page.locator(".wf-tl-step")).to_have_count(30)
    shoot(page, "run-wide")
    page.get_by_role("button", name="show all 1000 parts").click()
    page.get_by_role("button", name="rows more").click()
    expect(page.locator(".wf-tl-step")).to_have_count(1000)

    page = visit("/workflows/run/long")
    expect(page.locator(".wf-graph")).to_contain_text("950 awaits more")
    expect(page.locator(".wf-tl-step")).to_have_count(400)
    shoot(page, "run-long")


def test_a_sleep_says_until_when(visit: Open):
    gallery.long_sleep.submit(run_id="asleep")
    page = visit("/workflows/run/asleep")

    step(page, "0.0").get_by_role("button").click()

    expect(page.locator(".wf-tl-panel")).to_contain_text("due")


def test_a_step_tells_its_value_or_its_error(visit: Open):
    gallery.mended.submit("never", run_id="told")
    page = visit("/workflows/run/told")
    expect(page.locator(".wf-head").get_by_text("failed")).to_be_visible()

    step(page, "0.0").get_by_role("button").click()
    expect(page.locator(".wf-tl-panel pre")).to_have_text('"first"')
    step(page, "1.0").get_by_role("button").click()

    expect(page.locator(".wf-tl-panel .wf-bad")).to_have_text("TerminalError: not mended yet")


def test_what_a_run_says_is_text_and_never_markup(visit: Open):
    gallery.odd_names.submit(run_id="odd").result(timeout_s=30)
    gallery.order.submit("bob@example.org", "Bell", 250, broken=gallery.MARKUP, run_id="odd-error")
    page = visit("/workflows/run/odd")
    expect(page.get_by_text(gallery.MARKUP, exact=True).first).to_be_visible()
    expect(page).to_have_title("odd · Workflows · Flower")

    page.goto(page.url.replace("/odd", "/odd-error"))
    expect(page.locator(".wf-error")).to_contain_text(gallery.MARKUP)
    expect(page).to_have_title("odd-error · Workflows · Flower")

    page.goto(page.url.partition("/run/")[0])
    expect(page.locator('tr[data-run="odd"]')).to_contain_text(gallery.MARKUP)
    expect(page).to_have_title("Workflows · Flower")


@pytest.mark.parametrize(
    ("path", "said"),
    [("never-was", "no run has the id"), ("%3Cscript%3Ealert(1)%3C%2Fscript%3E", "won't do")],
    ids=["unknown", "malformed"],
)
def test_a_run_that_is_not_there_is_a_page_that_says_so(visit: Open, path: str, said: str):
    page = visit(f"/workflows/run/{path}", status=404)

    expect(page.get_by_role("heading", name="No such run")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text(said)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_run_fits_a_telephone(visit: Open, dark: bool):
    gallery.order.submit("bob@example.org", "Bell", 250, broken="7", run_id=f"small-{dark}")
    page = visit(f"/workflows/run/small-{dark}", width=390, height=800, dark=dark)

    expect(page.locator(".wf-head").get_by_text("compensated")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, f"run-390-{'dark' if dark else 'light'}", full=True)
