"""What operators do to a run, as part of the `Store`."""

from __future__ import annotations

from typing import Any

from status.errors import RetryRefused, RunNotFound
from status.records import Ending, claims_of


class OperatorTransitions:
    """The transitions by which a run is ended as it stands, or taken up again."""

    def _call(self, name: str, run_id: str, *args: Any) -> Any:
        raise NotImplementedError

    def abandon(self, run_id: str, reason: str, *, token: str, state: str, error: str, by: str = "") -> Ending:
        """End the run in `state` without its workflow. See `abandon.lua`; `late`: it had ended before.

        Raises:
            RunNotFound: There is no such run.
        """
        answer = self._call("abandon", run_id, reason, token, state, error, by)
        if answer[0] == "gone":
            raise RunNotFound(run_id)
        return Ending(answer[0], claims_of(answer[1] if answer[0] == "abandoned" else []))

    def operator(self, run_id: str, verb: str, name: str, detail: str, *, token: str, undoer: str) -> str:
        """Note what an operator has decided of what a run owes; it is not taken up again. See `operator.lua`.

        Returns:
            `noted`, `gone`, or the state of a run that has not ended: then nothing was noted.
        """
        code, *more = self._call("operator", run_id, verb, name, detail, token, undoer)
        return str(more[0] if code == "alive" else code)

    def amend(self, run_id: str, *, was: str, state: str, error: str) -> str:
        """Give a run of which nothing is owed any more the end that it would have had. See `amend.lua`.

        Returns:
            The state that it has now, or `gone`.
        """
        code, *more = self._call("amend", run_id, was, state, error)
        return str(more[0] if code == "ends" else code)

    def retry(self, run_id: str, n: int, *, finished_ms: str, token: str, by: str = "") -> str:
        """Take a failed run up again from await `n`; let a parked one look again. See `retry.lua`.

        Returns:
            `retried`, `parked`, or `moved`: it is not as it was read.

        Raises:
            RunNotFound: There is no such run.
            RetryRefused: It goes on, did not fail, or some of its steps still run.
        """
        code, *more = self._call("retry", run_id, n, finished_ms, token, by)
        if code == "gone":
            raise RunNotFound(run_id)
        if code == "busy":
            raise RetryRefused(
                f"run {run_id}: {more[0]} of its stopped steps still run: try again when they have ended"
            )
        if code == "undone":
            raise RetryRefused(
                f"run {run_id} is {more[0]}, and run {more[1]} undoes what it did: submit it anew, with another run id"
            )
        if code == "refused":
            raise RetryRefused(f"run {run_id} is {more[0]}: there is nothing to try again")
        return str(code)
