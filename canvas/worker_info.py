"""What a worker says of itself when the doctor asks: version, clock, and which code it runs."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from time import time
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from celery.worker.control import inspect_command

from canvas.step import Definition

if TYPE_CHECKING:
    from celery import Celery

COMMAND = "celeriac_info"


@inspect_command(name=COMMAND)
def answer(state: Any, **_: Any) -> dict[str, Any]:
    """Version, process, clock, and the steps and workflows that this worker knows."""
    # Celery imports the commands of all that is installed, so a worker of any app may know this question.
    pulse = getattr(state.consumer.controller, "celeriac_pulse", None)
    return describe(state.app) | {"installed": bool(pulse)}


def describe(app: Celery) -> dict[str, Any]:
    """This process, in plain JSON values.

    Returns:
        `version` of celeriac, `python` (as 3.11), `pid`, `now_ms` by its wall clock; `steps` and `workflows`, the
        names that it knows; `modules`: name -> digest of the code that it has loaded.
    """
    known = definitions(app)
    return {
        "version": version(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "pid": os.getpid(),
        "now_ms": int(time() * 1000),
        "steps": sorted(task.name for task in known if not is_workflow(task)),
        "workflows": sorted(task.name for task in known if is_workflow(task)),
        "modules": modules(known),
    }


def definitions(app: Celery) -> list[Any]:
    """The app's steps and workflows."""
    return [task for task in app.tasks.values() if isinstance(task, Definition)]


def is_workflow(task: Any) -> bool:
    """Whether it is one; else it is a step."""
    return bool(getattr(task, "is_workflow", False))


@cache
def version() -> str:
    """Of celeriac, as installed."""
    try:
        return metadata.version("celeriac")
    except metadata.PackageNotFoundError:
        return "unknown"


def modules(known: Iterable[Any]) -> dict[str, str]:
    """The modules of steps and workflows, each with a digest of its code."""
    bodies: dict[str, list[FunctionType]] = {}
    for task in known:
        body = getattr(task, "body", None) or task.run
        if inspect.isfunction(body) and body.__module__ != "__main__":
            bodies.setdefault(body.__module__, []).append(body)
    return {name: digest(name, functions) for name, functions in sorted(bodies.items())}


def digest(module: str, bodies: Iterable[FunctionType]) -> str:
    """Of the code of a module as this process has it loaded: its file may be newer.

    Args:
        bodies: Of its steps and workflows, whose names in the module stand for tasks.
    """
    found = {f"{function.__qualname__}:{function.__name__}": function.__code__ for function in _functions(module)}
    found |= {body.__qualname__: body.__code__ for body in bodies}
    told = hashlib.sha256()
    for name in sorted(found):
        told.update(f"\0{name}\0".encode())
        for text in _texts(found[name]):
            told.update(text)
    return told.hexdigest()[:12]


def _functions(module: str) -> Iterator[FunctionType]:
    # vars() of the type itself: a proxy of a task must not be asked what it is.
    for value in list(vars(sys.modules.get(module, object)).values()):
        if type(value) is FunctionType and value.__module__ == module:
            yield value
        elif isinstance(type(value), type) and issubclass(type(value), type) and value.__module__ == module:
            yield from (method for method in vars(value).values() if type(method) is FunctionType)


def _texts(code: CodeType) -> Iterator[bytes]:
    """What makes a function do what it does; neither lines nor places of files."""
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags)).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _texts(constant)
        elif isinstance(constant, frozenset):  # its order is another in each process
            yield repr(sorted(map(repr, constant))).encode()
        else:
            yield repr(constant).encode()
