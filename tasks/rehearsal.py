"""Telling local providers to be slow or to fail, so that every path of an order can be shown.

An order's `simulate` is written down for its run before its first step; `SHOP_SIMULATE` (the same mapping,
as JSON) holds for all runs that say nothing else. Real providers know nothing of this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select

from canvas import current_step, step
from saga.schema import insert_or_ignore
from status.errors import ConfigError, TerminalError
from tasks.domain import Behaviour, Provider
from tasks.models import Base, RehearsalRow
from tasks.once import glance, writing

_BEHAVIOURS = TypeAdapter(dict[Provider, Behaviour])
_BEHAVIOUR = TypeAdapter(Behaviour)
_TABLE = Base.metadata.tables[RehearsalRow.__tablename__]


class ProviderDown(ConnectionError):  # noqa: N818
    """A provider did not answer: worth another try."""


class Caller(Protocol):
    """Who calls a provider: what `current_step()` tells."""

    @property
    def run_id(self) -> str: ...
    @property
    def idempotency_key(self) -> str: ...
    @property
    def attempt(self) -> int: ...


@step(name="shop.rehearse", queue="inventory")
def rehearse(simulate: Mapping[Provider, Behaviour]) -> None:
    """Write down how the providers are to behave in this run."""
    tell({current_step().run_id: simulate})


def tell(runs: Mapping[str, Mapping[Provider, Behaviour]]) -> None:
    """Write down how the providers are to behave in some runs; what was told before stays.

    Args:
        runs: By run id. The runs need not exist yet.
    """
    rows = [
        {
            "run_id": run_id,
            "provider": Provider(provider).value,
            "behaviour": _BEHAVIOUR.dump_json(behaviour).decode(),
        }
        for run_id, simulate in runs.items()
        for provider, behaviour in simulate.items()
    ]
    if rows:
        with writing() as session:
            connection = session.connection()
            connection.execute(insert_or_ignore(connection.dialect, _TABLE), rows)


def behaviour_of(provider: Provider, run_id: str) -> Behaviour:
    """How a provider is to behave in a run.

    Raises:
        ConfigError: `SHOP_SIMULATE` can't be read.
    """
    told = select(RehearsalRow.behaviour).where(RehearsalRow.run_id == run_id, RehearsalRow.provider == provider.value)
    with glance() as connection:
        found = connection.scalar(told)
    if found is not None:
        return _BEHAVIOUR.validate_json(found)
    return _settings(os.environ.get("SHOP_SIMULATE", "")).get(provider, Behaviour())


def play(provider: Provider, caller: Caller, *, wait: Callable[[float], None] = time.sleep) -> None:
    """Take the provider's time, and fail as it was told to.

    Raises:
        TerminalError: It refuses, with the code it was told.
        ProviderDown: It fails in a way that is worth another attempt.
    """
    behaviour = behaviour_of(provider, caller.run_id)
    if behaviour.latency_ms:
        wait(behaviour.latency_ms / 1000)
    if behaviour.error is None:
        return
    if behaviour.failing_attempts is None:
        raise TerminalError(f"{provider}: {behaviour.error}", code=behaviour.code)
    if caller.attempt <= behaviour.failing_attempts:
        raise ProviderDown(f"{provider}: {behaviour.error}")


@lru_cache(maxsize=4)
def _settings(text: str) -> Mapping[Provider, Behaviour]:
    if not text:
        return {}
    try:
        return _BEHAVIOURS.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"SHOP_SIMULATE={text!r} can't be read ({'.'.join(map(str, first['loc']))}: {first['msg']}): "
            """write a mapping like {"stripe": {"latency_ms": 50}}"""
        ) from error
