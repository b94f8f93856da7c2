"""What a server was asked for."""

from __future__ import annotations

from typing import Any


def pushes(client: Any) -> int:
    """How many writes of messages there were. A server that has seen none has no line for them."""
    return int(client.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"])
