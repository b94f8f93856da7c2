"""What is shipped: a lock without hosts, a wheel with everything in it, imports that never point back."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
#: From the bottom up: each may import itself and what is before it.
LAYERS = ["status", "canvas", "saga", "tasks"]
NOT_SHIPPED = ["bench", "tests"]


def shipped_files() -> set[str]:
    found = [path for layer in LAYERS for path in (ROOT / layer).rglob("*") if path.is_file()]
    found += [path for path in [ROOT / "celeryconfig.py"] if path.exists()]
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def test_the_lock_names_no_place():
    lock = (ROOT / "requirements.lock").read_text()

    assert re.findall(r".*(?:https?://|file:|@ ).*", lock) == []


def test_the_lock_has_a_hash_for_everything_that_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    asked += [name for extra in project["project"]["optional-dependencies"].values() for name in extra]
    lock = (ROOT / "requirements.lock").read_text()

    locked = set(re.findall(r"^([a-z0-9-]+)==\S+.*\\\n +--hash=sha256:", lock, flags=re.MULTILINE))

    assert {_project_name(requirement) for requirement in asked} - locked == set()


def test_the_wheel_has_all_of_it_and_nothing_else(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")

    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert packed == shipped_files()


@pytest.mark.parametrize("layer", LAYERS)
def test_every_package_says_that_it_is_typed(layer):
    assert (ROOT / layer / "py.typed").exists()


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_never_point_back(layer):
    forbidden = {*LAYERS[LAYERS.index(layer) + 1 :], *NOT_SHIPPED}

    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in (ROOT / layer).rglob("*.py")
        for line, module in imports(ast.parse(path.read_text()))
        if module.partition(".")[0] in forbidden
    ]

    assert found == []


def test_imports_are_found_wherever_they_stand():
    source = """
import canvas.turn
def late():
    from saga import Saga
    import_module("tasks.app")
    __import__("tests")
from . import keys
"""

    found = {module for _, module in imports(ast.parse(source))}

    assert found == {"canvas.turn", "saga", "tasks.app", "tests"}


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and absolute name of each import, also inside functions and by name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield node.lineno, module
            case ast.Call(func=func, args=[ast.Constant(value=str(module)), *_]) if _imports_by_name(func):
                yield node.lineno, module


def _imports_by_name(func: ast.expr) -> bool:
    return ast.unparse(func).rpartition(".")[2] in {"import_module", "__import__"}


def _project_name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()
