"""What the page of docstrings reads beside docstrings: the `#:` comments of states and fields."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SAID = re.compile(r"#: (?P<said>.+)$")


class Comments(griffe.Extension):
    """Takes the comment at the end of an attribute's line for its docstring."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called by griffe for each attribute."""
        found = _SAID.search(attr.source) if attr.docstring is None else None
        if found:
            attr.docstring = griffe.Docstring(found["said"], lineno=attr.lineno, parent=attr)
