"""`run.patched(name)`: which of the ways through a changed workflow a run takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from status.errors import ConfigError

#: What `open_join` calls them in the run hash.
FIELD = "patched:"

#: A name is a field of the run, and is shown with its history.
NAME_LIMIT = 200


class Teller(Protocol):
    """What `Patches` needs of a run."""

    next_await: int
    replaying: bool

    def remark(self, kind: str, name: str, detail: str = "") -> None:
        """Let an event travel with whatever this turn records."""


class Patches:
    """The changes that one run has met.

    Args:
        recorded: Those whose new way it has taken.
        open_await: The await that was open when the run was read; its code has gone on from there.
    """

    def __init__(self, recorded: frozenset[str] = frozenset(), open_await: str = "") -> None:
        self._recorded = recorded
        self._open = open_await
        self._answers: dict[str, bool] = {}

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Patches:
        """Read the run hash."""
        recorded = (field.removeprefix(FIELD) for field in fields if field.startswith(FIELD))
        return cls(frozenset(recorded), fields.get("open", ""))

    def asked(self, name: str, run: Teller) -> bool:
        """The answer of `run.patched(name)`, see there."""
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LIMIT or not name.isprintable():
            raise ConfigError(f"run.patched: a name is 1 to {NAME_LIMIT} printable characters, got {name!r:.80}")
        if name not in self._answers:
            self._answers[name] = self._first(name, run)
        return self._answers[name]

    def _first(self, name: str, run: Teller) -> bool:
        if name in self._recorded:
            return True
        if run.replaying or str(run.next_await) == self._open:
            return False
        # With the next await: `open_join` notes it in the run in the same script.
        run.remark("run.patched", name)
        return True
