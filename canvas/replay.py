"""Drives a workflow from its journal to the first await that has no recorded outcome.

There is no event loop: the coroutine is sent what the journal holds until it asks for something new,
returns or raises. It goes on at once if what it asked for was done where it stands (see `canvas.in_place`); else it is
put away here and now, in this thread, however often its `finally` awaits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple, Self

from canvas.call import Call
from canvas.context import in_workflow
from canvas.joins import FanOutResult, warn_of_unseen
from canvas.lines import line_of
from canvas.outcomes import Decision, as_exception, asked_at, describe, is_failure
from canvas.restart import Restart
from canvas.run import Run
from canvas.waitables import Part, Recipe, Waitable
from canvas.wide import batch_of
from status.errors import Cancelled, ErrorInfo, NonDeterministic, NotAwaitable, OrchestrationError, PayloadError
from status.journals import Journal
from status.records import NewBatch, NewPart

#: A workflow that awaits this often while it is put away does not let go.
CLOSES = 100

#: Where it stands, it does not await anything: it could await None.
_NOTHING: Any = object()
#: Types of values that a workflow is given again and again as they are.
UNCHANGING = frozenset({bool, int, float, str, type(None)})

INSTEAD_OF_ASYNCIO = "for asyncio.sleep, gather and wait_for write run.sleep, fan_out and with_timeout"


class Asks(NamedTuple):
    """It awaits something that the journal does not have.

    Attributes:
        parts: Of a batch, and of a join that is filed as one: none.
        line: Where, as file:line.
    """

    n: int
    recipe: Recipe
    parts: tuple[NewPart, ...]
    batch: NewBatch | None = None
    line: str = ""


@dataclass(frozen=True, slots=True)
class Returned:
    """It is done."""

    value: Any


@dataclass(frozen=True, slots=True)
class Restarts:
    """It begins anew."""

    input_json: str


@dataclass(frozen=True, slots=True)
class Raised:
    """It failed."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Stopped:
    """It let the cancel through."""

    error: Cancelled


@dataclass(frozen=True, slots=True)
class Parked:
    """It can't go on with this code."""

    error: ErrorInfo


Move = Asks | Returned | Restarts | Raised | Stopped | Parked
Body = Callable[..., Coroutine[Any, Any, Any]]


def replay(body: Body, run: Run, args: list[Any], kwargs: dict[str, Any], journal: Mapping[str, str]) -> Move:
    """Run a workflow as far as its journal goes, and put it away."""
    with Replay(body, run, args, kwargs) as play:
        return play.go_on(journal)


class DoesNotLetGo(RuntimeError):  # noqa: N818
    """A workflow goes on awaiting while it is put away."""


class Replay:
    """One workflow on its way through its journal. As a context: on the way out it is put away.

    Args:
        run: What the workflow is given.

    Attributes:
        took_s: How long the workflow's own code has run.

    Raises:
        DoesNotLetGo: When it is put away.
    """

    def __init__(self, body: Body, run: Run, args: list[Any], kwargs: dict[str, Any]) -> None:
        self.run = run
        self._generators: list[Any] = []
        self._given: list[Any] = []
        self._coro = body(run, *args, **kwargs)
        # How it goes on, and with what.
        self._resume: Callable[[Any], Any] = self._coro.send
        self._with: Any = None
        self._asked: Any = _NOTHING
        self._left_s = 0.0
        self.took_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Also while it is put away: what its `finally` does then is refused as it would be before.
        with _at_work(self.run, self._generators):
            self.run.put_away()
            for suspended in (self._coro, *map(_Closing, self._generators)):
                _put_away(suspended)

    def go_on(self, journal: Mapping[str, str]) -> Move:
        """Go as far as the journal does; again, once it has what was asked for last."""
        start_s = monotonic()
        with _at_work(self.run, self._generators):
            move = None if self._asked is _NOTHING else self._hear(journal)
            while move is None:
                move = self._advance(journal) or self._hear(journal)
        self.took_s += monotonic() - start_s
        return move

    def _advance(self, journal: Mapping[str, str]) -> Move | None:
        """Up to its next await, which is kept, or to its end; and remember the longest way between two."""
        run = self.run
        run.replaying = str(run.next_await) in journal
        self._left_s = monotonic()
        try:
            self._asked = self._walk(journal)
        except StopIteration as end:
            for value in self._given:
                warn_of_unseen(value, f"run {run.id}")
            run.returned()
            return _ended(Returned(end.value), run, journal)
        except Cancelled as error:
            return _ended(Stopped(error), run, journal)
        except Exception as error:  # noqa: BLE001  # whatever it raised is how it ended
            _name_remedy(error)
            return _ended(Raised(error), run, journal)
        except BaseException as error:
            if not is_failure(error):
                raise
            return _ended(Raised(as_exception(error, "the workflow")), run, journal)
        finally:
            self._look_back()
        return None

    def _walk(self, journal: Mapping[str, str]) -> Any:
        """Up to an await that is more than one of a step that gave something simple: long runs have many of those.

        What this process knows of such an await is in one place, so that a replay reads no more memory than it must.
        """
        run, send = self.run, self._coro.send
        plain: dict[int, tuple[str, Any, Decision]] = journal.plain if isinstance(journal, Journal) else {}
        asked = self._resume(self._with)
        while type(asked) is Call:
            known = plain.get(run.next_await) or self._look(journal, asked)
            if known is None or known[0] != asked["task"]:
                break
            self._look_back()
            run.told(known[2])
            run.replaying = run.next_await in plain or str(run.next_await) in journal
            asked = send(known[1])
        return asked

    def _look(self, journal: Mapping[str, str], asked: Call[Any]) -> tuple[str, Any, Decision] | None:
        """Task, value and decision of an await of one call, if that succeeded and nobody can change its value."""
        decision = Decision.read(journal, self.run.next_await, 1)
        outcome = decision.parts.get(0, "t") if decision is not None else "t"
        if (
            decision is None
            or decision.verdict != "all"
            or outcome[0] != "v"
            or decision.fingerprint != asked.fingerprint
        ):
            return None
        try:
            value = asked.value(outcome[1:])
        except PayloadError:
            return None  # whoever looks closer says so
        if type(value) not in UNCHANGING or not isinstance(journal, Journal):
            return None
        known = journal.plain[self.run.next_await] = asked["task"], value, decision
        return known

    def _look_back(self) -> None:
        """Remember the longest way between two awaits."""
        way_s, self._left_s = (now_s := monotonic()) - self._left_s, now_s
        if way_s > self.run.longest[0]:
            line = line_of(self._coro)
            self.run.longest = (way_s, f"the await at {line}" if line else "its end")

    def _hear(self, journal: Mapping[str, str]) -> Move | None:
        """Answer its await from the journal, or say what it asks for."""
        asked = self._asked
        if isinstance(asked, Restart):
            return _ended(Restarts(asked.input_json), self.run, journal)
        try:
            move, value = _answer(asked, self.run, journal, self._coro)
        except _Thrown as thrown:
            self._resume, self._with = self._coro.throw, thrown.error
        else:
            if move is not None:
                return move
            if isinstance(value, FanOutResult):
                self._given.append(value)
            self._resume, self._with = self._coro.send, value
        self._asked = _NOTHING
        return None


# A class, and not a generator with `@contextmanager`: it is entered at each await.
class _at_work(in_workflow):  # noqa: N801  # reads as a function
    """A workflow's code runs in this thread, and may make generators."""

    def __init__(self, run: Run, generators: list[Any]) -> None:
        super().__init__(run.workflow)
        self._note = generators.append

    def __enter__(self) -> None:
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._note, finalizer=_left)
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        sys.set_asyncgen_hooks(*self._hooks)


def _left(_generator: Any) -> None:
    """Nobody needs a generator any more: it is closed when its workflow is put away."""


def _ended(move: Move, run: Run, journal: Mapping[str, str]) -> Move:
    """How it ended, unless the journal knows of a further await: then this is not how it went."""
    recorded = Decision.read(journal, run.next_await, 0)
    return move if recorded is None else Parked(mismatch(run, run.next_await, recorded.asked, "nothing more"))


def _name_remedy(error: Exception) -> None:
    """Say what to write for asyncio's own functions, which fail where there is no event loop."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "asyncio":
        error.add_note(f"a workflow has no event loop: {INSTEAD_OF_ASYNCIO}")


class _Thrown(Exception):  # noqa: N818
    """The workflow is to see `error` at its await."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


#: What to open or why it parks, or else the value that it gets.
_Answer = tuple[Asks | Parked, None] | tuple[None, Any]


def _answer(asked: Any, run: Run, journal: Mapping[str, str], coro: Any) -> _Answer:
    try:
        if isinstance(asked, Part):  # most are, and of what is on record nothing more is needed than this
            decision = Decision.read(journal, run.next_await, 1)
            if decision is not None:
                return _settle(asked, decision, run, coro)
        recipe = _recipe_of(asked, run)
        if not recipe.size and recipe.policy != "settled":
            # Nothing to wait for: no await, so what the journal has under this number is the next one's.
            return None, recipe.settle(Decision("all", "", 0, "", ""))
        batch = recipe.batch
        decision = Decision.read(journal, run.next_await, recipe.size if batch is None or batch.keep else 0)
        if decision is None:
            return _open(recipe, run, coro), None
    except OrchestrationError as error:
        raise _Thrown(error) from error
    return _settle(recipe, decision, run, coro)


def _recipe_of(asked: Any, run: Run) -> Recipe:
    if isinstance(asked, Waitable):
        return asked.recipe()
    name = type(asked).__name__ if asked is not None else "something of asyncio"
    raise NotAwaitable(
        f"workflow {run.workflow} awaited {name}, which is not ours: await calls (step.s(...)) and joins; "
        f"{INSTEAD_OF_ASYNCIO}"
    )


def _open(recipe: Recipe, run: Run, coro: Any) -> Asks:
    batch = recipe.batch.prepare() if recipe.batch is not None else batch_of(recipe)
    if batch is not None:
        return Asks(run.next_await, recipe, (), batch, line=line_of(coro))
    return Asks(run.next_await, recipe, tuple(part.prepare() for part in recipe.parts), line=line_of(coro))


def _settle(asked: Part[Any] | Recipe, decision: Decision, run: Run, coro: Any) -> _Answer:
    if decision.fingerprint != asked.fingerprint:
        now = asked_at(asked.fingerprint, line_of(coro))
        return Parked(mismatch(run, run.next_await, decision.asked, now)), None
    run.told(decision)
    if decision.verdict == "cancelled":
        raise _Thrown(decision.cancelled())
    try:
        return None, asked.settle(decision)
    except PayloadError as error:
        return Parked(describe(error)), None
    except OrchestrationError as error:
        raise _Thrown(error) from error


def mismatch(run: Run, n: int, recorded: str, asked: str) -> ErrorInfo:
    """The error of a workflow that goes another way than its journal."""
    return describe(
        NonDeterministic(
            f"await {n} of run {run.id}: the journal has {recorded}, the workflow now asks for {asked}. Its path "
            "changed: new code (keep the old way for old runs: run.patched(name)), or uuid4(), datetime.now(), "
            "random() in the workflow (write run.uuid(), run.now(), run.random())"
        )
    )


class _Closing:
    """An async generator's `aclose()`, closed until it lets go."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def close(self) -> None:
        closing = self._generator.aclose()
        try:
            closing.send(None)
        except (StopIteration, StopAsyncIteration, GeneratorExit):
            return
        closing.throw(GeneratorExit)


def _put_away(coro: Any) -> None:
    for _ in range(CLOSES):
        try:
            coro.close()
        except RuntimeError as error:
            if "ignored GeneratorExit" not in str(error):
                return  # its own RuntimeError, raised while it went
        except BaseException:  # noqa: BLE001  # what a `finally` raises while it is put away means nothing
            return
        else:
            return
    raise DoesNotLetGo(
        f"workflow does not let go: it awaited {CLOSES} times while it was closed (`except BaseException`?)"
    )
