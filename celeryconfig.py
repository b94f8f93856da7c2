"""Settings of the shop's Celery app: where its broker is, which queues there are, who serves them."""

from kombu import Queue

from status.places import places

broker_url = places().redis_url
broker_connection_retry_on_startup = True
broker_transport_options = {
    "visibility_timeout": 3600,
    # Without these two a killed worker's messages come back about 100 s late.
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}

# A queue for each service, so that each can be given workers of its own; turns are short and must not
# wait behind steps.
task_default_queue = "celery"
task_queues = [
    Queue(name, routing_key=name)
    for name in (
        "turns", "inventory", "payment", "shipping", "fraud", "warehouse", "billing", "notification", "catalogue",
        "batch", "celery",
    )
]  # fmt: skip
# The steps of these say their own queue; so what is routed are the workflows.
_workflows = ("orders", "users", "products", "data", "requests", "transactions", "jobs")
task_routes = {
    **{f"{name}.*": {"queue": "turns"} for name in _workflows},
    # The steps of batches have a queue of their own: what lies there keeps no order waiting.
    "batch.*": {"queue": "batch"},
}
#: Where turns go of workflows that this process does not know.
celeriac_turn_queue = "turns"

# Who serves them: `celery -A tasks up` starts these, `--scale` starts more of them.
celeriac_workers = {
    "orders": {
        "queues": ["turns", "inventory", "shipping", "fraud", "warehouse", "billing", "celery"],
        "pool": "prefork",
        "concurrency": 2,
    },
    # Waits for others: more at once than there are cores.
    "outside": {"queues": ["payment", "notification", "catalogue"], "pool": "prefork", "concurrency": 4},
    # The bulkhead: however many items wait, so many processes and no more work on them, and none holds the next ones.
    "batch": {"queues": ["batch"], "pool": "prefork", "concurrency": 1, "prefetch": 1, "nice": 10},
}

worker_prefetch_multiplier = 4
worker_send_task_events = True
task_send_sent_event = True
task_track_started = False
result_expires = 24 * 3600
timezone = "UTC"

from tasks.app import app  # noqa: E402, F401  # so that -A celeryconfig and -A tasks are one app
