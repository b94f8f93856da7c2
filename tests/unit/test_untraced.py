"""Steps in place go without Celery's tracer only where nobody would notice."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery, current_task
from celery.app import trace

from canvas import Retry, TerminalError, step, telling, untraced
from canvas.perform import Here
from canvas.settling import write_here
from status.ahead import Finish
from status.records import Grant, PartRef

REF = PartRef("r", 3, "0", "n0", 1)
SPEC = {"task": "untraced.add", "label": "untraced.add", "queue": "celery", "args": [1, 2]}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(telling, "_watched", bytearray(1))


@pytest.fixture
def app():
    app = Celery("untraced", set_as_current=False)
    app.set_current()
    return app


def declared(app: Celery, function: Any, **options: Any) -> Any:
    declared = step(name=f"untraced.{function.__name__}", **options)(function)
    app.finalize()
    return app.tasks[declared.name]


def add(left: int, right: int) -> int:
    return left + right


def run(of: Any, spec: dict[str, Any], monkeypatch: Any) -> Finish:
    """Run it as a turn does that records it later; the engine has no part in that."""
    here = Here("t" * 32, Grant("granted", 1000, 0), 0.0, keeps="all")
    monkeypatch.setattr(
        untraced, "write_here", lambda _, here, finish, workflow: write_here(None, here, finish, workflow)
    )
    monkeypatch.setattr(untraced.engines, "of", lambda _: None)
    untraced.run(of, REF, spec, "w", here, where="w@h")
    assert here.kept is not None
    return here.kept


def goes_without(of: Any, spec: dict[str, Any]) -> bool:
    return untraced.nobody_listens(of.app) and untraced.is_plain(of, spec)


def test_a_step_that_nobody_listens_to_goes_without(app):
    assert goes_without(declared(app, add), SPEC)


def test_monitors_hear_of_each_step(app):
    telling.watch(True)

    assert not goes_without(declared(app, add), SPEC)


@pytest.mark.parametrize("signal", untraced.HEARD, ids=lambda signal: signal.name)
def test_whoever_listens_to_a_signal_hears_it(app, signal):
    def listener(**_: Any) -> None: ...

    added = declared(app, add)
    signal.connect(listener)
    try:
        assert not goes_without(added, SPEC)
    finally:
        signal.disconnect(listener)
    assert goes_without(added, SPEC)


@pytest.mark.parametrize("hook", [*untraced.HOOKS, *untraced.OWN_HOOKS])
def test_hooks_of_a_class_are_called(app, hook):
    kind = type("Hooked", (type(declared(app, add)),), {hook: lambda *_: None})

    assert not goes_without(kind(), SPEC)


def test_another_tracer_in_the_place_of_celerys_sees_each_step(app, monkeypatch):
    added = declared(app, add)
    monkeypatch.setattr(trace, "build_tracer", lambda *_: None)

    assert not goes_without(added, SPEC)


def test_a_step_whose_errors_are_stored_goes_by_the_tracer(app):
    def keeps_errors() -> None: ...

    assert not goes_without(declared(app, keeps_errors, store_errors_even_if_ignored=True), SPEC)


@pytest.mark.parametrize("hook", untraced.HOOKS)
def test_a_hook_that_a_step_is_given_later_is_called_for_each(app, hook, monkeypatch):
    added = declared(app, add)
    monkeypatch.setattr(added, hook, lambda *_: None, raising=True)

    assert not goes_without(added, SPEC)


def test_a_tracer_around_celerys_is_called_for_each_step(app, monkeypatch):
    celerys = trace.build_tracer

    @functools.wraps(celerys)
    def around(*args: Any, **kwargs: Any) -> Any:
        return celerys(*args, **kwargs)

    monkeypatch.setattr(trace, "build_tracer", around)

    assert not goes_without(declared(app, add), SPEC)


@pytest.mark.parametrize("hook", untraced.LOADERS_HOOKS)
def test_a_loader_is_told_of_each_step(app, hook):
    added = declared(app, add)
    app.loader = type("Own", (type(app.loader),), {hook: lambda *_: None})(app)

    assert not goes_without(added, SPEC)


def test_an_undo_with_a_log_goes_by_the_tracer(app):
    assert not goes_without(declared(app, add), SPEC | {"log": "key"})


def test_it_is_the_current_task_meanwhile(app, monkeypatch):
    def who() -> list[Any]:
        request = current_task.request
        assert (request.hostname, request.group, request.timelimit) == ("w@h", f"r/{REF.n}", [None, None])
        assert (request.lang, request.stamps) == ("py", {})
        assert (request.argsrepr, request.kwargsrepr, request.reply_to) == ("(…)", "{…}", "")
        return [current_task.name, request.id, request.shadow, request.retries]

    finish = run(declared(app, who), SPEC | {"args": [], "label": "Who"}, monkeypatch)

    assert finish.outcome == f'v["untraced.who","{REF.message_id}","Who",0]'
    assert not current_task


def test_a_success_is_logged_as_the_tracer_does(app, monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    finish = run(declared(app, add), SPEC, monkeypatch)

    assert (finish.kind, finish.outcome) == ("done", "v3")
    [line] = caplog.messages
    assert line.startswith(f"Task untraced.add[{REF.message_id}] succeeded in ")
    assert line.endswith("s: 3")


@dataclass
class Login:
    user: str
    password: str = field(repr=False)


def test_a_log_line_shows_what_repr_shows_and_the_label(app, monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    def log_in() -> Login:
        return Login("u", "hunter2")

    run(declared(app, log_in), SPEC | {"args": [], "label": "Log in"}, monkeypatch)

    [line] = caplog.messages
    assert line.startswith("Task Log in[")
    assert "Login(user='u')" in line
    assert "hunter2" not in line


def test_a_failure_is_logged_with_its_traceback(app, monkeypatch, caplog):
    def fails() -> None:
        raise ValueError("no such thing")

    finish = run(declared(app, fails, retry=Retry(1)), SPEC | {"args": [], "label": "untraced.fails"}, monkeypatch)

    assert finish.kind == "failed"
    [record] = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "ERROR",
        f"Task untraced.fails[{REF.message_id}] raised unexpected: ValueError('no such thing')",
    )
    assert record.exc_info is not None
    assert record.exc_info[2] is not None


@pytest.mark.parametrize(
    ("error", "expected"),
    [(TerminalError("gone"), ("failed", "raised expected")), (OSError(5), ("retry", "retry"))],
)
def test_business_as_usual_is_a_line(app, monkeypatch, caplog, error, expected):
    def gives_up() -> None:
        raise error

    gives_up.__name__ += type(error).__name__  # declarations stay for all apps of a process

    caplog.set_level(logging.INFO)
    finish = run(declared(app, gives_up), SPEC | {"args": []}, monkeypatch)

    [record] = caplog.records
    kind, said = expected
    assert (finish.kind, record.levelname, record.exc_info) == (kind, "INFO", None)
    assert f"] {said}: {error!r}" in record.getMessage()
