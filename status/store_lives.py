"""What keeps a process that dies from being killed for ever, as part of the `Store`: lives, and missing code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis import Redis

from status.keys import Keys
from status.records import PartRef
from status.settings import Settings


class LivesTransitions:
    """The transitions of turns that were sent again, of workers that stop and of messages that nobody could run."""

    redis: Redis
    keys: Keys
    settings: Settings

    def _call(self, name: str, run_id: str, *args: Any) -> Any:
        raise NotImplementedError

    def enter(self, run_id: str, *, known: int, where: str, error: str, token: str) -> str:
        """Ask whether a turn that was sent again may be taken once more.

        Args:
            known: How many processes are known to have died of it, if this is the first to count.
            error: The run's (JSON), once its lives are used up; see `enter.lua`.

        Returns:
            `begin`, `given_up` or `gone`.
        """
        return str(self._call("enter", run_id, known, self.settings.max_lives, where, error, token)[0])

    def survived(self, run_id: str) -> None:
        """A turn that was sent again has let its process live."""
        self.redis.hdel(self.keys.run(run_id), "turns")

    def lapse(self, run_id: str, lease: str) -> bool:
        """The process that had the turn with this lease is gone; whether the run still stands there."""
        return bool(self._call("lapse", run_id, lease))

    def turn_down(self, run_id: str, why: str, ref: PartRef | None = None) -> bool:
        """Give back a message whose code this process does not have: of a part, or (`ref` is None) of a turn.

        Args:
            why: For people: a line for a part, an error (JSON) for a turn.
        """
        place: tuple[Any, ...] = (ref.n, ref.p, ref.nonce, ref.attempt) if ref else ("", "", "", "")
        return bool(self._call("turn_down", run_id, *place, why))

    def owes_turn(self, run_id: str) -> bool:
        """Whether nobody has taken the run's turn to its end yet."""
        return self.redis.zscore(self.keys.due(self.keys.shard_of(run_id)), run_id) is not None

    def leaving(self, run_id: str, claims: Iterable[tuple[int, str, str]]) -> int:
        """The worker of these claims (await, part, token) was told to stop; how many of them still stand."""
        return int(self._call("leaving", run_id, *[value for claim in claims for value in claim]))
