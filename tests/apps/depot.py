"""A service: steps that apps elsewhere call by name. It knows none of their code, and has a queue of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass

from celery import Celery

import canvas
from canvas import Retry, TerminalError, current_step, step

app = Celery("depot", broker=os.environ.get("REDIS_URL"))
app.conf.update(task_default_queue="depot", worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
canvas.install(app)

#: A line for each call that had its effect.
BOOK = os.environ.get("DEPOT_BOOK", "")


@dataclass
class Wanted:
    """As the service's own code has it; its callers have theirs."""

    item: str
    number: int


def note(line: str) -> None:
    with open(BOOK, "a") as book:  # noqa: PTH123
        book.write(line + "\n")


@step(name="depot.reserve", retry=Retry(1))
def reserve(wanted: Wanted) -> dict[str, str]:
    note(f"reserve {wanted.item} {wanted.number} {current_step().attempt}")
    if wanted.item == "gold":
        raise TerminalError("no gold", code=404)
    if wanted.item == "flaky" and current_step().attempt < 3:
        raise OSError("try again")
    return {"id": f"{wanted.item}-{wanted.number}"}


@step(name="depot.release", queue="depot")
def release(reservation: dict[str, str] | None) -> None:
    note(f"release {reservation and reservation['id']} {current_step().undoes}")


@step(name="depot.once", idempotent=False)
def once(wanted: Wanted) -> str:
    return wanted.item
