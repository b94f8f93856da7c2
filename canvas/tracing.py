"""Where spans of runs would be made: nothing happens here until `canvas.otel` is switched on.

A run's trace is that of its submit. All that is published for a run is published below the span of its await, or of the
run: also what a sweep sends again, or another worker goes on with.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from status.errors import ErrorInfo
from status.states import State

if TYPE_CHECKING:
    from status.records import RunRecord
    from status.store import Store


class Spans(Protocol):
    """What makes spans; see `canvas.otel`."""

    def submitting(self, run_id: str, workflow: str) -> AbstractContextManager[str]:
        """A span of the submit, made current; gives what the run is to remember of it."""

    def below(self, run_id: str, nonce: str, fields: Mapping[str, str]) -> AbstractContextManager[str]:
        """Make the span of an await current, or of the run, if `nonce` is ''; gives what a child is to remember.

        Args:
            fields: Of the run hash: trace, submitted_ms and gen.
        """

    def decided(self, record: RunRecord) -> None:
        """The last await of a run's journal has its outcome: its span is complete."""

    def ended(self, record: RunRecord, state: State, error: ErrorInfo | None) -> None:
        """A run has ended: its span is complete, and that of its last await."""


_spans: Spans | None = None
_NOTHING = nullcontext("")


def use(spans: Spans | None) -> None:
    """Say what makes spans in this process; None: nothing does."""
    global _spans  # noqa: PLW0603  # one answer a process is the point
    _spans = spans


def on() -> bool:
    """Whether spans are made in this process."""
    return _spans is not None


def submitting(run_id: str, workflow: str) -> AbstractContextManager[str]:
    """A run is submitted within; gives what it is to remember, or ''."""
    return nullcontext("") if _spans is None else _spans.submitting(run_id, workflow)


def below(store: Store, run_id: str, nonce: str = "") -> AbstractContextManager[str]:
    """Something is published for a run, or for an await of it, within; gives what a child is to remember, or ''."""
    fields = store.trace_of(run_id) if _spans is not None else None
    if _spans is None or not fields:  # it is gone
        return _NOTHING
    return _spans.below(run_id, nonce, fields)


def decided(record: RunRecord) -> None:
    """A turn was recorded that has read the outcome of the run's last await."""
    if _spans is not None:
        _spans.decided(record)


def ended(record: RunRecord, state: State, error: ErrorInfo | None) -> None:
    """A run has ended."""
    if _spans is not None:
        _spans.ended(record, state, error)
