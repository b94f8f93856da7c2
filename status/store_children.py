"""What is owed between a child workflow and its parents, as part of the `Store`.

One script touches the keys of one run alone. So a parent submits, stops and is told by calls to the one and to the
other run, each of which may be made again; what has not been confirmed stays due in the run that owes it.
"""

from __future__ import annotations

from typing import Any, cast

from redis import Redis

from status.keys import Keys
from status.records import ChildEnd, Ending, PartRef, check_run_id, claims_of
from status.settings import Settings


class ChildTransitions:
    """The transitions of a child workflow, and of the part that it is of its parent."""

    redis: Redis
    keys: Keys
    settings: Settings

    def _call(self, name: str, run_id: str, *args: Any) -> Any:
        raise NotImplementedError

    def trace_of(self, run_id: str) -> dict[str, str]:
        """Of the run hash: trace, submitted_ms and gen, those that are there; {}: there is no such run."""
        names = ("trace", "submitted_ms", "gen")
        values = cast("list[str | None]", self.redis.hmget(self.keys.run(run_id), names))
        found = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        return found if "submitted_ms" in found else {}

    def submit_child(
        self,
        run_id: str,
        *,
        workflow: str,
        input_json: str,
        digest: str,
        parent: PartRef,
        detached: bool = False,
        timeout_ms: int = 0,
        retention_ms: int | None = None,
        turn_queue: str = "",
        trace: str = "",
    ) -> tuple[str, str]:
        """Create a run that is part of another, or wait for the one that is there.

        Args:
            detached: The part only starts it; nobody is told how it ends.

        Returns:
            `created`, `exists`, `conflict` (the id is taken), or `stopped` (by its parent, before); and its state.
        """
        keep_ms = retention_ms or self.settings.retention_s * 1000
        token = parent.message_id
        answer = self._call(
            "submit",
            check_run_id(run_id),
            workflow,
            input_json,
            digest,
            token,
            timeout_ms,
            keep_ms,
            "" if detached else token,
            turn_queue,
            "",
            0,
            trace,
        )
        return answer[0], answer[1]

    def stop_child(self, run_id: str, reason: str, *, parent: PartRef) -> Ending:
        """Cancel a child that its parent waits for no more; if it is not there yet, it won't start."""
        token = parent.message_id
        keep_ms = self.settings.retention_s * 1000
        code, *stop = self._call("cancel", run_id, reason, 409, f"parent {token}", token, keep_ms)
        return Ending(code, claims_of(stop[0] if code == "decided" else []))

    def child_submitted(self, parent: PartRef) -> bool:
        """The child is on record: nothing is owed to it. Returns whether its parent still waits for it."""
        return bool(self._call("child", parent.run_id, parent.n, parent.p, parent.message_id, "submitted"))

    def canvas_sent(self, part: PartRef) -> None:
        """A stock canvas has been sent: it will report, and nobody is to look after it."""
        self._call("child", part.run_id, part.n, part.p, part.message_id, "sent")

    def child_stopped(self, parent: PartRef) -> None:
        """The child knows that it is to stop."""
        self._call("child", parent.run_id, parent.n, parent.p, parent.message_id, "stopped")

    def child_end(self, run_id: str) -> ChildEnd:
        """How a child has ended, and the parts of its parents that are to be told."""
        asked = ["state", "result", "error", "tells", "submitted_ms"]
        answer = cast("list[str | None]", self.redis.hmget(self.keys.run(run_id), asked))
        state, result, error, tells, submitted_ms = answer
        refs = (PartRef.parse(message_id) for message_id in (tells or "").split())
        return ChildEnd(
            state or "", result or "null", error or "{}", int(submitted_ms or 0), tuple(ref for ref in refs if ref)
        )

    def told(self, run_id: str, parent: PartRef) -> int:
        """A parent knows how the child ended. Returns how many are still to be told."""
        return int(self._call("told", run_id, parent.message_id))

    def label_of(self, ref: PartRef) -> str:
        """How the timeline calls a part."""
        found = self.redis.hget(self.keys.steps(ref.run_id), f"{ref.n}.{ref.p}")
        return str(found or "").partition("|")[2]
