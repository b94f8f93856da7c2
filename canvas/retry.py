"""When a failed attempt is made again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from status.errors import ConfigError, PayloadError, RetryAfter, TerminalError

#: Throws the dice of the jitter; tests of workflows take the middle.
between: Callable[[float, float], float] = random.uniform


class Retry:
    """How often a step is tried, and how long it waits in between: first_s · factorⁿ, at most max_s, ± jitter.

    The waits are durable: they stand in Redis, not in a worker.

    Args:
        max_attempts: The first one included; None: without end.
        first_s: Wait after the first failure, seconds.
        factor: Each wait is this many times the one before.
        max_s: No wait is longer, seconds.
        jitter: The share by which a wait is made longer or shorter at random, from 0 to 1.
        on: Only these errors are retried.
        never: These are not, whatever `on` says. `TerminalError` never is.

    Raises:
        ConfigError: A number is out of its range.
    """

    def __init__(
        self,
        max_attempts: int | None = 3,
        *,
        first_s: float = 0.5,
        factor: float = 2.0,
        max_s: float = 60.0,
        jitter: float = 0.2,
        on: tuple[type[Exception], ...] = (Exception,),
        never: tuple[type[Exception], ...] = (),
    ) -> None:
        if max_attempts is not None and max_attempts < 1:
            raise ConfigError(f"Retry(max_attempts=) must be at least 1, or None for no end; got {max_attempts}")
        for name, value, least in (("first_s", first_s, 0), ("factor", factor, 1), ("max_s", max_s, 0)):
            if not value >= least:  # also if it is NaN
                raise ConfigError(f"Retry({name}=) must be at least {least}, got {value}")
        if not 0 <= jitter <= 1:
            raise ConfigError(f"Retry(jitter=) must be from 0 to 1, got {jitter}")
        self.max_attempts = max_attempts
        self.first_s = first_s
        self.factor = factor
        self.max_s = max_s
        self.jitter = jitter
        self.on = on
        self.never = (*never, TerminalError, PayloadError, ConfigError)

    def delay_s(self, attempt: int, error: Exception | None) -> float | None:
        """How long to wait before the next attempt, in seconds; None: there is none.

        Args:
            attempt: The one that failed; the first is 1.
            error: What it raised; None for a time-out.
        """
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        if isinstance(error, RetryAfter):
            return max(0.0, error.delay_s)
        if error is not None and (isinstance(error, self.never) or not isinstance(error, self.on)):
            return None
        try:
            wait_s = min(self.max_s, self.first_s * self.factor ** (attempt - 1))
        except OverflowError:  # endless retries grow past a float
            wait_s = self.max_s
        return wait_s * between(1 - self.jitter, 1 + self.jitter)

    def timing(self) -> dict[str, Any]:
        """The numbers alone, as a message carries them to override a step's own policy."""
        return {
            "max_attempts": self.max_attempts,
            "first_s": self.first_s,
            "factor": self.factor,
            "max_s": self.max_s,
            "jitter": self.jitter,
        }

    @classmethod
    def from_timing(cls, timing: Mapping[str, Any]) -> Retry:
        """The policy that `timing` was made of; it retries every error."""
        return cls(**timing)


#: Of a step that says nothing.
DEFAULT = Retry()
