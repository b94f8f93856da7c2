"""The rounds of a run that began anew with `run.restart`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Round:
    """What a round of a run begins with.

    Attributes:
        number: 1 is the first.
        first: The number of its first await: they are counted on from round to round.
        began_ms: When it began.
        entered: Entries in sagas before it.
        phase, progress, metadata: The status that it found.
    """

    number: int
    first: int
    began_ms: int
    entered: int = 0
    phase: str = ""
    progress: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Round:
        """Read the run hash."""
        if "round" not in fields:
            return cls(1, 0, int(fields["submitted_ms"]))
        phase, progress, metadata = json.loads(fields["carried"])
        return cls(
            number=int(fields["round"]),
            first=int(fields["first"]),
            began_ms=int(fields["round_ms"]),
            entered=int(fields["entries"]),
            phase=phase,
            progress=progress,
            metadata=metadata,
        )
