"""As a new user would: the README alone, a fresh folder outside the checkout, a workflow of one's own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import docs_blocks
from nodes import Workers

README = Path(__file__).parent.parent.parent / "README.md"

#: What somebody writes who has read the README's first screen and its table.
BAKERY = """\
from celery import Celery

import canvas
from canvas import Run, TerminalError, fan_out_fail, step, workflow

app = Celery("bakery")
canvas.install(app)

@step
def weigh(loaves: int) -> float:
    if loaves > 100:
        raise TerminalError("the oven is too small", code=413)
    return loaves * 0.5

@step
def knead(flour_kg: float) -> str:
    return f"dough of {flour_kg} kg"

@step
def bake(dough: str) -> str:
    return f"bread from a {dough}"

@workflow(name="bakery.bread")
async def bread(run: Run, loaves: int) -> list[str]:
    run.update_status(phase="dough", progress=0.3)
    dough = await knead.s(await weigh.s(loaves))
    run.update_status(phase="oven", progress=0.6)
    return list(await fan_out_fail(bake.s(dough), bake.s(dough)))
"""


def test_a_workflow_of_three_steps_in_a_fresh_folder_takes_less_than_thirty_lines(
    worker: Workers, worker_env: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "bakery"
    folder.mkdir()
    (folder / "bakery.py").write_text(BAKERY)
    env = worker_env | {"PYTHONPATH": str(folder)}
    worker("bakery", env=env, options=("--without-mingle", "--without-gossip"))

    def said(command: str, code: int = 0) -> str:
        exit_code, output = docs_blocks.execute(command, folder, env)
        assert exit_code == code, output
        return output

    submit = "import bakery; print(bakery.bread.submit({}, run_id='{}').result(timeout_s=10))"
    assert len(BAKERY.splitlines()) < 30
    assert said(f'python -c "{submit.format(4, "b-1")}"') == str(["bread from a dough of 2.0 kg"] * 2) + "\n"
    shown = said("celery -A bakery runs show b-1")
    for word in ("bakery.bread", "completed", "dough", "oven", "bakery.weigh", "bakery.knead", "bakery.bake", "done"):
        assert word in shown
    failed = said(f'python -c "{submit.format(400, "b-2")}"', code=1)
    assert "RunFailed: run b-2 failed: TerminalError: the oven is too small (in bakery.weigh)" in failed
    assert re.search(r"b-2\s+bakery\.bread\s+failed", said("celery -A bakery runs list"))


def test_it_uses_nothing_that_the_readme_does_not_show() -> None:
    readme = README.read_text()
    tree = ast.parse(BAKERY)
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", readme)] == []
    for command in ("runs show", "runs list"):
        assert command in readme
