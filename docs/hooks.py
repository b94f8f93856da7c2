"""What `mkdocs build` is told beside mkdocs.yml: pages outside of docs/, links to sources, figures of the bench."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent

#: Pages of the site that are files of the project: where they are read, and what they are called here.
OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}

_FIGURES = re.compile(r"^<!-- figures: (?P<name>\w+) -->$", re.MULTILINE)
_LINK = re.compile(r"(?P<before>\]\()(?P<to>(?!https?:|#|mailto:)[^)\s]+)(?P<after>\))")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)

ROWS = {
    "orders_per_s": "orders/s, all at once",
    "p50_ms": "one order on an idle system, p50 in ms",
    "cpu_s_per_100": "CPU seconds for 100 orders: workers and client",
    "valkey_cpu_s_per_100": "CPU seconds for 100 orders: Valkey",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that live outside of docs/."""
    for path, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in figures, and let links that leave the site be the names of files."""
    source = next((path for path, name in OUTSIDE.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}")
    text = _FIGURES.sub(lambda found: figures(found["name"]), markdown)
    parts = _FENCE.split(text)  # each second one is a block of code
    parts[::2] = [_LINK.sub(lambda found: _link(found, source), part) for part in parts[::2]]
    return "".join(parts)


def figures(name: str) -> str:
    """A table of `bench/results/latest.json`."""
    found = json.loads((ROOT / "bench/results/latest.json").read_text(encoding="utf-8"))
    stock, ours, machine = found[name]["stock"], found[name]["ours"], found["machine"]
    rows = [f"| {told} | {stock[key]:g} | {ours[key]:g} |" for key, told in ROWS.items()]
    head = ["| | stock Celery canvas | celeriac |", "|---|---|---|"]
    how = found[name]["measured"]
    where = f"{machine['cores']} cores, {how['workers']['ours']}, Valkey {machine['valkey']}"
    said = f"{where}; medians of {how['pairs']} turns."
    return "\n".join([*head, *rows, "", said])


def _link(found: re.Match[str], source: str) -> str:
    """A link as the site has it; to what is no page of it, the name of the file in the project."""
    path, sign, heading = found["to"].partition("#")
    if not path:
        return found[0]
    target = (ROOT / source).parent / path
    project = target.resolve().relative_to(ROOT).as_posix()
    if project in OUTSIDE:
        return f"{found['before']}{OUTSIDE[project]}{sign}{heading}{found['after']}"
    if project.startswith("docs/"):
        return f"{found['before']}{project.removeprefix('docs/')}{sign}{heading}{found['after']}"
    # The site has no copy of the sources, and does not know where they are published.
    return f'{found["before"]}index.md "in the project: {project}"{found["after"]}'
