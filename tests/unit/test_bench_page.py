"""The figures in the papers are those that were measured: nobody types them."""

from __future__ import annotations

import pytest

from bench import page, plot
from bench.workloads import WORKLOADS

RESULTS = {
    "w1": {
        "stock": {"orders_per_s": 10.0, "p50_ms": 1234.5},
        "ours": {"orders_per_s": 55.0, "p50_ms": 7.0},
        "measured": {
            "ratio_of": "orders_per_s",
            "pairs": 3,
            "orders": 4000,
            "workers": {"stock": "solo -c 1"},
            "by_turn": {},
        },
    }
}


@pytest.mark.parametrize("path", page.PAGES, ids=lambda path: path.name)
def test_what_a_page_shows_is_what_was_measured(path):
    text = path.read_text()

    assert "<!-- bench:" in text
    assert page.render(text, page.load(page.LATEST), page.load(page.GROWTH)) == text, "run `python -m bench.page`"


def test_a_figure_that_was_typed_does_not_stay():
    typed = "before\n<!-- bench:w1 -->\n| faster than light |\n<!-- /bench:w1 -->\nafter"

    assert page.render(typed, RESULTS, {}) == (
        "before\n<!-- bench:w1 -->\n\n"
        "Medians of 3 turns each; 4,000 orders; workers: solo -c 1.\n\n"
        "|  | stock | ours |\n| --- | ---: | ---: |\n"
        "| orders/s, all at once | 10.0 | 55.0 |\n"
        "| one order on an idle system, p50 ms | 1,234.5 | 7.0 |\n"
        "<!-- /bench:w1 -->\nafter"
    )


def test_what_was_not_measured_is_said_so():
    assert "Not measured yet." in page.render("<!-- bench:w4 -->\n<!-- /bench:w4 -->", RESULTS, {})


def test_pictures_are_drawn_and_small(tmp_path):
    growth = {
        "by_runs": {"100": {"orders_per_s": 70.0}, "10000": {"orders_per_s": 69.0}},
        "by_workers": {"1": {"orders_per_s": 40.0}, "2": {"orders_per_s": 70.0}},
        "bytes_per_run": {"sleeps": 1500},
    }

    plot.overview(RESULTS, list(WORKLOADS.values()), tmp_path / "a.png")
    plot.growth(growth, tmp_path / "b.png")

    for picture in (tmp_path / "a.png", tmp_path / "b.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 200 * 1024
