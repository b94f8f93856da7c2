"""Hides secrets wherever runs are shown: Flower's pages, its tab, logs of arguments.

What is stored and what steps are given stays as it is; only what people look at is masked.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from status.errors import ConfigError

#: What stands in the place of a secret.
HIDDEN = "***"

#: Names whose values are secrets, unless `CELERIAC_MASK` says other patterns.
DEFAULT_PATTERNS = (
    "*password*", "*passwd*", "*passphrase*", "*secret*", "*token*", "*api_key*", "*apikey*", "*private_key*",
    "*authorization*", "*credential*", "*cookie*", "*card_number*", "*cvv*", "*cvc*", "*iban*",
)  # fmt: skip

_PATTERN = re.compile(r"[\w*?.-]+")

#: A password in an URL: `redis://user:secret@host`.
_IN_URL = re.compile(r"(?<=://)(?P<user>[^\s/:@'\"]*):[^\s/@'\"]+@")


class Mask:
    """Knows by their names which values are secrets.

    Args:
        patterns: Of names; `*` is any text, `?` any character. A `-` or `_` in a name is the same; case does not count.

    Raises:
        ConfigError: A pattern has other characters than those of names, `*` and `?`.
    """

    def __init__(self, patterns: Sequence[str] = DEFAULT_PATTERNS) -> None:
        for pattern in patterns:
            if not _PATTERN.fullmatch(pattern):
                raise ConfigError(
                    f"CELERIAC_MASK: {pattern!r} is no pattern of a name: letters, digits, _ - . and the wildcards * ?"
                )
        names = "|".join(_as_regex(pattern) for pattern in patterns)
        self._name = re.compile(names or r"(?!)", re.IGNORECASE)
        # `name=value`, `name: value`, `"name": "value"`; a value is quoted, or ends at a blank or a bracket.
        self._in_text = re.compile(
            rf"""(?P<name>(?<![\w-])(?:{names or "(?!)"})(?![\w-]))(?P<sign>\\?["']?\s*[=:]\s*)"""
            r"""(?P<value>\\?"(?:[^"\\]|\\[^"])*\\?"|\\?'(?:[^'\\]|\\[^'])*\\?'|(?:(?:Bearer|Basic)\s+)?[^\s,;)\]}"'&]+)""",
            re.IGNORECASE,
        )

    def hides(self, name: str) -> bool:
        """Whether a value of this name is a secret."""
        return self._name.fullmatch(name) is not None

    def value(self, value: Any) -> Any:
        """A JSON value with the secrets in it hidden, however deep they are."""
        if isinstance(value, Mapping):
            return {name: HIDDEN if self._is_secret(name, held) else self.value(held) for name, held in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        return _IN_URL.sub(rf"\g<user>:{HIDDEN}@", value) if isinstance(value, str) else value

    def json(self, text: str) -> str:
        """A JSON text with the secrets in it hidden; what is no JSON is masked as prose."""
        try:
            value = json.loads(text)
        except ValueError:
            return self.text(text)
        return json.dumps(self.value(value), ensure_ascii=False)

    def text(self, text: str) -> str:
        """Prose, a traceback or a repr with `name=secret`, `"name": "secret"` and passwords in URLs hidden."""
        hidden = self._in_text.sub(lambda found: f"{found['name']}{found['sign']}{HIDDEN}", text)
        return _IN_URL.sub(rf"\g<user>:{HIDDEN}@", hidden)

    def _is_secret(self, name: Any, value: Any) -> bool:
        # That there is none is no secret.
        return value is not None and isinstance(name, str) and self.hides(name)


def _as_regex(pattern: str) -> str:
    wild = {"*": r"[\w.-]*", "?": r"[\w.-]", "_": "[_-]", "-": "[_-]"}
    return "".join(wild.get(letter) or re.escape(letter) for letter in pattern)


@cache
def mask() -> Mask:
    """The mask of this process: `CELERIAC_MASK`, patterns with commas between; `CELERIAC_MASK=` hides nothing by name.

    Raises:
        ConfigError: A pattern is malformed.
    """
    given = os.environ.get("CELERIAC_MASK")
    if given is None:
        return Mask()
    return Mask([pattern for pattern in (one.strip() for one in given.split(",")) if pattern])
