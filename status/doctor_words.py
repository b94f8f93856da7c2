"""A finding of the doctor: what was seen, how bad it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"  #: as it should be
    INFO = "info"  #: worth knowing; nothing to do, or only if you want to
    WARNING = "warning"  #: something will go wrong, or is worse than it need be
    ERROR = "error"  #: work is lost, or stands still, until somebody does something

    @property
    def rank(self) -> int:
        """The worse, the higher; from 0."""
        return list(Severity).index(self)

    @property
    def exit_code(self) -> int:
        """Of the command, if nothing worse was found."""
        return max(0, self.rank - 1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of what the doctor says.

    Attributes:
        check: Which check found it: a name that stays, listed in docs/reference.md.
        seen: What there is, with its value.
        remedy: What to do; '' where nothing is to be done.
    """

    check: str
    severity: Severity
    seen: str
    remedy: str = ""


def ok(check: str, seen: str) -> Finding:
    """All is well."""
    return Finding(check, Severity.OK, seen)


def info(check: str, seen: str, remedy: str = "") -> Finding:
    """Worth knowing."""
    return Finding(check, Severity.INFO, seen, remedy)


def warning(check: str, seen: str, remedy: str) -> Finding:
    """It should be otherwise."""
    return Finding(check, Severity.WARNING, seen, remedy)


def error(check: str, seen: str, remedy: str) -> Finding:
    """It must be otherwise."""
    return Finding(check, Severity.ERROR, seen, remedy)


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst severity among them; OK if there are none."""
    return max((found.severity for found in findings), key=lambda severity: severity.rank, default=Severity.OK)


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few of many: `a, b, c and 4 more`."""
    listed: Sequence[str] = sorted(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def many(number: int, what: str) -> str:
    """A number with its noun: `1 run`, `1,200 runs`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")
