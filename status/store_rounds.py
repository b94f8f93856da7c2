"""How a run begins anew, as part of the `Store`."""

from __future__ import annotations

from typing import Any

from status.journals import Journals
from status.records import News


class RoundTransitions:
    """The transition by which a run begins another round."""

    journals: Journals

    def _call(self, name: str, run_id: str, *args: Any) -> Any:
        raise NotImplementedError

    def restart(
        self, run_id: str, *, seen: str, token: str, input_json: str, first: int, entered: int, carried: str, news: News
    ) -> str:
        """Let the run begin anew, if its journal still ends with `seen`. See `restart.lua`.

        Args:
            first: The number of the first await of the new round.
            entered: Entries in sagas so far.
            carried: Phase, progress and metadata that the round begins with (JSON).

        Returns:
            `restarted` (by this token), `moved` or `gone`.
        """
        flat = news.arguments()
        self.journals.forget(run_id)
        return str(self._call("restart", run_id, seen, token, input_json, first, entered, carried, *flat)[0])
