"""Which queue a step's messages go to."""

from __future__ import annotations

import pytest
from celery import Celery

from canvas import step


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
