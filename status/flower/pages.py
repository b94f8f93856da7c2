"""Finds templates: the tab's own, Flower's, and Flower's bar with one entry more, its frame without its tables."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from tornado.template import Loader, Template

logger = logging.getLogger("celeriac")

OURS = Path(__file__).parent / "templates"

#: What the tab's pages are put in: Flower's `base.html` without what its tables alone need.
FRAME = "workflows_base.html"

#: More than a megabyte: to read it takes a browser longer than to draw a run of a thousand steps.
_OF_TABLES = re.compile(
    r"<(?:script|link)\b[^>]*static_url\('(?:js/(?:jquery|datatables|moment|flower)|css/datatables)[^>]*>(?:</script>)?"
)

ENTRY = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'workflows' %} active{% end %}"
            href="{{ reverse_url('main') }}workflows"
            {% if active_tab == 'workflows' %}aria-current="page"{% end %}>Workflows</a>
        </li>
"""


class Pages(Loader):
    """Flower's templates and the tab's.

    Args:
        flowers: The folder of Flower's templates.
    """

    def __init__(self, flowers: str, **options: Any) -> None:
        super().__init__(flowers, **options)

    def _create_template(self, name: str) -> Template:
        ours = OURS / name
        if ours.parent == OURS and ours.is_file():
            return Template(ours.read_bytes(), name=name, loader=self)
        if name == "navbar.html":
            return Template(with_entry((Path(self.root) / name).read_text()), name=name, loader=self)
        if name == FRAME:
            frame = (Path(self.root) / "base.html").read_text()
            return Template(without_tables(frame), name=name, loader=self)
        found: Template = super()._create_template(name)
        return found


def without_tables(frame: str) -> str:
    """Flower's frame for pages that have none of its tables: its bar, menus and themes work."""
    return _OF_TABLES.sub("", frame)


def with_entry(bar: str) -> str:
    """Flower's bar with the tab, after its other entries."""
    start = bar.find('id="primary-navigation"')
    end = bar.find("</ul>", start)
    if start < 0 or end < 0:
        logger.warning("Flower's bar is not as it was: the tab is at /workflows, but nothing leads there")
        return bar
    return bar[:end].rstrip() + ENTRY + "      " + bar[end:]
