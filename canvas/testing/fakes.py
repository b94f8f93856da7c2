"""What steps do in a test: a fake for each, one act after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from status.errors import ConfigError, TerminalError

#: Of a body that never ends by itself.
FOR_EVER = float("inf")

Death = Literal["", "before", "after"]


@dataclass(frozen=True)
class Act:
    """What one attempt of a step does.

    Attributes:
        body: Called with the step's arguments; None: the step's own function.
        takes_s: Of virtual time; `FOR_EVER`: until somebody stops it.
        dies: When its worker dies: before the body, or after it and before anybody hears how it ended.
    """

    body: Callable[..., Any] | None = None
    takes_s: float = 0.0
    dies: Death = ""


@dataclass(frozen=True)
class Fake:
    """What a step does in a test. Make it with one of the class methods; each gives a new one.

    An attempt is one act. After the last act of `.then(...)` the last one goes on for ever.
    """

    acts: tuple[Act, ...]

    # --- one act ------------------------------------------------------------------

    @classmethod
    def returns(cls, value: Any, *, takes_s: float = 0.0) -> Self:
        """It returns `value`, which must fit the step's annotation.

        Args:
            takes_s: Of virtual time.
        """
        return cls((_act(lambda *_, **__: value, takes_s),))

    @classmethod
    def fails(cls, error: BaseException | type[BaseException] | str, *, code: int = 500, takes_s: float = 0.0) -> Self:
        """It raises `error`, and is retried as the step's `Retry` says; a text is a `TerminalError`, never retried.

        Args:
            code: Of the `TerminalError` that is made of a text.
        """
        raised = TerminalError(error, code) if isinstance(error, str) else error

        def fail(*_: Any, **__: Any) -> Any:
            raise raised

        return cls((_act(fail, takes_s),))

    @classmethod
    def calls(cls, function: Callable[..., Any], *, takes_s: float = 0.0) -> Self:
        """It calls `function` with the step's arguments. An AssertionError in there fails the test, not the step."""
        return cls((_act(function, takes_s),))

    @classmethod
    def real(cls, *, takes_s: float = 0.0) -> Self:
        """It runs the step's own function."""
        return cls((_act(None, takes_s),))

    @classmethod
    def dies(cls, *, takes_s: float = 0.0) -> Self:
        """Its worker dies before it had its effect; the step is given to another some seconds later."""
        return cls((replace(_act(None, takes_s), dies="before"),))

    @classmethod
    def dies_after(cls, outcome: Any, *, takes_s: float = 0.0) -> Self:
        """Its worker dies when it had its effect, before anybody heard of it. `outcome`: as in `fakes=`."""
        first = Fake.of(outcome).acts[0]
        return cls((replace(first, dies="after", takes_s=takes_s or first.takes_s),))

    @classmethod
    def hangs(cls) -> Self:
        """It runs until somebody stops it: a time limit, a decided join, a cancel."""
        return cls((Act(lambda *_, **__: None, FOR_EVER),))

    # --- several ------------------------------------------------------------------

    @classmethod
    def sequence(cls, *outcomes: Any) -> Self:
        """One outcome after the other, each as in `fakes=`; the last goes on for ever."""
        if not outcomes:
            raise ConfigError("Fake.sequence() needs at least one outcome")
        return cls(tuple(act for outcome in outcomes for act in Fake.of(outcome).acts))

    def then(self, outcome: Any) -> Self:
        """And after that this one, as in `fakes=`."""
        return replace(self, acts=(*self.acts, *Fake.of(outcome).acts))

    def times(self, n: int) -> Self:
        """The last act `n` times in all; write what comes then: `Fake.fails(OSError()).times(2).then(5)`."""
        if n < 1:
            raise ConfigError(f"Fake.times(n) must be at least 1, got {n}")
        return replace(self, acts=(*self.acts, *self.acts[-1:] * (n - 1)))

    @classmethod
    def of(cls, outcome: Any) -> Fake:
        """What `fakes=` may have: a fake, an exception, a function, or any other value to be returned."""
        if isinstance(outcome, Fake):
            return outcome
        if isinstance(outcome, BaseException) or (isinstance(outcome, type) and issubclass(outcome, BaseException)):
            return Fake.fails(outcome)
        return Fake.calls(outcome) if callable(outcome) else Fake.returns(outcome)


def _act(body: Callable[..., Any] | None, takes_s: float) -> Act:
    if takes_s < 0:
        raise ConfigError(f"a fake can't take {takes_s} s")
    return Act(body, takes_s)


def name_of(what: Any) -> str:
    """The name of a step, of a workflow, or of what a call was `.named(...)`."""
    name = what if isinstance(what, str) else getattr(what, "name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{what!r} is no step: give the step itself, its name, or what its call was .named(...)")
    return name


@dataclass
class Fakes:
    """The fakes of some runs, and how far each has come."""

    _fakes: dict[str, Fake] = field(default_factory=dict)
    _at: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, fakes: Mapping[Any, Any]) -> Fakes:
        """Read what a user wrote."""
        return cls({name_of(what): Fake.of(outcome) for what, outcome in fakes.items()})

    def next_act(self, names: Iterable[str]) -> Act | None:
        """What the next attempt does of a step that has these names, the first that has a fake; None: none has."""
        for name in names:
            fake = self._fakes.get(name)
            if fake is not None:
                at = self._at.get(name, 0)
                self._at[name] = at + 1
                return fake.acts[min(at, len(fake.acts) - 1)]
        return None

    def unused(self) -> set[str]:
        """Names that nobody asked for."""
        return self._fakes.keys() - self._at.keys()
