"""`Saga`: what was done in a workflow is undone, newest first, when the workflow fails.

Everything here is replayed with its workflow: what to undo follows from the journal, never from SQL. The
log in SQL is written ahead of what it speaks of, and is for people and for the day Redis is lost.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from pydantic_core import to_jsonable_python

from canvas import Call, Cancelled, CompensationFailed, ConfigError, Join, Retry, Run, Unary, Waitable
from canvas.outcomes import Decision
from canvas.payload import compact
from canvas.waitables import Part, Recipe
from saga.log import Begin, EntryState, Move
from saga.rollback import Rollback
from saga.strategy import Strategy
from saga.undo import Undo
from saga.writing import write_log

R = TypeVar("R")

#: An undo must get through: more patience than a step has.
UNDO_RETRY = Retry(5, first_s=1.0, factor=4.0, max_s=300.0)


@dataclass
class Entry:
    """Something that may have to be undone.

    Attributes:
        key: In the log.
        place: `await.part` of the action; '' if there is none.
        undoes: The action's idempotency key; None if there is none.
        outcome: Of the action: `v…`, `e…`, `t`, `u…`; '' while it has none.
    """

    key: str
    name: str
    undo: Undo
    place: str = ""
    outcome: str = ""
    undoes: str | None = None

    @property
    def label(self) -> str:
        return f"undo {self.name}"


class Saga:
    """Remembers what to undo. Use it as `async with Saga(run, "order") as saga:`.

    Args:
        run: The workflow's.
        name: For the log and the status.
        strategy: What to undo when the block is left by an error.
        retry: Of the undos; None: 5 attempts, waits from 1 s to 300 s.
    """

    def __init__(
        self, run: Run, name: str, *, strategy: Strategy = Strategy.COMPENSATE_ALL, retry: Retry | None = None
    ) -> None:
        self.run_ = run
        self.name = name
        self.strategy = Strategy(strategy)
        self.retry = retry or UNDO_RETRY
        self._entries: list[Entry] = []
        self._bound: dict[str, Undo] = {}
        self._added: set[str] = set()
        self._kept = False
        run.at_good_end(self._keep)
        run.owed.append(lambda: [] if self._kept else [entry.name for entry in self._entries])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        if error is None:
            self._keep()
        elif isinstance(error, Exception | Cancelled) and not isinstance(error, SoftTimeLimitExceeded):
            try:
                await self.rollback()
            except CompensationFailed as failed:
                raise failed from error

    # --- entering -----------------------------------------------------------------

    def safe_step(self, name: str) -> SafeStep:
        """A step whose undo comes first: `.with_compensation(undo).execute(action)`."""
        return SafeStep(self, name)

    def register(self, name: str, undo: Call[Any] | Unary[Any, Any]) -> None:
        """Enter a call now, to be run as it stands; or bind a step to `name`, for `add`.

        Raises:
            ConfigError: It is neither.
        """
        bound = Undo.of(undo)
        if bound.takes_value:
            self._bound[name] = bound
        else:
            self._enter(name, bound)

    def add(self, name: str, value: Any, *, dedupe: bool = False) -> None:
        """Enter an undo with `value`, of the step that was registered as `name`.

        Args:
            dedupe: Enter it once, however often the same value is added.

        Raises:
            ConfigError: Nothing was registered under that name.
        """
        bound = self._bound.get(name)
        if bound is None:
            known = ", ".join(sorted(self._bound)) or "nothing yet"
            raise ConfigError(f"saga {self.name}: no step is registered as {name!r}; known: {known}")
        text = compact(to_jsonable_python(value))
        if dedupe and f"{name} {text}" in self._added:
            return
        self._added.add(f"{name} {text}")
        self._enter(name, bound).outcome = "v" + text

    def run(self, waitable: Waitable[R]) -> Join[R]:
        """Await something of which every part bears its own `.undone_by(...)`.

        Raises:
            ConfigError: A part does not.
        """
        recipe = _recipe_of(waitable)
        undos = []
        for part in recipe.parts:
            undone_by = part.plan.undone_by if isinstance(part, Call) else None
            if undone_by is None:
                raise ConfigError(f"saga.run: {part!r} has no undo: write {part!r}.undone_by(...)")
            undo = Undo.of(*undone_by)
            undo.check_fits(part)
            undos.append(undo)
        return Compensated(self, recipe, [part.label for part in recipe.parts], undos)

    def rollback(self, strategy: Strategy | None = None) -> Join[None]:
        """Undo what was entered, newest first, one at a time; then go on.

        Args:
            strategy: None: the saga's own.

        Raises (when awaited):
            CompensationFailed: An undo gave up (not with BEST_EFFORT).
        """
        return Rollback(self, Strategy(strategy or self.strategy))

    # --- inside -------------------------------------------------------------------

    def _keep(self) -> None:
        """It ended well: nothing of it is owed, however it was used (`async with` or not)."""
        if not self._kept:
            self._log(*(Move(key=entry.key, state=EntryState.KEPT) for entry in self._entries))
        self._kept = True

    def _enter(self, name: str, undo: Undo, place: str = "") -> Entry:
        seq = self.run_.entered
        self.run_.entered += 1
        undoes = self.run_.key_of(place) if place else None
        entry = Entry(self._key(seq), name, undo, place, undoes=undoes)
        self._kept = False
        if not self.run_.live:
            return entry
        self._entries.append(entry)
        if self.run_.fresh:
            self._log(self._begin(entry, seq))
        return entry

    def _key(self, seq: int) -> str:
        # A retry of the run makes the same entry anew: what the log says of the one before stays true.
        generation = self.run_.generations.of_await(self.run_.next_await)
        return f"{self.run_.id}~{generation}#{seq}" if generation else f"{self.run_.id}#{seq}"

    def _begin(self, entry: Entry, seq: int) -> Begin:
        return Begin(
            key=entry.key,
            run_id=self.run_.id,
            workflow=self.run_.workflow,
            saga=self.name,
            name=entry.name,
            seq=seq,
            undo={
                **entry.undo.template(label=entry.label, retry=self.retry, key=entry.key),
                "undoes": entry.undoes,
                "strategy": self.strategy.value,
            },
        )

    def enter_parts(self, names: Sequence[str], undos: Sequence[Undo], recipe: Recipe) -> tuple[list[Entry], Recipe]:
        """An entry for each part of the next await, and the recipe with their undos."""
        entries, parts = [], []
        for p, (name, undo, part) in enumerate(zip(names, undos, recipe.parts, strict=True)):
            entry = self._enter(name, undo, f"{self.run_.next_await}.{p}")
            entries.append(entry)
            parts.append(self._with_undo(part, entry))
        return entries, replace(recipe, parts=tuple(parts))

    def _with_undo(self, part: Part[Any], entry: Entry) -> Part[Any]:
        # What is in the journal was published with its undo long ago.
        if not isinstance(part, Call) or not self.run_.fresh:
            return part
        return part.planned(undo=entry.undo.template(label=entry.label, retry=self.retry, key=entry.key))

    def note(self, entries: Sequence[Entry], decision: Decision | None) -> None:
        """Keep what came of the parts of an await."""
        for p, entry in enumerate(entries):
            entry.outcome = decision.parts.get(p, "") if decision else ""
            if entry.outcome and self.run_.fresh:
                self._log(_came_of(entry))

    def forget(self, entries: Sequence[Entry]) -> None:
        """The await never began."""
        self._log(*(Move(key=entry.key, state=EntryState.SKIPPED) for entry in entries))
        self._entries = [entry for entry in self._entries if entry not in entries]

    def _log(self, *changes: Begin | Move) -> None:
        if changes:
            self.run_.before_recording(write_log, *changes)

    def take(self) -> list[Entry]:
        """What is to be undone, newest first; it is not undone twice."""
        entries, self._entries = list(reversed(self._entries)), []
        return entries

    def note_undo(self, entry: Entry, state: EntryState, error: str | None = None, *, value: str | None = None) -> None:
        """Let the state of an undo go to the log."""
        self._log(Move(key=entry.key, state=state, error=error, value=value))

    def log_undo(self, entry: Entry, state: EntryState, error: str | None = None, *, value: str | None = None) -> None:
        """Let the state of an undo go to the log and to the status."""
        self.note_undo(entry, state, error, value=value)
        kind = {EntryState.UNDOING: "undoing", EntryState.UNDONE: "undone", EntryState.UNDO_FAILED: "undo_failed"}
        if state in kind:
            detail = compact({"saga": self.name, **({"error": error} if error else {})})
            self.run_.remark(f"saga.{kind[state]}", entry.name, detail)


class SafeStep:
    """Has no execute: the undo comes first."""

    def __init__(self, saga: Saga, name: str) -> None:
        self._saga = saga
        self._name = name

    def with_compensation(self, undo: Call[Any] | Unary[None, Any], *args: Any) -> CompensatedStep:
        """What undoes the step.

        Args:
            undo: A call, run as it stands; or a step, which gets what the action returned (None if that is
                unknown) and then `args`. It must bear an action that never ran.

        Raises:
            ConfigError: It is neither.
        """
        return CompensatedStep(self._saga, self._name, Undo.of(undo, args))


class CompensatedStep:
    """A step with its undo."""

    def __init__(self, saga: Saga, name: str, undo: Undo) -> None:
        self._saga = saga
        self._name = name
        self._undo = undo

    def execute(self, action: Waitable[R]) -> Join[R]:
        """The action, to be awaited. Its undo is in the log before anything of it starts, and runs once for
        each part that succeeded, or may have.

        Raises:
            ConfigError: The undo can't take what the action gives.
        """
        recipe = _recipe_of(action)
        for part in recipe.parts:
            self._undo.check_fits(part)
        several = len(recipe.parts) > 1
        names = [f"{self._name} {part.label}" if several else self._name for part in recipe.parts]
        return Compensated(self._saga, recipe, names, [self._undo] * len(recipe.parts))


class Compensated(Join[R]):
    """An await whose parts are entered in a saga."""

    def __init__(self, saga: Saga, recipe: Recipe, names: Sequence[str], undos: Sequence[Undo]) -> None:
        super().__init__(recipe)
        self._saga, self._names, self._undos = saga, names, undos

    def limited(self, recipe: Recipe) -> Join[R]:
        return Compensated(self._saga, recipe, self._names, self._undos)

    def __await__(self) -> Generator[Any, Any, R]:
        saga, run = self._saga, self._saga.run_
        n = run.next_await
        entries, recipe = saga.enter_parts(self._names, self._undos, self._recipe)
        try:
            value: R = yield Join(recipe)
        except (Exception, Cancelled):
            if run.next_await == n:
                saga.forget(entries)
            else:
                saga.note(entries, run.last_decision)
            raise
        saga.note(entries, run.last_decision)
        return value


def _recipe_of(action: Waitable[Any]) -> Recipe:
    if isinstance(action, Compensated | Rollback):
        raise ConfigError(f"{action!r} has its undo already: a saga takes calls and joins")
    recipe = action.recipe()
    if recipe.batch is not None:
        # Each undo is an await, one after the other: for so many items that is no rollback, but a night's work.
        raise ConfigError(
            f"{action!r} can't be undone item by item: enter one undo for all of it before you await it, "
            "saga.register(name, undo_all.s(...)); or, up to some hundred items, saga.run(fan_out_fail(...)) with an "
            "undone_by each"
        )
    return recipe


def _came_of(entry: Entry) -> Move:
    match entry.outcome[0]:
        case "v":
            return Move(key=entry.key, state=EntryState.DONE, value=entry.outcome[1:])
        case "e":
            message = json.loads(entry.outcome[1:]).get("message", "")
            return Move(key=entry.key, state=EntryState.FAILED, error=message)
    return Move(key=entry.key, state=EntryState.UNKNOWN)
