"""The same service on plain Celery: it has the tasks, and knows nothing of celeriac."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("plain_depot", broker=os.environ.get("REDIS_URL"), backend=os.environ.get("REDIS_URL"))
app.conf.update(task_default_queue="depot", worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


@app.task(name="depot.reserve")
def reserve(wanted: dict[str, Any]) -> dict[str, str]:
    with open(os.environ["DEPOT_BOOK"], "a") as book:  # noqa: PTH123
        book.write("plain\n")
    return {"id": "plain"}
