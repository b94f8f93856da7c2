"""Several transitions in one script, as part of the `Store`: those of steps in place, and what their turn does next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from status.ahead import Ahead, Finish, GivenBack
from status.journals import Journal, Journals
from status.records import Ending


class AheadTransitions:
    """The transitions of a turn that goes on in the process in which its steps have run."""

    journals: Journals

    def _call(self, name: str, run_id: str, *args: Any, meanwhile: Callable[[], object] | None = None) -> Any:
        raise NotImplementedError

    def _ending(
        self, run_id: str, n: int, answer: Sequence[Any], known: Journal | None = None, asked_s: float = 0.0
    ) -> Ending:
        raise NotImplementedError

    def record(self, finishes: Sequence[Finish], given_back: Sequence[GivenBack] = ()) -> list[Ending]:
        """Record what came of several attempts of one await. See `finish.lua` for the answers.

        Args:
            given_back: Claims that are given up before the last of these is recorded; theirs is the answer before its.
        """
        ref = finishes[-1].ref
        if len(finishes) == 1 and not given_back:
            return [self._finish(finishes[0])]
        returned = _said("give_back", [value for claim in given_back for value in claim]) if given_back else []
        *others, last = [_said("finish", finish.arguments()) for finish in finishes]
        flat = [value for said in (*others, returned, last) for value in said]
        return [self._ending(ref.run_id, ref.n, answer) for answer in self._call("advance", ref.run_id, *flat)]

    def _finish(self, finish: Finish) -> Ending:
        ref = finish.ref
        known = self.journals.get(ref.run_id) if finish.gives == "all" else None
        if known is not None:  # no more than what this process does not have
            finish = finish._replace(gives=f"all|{known.mark}")
        asked_s = monotonic()
        return self._ending(ref.run_id, ref.n, self._call("finish", ref.run_id, *finish.arguments()), known, asked_s)

    def give_back(self, run_id: str, claims: Sequence[GivenBack]) -> Ending:
        """Give up claims on parts that have not begun. See `give_back.lua`."""
        answer = self._call("give_back", run_id, *[value for claim in claims for value in claim])
        return self._ending(run_id, claims[0].n, answer)

    def _after(
        self,
        ahead: Ahead | None,
        run_id: str,
        name: str,
        args: Sequence[Any],
        meanwhile: Callable[[], object] | None = None,
    ) -> Any:
        """Make a transition, of a turn that may be ahead of the journal: only after that has caught up.

        Returns:
            The answer; None: what was recorded is not what the turn has gone on with.
        """
        return self._made(ahead, run_id, [(name, args)], meanwhile)[0]

    def pass_by(self, run_id: str, ahead: Ahead) -> bool:
        """Record awaits that a turn went through. See `pass.lua`. Returns whether they are."""
        self._made(ahead, run_id, [])
        return ahead.recorded

    def open_late(self, ahead: Ahead | None, run_id: str, opening: Sequence[Any], finishes: Sequence[Finish]) -> Any:
        """Open an await whose parts have begun already, and record what came of them, if they are granted now.

        Args:
            opening: The arguments of `open_join`.

        Returns:
            What the opening answered, None if what was to be recorded before is not; and what came of the parts.
        """
        asked = [("open_join", opening), *(("finish", finish.arguments()) for finish in finishes)]
        answer, *ended = self._made(ahead, run_id, asked)
        n = finishes[-1].ref.n
        return answer, [self._ending(run_id, n, one) for one in ended if one is not None]

    def _made(
        self,
        ahead: Ahead | None,
        run_id: str,
        asked: Sequence[tuple[str, Sequence[Any]]],
        meanwhile: Callable[[], object] | None = None,
    ) -> list[Any]:
        """The answers of transitions that are made once the journal has what their turn has gone on with; else None."""
        first = [] if ahead is None or ahead.recorded else ahead.transitions()
        if not first and len(asked) == 1:
            return [self._call(asked[0][0], run_id, *asked[0][1], meanwhile=meanwhile)]
        flat = [value for one in (*first, *asked) for value in _said(*one)]
        answers = self._call("advance", run_id, *flat, meanwhile=meanwhile)
        if ahead is not None and first:
            last = answers[len(first) - 1] if len(answers) >= len(first) else ["moved"]
            if ahead.passages:
                ahead.recorded, ahead.stops = last[0] == "passed", last[-1] == 1
            else:
                n = ahead.finishes[0].ref.n
                ahead.endings = [self._ending(run_id, n, answer) for answer in answers[: len(first)]]
                ahead.recorded = len(answers) > len(first)
        more = answers[len(first) :]
        return [*more, *[None] * (len(asked) - len(more))]


def _said(name: str, args: Sequence[Any]) -> list[Any]:
    """A transition, as `advance.lua` reads it."""
    return [name, len(args), *args]
