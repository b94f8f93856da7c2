"""Undoes what a saga has entered: first waits for what still runs, then one undo after the other.

Each undo is an awaited step of the run: a crash goes on with the next one, and none is made twice.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from canvas import CompensationFailed, ConfigError, Join, StepFailed
from canvas.waitables import Recipe
from saga.log import EntryState
from saga.strategy import Strategy

if TYPE_CHECKING:
    from saga.saga import Entry, Saga


class Rollback(Join[None]):
    """Undoes what a saga has entered: first waits for what still runs, then one undo after the other."""

    def __init__(self, saga: Saga, strategy: Strategy) -> None:
        super().__init__(_settle_recipe())
        self._saga, self._strategy = saga, strategy

    def limited(self, recipe: Recipe) -> Join[None]:  # noqa: ARG002
        raise ConfigError("a rollback has no time limit, half of it would be worse: give its undos @step(timeout_s=)")

    def __await__(self) -> Generator[Any, Any, None]:
        saga = self._saga
        entries = saga.take()
        if not entries:
            return
        late: Mapping[str, str] = yield Join(_settle_recipe())
        for at, entry in enumerate(entries):
            error = yield from self._undo(entry, late)
            if error is not None and self._strategy is not Strategy.BEST_EFFORT:
                left = len(entries) - at - 1
                raise CompensationFailed(f"saga {saga.name}: {entry.label} gave up, {left} more not undone: {error}")

    def _undo(self, entry: Entry, late: Mapping[str, str]) -> Generator[Any, Any, StepFailed | None]:
        """Undo one entry, if it is to be. Gives the error if the undo gave up."""
        if f"{entry.place}u" in late:
            self._was_undone(entry, late[f"{entry.place}u"])
            return None
        return (yield from make_undo(self._saga, entry, self._outcome(entry, late), self._strategy))

    def _was_undone(self, entry: Entry, how: str) -> None:
        """It succeeded after its join was decided and was undone at once; the worker that did so noted it, or died."""
        undone = how[0] == "v"
        self._saga.run_.undone += undone
        self._saga.run_.undo_failed |= not undone
        self._saga.note_undo(entry, EntryState.UNDONE if undone else EntryState.UNDO_FAILED)

    def _outcome(self, entry: Entry, late: Mapping[str, str]) -> str | None:
        """What is known of an action; None if it never began."""
        if not entry.place:
            return entry.outcome or "u"
        if entry.outcome:
            # It timed out, and went on: its value is better than none.
            return late.get(entry.place, entry.outcome) if entry.outcome[0] == "t" else entry.outcome
        return late.get(entry.place)


def make_undo(
    saga: Saga, entry: Entry, outcome: str | None, strategy: Strategy
) -> Generator[Any, Any, StepFailed | None]:
    """Undo one entry, if its action's outcome asks for it. Gives the error if the undo gave up.

    Args:
        outcome: `v…`, `e…`, `t` or `u…`; None if the action never began.
    """
    if outcome is None or not strategy.undoes(outcome):
        saga.log_undo(entry, EntryState.SKIPPED)
        return None
    value = outcome[1:] if outcome[0] == "v" else None
    saga.log_undo(entry, EntryState.UNDOING, value=value)
    call = entry.undo.call(value, label=entry.label, retry=saga.retry, undoes=entry.undoes, key=entry.key)
    try:
        yield Join(replace(call.recipe(), kind="undo", undo=True, state="compensating"))
    except StepFailed as error:
        saga.run_.undo_failed = True
        saga.log_undo(entry, EntryState.UNDO_FAILED, str(error))
        return error
    saga.run_.undone += 1
    saga.log_undo(entry, EntryState.UNDONE)
    return None


def _settle_recipe() -> Recipe:
    return Recipe("settle", "settled", (), lambda decision: decision.late, undo=True, state="compensating")
