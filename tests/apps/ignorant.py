"""An app on the same queue as `deadly` that has none of its steps and workflows."""

from __future__ import annotations

import os

from celery import Celery

import canvas

app = Celery("ignorant", broker=os.environ.get("REDIS_URL"))
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
canvas.install(app)
