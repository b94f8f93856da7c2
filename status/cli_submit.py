"""`celery runs submit`: the command around `cli_lines`, with its progress and its waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

import click
from celery import Celery
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from status import cli_text as text
from status import here
from status.cli_lines import Line, RunIds, Submittable, find_workflow, name_of, read_lines, refuse_taken, submit_all
from status.states import State

T = TypeVar("T")

#: Fewer are over before a bar could be read.
WORTH_A_BAR = 50


def submit_file(
    app: Celery,
    workflow_name: str,
    file: BinaryIO,
    *,
    run_id_field: str | None,
    run_id_prefix: str,
    wait: bool,
    as_json: bool,
) -> int:
    """Check all lines, submit all, and wait for them if asked to. Returns the exit code."""
    workflow = find_workflow(app, workflow_name)
    ids = RunIds(field=run_id_field, prefix=run_id_prefix)
    lines = read_lines(workflow, file, ids)
    refuse_taken(here.reader(), workflow, lines, name_of(file))
    with _bar("submitting", len(lines), shown=len(lines) >= WORTH_A_BAR) as advance:
        for line in advance(submit_all(workflow, lines, again=ids.repeatable)):
            if not wait:
                _say(workflow, line, as_json=as_json)
    return _wait_for_all(workflow, lines, as_json=as_json) if wait else 0


def _say(workflow: Submittable, line: Line, *, as_json: bool, **more: Any) -> None:
    fields = {"run_id": line.run_id, "workflow": workflow.name, **more}
    click.echo(text.dumps(fields) if as_json else " ".join([line.run_id, *(str(value) for value in more.values())]))


def _wait_for_all(workflow: Submittable, lines: Sequence[Line], *, as_json: bool) -> int:
    """One after the other, which is as soon as all at once: the last to end decides."""
    reader, bad = here.reader(), 0
    with _bar("waiting", len(lines), shown=True) as advance:
        for line in advance(lines):
            reader.wait(line.run_id)
            state, _, error = reader.result(line.run_id)
            bad += state is not State.COMPLETED
            told = {"error": error.message} if error else {}
            _say(workflow, line, as_json=as_json, state=state.value, **told)
    click.echo(f"{len(lines) - bad} of {len(lines)} runs completed", err=True)
    return 1 if bad else 0


@contextmanager
def _bar(what: str, total: int, *, shown: bool) -> Iterator[Any]:
    """A bar on stderr if that is a terminal; gives what puts it on for each item of an iterable."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task(what, total=total)

        def advance(items: Iterable[T]) -> Iterator[T]:
            for item in items:
                yield item
                progress.advance(task)

        yield advance
