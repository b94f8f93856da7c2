"""The Celery app of a crew; whether celeriac is in it follows from the sides that it serves.

An app that serves `stock` alone is stock Celery, its own Redis transport included.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from celery import Celery
from celery.signals import worker_ready

#: Settings for both sides. No prefetch tuning for one of them: at 4 a child (Celery's default) no child
#: waits for the next no-op, and late acknowledgement is per task.
SETTINGS: dict[str, Any] = {
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {
        "visibility_timeout": 600,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    "result_expires": 600,
    "task_default_delivery_mode": "transient",
    "worker_hijack_root_logger": False,
    "worker_prefetch_multiplier": 4,
}


def make_app(
    redis_url: str, sides: list[str], module: str = "order", visibility_timeout_s: int | None = None
) -> Celery:
    """The app that has the tasks of `bench/<side>/<module>.py` for each side."""
    app = Celery("bench", broker=redis_url, backend=redis_url)
    app.conf.update(SETTINGS)
    if visibility_timeout_s is not None:
        app.conf.broker_transport_options = SETTINGS["broker_transport_options"] | {
            "visibility_timeout": visibility_timeout_s
        }
    if any(side.startswith("ours") for side in sides):
        import_module("canvas").install(app, redis_url=redis_url)
    app.set_default()
    for side in sides:
        import_module(f"bench.{side}.{module}")
    return app


@worker_ready.connect
def _say_so(sender: Any, **_: Any) -> None:
    """The line that `Worker.is_ready` looks for: at this log level Celery does not write it."""
    print(f"{sender.hostname} ready.", flush=True)
