"""What a workflow can await.

    Waitable[R]       can be awaited in a workflow; outside, `.submit()` makes a run of it
    ├── Part[R]       may be one part of a join
    │   ├── Call[R]      `step.s(...)`, `workflow.s(...)`: a Celery signature
    │   ├── Sleep        `run.sleep(...)`
    │   ├── Promise[R]   `promise(...)`, in `canvas.promises`
    │   └── Receive[R]   `channel(...).receive()`, in `canvas.channels`
    └── Join[R]       fan_out, race, ...: is not a part

A waitable is a recipe: each await of it is new work, and nothing starts before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, Never, Protocol, TypeVar

from canvas.outcomes import Decision, failure
from status.errors import ConfigError, TimedOut
from status.records import NewBatch, NewPart

if TYPE_CHECKING:
    from canvas.handle import RunHandle

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


#: A hundred years. A time beyond, or one that is no number, is a mistake.
LONGEST_S = 100 * 365.25 * 86_400


def checked_s(what: str, time_s: float, *, more_than_0: bool = False) -> float:
    """Give a number of seconds back if it is one.

    Raises:
        ConfigError: It is negative (or 0, where it must be more), beyond a hundred years, or no number.
    """
    if not 0 <= time_s <= LONGEST_S or (more_than_0 and time_s == 0):
        least = "more than 0" if more_than_0 else "at least 0"
        raise ConfigError(f"{what}: the time must be {least} seconds and at most a hundred years, got {time_s}")
    return time_s


class Waitable(Generic[R_co]):
    """A description of work, to be awaited in a workflow."""

    def __await__(self) -> Generator[Any, Any, R_co]:
        # Yields itself to whoever drives the workflow; asks no context variable.
        try:
            return (yield self)  # type: ignore[no-any-return]
        except RuntimeError as error:
            if "got bad yield" in str(error):  # what asyncio says of anything that is not its own
                error.add_note(f"{self!r} can be awaited in a @workflow only: from asyncio, start a run with .submit()")
            raise

    def __bool__(self) -> Never:
        raise TypeError(f"{self!r} is a call, not its value: write `await`")

    def recipe(self) -> Recipe:
        """What to open, and how to make the value of it."""
        raise NotImplementedError

    def limited(self, recipe: Recipe) -> Join[R_co]:
        """The same with another recipe: its own, with a time limit."""
        return Join(recipe)

    def submit(self, *, run_id: str | None = None, timeout_s: float | None = None) -> RunHandle[R_co]:
        """Start a run of its own. Not in a workflow: it would start one at each replay.

        Args:
            run_id: The same id again gives the run that exists; None: a fresh one.
            timeout_s: Of the whole run.

        Raises:
            ConfigError: In a workflow, or the id is malformed.
            RunConflict: The id is taken by a run with other arguments.
            StoreUnavailable: Redis does not answer; nothing was submitted.
        """
        from canvas.submission import submit_waitable  # noqa: PLC0415  # it needs all of them

        return submit_waitable(self, run_id=run_id, timeout_s=timeout_s)


class Part(Waitable[R_co]):
    """May be one part of a join.

    Attributes:
        kind: Of an await of it alone.
        state: What the run is in while it waits for it alone.
    """

    kind = "await"
    state = "running"

    @property
    def label(self) -> str:
        """How the timeline and errors name it."""
        raise NotImplementedError

    @property
    def task_name(self) -> str:
        """What the journal's fingerprint calls it."""
        raise NotImplementedError

    def prepare(self) -> NewPart:
        """What `open_join` files.

        Raises:
            PayloadError: Its arguments don't fit.
        """
        raise NotImplementedError

    @property
    def kind_of_call(self) -> Any:
        """Equal for calls that differ by their arguments alone and begin in any order (see `canvas.wide`); or None."""
        return None

    @property
    def arguments(self) -> tuple[Sequence[Any], dict[str, Any]]:
        """Of a part that has a `kind_of_call`: by place and by name, as plain JSON values."""
        raise NotImplementedError

    @property
    def common_spec(self) -> dict[str, Any]:
        """Of such a part: its spec without them."""
        raise NotImplementedError

    def value(self, outcome: str) -> R_co:
        """What a successful outcome holds."""
        raise NotImplementedError

    def failure(self, outcome: str, index: int) -> Exception:
        """What another outcome is raised as."""
        return failure(outcome, step=self.label, index=index, within_s=None)

    @property
    def fingerprint(self) -> str:
        """How the journal has an await of it alone."""
        return f"{self.kind}({self.task_name})"

    def settle(self, decision: Decision) -> R_co:
        """What an await of it alone gives, or raises."""
        if (outcome := decision.parts.get(0)) is None:
            raise TimedOut(f"{self.label}: its time was up")
        if outcome[0] == "v":
            return self.value(outcome[1:])
        raise self.failure(outcome, 0)

    def recipe(self) -> Recipe:
        return Recipe(self.kind, "all", (self,), self.settle, state=self.state)


class Join(Waitable[R_co]):
    """Several parts, awaited together. Is not a part: nest with a child workflow."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def recipe(self) -> Recipe:
        return self._recipe

    def __repr__(self) -> str:
        recipe = self._recipe
        # Not how many items: whoever only prints a batch must not read them.
        return recipe.fingerprint if recipe.batch is None else f"{recipe.kind}({recipe.batch.task_name})"

    def __getattr__(self, name: str) -> Never:
        if name.startswith("__"):
            raise AttributeError(name)
        kind = self.__dict__["_recipe"].kind if "_recipe" in self.__dict__ else "join"
        raise AttributeError(f"{name!r} asked of a {kind} that was not awaited: write `(await {kind}(...)).{name}`")


@dataclass(frozen=True)
class Recipe:
    """How an await is opened, and what its decision means.

    Attributes:
        settle: Makes the value of the decision, or raises what the workflow is to see.
        need: The successes that a quorum needs.
        undo: It undoes something: goes on although the run is cancelled.
        state: What the run is in while this is open.
        batch: The parts, where they differ by one argument alone; `parts` is empty then.
    """

    kind: str
    policy: str
    parts: Sequence[Part[Any]]
    settle: Callable[[Decision], Any]
    need: int = 0
    timeout_s: float | None = None
    undo: bool = False
    state: str = "running"
    batch: BatchSource | None = None

    @property
    def size(self) -> int:
        """How many parts it has."""
        return len(self.parts) if self.batch is None else self.batch.size

    @property
    def fingerprint(self) -> str:
        """Kind and step names; runs of one name are counted, so that a thousand of them stay short."""
        known = self.__dict__.get("_fingerprint")
        if known is None:  # not a cached_property, which takes a lock
            known = self.__dict__["_fingerprint"] = self._made_fingerprint()
        return str(known)

    def _made_fingerprint(self) -> str:
        if self.batch is not None:
            return f"{self.kind}({self.batch.task_name}*{self.batch.size})"
        if len(self.parts) == 1:
            return f"{self.kind}({self.parts[0].task_name})"
        names = []
        for name, same in groupby(part.task_name for part in self.parts):
            number = len(list(same))
            names.append(name if number == 1 else f"{name}*{number}")
        return f"{self.kind}({', '.join(names)})"


class BatchSource(Protocol):
    """The parts of a batch."""

    @property
    def size(self) -> int:
        """How many items there are."""

    @property
    def keep(self) -> bool:
        """Whether outcomes are kept."""

    @property
    def task_name(self) -> str:
        """What the journal's fingerprint calls the step."""

    def prepare(self) -> NewBatch:
        """What `open_join` files.

        Raises:
            PayloadError: An item doesn't fit.
        """


class Sleep(Part[None]):
    """Waits; made by `run.sleep(delay_s)`."""

    state = "suspended"

    def __init__(self, delay_s: float) -> None:
        self.delay_s = checked_s("run.sleep", delay_s)

    def __repr__(self) -> str:
        return f"sleep({self.delay_s})"

    @property
    def label(self) -> str:
        return "sleep"

    @property
    def task_name(self) -> str:
        return "sleep"

    def prepare(self) -> NewPart:
        return NewPart(kind="sleep", queue="", label="sleep", delay_ms=round(self.delay_s * 1000))

    def value(self, outcome: str) -> None:  # noqa: ARG002  # a sleep has none
        return None
