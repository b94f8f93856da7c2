"""Both type checkers on `tests/typing/typing_checks.py`: every exact type, and every intended mistake flagged.

An ignore that is not needed is an error for both, so a mistake that is no longer flagged fails here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CHECKS = ROOT / "tests" / "typing" / "typing_checks.py"


def run(*command: str, env: dict[str, str] | None = None) -> str:
    """What a checker says; empty if it is content."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def mypy(checked: Path, tmp_path: Path) -> str:
    return run("mypy", "--strict", "--enable-error-code", "unused-awaitable", str(checked))


def pyright(checked: Path, tmp_path: Path) -> str:
    # It takes relative paths only, and is silently content with others.
    if not (tmp_path / checked.name).exists():
        shutil.copy(checked, tmp_path)
    config = {
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "pythonVersion": "3.11",
        "include": [checked.name],
        "extraPaths": [str(ROOT)],
    }
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(config))
    # The machine's node, where it has one: pyright would fetch its own.
    env = {"PYRIGHT_PYTHON_GLOBAL_NODE": "1" if shutil.which("node") else "0"}
    said = run("pyright", "--project", str(project), "--pythonpath", sys.executable, env=env)
    if "nodeenv" in said or "getaddrinfo" in said:
        pytest.skip("pyright needs node, which is neither here nor to be had")
    return said


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_the_public_types_are_exact_and_mistakes_are_flagged(checker, tmp_path):
    assert checker(CHECKS, tmp_path) == ""


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_the_checkers_do_look(checker, tmp_path):
    """Without its ignores, each mistake of the file is an error."""
    text = CHECKS.read_text()
    mistakes = [number for number, line in enumerate(text.splitlines(), 1) if "# type: ignore" in line]
    bare = tmp_path / "bare.py"
    bare.write_text(text.replace("# type: ignore", "# was"))

    said = checker(bare, tmp_path)

    missed = [number for number in mistakes if f"bare.py:{number}:" not in said]
    assert missed == []
    assert len(mistakes) > 10
