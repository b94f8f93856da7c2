"""Tokens: 32 hex digits that nobody else has.

From a generator of this process' own, which the system seeds: to ask the system for each is felt where a turn needs two
dozen. They tell claims apart and are no secrets; whoever could use one can read it in Redis.
"""

from __future__ import annotations

import os
from random import Random

_random = Random()  # noqa: S311  # no secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_token() -> str:
    """Another one."""
    return f"{_random.getrandbits(128):032x}"
