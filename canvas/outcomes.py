"""What came of an attempt, a part and an await: values, not exceptions."""

from __future__ import annotations

import asyncio
import traceback as tb
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from celery.exceptions import WorkerShutdown, WorkerTerminate
from pydantic_core import from_json

from status.errors import Cancelled, ErrorInfo, StepFailed, StepTimeout, qualified_name
from status.journals import Journal
from status.models import error_from_json, error_to_json

#: A traceback longer than this is cut in the middle: the ends say most.
TRACEBACK_LIMIT = 8000


class Done(NamedTuple):
    """The attempt returned.

    Attributes:
        value: What it returned.
        text: The same as JSON.
    """

    value: Any
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt raised, and that was the last."""

    error: Exception
    info: ErrorInfo


@dataclass(frozen=True, slots=True)
class Again:
    """The attempt raised, and is made again in `delay_s` seconds."""

    error: Exception
    info: ErrorInfo
    delay_s: float


Outcome = Done | Failed | Again


@dataclass(slots=True)
class Decision:
    """How an await ended, as the journal has it.

    Attributes:
        verdict: `all`, `won`, `failed`, `lost`, `timed_out` or `cancelled`.
        index: The part that decided it, or the reason of a cancel.
        parts: Part -> its recorded outcome: `v…`, `e…`, `t` or `u…` (see `status/lua/_run.lua`).
        order: The successful parts of a quorum, first come first.
        late: `await.part` -> outcome, of what came after its own decision (a settle's).
        counts: How many parts of a batch have succeeded and failed.
        by: The token that decided it.
        line: Where it was awaited when it was opened, as file:line; '' if that is not known.
    """

    verdict: str
    index: str
    at_ms: int
    nonce: str
    fingerprint: str
    parts: Mapping[int, str] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    late: Mapping[str, str] = field(default_factory=dict)
    counts: tuple[int, int] = (0, 0)
    line: str = ""
    by: str = ""

    @classmethod
    def read(cls, journal: Mapping[str, str], n: int, size: int) -> Decision | None:
        """The entry of await `n`, with the outcomes of its `size` parts; None if there is none yet."""
        if not isinstance(journal, Journal):
            return cls._read(journal, n, size)
        found: tuple[int, Decision] | None = journal.read.get(n)
        if found is None or found[0] != size:
            decision = cls._read(journal, n, size)
            if decision is None:
                return None
            found = journal.read[n] = size, decision
        return found[1]

    @classmethod
    def _read(cls, journal: Mapping[str, str], n: int, size: int) -> Decision | None:
        place = str(n)
        text = journal.get(place)
        if text is None:
            return None
        entry = from_json(text)
        index = str(entry["i"])
        order, late_text = journal.get(place + ":order"), journal.get(place + ".late")
        # Lua writes an empty list as {}.
        late = (from_json(late_text) or []) if late_text else []
        wanted: Iterable[int] = range(size)
        if not size and entry["v"] == "failed":  # of a batch that keeps nothing but what it failed of
            wanted = (int(index),)
        return cls(
            entry["v"],
            index,
            int(entry["at"]),
            entry["x"],
            entry["fp"],
            {p: outcome for p in wanted if (outcome := journal.get(f"{place}.{p}")) is not None},
            tuple(map(int, order.split(","))) if order else (),
            dict(zip(late[::2], late[1::2], strict=True)) if late else {},
            _counts(entry["n"]) if "n" in entry else (0, 0),
            entry.get("l", ""),
            entry.get("by", ""),
        )

    @property
    def asked(self) -> str:
        """What was awaited, and where."""
        return asked_at(self.fingerprint, self.line)

    @property
    def at(self) -> datetime:
        """When it was recorded."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)

    def cancelled(self) -> Cancelled:
        """What is thrown into the workflow when a cancel has decided this."""
        code, _, reason = self.index.partition("|")
        return Cancelled(reason, int(code) if code.isdigit() else 409)


def _counts(text: str) -> tuple[int, int]:
    ok, bad = text.split("|")
    return int(ok), int(bad)


def asked_at(fingerprint: str, line: str) -> str:
    """An await, for people: what it asks for, and where that is written."""
    return f"{fingerprint} at {line}" if line else fingerprint


def failure(outcome: str, *, step: str, index: int, within_s: float | None) -> StepFailed:
    """The exception for a part whose outcome is not a value."""
    if outcome[0] == "t":
        limit = f" of {within_s} s" if within_s else ""
        message = f"its time{limit} was up"
        return StepTimeout(ErrorInfo(step, qualified_name(StepTimeout), message, 408), index)
    info = error_from_json(outcome[1:]) if len(outcome) > 1 else unknown_outcome()
    if info.error_type == qualified_name(StepTimeout):
        return StepTimeout(replace(info, step=step), index)
    return StepFailed(replace(info, step=step), index)


def describe(error: BaseException, *, step: str | None = None, attempts: int = 1) -> ErrorInfo:
    """An exception as a value, with its causes (`raise … from …`)."""
    text = "".join(tb.format_exception(error))
    if len(text) > TRACEBACK_LIMIT:
        half = TRACEBACK_LIMIT // 2
        text = f"{text[:half]}\n…\n{text[-half:]}"
    return replace(_link(error, step), attempts=attempts, traceback=text)


def _link(error: BaseException, step: str | None, depth: int = 0) -> ErrorInfo:
    if isinstance(error, StepFailed):
        return error.info
    cause = error.__cause__
    return ErrorInfo(
        step=step,
        error_type=qualified_name(type(error)),
        message=said_by(error),
        code=_code_of(error),
        # A chain that bites its own tail must not hang a worker.
        cause=_link(cause, None, depth + 1) if cause is not None and depth < 10 else None,
        bases=tuple(qualified_name(base) for base in type(error).__mro__[1:-1]),
    )


def said_by(error: BaseException) -> str:
    """Its message. That is made by code of its author, which may fail, and must not take the error with it."""
    try:
        return str(error)
    except Exception as failed:  # noqa: BLE001  # whatever it is, it is told
        return f"({type(error).__name__} can't say what it is: __str__ raised {type(failed).__name__})"


#: What code raises that is no `Exception`, and means no more by it than that it has failed.
FAILURES = (SystemExit, asyncio.CancelledError, Cancelled, BaseExceptionGroup)


def is_failure(error: BaseException) -> bool:
    """Whether it is one of these, and not how a worker or a signal ends the process."""
    if isinstance(error, SystemExit):
        # Billiard exits so at a signal: with its number less 256. A step may say `sys.exit(1)`.
        by_signal = isinstance(error.code, int) and error.code < 0
        return not by_signal and not isinstance(error, (WorkerShutdown, WorkerTerminate))
    return isinstance(error, FAILURES)


def as_exception(error: BaseException, name: str) -> Exception:
    """Such a failure as an `Exception`: a pool would lose the process by it, or the slot."""
    failure = RuntimeError(f"{name} raised {type(error).__name__}: {said_by(error)}")
    failure.__cause__ = error
    return failure


def _code_of(error: BaseException) -> int:
    try:
        code = getattr(error, "code", None)
    except Exception:  # noqa: BLE001  # a property of its author's: as if it had none
        code = None
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    return 408 if isinstance(error, TimeoutError) else 500


def unknown_outcome(why: str = "its process died; whether it had its effect is not known") -> ErrorInfo:
    """The error of a part that may or may not have happened."""
    return ErrorInfo(None, "OutcomeUnknown", f"outcome unknown: {why}", 500)


def encode_error(info: ErrorInfo) -> str:
    """An error as the outcome of a part."""
    return "e" + error_to_json(info)


def encode_unknown(info: ErrorInfo) -> str:
    """An unknown outcome of a part."""
    return "u" + error_to_json(info)
