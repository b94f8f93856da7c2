"""Which fake an attempt gets: of its run, of the run's parents, or of the whole world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from canvas.testing.deaths import TestBroke
from canvas.testing.fakes import Act, Fakes
from status.virtual import VirtualStore


class Casting:
    """The fakes of a world.

    Args:
        strict: A step without a fake is refused.
    """

    def __init__(self, store: VirtualStore, fakes: Fakes, *, strict: bool) -> None:
        self._store, self._strict = store, strict
        self._of_all, self._of_run = fakes, dict[str, Fakes]()

    def add(self, run_id: str, fakes: Mapping[Any, Any]) -> None:
        """Those of a run go before those of all."""
        self._of_run[run_id] = Fakes.of(fakes)

    def find(self, run_id: str, names: Sequence[str]) -> Act | None:
        """What the next attempt does of something that has these names; None: it has no fake."""
        acts = (fakes.next_act(names) for fakes in self._fakes_for(run_id))
        return next((act for act in acts if act is not None), None)

    def act_of(self, run_id: str, names: Sequence[str], task: Any) -> Act:
        """What the next attempt of a step does."""
        act = self.find(run_id, names)
        is_real = act is None or (act.body is None and act.dies != "before")
        if is_real and getattr(task, "is_elsewhere", False):
            raise TestBroke(f"step {names[-1]!r} lives in another code base: give it a fake in fakes=")
        if act is None and self._strict:
            raise TestBroke(
                f"step {names[-1]!r} has no fake, and strict=True: give it one in fakes=, or Fake.real() to run its "
                "own function"
            )
        return act or Act()

    def unused(self) -> set[str]:
        """Names of fakes that nobody asked for."""
        return set().union(*(fakes.unused() for fakes in (self._of_all, *self._of_run.values())))

    def _fakes_for(self, run_id: str) -> Iterator[Fakes]:
        while run_id:
            if run_id in self._of_run:
                yield self._of_run[run_id]
            run_id = self._store.parent_of(run_id)
        yield self._of_all
