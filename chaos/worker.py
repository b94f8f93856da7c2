"""`celery -A chaos.worker worker`: the bench's orders, with books kept of them. The environment says which side."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

from bench.app import make_app
from chaos.books import keep_books

#: Longer than any body takes, with room to spare: a message of a killed worker comes back after it. It is for
#: stock Celery; celeriac does not wait for it.
VISIBILITY_TIMEOUT_S = 10


def make() -> Celery:
    app = make_app(os.environ["REDIS_URL"], [os.environ["CHAOS_SIDE"]])
    app.conf.worker_prefetch_multiplier = 1  # a killed worker takes no more with it than it works on
    if os.environ["CHAOS_SIDE"] == "stock":
        app.conf.broker_transport_options |= {"visibility_timeout": VISIBILITY_TIMEOUT_S}
    low, high = os.environ["CHAOS_REST_MS"].split("-")
    folder = Path(os.environ["CELERIAC_DATA_DIR"])
    keep_books(app, folder, int(os.environ["CHAOS_SEED"]), rest_ms=(int(low), int(high)))
    return app


app = make()
