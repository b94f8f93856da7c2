"""What the acts play on: starts runs, shows how they go, checks what came of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import uuid4

from rich.console import Console
from rich.text import Text

from canvas import Call, RunFailed, RunHandle
from status import State, here
from status.errors import OrchestrationError
from status.following import Follower, unsettled
from status.models import RunStatus
from tasks.catalogue import validate_user
from tasks.demo_stop import Stop
from tasks.domain import Behaviour, Provider
from tasks.rehearsal import tell
from tasks.showcase.report import Check, Report
from tasks.showcase.view import View, shown

R = TypeVar("R")

Simulate = Mapping[Provider, Behaviour]

#: A run that has not ended after this long, beyond the time that a person has, is stuck.
PATIENCE_S = 60.0

#: What goes on after the end of runs (losers that could not be stopped) has so long.
SETTLE_S = 30.0

#: Ctrl-C is heard after this time, if nothing happens.
LISTEN_S = 0.2

#: Between two looks at all runs.
LOOK_S = 0.1


class Stuck(OrchestrationError):  # noqa: N818
    """A run of the demo did not end."""


@dataclass(frozen=True)
class Started(Generic[R]):
    """A run of the demo."""

    label: str
    handle: RunHandle[R]

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.handle.run_id

    @property
    def status(self) -> RunStatus:
        """As it stands now."""
        return self.handle.status()

    def value(self) -> R | None:
        """What the workflow returned; None if the run failed."""
        try:
            return self.handle.result(timeout_s=0)
        except RunFailed:
            return None


@dataclass
class Stage:
    """Where one pattern is played.

    Attributes:
        stop: Says when somebody wants the demo to end.
        wait_s: How long a person has to answer; 0: nobody is asked.
        id: In each run's id, so that no two demos share a run.
    """

    console: Console
    stop: Stop
    report: Report
    wait_s: float
    id: str = field(default_factory=lambda: uuid4().hex[:6])
    _unfinished: dict[str, Started[Any]] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """What is going to happen."""
        self.console.print(Text(sentence), soft_wrap=True)

    def run_id(self, label: str) -> str:
        """The id of the run with this label."""
        return f"demo-{self.report.pattern}-{self.id}-{label}"

    def start(
        self,
        call: Call[R],
        label: str,
        simulate: Simulate | None = None,
        children: Mapping[str, Simulate] | None = None,
    ) -> Started[R]:
        """Start a run.

        Args:
            simulate: How its providers are to behave.
            children: The same for its child workflows, by what their id has after the run's.
        """
        self.stop.check()
        run_id = self.run_id(label)
        tell({run_id: simulate or {}, **{f"{run_id}.{child}": told for child, told in (children or {}).items()}})
        started = Started(label, call.submit(run_id=run_id))
        self._unfinished[run_id] = started
        return started

    def child(self, parent: Started[Any], name: str) -> Started[None]:
        """The run of a child that has `name` in its id."""
        return Started(name, validate_user.handle(f"{parent.run_id}.{name}"))

    def follow(
        self, *runs: Started[Any], wait_s: float = 0.0, look: Callable[[Sequence[RunStatus]], None] | None = None
    ) -> None:
        """Show runs until they have ended.

        Args:
            wait_s: How much longer than usual it may take.
            look: Is given the runs now and then, as they stand.

        Raises:
            Stuck: One has not ended in time.
            Interrupted: Somebody wants the demo to end.
        """
        follower = Follower(here.reader())
        for run in runs:
            follower.follow(run.run_id, from_start=True)
        end_s = time.monotonic() + PATIENCE_S + wait_s
        with shown(self.console, {run.run_id: run.label for run in runs}) as view:
            while not self._step(runs, follower, view, look):
                if time.monotonic() > end_s:
                    raise Stuck(
                        f"run {runs[0].run_id} or one beside it did not end: celery -A tasks runs show {runs[0].run_id}"
                    )
        self._settle(runs)
        for run in runs:
            self.report.runs[run.run_id] = run.status.state.value
            self._unfinished.pop(run.run_id, None)

    def _step(
        self,
        runs: Sequence[Started[Any]],
        follower: Follower,
        view: View,
        look: Callable[[Sequence[RunStatus]], None] | None,
    ) -> bool:
        """Take in what has happened; whether all have ended."""
        self.stop.check()
        events = follower.read(LISTEN_S)
        standing = [run.status for run in runs]
        if look is not None:
            look(standing)
        view.happened(events)
        view.stands(standing)
        if all(run.finished for run in standing):
            view.happened(follower.read(0.001))  # what came between the two looks
            return True
        time.sleep(LOOK_S)
        return False

    def _settle(self, runs: Sequence[Started[Any]]) -> None:
        """Wait for losers that could not be stopped, and for undos of what they did."""
        end_s = time.monotonic() + SETTLE_S
        while unsettled(here.reader(), [run.run_id for run in runs]) and time.monotonic() < end_s:
            self.stop.check()
            time.sleep(LOOK_S)

    def ask(self, what: str, run: Started[Any], *promises: str) -> None:
        """Tell a person how to answer.

        Args:
            what: How many of the promises, as a sentence begins.
        """
        same = [name for name in ("REDIS_URL", "CELERIAC_DATA_DIR") if os.environ.get(name)]
        where = f"with the same {' and '.join(same)}" if same else "in this folder"
        self.say(f"{what}, from another terminal ({where}), within {self.wait_s:g} s; false denies:")
        for promise in promises:
            self.say(f"""celery -A tasks runs resolve {run.run_id} {promise} '{{"approved": true}}'""")

    def show(self, sentence: str) -> None:
        """Something that was to be seen."""
        self.report.shown.append(sentence)

    def check(self, claim: str, holds: bool, seen: object = "") -> None:
        """Something that must hold.

        Args:
            seen: The facts that it is judged by.
        """
        facts = ", ".join(map(str, seen)) if isinstance(seen, list | tuple) else str(seen)
        self.report.checks.append(Check(claim, holds, facts))

    def abandon(self) -> None:
        """Stop what still runs: nobody waits for it."""
        for run in self._unfinished.values():
            run.handle.cancel("the demo was ended")


def state_of(run: Started[Any], index: int) -> str:
    """The state of the step at this place of the run's first await."""
    wanted = f"0.{index}"
    return next((step.state for step in run.status.steps if step.step_id.endswith(f"/{wanted}")), "not there")


def ended(run: Started[Any], state: State, code: int | None = None) -> bool:
    """Whether a run has ended so; `code`: of its error."""
    status = run.status
    return status.state is state and (code is None or (status.error is not None and status.error.code == code))


def said(run: Started[Any]) -> str:
    """How a run ended, in a few words."""
    status = run.status
    return status.state.value if status.error is None else f"{status.state.value}: {status.error.message}"
