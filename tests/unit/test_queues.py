"""Which queue a step's messages go to."""

from __future__ import annotations

import pytest
from celery import Celery

from canvas import Run, step, workflow


@pytest.fixture
def app() -> Celery:
    made = Celery("queues", set_as_current=False, broker="memory://")
    made.conf.task_routes = {"mail.*": {"queue": "post"}}
    return made


@pytest.mark.parametrize(
    ("declared", "name", "given", "goes_to"),
    [
        (None, "walk", None, "celery"),
        (None, "mail.send", None, "post"),
        ("parcels", "mail.pack", None, "parcels"),
        ("parcels", "mail.hurry", "express", "express"),
    ],
)
def test_the_calls_queue_comes_before_the_declarations_and_that_before_the_routes(app, declared, name, given, goes_to):
    @step(name=name, queue=declared)
    def walk() -> None: ...

    task = app.tasks[name]

    assert task.queue_of({"queue": given} if given else {}) == goes_to


def test_a_queue_in_a_declaration_is_no_warning_and_stays_that_of_the_task(app, recwarn):
    """Celery warns of it, for it will not look at it any more. Here it is looked at."""

    @step(name="warned", queue="parcels")
    def walk() -> None: ...

    @workflow(name="warned.flow", queue="parcels")
    async def flow(run: Run) -> None: ...

    for task in (app.tasks["warned"], app.tasks["warned.flow"]):
        task.bind(app)  # as Celery does again for a worker
        assert (task.queue_of({}), task.queue) == ("parcels", "parcels")
        assert task._get_exec_options()["queue"] == "parcels"
    assert [str(one.message) for one in recwarn if "task attribute" in str(one.message)] == []
