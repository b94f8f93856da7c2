"""Settings, checked once, when a process starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from status.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What can be set, each by the environment variable `CELERIAC_` and its name in capitals."""

    shards: int = 16  #: slots that runs are spread over; can't change once runs exist
    retention_s: int = 7 * 24 * 3600  #: how long a finished run can be looked at
    max_lives: int = 5  #: a step whose process died this often is given up
    max_value_bytes: int = 1024 * 1024  #: an argument or a result may be so long, as JSON

    in_place_ms: int = 5  #: a step that never takes longer may be run where its turn is; 0: none is
    journals_mb: int = 16  #: a process keeps so much of the journals of long runs; 0: nothing

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in ("in_place_ms", "journals_mb") else 1
            if value < least:
                raise ConfigError(f"CELERIAC_{field.name.upper()} must be at least {least}, got {value}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from environment variables.

        Raises:
            ConfigError: A value is not a whole number, or too small.
        """
        given: dict[str, int] = {}
        for field in fields(cls):
            name = f"CELERIAC_{field.name.upper()}"
            if name not in environ:
                continue
            try:
                given[field.name] = int(environ[name])
            except ValueError as error:
                raise ConfigError(f"{name} must be a whole number, got {environ[name]!r}") from error
        return cls(**given)
