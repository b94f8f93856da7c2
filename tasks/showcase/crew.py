"""Who works for a demo: the workers that run, or else one of its own, which ends with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import Celery
from rich.console import Console

from canvas import engine as engines
from canvas.doctor import ask_workers
from canvas.doctor_workers import Node
from canvas.up_workers import Group
from canvas.worker_info import definitions, is_workflow
from status import embedded
from status.places import Places
from tasks.demo_crew import Crew
from tasks.demo_stop import Interrupted, Stop

#: Workers have so long to say that they are there.
ASK_S = 1.0

#: Of a worker of its own: a batch of ten, and room for a turn beside it.
CONCURRENCY = 12

MODULES = ("tasks.catalogue", "tasks.catalogue_steps", "tasks.accounts", "tasks.jobs")


def tasks_of(app: Celery) -> list[Any]:
    """The catalogue's steps and workflows."""
    return [task for task in definitions(app) if (getattr(task, "body", None) or task.run).__module__ in MODULES]


def queues_of(app: Celery) -> list[str]:
    """The queues that the catalogue needs somebody for."""
    steps = {task.queue_of({}) for task in tasks_of(app)}
    turns = {engines.of(app).turn_queue(task.name) for task in tasks_of(app) if is_workflow(task)}
    return sorted(steps | turns)


def able(app: Celery, nodes: Sequence[Node]) -> bool:
    """Whether these workers serve all queues of the catalogue, and know what comes there."""
    names = {task.name for task in tasks_of(app)}
    knowing = [node for node in nodes if node.info and names <= {*node.info["steps"], *node.info["workflows"]}]
    served = {queue for node in knowing for queue in node.queues}
    return set(queues_of(app)) <= served


@contextmanager
def at_work(app: Celery, place: Places, console: Console, stop: Stop) -> Iterator[None]:
    """Somebody works for the catalogue until the end of the block.

    Raises:
        WorkersFailed: The worker did not start.
        Interrupted: `stop` was asked for meanwhile.
    """
    # A server that was started for this demo has no workers yet.
    fresh = place.embedded and embedded.started_here(place.data_dir) is not None
    nodes = [] if fresh else ask_workers(app, ASK_S)
    if able(app, nodes):
        console.print(
            f"done by the workers that run: {', '.join(node.name for node in nodes)}", style="dim", highlight=False
        )
        yield
        return
    what = "the workers that run do not serve all its queues" if nodes else "no worker runs"
    console.print(f"{what}: one is started, and ends with the demo …", style="dim", highlight=False)
    with _own(app, place, console, stop):
        yield


@contextmanager
def _own(app: Celery, place: Places, console: Console, stop: Stop) -> Iterator[None]:
    log = place.data_dir / f"demo-worker-{os.getpid()}.log"
    group = Group(name=f"demo-{os.getpid()}", queues=tuple(queues_of(app)), pool="prefork", concurrency=CONCURRENCY)
    crew = Crew(app, place, log, groups=[group])
    stop.hurry = crew.hurry
    try:
        crew.start(stop)
        yield
    except Interrupted:
        crew.hurry()
        raise
    except Exception:
        log = log.rename(log.with_name("demo-worker-failed.log"))
        console.print(f"what its worker said is in {log}", style="dim", soft_wrap=True, highlight=False)
        raise
    finally:
        crew.stop()
        stop.hurry = None
        (place.data_dir / f"demo-worker-{os.getpid()}.log").unlink(missing_ok=True)
