"""Which steps a rollback undoes."""

from __future__ import annotations

from enum import StrEnum


class Strategy(StrEnum):
    """What a rollback does. In all of them a step that never began is left alone."""

    COMPENSATE_ALL = "compensate_all"  #: every step that began, failed ones too: a time-out may hide an effect
    COMPENSATE_COMPLETED = "compensate_completed"  #: those that succeeded, and those whose outcome is unknown
    BEST_EFFORT = "best_effort"  #: as COMPENSATE_ALL, and on past an undo that gave up

    def undoes(self, outcome: str) -> bool:
        """Whether a part with this outcome is undone.

        Args:
            outcome: `v…` succeeded, `e…` failed, `t` timed out, `u…` unknown.
        """
        return outcome[0] != "e" or self is not Strategy.COMPENSATE_COMPLETED
