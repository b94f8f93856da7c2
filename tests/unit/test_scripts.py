"""The Lua transitions, as texts."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from status.scripts import RUN_SCRIPTS, source

LIMIT = 350


@pytest.mark.parametrize("name", sorted(RUN_SCRIPTS))
def test_a_script_has_each_verb_before_it_uses_it(name):
    """Lua says nothing of a name that is not there until the line is run, and then it has written."""
    text = re.sub(r"--[^\n]*", "", source(name))
    shared = {
        verb
        for file in (files("status") / "lua").iterdir()
        for verb in re.findall(r"^local function (\w+)", file.read_text(), re.MULTILINE)
    }
    for verb in shared:
        used = re.search(rf"(?<![\w.:'])(?<!function ){verb}\(", text)
        if used:
            assert f"function {verb}(" in text[: used.start()], f"{name} uses {verb}"


def test_no_script_is_long():
    long = {
        file.name: lines
        for file in (files("status") / "lua").iterdir()
        if (lines := file.read_text().count("\n")) > LIMIT
    }
    assert long == {}
