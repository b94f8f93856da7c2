"""The site of the documentation: built strictly, from what is there, and asking nobody for anything."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_each_page_is_in_the_site(site):
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}

    assert [page for page in sorted(pages) if not (site / page / "index.html").exists()] == []
    assert "make demo" in (site / "index.html").read_text()


def test_no_page_asks_somebody_elses_server(site):
    loads = r"""<(?:script|img|iframe|source|video)\b[^>]*\bsrc=["']?(https?:)?//|<link\b[^>]*href=["']?https?://"""
    asking = [str(page) for page in site.rglob("*.html") if re.search(loads, page.read_text())]

    assert asking == []


def test_figures_are_those_of_the_bench_and_not_typed(site):
    latest = json.loads((ROOT / "bench/results/latest.json").read_text())["w1"]
    page = (site / "comparison" / "index.html").read_text()

    for side in ("stock", "ours"):
        assert f"{latest[side]['orders_per_s']:g}" in page
    assert "<!-- figures" not in page
