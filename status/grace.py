"""What follows a restart of Redis: its last second may be lost, and with it claims of steps that still run."""

from __future__ import annotations

from typing import Literal, cast

from status.keys import Keys
from status.records import PartRef
from status.scripts import Scripts


class Grace:
    """The transitions of rule 10: a Redis that was restarted is met with care."""

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._scripts = scripts
        self._keys = keys

    def meet(self, shard: int, run_id: str) -> bool:
        """Tell a shard which server (its `run_id` in `INFO`) has answered. `Scripts` does so by itself.

        Returns:
            Whether a grace has begun: it is another server than before.
        """
        return bool(self._scripts.call("meet", self._keys.of_server(shard), (run_id,)))

    def reassert(
        self,
        ref: PartRef,
        *,
        token: str,
        where: str,
        interruptible: bool = False,
        timeout_ms: int = 0,
        retry_in_ms: int = -1,
    ) -> Literal["held", "noted", "over"]:
        """Say that a part runs here whose claim Redis does not know. See `reassert.lua` for the answers."""
        answer = self._scripts.call(
            "reassert",
            self._keys.of_run(ref.run_id),
            (ref.n, ref.p, ref.nonce, ref.attempt, token, where, int(interruptible), timeout_ms, retry_in_ms),
        )
        return cast("Literal['held', 'noted', 'over']", answer)
