"""Processes of a test die where they are told to: before or after something is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from canvas.publisher import Message
from canvas.service import step_name
from status.errors import ConfigError
from status.scripts import RUN_SCRIPTS

#: What a process may die before or after: what a client, a worker or whoever sweeps writes, and messages.
MOMENTS = RUN_SCRIPTS - {"vouch", "leaving", "turn_down", "reassert", "abandon"} | {"publish"}


class Died(BaseException):
    """The process that was doing this is no more."""


class TestBroke(BaseException):
    """A fake found a mistake: the test fails, and not the step."""

    __test__ = False


@dataclass
class Crash:
    """A death that is yet to come.

    Attributes:
        when: `before` or `after`, and one of `MOMENTS`.
        names: Of the step in hand, by name or label; empty: any, or none.
        left: How often.
    """

    when: str
    names: frozenset[str]
    left: int


class Deaths:
    """Who does what, and who is to die."""

    def __init__(self) -> None:
        self._crashes: list[Crash] = []
        self._in_hand: Message | None = None
        self._is_process = False

    def plan(self, when: str, names: frozenset[str], times: int) -> None:
        """Let a process die.

        Raises:
            ConfigError: There is no such moment.
        """
        side, _, what = when.partition(" ")
        if side not in ("before", "after") or what not in MOMENTS:
            raise ConfigError(f"crash({when!r}): write `before` or `after` and one of {', '.join(sorted(MOMENTS))}")
        self._crashes.append(Crash(when, names, times))

    @property
    def left(self) -> list[str]:
        """What was planned and did not happen."""
        return [crash.when for crash in self._crashes if crash.left]

    def as_process(self, act: Callable[[], object]) -> bool:
        """Do something as a process that may die in the middle. Returns whether it lived.

        Raises what the test is to see: of a fake that found a mistake.
        """
        before, self._is_process, lived = self._is_process, True, False
        try:
            with suppress(Died):
                act()
                lived = True
        except TestBroke as broke:
            cause = broke.__cause__
            if isinstance(cause, AssertionError):
                raise cause from None
            raise ConfigError(str(broke)) from cause
        finally:
            self._is_process = before
        return lived

    @contextmanager
    def at_work(self, message: Message) -> Iterator[None]:
        """The present process has this message in hand."""
        before, self._in_hand = self._in_hand, message
        try:
            yield
        finally:
            self._in_hand = before

    def boundary(self, side: str, what: str) -> None:
        """Between two writes: the process may die here."""
        if not self._is_process:
            return
        names = set(names_of(self._in_hand)) if self._in_hand else set()
        for crash in self._crashes:
            if crash.left and crash.when == f"{side} {what}" and (not crash.names or crash.names & names):
                crash.left -= 1
                raise Died


def names_of(message: Message) -> tuple[str, str]:
    """What a fake may be given for: the label of the call, and the step's name."""
    name = step_name(message.headers["task"])
    return message.headers.get("shadow") or name, name
