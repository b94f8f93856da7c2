"""The list of runs in a browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from apps import gallery
from browser import PATIENCE_MS, Open, shoot

expect.set_options(timeout=PATIENCE_MS)


def row(page: Page, run_id: str):
    return page.locator(f'tr[data-run="{run_id}"]')


def rows(page: Page):
    return page.locator("#wf-rows tr")


def test_stock_flower_has_the_tab(visit: Open):
    page = visit("/")

    page.get_by_role("link", name="Workflows").click()

    expect(page.get_by_role("heading", name="Workflows")).to_be_visible()
    expect(page.get_by_role("link", name="Workflows")).to_have_attribute("aria-current", "page")


def test_the_list_follows_orders_as_they_run(visit: Open):
    page = visit()
    page.evaluate("window.notLoadedAnew = true")

    broken = gallery.order.submit("bob@example.org", "Bell", 250, broken="7", run_id="order-1000")
    for n in range(16):  # more than can run at once: the last one is seen before it ends
        gallery.order.submit(f"c{n}@example.org", "Dart", 100 * n, run_id=f"order-{1001 + n}")

    expect(row(page, "order-1016").locator(".wf-pill")).to_have_text(re.compile("pending|running"))
    expect(row(page, "order-1001").get_by_text("completed")).to_be_visible()
    shoot(page, "list")
    expect(row(page, "order-1016").get_by_text("completed")).to_be_visible()
    expect(row(page, "order-1016").get_by_text("100 %")).to_be_visible()
    expect(row(page, "order-1000").get_by_text("compensated")).to_be_visible()
    expect(row(page, "order-1000").get_by_text("aisle 7 is closed")).to_be_visible()
    expect(page.locator('[data-state="compensated"] .wf-count')).not_to_have_text("0")
    assert broken.status().finished
    assert page.evaluate("window.notLoadedAnew")


def test_a_page_that_is_not_live_stays_as_it_is(visit: Open):
    page = visit()
    page.get_by_role("button", name="Live").click()

    gallery.ask_budget.submit(run_id="not-shown")
    other = visit()
    expect(row(other, "not-shown")).to_be_visible()

    expect(row(page, "not-shown")).to_have_count(0)
    page.get_by_role("button", name="Live").click()
    expect(row(page, "not-shown")).to_be_visible()


def test_runs_are_found_by_state_workflow_and_a_part_of_their_id(visit: Open):
    gallery.ask_budget.submit(run_id="find-Me-1")
    gallery.approve.submit(1, run_id="find-me-2")
    page = visit()
    expect(row(page, "find-me-2")).to_be_visible()

    page.get_by_label("Run id").fill("FIND-me")
    page.get_by_role("button", name="Search").click()
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Workflow").fill("budgets.ask")
    page.get_by_role("button", name="Search").click()
    expect(rows(page)).to_have_count(1)
    expect(row(page, "find-Me-1")).to_be_visible()
    page.get_by_role("button", name="completed").click()
    expect(page.get_by_text("No run is like that.")).to_be_visible()
    assert "state=completed" in page.url
    page.go_back()
    expect(row(page, "find-Me-1")).to_be_visible()
    expect(page.get_by_label("Workflow")).to_have_value("budgets.ask")


def test_a_filtered_list_is_live_too(visit: Open):
    page = visit("/workflows?workflow=refunds.approve&state=unfinished")
    handle = gallery.approve.submit(1, run_id="filtered")
    gallery.ask_budget.submit(run_id="filtered-out")

    expect(row(page, "filtered").get_by_text("wait for approval")).to_be_visible()
    gallery.approval.resolve("filtered", False)

    handle.result(timeout_s=20)
    expect(row(page, "filtered")).to_have_count(0)
    expect(row(page, "filtered-out")).to_have_count(0)


def test_older_runs_are_on_the_next_page(visit: Open):
    for n in range(60):
        gallery.ask_budget.submit(run_id=f"page-{n:02}")
    page = visit("/workflows?text=page-")
    expect(rows(page)).to_have_count(50)

    page.get_by_role("button", name="Older").click()

    expect(rows(page)).to_have_count(10)
    expect(row(page, "page-00")).to_be_visible()
    expect(row(page, "page-10")).to_have_count(0)
    page.get_by_role("button", name="Newest").click()
    expect(rows(page)).to_have_count(50)


def test_a_run_is_opened_by_keyboard(visit: Open):
    gallery.ask_budget.submit(run_id="by-key")
    page = visit("/workflows?text=by-key")
    expect(row(page, "by-key")).to_be_visible()

    row(page, "by-key").get_by_role("link").focus()
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="by-key")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_list_fits_a_telephone(visit: Open, dark: bool):
    gallery.order.submit("eve@example.org", "Crate", 990, run_id=f"a-rather-long-run-id-of-an-order-{dark}").result(20)

    page = visit(width=390, height=800, dark=dark)

    expect(row(page, f"a-rather-long-run-id-of-an-order-{dark}")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, f"list-390-{'dark' if dark else 'light'}")
