"""Hears what workers tell monitors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from waiting import wait_until


@contextmanager
def listening(app: Celery, hear: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Give each event to `hear`, in another thread. Begins once a worker's heartbeat is heard, and ends with one."""
    heard, over = threading.Event(), threading.Event()

    def told(event: dict[str, Any]) -> None:
        heard.set()
        hear(event)

    def listen() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": told})
            for _ in receiver.itercapture(limit=None, timeout=None, wakeup=False):
                if over.is_set():
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    wait_until(heard.is_set, "the worker's heartbeat is heard", 30)
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=20)
    assert not thread.is_alive(), "the worker's heart has stopped"
