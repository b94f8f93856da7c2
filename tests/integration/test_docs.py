"""The papers do what they say: their blocks run, their links lead somewhere, no public name is left out."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path

import pytest

import docs_blocks
from docs_blocks import Block, blocks
from nodes import Workers

ROOT = Path(__file__).parent.parent.parent
RUN = [page for page in (ROOT / "README.md", ROOT / "docs/tutorial.md", ROOT / "docs/how-to.md") if page.exists()]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def name(thing: Path | Block) -> str:
    return thing.where if isinstance(thing, Block) else thing.name


@pytest.mark.parametrize("page", RUN, ids=name)
def test_a_page_runs_as_it_is_read(page: Path, worker: Workers, worker_env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    env = worker_env | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}

    def start_worker(app: str, options: str) -> None:
        worker(app, env=env, options=[*options.split(), "--without-mingle", "--without-gossip"])

    docs_blocks.run_page(page, folder, env, start_worker)


@pytest.mark.parametrize("block", [b for page in PAGES for b in blocks(page) if b.lang == "python"], ids=name)
def test_python_compiles(block: Block) -> None:
    block.compile()


@pytest.mark.parametrize("block", [b for p in PAGES for b in blocks(p) if b.mark.startswith("from: ")], ids=name)
def test_what_is_taken_from_a_file_is_still_there(block: Block) -> None:
    there = {line.strip() for line in (ROOT / block.mark.removeprefix("from: ")).read_text().splitlines()}

    assert [line for line in block.text.splitlines() if line.strip() not in there] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(((?!https?:)[^)\s]+)\)", text)

    assert [link for link in links if not _leads_somewhere(page, link)] == []


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not heading or heading in _headings(target))


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("package", ["canvas", "canvas.testing", "saga", "status"])
def test_every_public_name_is_in_the_reference(package: str) -> None:
    reference = (ROOT / "docs/reference.md").read_text()
    public = import_module(package).__all__

    assert [one for one in public if not re.search(rf"`(?:{package}\.)?{one}\b", reference)] == []


def test_an_output_is_compared_without_its_times() -> None:
    assert docs_blocks.stable("a  took 12 ms ━━━━\n") == docs_blocks.stable("a took 1.5 s ━━")
    assert docs_blocks.stable("took 12 ms") != docs_blocks.stable("took 12 ms too")


def test_a_command_may_go_on_in_the_next_line() -> None:
    block = Block(Path("p.md"), 1, "console", "$ echo a \\\n    b\na b\n$ true\n", "")

    assert list(block.commands()) == [("echo a b", "a b\n"), ("true", "")]


def test_a_command_that_fails_is_heard_of(tmp_path: Path) -> None:
    assert docs_blocks.execute("echo one two | python -c 'print(input()); 1 / 0'", tmp_path, {})[0] == 1
    assert (tmp_path / "stdout").read_text().startswith("one two\nProcess ")
