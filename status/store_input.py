"""The input of a run that is put into Redis piece by piece before the run is submitted, as part of the `Store`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis import Redis

from status.errors import StoreUnavailable
from status.keys import Keys
from status.records import PartRef, Publishable

#: A client may take so long for its next piece. If it dies, what it sent is forgotten after as long.
UPLOAD_MS = 3_600_000


def upload_gone(run_id: str) -> StoreUnavailable:
    """The error of an upload that is not whole any more."""
    return StoreUnavailable(
        f"run {run_id} was not submitted: its items are no longer in Redis, which was restarted, or waited over an "
        "hour for the next of them: submit it again"
    )


class InputTransitions:
    """What a batch that is submitted by itself needs."""

    redis: Redis
    keys: Keys

    def _call(self, name: str, run_id: str, *args: Any) -> Any:
        raise NotImplementedError

    def stage(self, run_id: str, token: str, before: int, pieces: Sequence[str]) -> None:
        """Keep pieces of an input until `submit(staged=token, pieces=…)` makes them the run's; see `stage.lua`.

        Args:
            before: How many pieces went before.

        Raises:
            StoreUnavailable: Those before have been forgotten meanwhile.
        """
        if not self._call("stage", run_id, token, before, UPLOAD_MS, *pieces):
            raise upload_gone(run_id)

    def unstage(self, run_id: str, token: str) -> None:
        """Forget an upload that no run will have."""
        self.redis.unlink(self.keys.upload(run_id, token))

    def open_as(self, run_id: str, n: int) -> tuple[str, str]:
        """What the open await `n` asks for, and where (file:line); '' for what is not known (any more)."""
        found = cast("list[str | None]", self.redis.hmget(self.keys.join(run_id, n), ["fp", "line"]))
        return found[0] or "", found[1] or ""

    def filed(self, run_id: str, n: int, nonce: str, attempts: Mapping[str, int]) -> list[Publishable]:
        """Parts of an open join as `open_join` has filed them, to be published; those that have ended are left out."""
        if not attempts:
            return []
        asked = [f"s{p}" for p in attempts]
        specs = cast("list[str | None]", self.redis.hmget(self.keys.join(run_id, n), asked))
        return [
            Publishable(PartRef(run_id, n, p, nonce, attempt), spec, "")
            for (p, attempt), spec in zip(attempts.items(), specs, strict=True)
            if spec is not None
        ]
