"""What the outside says to a run, by promises and channels, as part of the `Store`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from status.records import Ending
from status.states import Answer


class PromiseTransitions:
    """The transitions by which a promise gets its value, and a channel a message."""

    def _call(self, name: str, run_id: str, *args: Any) -> Any:
        raise NotImplementedError

    def _ending(self, run_id: str, n: int, answer: Sequence[Any]) -> Ending:
        raise NotImplementedError

    def resolve(self, run_id: str, name: str, outcome: str, *, token: str, by: str = "") -> tuple[Answer, Ending]:
        """Give a promise of a run its value, once. See `resolve.lua`.

        Args:
            outcome: `v` and a JSON value, or `e` and a JSON error.
            by: The operator who says so, for the history; '': a program.

        Returns:
            What became of it, and what is to be sent and stopped.
        """
        answer, *more = self._call("resolve", run_id, name, outcome, token, by)
        return Answer(answer), self._ending(run_id, int(more[0]), more[1:]) if more else Ending("none")

    def send(self, run_id: str, channel: str, outcome: str, *, token: str) -> tuple[Answer, Ending]:
        """Send a message to a channel of a run. See `send.lua`.

        Args:
            outcome: `v` and a JSON value.
            token: Of a sender (see `status.senders`).

        Returns:
            What became of it, and what is to be sent and stopped.
        """
        answer, *more = self._call("send", run_id, channel, outcome, token)
        return Answer(answer), self._ending(run_id, int(more[0]), more[1:]) if more else Ending("none")
