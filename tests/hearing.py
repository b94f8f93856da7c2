"""Hears what workers tell monitors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from celery import Celery

from waiting import wait_until


def listening(app: Celery, hear: Callable[[dict[str, Any]], None], over: threading.Event) -> None:
    """Give each event to `hear`, in another thread, until it is `over`. Returns once a heartbeat is heard."""
    heard = threading.Event()

    def told(event: dict[str, Any]) -> None:
        heard.set()
        hear(event)

    def listen() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": told})
            for _ in receiver.itercapture(limit=None, timeout=None, wakeup=False):
                if over.is_set():
                    return

    threading.Thread(target=listen, daemon=True).start()
    wait_until(heard.is_set, "the worker's heartbeat is heard", 30)
