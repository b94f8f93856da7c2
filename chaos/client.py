"""`python -m chaos.client`: submits the orders at a steady pace, and notes each one that was confirmed.

It may be killed at any moment. The next one goes on where the notes end, so that at most one order is submitted
again; on celeriac that gives the run that exists.
"""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from pathlib import Path

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from bench.orders import Side
from status.errors import StoreUnavailable

#: Between two tries while Redis is away.
AGAIN_S = 0.2
#: Orders that are open at once, and how long the next one waits for one of them to end.
OPEN_AT_MOST = 16
ROOM_S = 4.0


def order_ids(orders: int) -> list[str]:
    return [f"order-{number}" for number in range(1, orders + 1)]


def confirmed(folder: Path) -> dict[str, int]:
    """The orders whose submission was confirmed, and when, ms."""
    notes = folder / "confirmed.log"
    rows = (line.split() for line in (notes.read_text() if notes.exists() else "").splitlines())
    return {order_id: int(at_ms) for order_id, at_ms in rows}


def main() -> int:
    import_module("chaos.worker")  # the app, which makes itself the default; importing this file needs none
    folder, side_name = Path(os.environ["CELERIAC_DATA_DIR"]), os.environ["CHAOS_SIDE"]
    began_s, per_s = float(os.environ["CHAOS_BEGAN_S"]), float(os.environ["CHAOS_ORDERS_PER_S"])
    side: Side = import_module(f"bench.{side_name}.order").Side(os.environ["REDIS_URL"])
    known = confirmed(folder)
    for number, order_id in enumerate(order_ids(int(os.environ["CHAOS_ORDERS"]))):
        if order_id in known:
            continue
        time.sleep(max(0.0, began_s + number / per_s - time.time()))
        _wait_for_room(folder, number)
        _submit(side, order_id)
        with (folder / "confirmed.log").open("a") as notes:
            notes.write(f"{order_id} {time.time_ns() // 1_000_000}\n")
    return 0


def _wait_for_room(folder: Path, submitted: int) -> None:
    # What waits behind a backlog says how fast the machine is, not how soon a fault is over.
    end_s = time.monotonic() + ROOM_S
    while submitted - ended(folder) >= OPEN_AT_MOST and time.monotonic() < end_s:
        time.sleep(0.05)


def ended(folder: Path) -> int:
    """How many orders are known to have ended."""
    try:
        return int((folder / "ended").read_text() or 0)
    except FileNotFoundError:
        return 0


def _submit(side: Side, order_id: str) -> None:
    while True:
        try:
            side.start(order_id)
        except (StoreUnavailable, OperationalError, RedisError, OSError) as error:
            print(f"{order_id}: {error}", file=sys.stderr, flush=True)
            time.sleep(AGAIN_S)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
