"""What each step of an order leaves behind: a line when its body begins, a row when it has had its effect.

The line is appended to a file, which no kill of a process takes back. The row is written in SQL: on celeriac
inside of `receipt`, as a user's own row would be. Neither lies in Redis, whose restarts are among the faults.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from celery import Celery
from sqlalchemy import Column, Integer, MetaData, String, Table, insert

from canvas import current_step
from saga import receipt
from saga.database import engine, transaction
from saga.schema import create_all

metadata = MetaData()

#: No key is unique here: what happened twice must show.
effects = Table(
    "chaos_effects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(200), nullable=False),
    Column("step", String(200), nullable=False),
    Column("task", String(200), nullable=False),
    Column("at_ms", Integer, nullable=False),
)


@dataclass(frozen=True)
class Entry:
    """A body that began, or an effect that was recorded."""

    at_ms: int
    run_id: str
    step: str  #: celeriac's step id; in stock Celery order and task, each of which an order has once
    task: str


def open_books(folder: Path) -> None:
    """Make the table and the file, once, before any worker comes."""
    create_all(engine(os.environ["DATABASE_URL"]), metadata)  # which the process that plays several runs changes
    _bodies(folder).touch()


def keep_books(app: Celery, folder: Path, seed: int, *, rest_ms: tuple[int, int]) -> None:
    """Let each body of the order say that it began, take its time, and record its effect.

    Args:
        rest_ms: The shortest and the longest time a body takes; which one, seed, order and step decide.
    """
    app.finalize()
    tasks: dict[str, Any] = app.tasks
    for name, task in tasks.items():
        if name.startswith("ours"):
            if not getattr(task, "is_workflow", False):
                task.run = _with_receipt(name, task.run, _Clerk(folder, seed, rest_ms))
        elif name.startswith("stock."):
            task.run = _as_stock(name, task.run, _Clerk(folder, seed, rest_ms))


class _Clerk:
    def __init__(self, folder: Path, seed: int, rest_ms: tuple[int, int]) -> None:
        self._file = _bodies(folder)
        self._seed = seed
        self._rest_ms = rest_ms

    def begin(self, run_id: str, step: str, task: str) -> None:
        line = f"{_now_ms()} {run_id} {step} {task}\n".encode()
        # One write to a file opened for appending: lines of several processes never mix.
        sink = os.open(self._file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(sink, line)
        finally:
            os.close(sink)
        low, high = self._rest_ms
        time.sleep((low + crc32(f"{self._seed} {step}".encode()) % (high - low + 1)) / 1000)

    @staticmethod
    def row(run_id: str, step: str, task: str) -> dict[str, Any]:
        return {"run_id": run_id, "step": step, "task": task, "at_ms": _now_ms()}


def _with_receipt(name: str, work: Callable[..., Any], clerk: _Clerk) -> Callable[..., Any]:
    def body(*args: Any, **kwargs: Any) -> Any:
        here = current_step()
        clerk.begin(here.run_id, here.step_id, name)
        with transaction() as session, receipt(session) as r:
            if not r.done:
                r.store(work(*args, **kwargs))
                # An undo of what never happened has nothing to do.
                if r.undoes is None or r.acted:
                    session.execute(insert(effects), clerk.row(here.run_id, here.step_id, name))
            return r.value

    return body


def _as_stock(name: str, work: Callable[..., Any], clerk: _Clerk) -> Callable[..., Any]:
    def body(*args: Any, **kwargs: Any) -> Any:
        run_id = _order_id(args)
        step = f"{run_id}/{name.removeprefix('stock.')}"
        clerk.begin(run_id, step, name)
        value = work(*args, **kwargs)
        with transaction() as session:
            session.execute(insert(effects), clerk.row(run_id, step, name))
        return value

    return body


def _order_id(args: tuple[Any, ...]) -> str:
    """Each of the stock tasks is given the order itself or, last, its id."""
    return next((str(arg["id"]) for arg in args if isinstance(arg, dict)), str(args[-1]))


def begun(folder: Path) -> list[Entry]:
    """All bodies that ever began, in their order."""
    rows = (line.split() for line in _bodies(folder).read_text().splitlines())
    return [Entry(int(at_ms), run_id, step, task) for at_ms, run_id, step, task in rows]


def recorded(database: Path) -> list[Entry]:
    """All effects, in their order."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT at_ms, run_id, step, task FROM chaos_effects ORDER BY id").fetchall()
    return [Entry(*row) for row in rows]


def _bodies(folder: Path) -> Path:
    return folder / "bodies.log"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
