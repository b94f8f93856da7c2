"""`Workflows`: an app's workflows, run in the test's own process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any, Self, TypeVar, cast

from celery import Celery, _state

from canvas import engine as engines
from canvas import retry as retries
from canvas.handle import RunHandle
from canvas.promises import check_value
from canvas.service import known
from canvas.testing.fakes import Fakes, name_of
from canvas.testing.played import PlayedRun
from canvas.testing.worker import Attempt
from canvas.testing.world import World
from canvas.waitables import Waitable
from status import embedded, here, places
from status.errors import ConfigError
from status.settings import Settings

R = TypeVar("R")

#: Messages and timers after one call of the test.
PATIENCE = 10_000

_open: list[Workflows] = []


class Workflows:
    """Runs workflows in this process: the real engine on a Valkey of its own, one worker, and a clock that jumps.

    Use it as `with Workflows(app) as flows:`. It needs no worker and no broker. Steps without a fake run for real.

    Args:
        app: None: the current one.
        fakes: What steps do, by step, by name, or by what their calls are `.named(...)`: a value, an exception, a
            function, or a `Fake`. A workflow's fake stands for it where it is a child.
        strict: Refuse to run a step that has no fake.
        database_url: For sagas and receipts; None: an SQLite file of its own.
        now: What the clock shows at first; None: the time.
        patience: So many messages and timers after one call of the test, then `TimedOut` is raised.
    """

    def __init__(
        self,
        app: Celery | None = None,
        *,
        fakes: Mapping[Any, Any] | None = None,
        strict: bool = False,
        database_url: str | None = None,
        now: datetime | None = None,
        patience: int = PATIENCE,
    ) -> None:
        self.app = app or _state.get_current_app()
        self._fakes, self._strict = Fakes.of(fakes or {}), strict
        self._database_url = database_url
        self._start = now or datetime.now(UTC)
        self._patience = patience
        self._number = 0
        self._made: World | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if _open:
            raise ConfigError("there is an open Workflows in this process already: end its `with` first")
        with ExitStack() as stack:
            self._set_up(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and _open:
                self._check_used()
        finally:
            self.close()

    def close(self) -> None:
        """End it without a look at what was not used; the end of the `with` block does it by itself."""
        self._stack.close()

    def _check_used(self) -> None:
        unknown, alive = self._unused(), self._world.deaths.left
        if alive:
            raise ConfigError(f"nobody came by where a process was to die: {', '.join(alive)}")
        if unknown:
            raise ConfigError(
                f"fakes for {', '.join(map(repr, sorted(unknown)))} were never asked for, and no step or workflow has "
                "such a name: give the step itself, its name, or what its call is .named(...)"
            )

    def _unused(self) -> set[str]:
        """Names of fakes that are no step's, and that no call had."""
        return self._world.casting.unused() - self.app.tasks.keys() - known.keys()

    def _set_up(self, stack: ExitStack) -> None:
        _open.append(self)
        stack.callback(_open.clear)
        folder = _folder()
        url = embedded.ensure(folder)
        if self._database_url is None:
            self._database_url = f"sqlite:///{folder / token_hex(8)}.db"
        stack.enter_context(
            places.standing_in(
                places.Places(
                    redis_url=os.environ.get("REDIS_URL") or url,
                    database_url=self._database_url,
                    data_dir=folder,
                    embedded=False,
                )
            )
        )
        redis = stack.enter_context(here.connect(url))
        self.app.finalize()
        world = self._made = World(
            self.app,
            redis,
            replace(Settings.from_environment(), shards=1),
            fakes=self._fakes,
            strict=self._strict,
            now_ms=round(self._start.timestamp() * 1000),
            patience=self._patience,
        )
        stack.enter_context(here.standing_in(world.store))
        stack.enter_context(_current(self.app))
        stack.enter_context(_engine(self.app, world))
        stack.enter_context(_no_jitter())

    @property
    def _world(self) -> World:
        if self._made is None or not _open:
            raise ConfigError("Workflows is a context manager: write `with Workflows(app) as flows:`")
        return self._made

    # --- going on -----------------------------------------------------------------

    def start(
        self,
        waitable: Waitable[R],
        *,
        fakes: Mapping[Any, Any] | None = None,
        run_id: str | None = None,
        timeout_s: float | None = None,
    ) -> PlayedRun[R]:
        """Start a run, and let it go as far as it gets in no time.

        Args:
            waitable: `workflow.s(...)`.
            fakes: Of this run and its children; they go before those of `Workflows`.
            run_id: None: `run-1`, `run-2`, …
            timeout_s: Of the whole run.

        Raises:
            ConfigError, PayloadError, RunConflict: As `.submit(...)` does.
        """
        world = self._world
        self._number += 1
        own_id = run_id or f"run-{self._number}"
        if fakes:
            world.casting.add(own_id, fakes)
        handle = self.ask(lambda: waitable.submit(run_id=own_id, timeout_s=timeout_s))
        return PlayedRun(self, handle)

    def ask(self, act: Callable[[], R]) -> R:
        """Do something as a client, and let what follows happen. A client that is to die in it asks again."""
        answers: list[R] = []
        self.play()
        if not self._world.deaths.as_process(lambda: answers.append(act())):
            answers.append(act())
        self.play()
        return answers[0]

    def run(self, run_id: str) -> PlayedRun[Any]:
        """A run that is there already: a child, or what `run.start(...)` started."""
        status = here.reader().status(run_id)
        workflow = self._world.engine.workflow(status.workflow)
        handle = workflow.handle(run_id) if workflow else RunHandle(run_id, self.app, str)
        return PlayedRun(self, handle)

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let so much time go by: timers fire at their times, steps that take time end, the dead are found."""
        self._world.start_over()
        self._world.advance(_seconds(days, hours, minutes, seconds))

    def later(
        self, act: Callable[[], object], *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let something happen so much later: `flows.later(lambda: run.resolve(approval, True), hours=2)`."""
        self._world.plan(_seconds(days, hours, minutes, seconds), act)

    def crash(self, when: str, *, step: Any = None, times: int = 1) -> None:
        """Let a process die; what it had in hand is found after some seconds of virtual time, and goes on.

        Args:
            when: `before` or `after`, and what is written to Redis or to the broker: `after open_join`,
                `before finish`, `after complete`, `before publish`. The message of the error lists them; what each is,
                says docs/internals.md.
            step: Only while this step, or a turn of this workflow, is in hand; None: the next time at all.
            times: How many processes die.

        Raises:
            ConfigError: There is no such moment.
        """
        self._world.deaths.plan(when, frozenset() if step is None else frozenset({name_of(step)}), times)

    def play(self) -> None:
        """Do all that can be done without time going by; `start`, `resolve` and the others do so themselves."""
        self._world.start_over()
        self._world.settle()

    def play_until(self, condition: Callable[[], bool]) -> bool:
        """Let time go by until `condition` is true, or nothing more will happen. Returns whether it is true."""
        self.play()
        while not condition():
            if not self._world.hop():
                return condition()
        return True

    # --- looking ------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """What the clock shows."""
        return datetime.fromtimestamp(self._world.store.now_ms / 1000, UTC)

    def attempts(self, step: Any = None, *, run_id: str | None = None) -> list[Attempt]:
        """The attempts of steps, of all runs, in the order in which they began. See `PlayedRun.attempts`."""
        name = None if step is None else name_of(step)
        return [
            seen
            for seen in self._world.attempts
            if run_id in (None, seen.run_id) and name in (None, seen.step, seen.label)
        ]

    def is_parked(self, run_id: str) -> bool:
        """Whether a run waits for other code."""
        return self._world.store.parked(run_id)


def _seconds(days: float, hours: float, minutes: float, seconds: float) -> float:
    by_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if by_s < 0:
        raise ConfigError(f"time goes on, not back: got {by_s} s")
    return by_s


@cache
def _folder() -> Path:
    """Of the tests of this process, for their Valkey and their databases; it goes with it."""
    folder, pid = Path(tempfile.mkdtemp(prefix="celeriac-test-")), os.getpid()
    # Registered first, so called last: when the server has ended.
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == pid else None)
    return folder


# A test runner looks at each name of a test's module, a step's too, and an app that is looked at wants its server: that
# is to be the tests' own, and not one in the folder that they are run in.
places.keep_files_in(_folder)


@contextmanager
def _current(app: Celery) -> Iterator[None]:
    """The app is the current one of this thread."""
    local = cast("Any", _state)._tls  # noqa: SLF001  # `set_current` has no way back
    before = local.current_app
    app.set_current()
    try:
        yield
    finally:
        local.current_app = before


@contextmanager
def _engine(app: Celery, world: World) -> Iterator[None]:
    """The app's engine is the world's, and what asks for a run to go on asks it."""
    before = app.__dict__.get("_celeriac")
    app.__dict__["_celeriac"] = world.engine
    here.cancel_with(lambda run_id, reason: engines.of(app).cancel(run_id, reason))
    here.wake_with(lambda run_id, stop: engines.of(app).wake(run_id, stop))
    here.follow_with(lambda run_id, ending: engines.of(app).follow(run_id, ending))
    here.check_values_with(lambda run_id, name, text: check_value(engines.of(app), run_id, name, text))
    try:
        yield
    finally:
        app.__dict__.pop("_celeriac")
        if before is not None:
            app.__dict__["_celeriac"] = before


@contextmanager
def _no_jitter() -> Iterator[None]:
    """Waits between attempts are what the policy says, neither more nor less."""
    before, retries.between = retries.between, _middle
    try:
        yield
    finally:
        retries.between = before


def _middle(low: float, high: float) -> float:
    return (low + high) / 2
