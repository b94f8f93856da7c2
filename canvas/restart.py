"""`run.restart`: the same run begins anew, with other arguments and an empty journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Never

from canvas.waitables import Join, Recipe
from status.errors import ConfigError


class Restart(Join[Never]):
    """Another round of the run; made by `run.restart(...)`.

    Attributes:
        input_json: The arguments of the next round, as the run keeps them.
    """

    def __init__(self, input_json: str) -> None:
        self.input_json = input_json

    def __repr__(self) -> str:
        return "run.restart(...)"

    def recipe(self) -> Recipe:
        raise ConfigError("run.restart(...) is the end of a round: write `return await run.restart(...)` and no more")


def refuse_while_owed(owed: Sequence[str]) -> None:
    """Refuse to begin anew while something of this round may have to be undone.

    Raises:
        ConfigError: It may.
    """
    if owed:
        raise ConfigError(
            f"run.restart(...) inside a saga that may still have to undo {', '.join(owed)}, of which the next round "
            "would not know: leave the saga's block first, or roll it back"
        )
