"""docs/patterns.md: each name of the guide has its line, and each line is right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

GUIDE = {
    "FanOut", "FanOutFail", "ProcessBatch", "MapConcurrent", "Race", "RacePromiseWithTimeout", "RunAsync", "NewSaga",
    "NewSafeStep", "WithCompensation", "Execute", "Register", "Add", "CompensateIfNeeded", "RollbackWithStrategy",
    "CompensateAll", "CompensateCompleted", "UpdateStatus", "NewWorkflowStatus", "GetStatus", "ServiceClient",
    "TerminalError",
}  # fmt: skip

PRELUDE = """
from canvas import *
from saga import Saga, Strategy
from status import get_status


@step
def price(article: int) -> int: ...
@step
def stock(article: int) -> bool: ...
@step
def pay(cents: int) -> str: ...
@step
def refund(payment: str | None) -> None: ...
@workflow(name="order")
async def order(run: Run, number: int) -> str: ...
"""


def mypy(checked: Path) -> str:
    """What it says; empty if it is content."""
    command = [sys.executable, "-m", "mypy", "--strict", "--enable-error-code", "unused-awaitable", str(checked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def rows() -> list[tuple[str, str]]:
    """What the guide calls it, and our line."""
    page = (ROOT / "docs/patterns.md").read_text()
    table = page.partition("| in the guide | here | in a line |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()[2:]]
    return [(guide, line.strip("` |")) for guide, _, line in cells]


def module(lines: list[str]) -> str:
    """A Python module in which each line stands in a workflow of its own."""
    each = (f"async def line_{n}(run: Run, saga: Saga) -> None:\n    {line}\n" for n, line in enumerate(lines))
    return PRELUDE.replace(": ...\n", ":\n    raise NotImplementedError\n") + "\n\n".join(each)


def test_every_name_of_the_guide_is_in_the_table() -> None:
    named = {name for guide, _ in rows() for name in re.findall(r"`\.?(\w+)", guide)}

    assert GUIDE - named == set()


def test_each_line_of_the_table_passes_the_type_checker(tmp_path: Path) -> None:
    lines = [line for _, line in rows()]
    assert len(lines) >= len(GUIDE) - 1
    page = tmp_path / "lines.py"
    page.write_text(module(lines))

    assert mypy(page) == ""


def test_a_line_that_is_wrong_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "lines.py"
    page.write_text(
        module(["price.s(7)", "cents: str = await price.s(7)", "await saga.safe_step('pay').execute(pay.s(7))"])
    )

    said = mypy(page)

    for mistake in ("[unused-awaitable]", "[assignment]", "[attr-defined]"):
        assert mistake in said


@pytest.mark.parametrize("word", ["**Do ", "**Don't "])
def test_the_guides_advice_is_there(word: str) -> None:
    advice = (ROOT / "docs/patterns.md").read_text().partition("## DOs and DON'Ts")[2]

    assert advice.count(word) == {"**Do ": 4, "**Don't ": 2}[word]
