"""`celery -A bench.worker worker`: the app, made from the environment that the bench gives its workers."""

from __future__ import annotations

import os
from pathlib import Path

from bench import sampling
from bench.app import make_app

app = make_app(
    os.environ["REDIS_URL"],
    os.environ["BENCH_SIDES"].split(","),
    os.environ["BENCH_MODULE"],
    int(os.environ["BENCH_VISIBILITY_TIMEOUT_S"]),
)

if held := os.environ.get("BENCH_HELD"):
    app.conf.task_routes = {held: {"queue": "held"}}

if folder := os.environ.get("BENCH_PROFILE"):
    sampling.install(Path(folder))
