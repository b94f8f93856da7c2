"""The code blocks of a Markdown page, and a way to run them as its reader would.

- A Python block whose first line is `# name.py` is that file; `# name.py, added` goes to its end.
- A console block has commands (`$ ...`) and what they print. Times and widths may differ, nothing else.
- `<!-- not run: why -->` before a block: it is only compiled. `<!-- from: path -->`: each line of it is in that file.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<lang>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_FILE = re.compile(r"# (?P<name>[\w/]+\.py)(?P<added>, added)?$")
_WORKER = re.compile(r"celery -A (?P<app>\w+) worker\b(?P<options>.*)")

#: What differs from run to run, and what stands for it.
_UNSTABLE = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "DATE"),
    (re.compile(r"\d\d:\d\d:\d\d\.\d+"), "TIME"),
    (re.compile(r"\d+(\.\d+)? (ms|s|min)\b"), "TOOK"),
    (re.compile(r"━+"), "━"),
    (re.compile(r"\s+"), " "),
)

_FORKS = multiprocessing.get_context("forkserver")

#: One command has this long, on a machine that does other things too.
COMMAND_S = 30


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        mark: The text of the HTML comment before it, or ''.
        line: Where it begins in its page.
    """

    page: Path
    line: int
    lang: str
    text: str
    mark: str

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def runs(self) -> bool:
        return not self.mark.startswith(("not run:", "from:"))

    @property
    def file(self) -> tuple[str, bool] | None:
        """The name of the file that it is (a part of), and whether it goes to its end."""
        found = _FILE.match(self.text.partition("\n")[0])
        return (found["name"], bool(found["added"])) if found else None

    def compile(self) -> None:
        """Raise SyntaxError if it is not Python; what is a part of something need only be one of a function."""
        text = self.text if self.runs else "async def part():\n" + textwrap.indent(self.text, "    ")
        compile(text, self.where, "exec")

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command and what it prints."""
        for chunk in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = chunk.partition("\n")
            while command.endswith("\\"):
                more, _, output = output.partition("\n")
                command = command[:-1] + more.lstrip("> ")
            yield command, output


def blocks(page: Path) -> list[Block]:
    """All of a page, in their order."""
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, found.start("text")), found["lang"], found["text"], found["mark"] or "")
        for found in _BLOCK.finditer(text)
    ]


def stable(output: str) -> str:
    """What is the same in each run."""
    for pattern, instead in _UNSTABLE:
        output = pattern.sub(instead, output)
    return output.strip()


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows."""
    for block in blocks(page):
        if block.lang != "python" or not block.runs:
            continue
        assert block.file, f"{block.where}: say which file it is (# name.py), or why it is not run"
        name, added = block.file
        path = folder / name
        before = path.read_text() + "\n\n" if added else ""
        path.write_text(before + block.text)


def run_page(page: Path, folder: Path, env: Mapping[str, str], start_worker: Callable[[str, str], object]) -> None:
    """Run the commands of a page in `folder`, and compare what they print.

    Args:
        start_worker: Called with app and further options where the page says `celery -A app worker`.
    """
    write_files(page, folder)
    for block in blocks(page):
        if block.lang != "console" or not block.runs:
            continue
        for command, shown in block.commands():
            if worker := _WORKER.match(command):
                start_worker(worker["app"], worker["options"])
            elif not command.startswith(("make ", ". ")):
                _run(block, command, shown, folder, env)


def _run(block: Block, command: str, shown: str, folder: Path, env: Mapping[str, str]) -> None:
    code, output = execute(command, folder, env)
    if shown:
        assert stable(output) == stable(shown), f"{block.where}: $ {command}\n{output}"
    else:
        assert code == 0, f"{block.where}: $ {command}\n{output}"


def execute(command: str, folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a command line of `python -c`, `pytest` or `celery`, with what `echo` pipes into it, in a process of its own.

    The process is forked from one that has imported all that is big: a page has many commands, and their imports
    would take most of its time.

    Returns:
        Exit code and output.
    """
    said, _, rest = command.rpartition(" | ")
    program, *args = shlex.split(rest)
    words = shlex.split(said)[1:] if said else []
    (folder / "stdin").write_text(" ".join(words) + "\n" if words else "")
    _FORKS.set_forkserver_preload(["celery.__main__", "celery.bin.celery", "canvas", "saga", "status.cli_submit"])
    process = _FORKS.Process(target=_become, args=(program, args, str(folder), dict(env)))
    process.start()
    process.join(COMMAND_S)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode or 0, (folder / "stdout").read_text()


def _become(program: str, args: list[str], folder: str, env: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update({"COLUMNS": "80"} | env)
    sys.path.insert(0, folder)
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        os.dup2(os.open("stdout" if number else "stdin", flags), number)
    os.dup2(1, 2)
    sys.stdin, sys.argv = os.fdopen(0), [program, *args]
    if program == "python":
        option, code = args
        assert option == "-c"
        exec(code, {"__name__": "__main__"})  # noqa: S102  # what the page says
    elif program == "pytest":
        raise SystemExit(importlib.import_module("pytest").main(["-p", "no:cacheprovider", *args]))
    else:
        assert program == "celery"
        importlib.import_module("celery.__main__").main()
