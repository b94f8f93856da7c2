"""The smallest Celery app there is, to test the test nodes themselves with."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("plain", broker=os.environ.get("REDIS_URL"), backend=os.environ.get("REDIS_URL"))
app.conf.update(
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": 2,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)


@app.task(name="plain.add")
def add(left: int, right: int) -> int:
    return left + right


@app.task(name="plain.pid")
def pid() -> int:
    return os.getpid()
