"""Reads calls of a workflow from a file, checks all of them, and only then submits the first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, BinaryIO, NoReturn, Protocol, cast
from uuid import uuid4

from celery import Celery

from status.errors import OrchestrationError, PayloadError, RunConflict, UnknownWorkflow
from status.reading import Reader
from status.records import check_run_id

#: So many runs are asked for at once.
CHUNK = 500

#: A line with one of `args` and `kwargs`, and nothing but these, says how to call the workflow.
ENVELOPE = frozenset({"run_id", "args", "kwargs"})


class Submittable(Protocol):
    """What a workflow is to this module: `canvas` is not known here."""

    name: str

    def write_input(self, args: Any, kwargs: Any) -> str: ...
    def submit(self, *args: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Line:
    """One call, as a line of the file has it."""

    number: int
    run_id: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    text: str  #: the arguments as the run keeps them


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIds:
    """How runs get their ids: given by the line, made of one of its fields, or fresh.

    Attributes:
        field: Of the workflow's single argument; None: no field.
        prefix: Put before the field's value.
    """

    field: str | None = None
    prefix: str = ""

    @property
    def repeatable(self) -> bool:
        """Whether the same file gives the same ids again."""
        return self.field is not None

    def of(self, given: str | None, argument: Any, workflow: str) -> str:
        """The id for a line.

        Raises:
            PayloadError: The field is missing, or is neither text nor a whole number.
            ConfigError: The id is malformed.
        """
        if given is not None:
            return check_run_id(given)
        if self.field is None:
            return check_run_id(f"{self.prefix or workflow.rpartition('.')[2] + '-'}{uuid4().hex[:16]}")
        if not isinstance(argument, Mapping) or self.field not in argument:
            raise PayloadError(f"has no field {self.field!r} to make a run id of: add it, or change --run-id-field")
        value = argument[self.field]
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise PayloadError(f"the field {self.field!r} must be text or a whole number for a run id, got {value!r}")
        return check_run_id(f"{self.prefix}{value}")


def find_workflow(app: Celery, name: str) -> Submittable:
    """The app's workflow of that name.

    Raises:
        UnknownWorkflow: There is none; the message has those that there are.
    """
    app.loader.import_default_modules()
    found = app.tasks.get(name)
    if getattr(found, "is_workflow", False):
        return cast("Submittable", found)
    known = sorted(task for task, its in app.tasks.items() if getattr(its, "is_workflow", False))
    if found is not None:
        told = f"{name!r} is a task, not a workflow."
    else:
        close = get_close_matches(name, known, n=1)
        told = f"no workflow is called {name!r}" + (f", did you mean {close[0]!r}?" if close else ".")
    raise UnknownWorkflow(f"{told} This app's workflows are: {', '.join(known) or 'none'}")


def read_lines(workflow: Submittable, file: BinaryIO, ids: RunIds) -> list[Line]:
    """All calls of a file, checked.

    Raises:
        PayloadError: With file, line, value and remedy: a line is not UTF-8 or JSON, does not fit the
            workflow, or gives no run id; two lines give the same one; or there is no line.
    """
    seen: dict[str, int] = {}
    lines = []
    for number, text in _numbered(file):
        try:
            line = _line(workflow, number, text, ids)
        except OrchestrationError as error:
            _refuse(file, number, str(error))
        if line.run_id in seen:
            _refuse(
                file, number, f"the run id {line.run_id!r} is in line {seen[line.run_id]} already: each may be once"
            )
        seen[line.run_id] = number
        lines.append(line)
    if not lines:
        raise PayloadError(f"{name_of(file)}: there is nothing in it: write one JSON value a line")
    return lines


def refuse_taken(reader: Reader, workflow: Submittable, lines: Sequence[Line], file_name: str) -> None:
    """See that no id belongs to a run with other arguments.

    Raises:
        RunConflict: One does; with its line.
    """
    for at in range(0, len(lines), CHUNK):
        chunk = lines[at : at + CHUNK]
        pipe = reader.redis.pipeline(transaction=False)
        for line in chunk:
            pipe.hmget(reader.keys.run(line.run_id), ["workflow", "input"])
        for line, (name, text) in zip(chunk, pipe.execute(), strict=True):
            if name is not None and (name, text) != (workflow.name, line.text):
                raise RunConflict(
                    f"{file_name}:{line.number}: run id {line.run_id!r} is taken by a run of "
                    + ("another workflow" if name != workflow.name else "other arguments")
                    + ": choose another id (--run-id-prefix), or submit what that run has; nothing was submitted"
                )


def submit_all(workflow: Submittable, lines: Sequence[Line], *, again: bool) -> Iterator[Line]:
    """Submit them, giving each as it is submitted.

    Args:
        again: Whether the same command would use the same ids.

    Raises:
        OrchestrationError: As `submit` does; the message says how far it came.
    """
    for done, line in enumerate(lines):
        try:
            workflow.submit(*line.args, run_id=line.run_id, **line.kwargs)
        except OrchestrationError as error:
            _explain_partial(error, done, lines, again=again)
        yield line


def _explain_partial(error: OrchestrationError, done: int, lines: Sequence[Line], *, again: bool) -> NoReturn:
    if done == 0:
        raise error
    how = (
        "run the same command again, runs that exist are not started twice"
        if again
        else f"submit the file again from line {lines[done].number} on"
    )
    raise type(error)(f"{done} of {len(lines)} runs were submitted, then: {error}; {how}") from error


def name_of(file: BinaryIO) -> str:
    """What a file is called in messages."""
    return str(getattr(file, "name", "<stdin>"))


def _numbered(file: BinaryIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        try:
            # Some editors put a mark before the first line.
            text = line.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            _refuse(file, number, f"is not UTF-8 (byte {error.object[error.start]:#x}): save the file as UTF-8")
        if text.strip():
            yield number, text


def _line(workflow: Submittable, number: int, text: str, ids: RunIds) -> Line:
    given, args, kwargs = _call(_json(text))
    run_id = ids.of(given, args[0] if args else kwargs, workflow.name)
    try:
        return Line(number, run_id, args, kwargs, workflow.write_input(args, kwargs))
    except PayloadError as error:
        raise PayloadError(f"{error}: correct this line") from error


def _call(value: Any) -> tuple[str | None, Sequence[Any], Mapping[str, Any]]:
    """What a line says: run id, args and kwargs."""
    if not isinstance(value, dict) or not value.keys() <= ENVELOPE or not value.keys() & {"args", "kwargs"}:
        return None, [value], {}
    run_id, args, kwargs = value.get("run_id"), value.get("args", []), value.get("kwargs", {})
    if run_id is not None and not isinstance(run_id, str):
        raise PayloadError(f"run_id must be text, got {run_id!r}")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise PayloadError('args must be a list and kwargs an object: {"run_id": "a", "args": [1], "kwargs": {}}')
    return run_id, args, kwargs


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 15) : error.pos + 15].strip()
        raise PayloadError(
            f"is not JSON ({error.msg} at column {error.colno}, near {near!r}): write one JSON value a line"
        ) from error


def _no_constant(name: str) -> NoReturn:
    raise PayloadError(f"{name} is not JSON: write a number, or null")


def _refuse(file: BinaryIO, number: int, what: str) -> NoReturn:
    raise PayloadError(f"{name_of(file)}:{number}: {what}; nothing was submitted")
