"""The page of docstrings: each public name is on it, with what its docstring says."""

from __future__ import annotations

import inspect
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import canvas
import canvas.testing
import saga
import status

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"
NAMES = {
    getattr(module, name).__module__ + "." + name: getattr(module, name)
    for module in (canvas, canvas.testing, saga, status)
    for name in module.__all__
}
DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)


def words(text: str) -> list[str]:
    """Without marks and markup, for these are not the same in a docstring and on a page."""
    return re.findall(r"\w+", unescape(re.sub(r"<[^>]+>", " ", text)))


def test_each_public_name_is_on_the_page_once_and_nothing_else_is():
    assert sorted(DIRECTIVE.findall(PAGE.read_text())) == sorted(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_public_name_is_shown_with_its_docstring(site: Path, name: str):
    page = (site / "api" / "index.html").read_text()
    found = NAMES[name]
    start = page.index(f'id="{name}"')
    shown = " ".join(words(page[start : start + 60_000]))

    docstring = inspect.getdoc(found) or ""
    first, *rest = docstring.partition("\n\n")
    assert " ".join(words(first)) in shown
    for section, title in (("Args:", "Parameters"), ("Raises:", "Raises"), ("Returns:", "Returns")):
        if section in rest[-1].split():
            assert title in shown


def test_arguments_and_errors_are_told_apart_from_what_is_said(site: Path):
    page = (site / "api" / "index.html").read_text()
    start = page.index('id="canvas.install.install"')
    shown = " ".join(words(page[start : page.index("<h3", start + 1000)]))

    assert "Parameters redis_url str None default None Where runs are kept" in shown
    assert "Raises ConfigError The URL is not of Redis" in shown


def test_states_are_shown_with_the_comments_beside_them(site: Path):
    shown = " ".join(words((site / "api" / "index.html").read_text()))

    assert "final it raised and every undo succeeded" in shown
    assert "as COMPENSATE_ALL and on past an undo that gave up" in shown


def attributes(of: Any) -> list[str]:
    return [name for name in vars(of) if not name.startswith("_")]


def test_what_is_not_public_of_a_class_is_not_on_the_page(site: Path):
    page = (site / "api" / "index.html").read_text()

    assert "canvas.run.Run.update_status" in page
    for inner in ("canvas.run.Run.put_away", "canvas.workflow.Workflow.write_input", "saga.saga.Saga.log_undo"):
        assert inner.rpartition(".")[2] in attributes(NAMES[inner.rpartition(".")[0]])
        assert f'id="{inner}"' not in page
