"""An app whose processes die at a chosen point: a run's id says at which, and each point is passed but once.

The id `finish.before.2` kills the process that is about to call `finish` for that run the second time;
`begin.after.1:release.before.1` has two such points. Only where `CRASH_MARKS` names a folder: there each passage leaves
a file, so that all processes count together. `sweep` belongs to no run: the file `arm.sweep.before` asks for it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import Column, Integer, MetaData, String, Table, insert

import canvas
from canvas import Retry, Run, current_step, fan_out_fail, step, workflow
from canvas.publisher import Publisher
from saga import Saga, receipt
from saga.database import engine, transaction
from saga.schema import create_all
from status.scripts import Scripts

app = Celery("crashing", broker=os.environ.get("REDIS_URL"))
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
canvas.install(app)

MARKS = os.environ.get("CRASH_MARKS")

metadata = MetaData()
effects = Table(
    "effects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(200), nullable=False),
    Column("what", String(200), nullable=False),
)


# --- dying -----------------------------------------------------------------------------


def _pass(run_id: str, name: str, when: str) -> None:
    folder = Path(str(MARKS))
    if name == "sweep":
        try:
            (folder / f"arm.sweep.{when}").rename(folder / f"sweep.{when}.1")
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
    for point in run_id.split(":"):
        where, _, number = point.rpartition(".")
        if where == f"{name}.{when}" and _passage(folder / f"{run_id}.{where}") == int(number):
            os.kill(os.getpid(), signal.SIGKILL)


def _passage(mark: Path) -> int:
    """How often this point has been passed, by whatever process."""
    number = 1
    while True:
        try:
            os.close(os.open(f"{mark}.{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            number += 1
        else:
            return number


@contextmanager
def _around(run_id: str, name: str) -> Iterator[None]:
    _pass(run_id, name, "before")
    yield
    _pass(run_id, name, "after")


def _hook() -> None:
    call, send = Scripts.call, Publisher._send

    def call_or_die(self: Scripts, name: str, keys: Any, args: Any, meanwhile: Any = None) -> Any:
        with _around(keys[0].partition(":run:")[2], name):
            return call(self, name, keys, args, meanwhile)

    def send_or_die(self: Publisher, messages: Any) -> None:
        headers = messages[0].headers if messages else {"id": "", "root_id": ""}
        with _around(headers["root_id"], "publish_turn" if "/turn~" in headers["id"] else "publish_steps"):
            send(self, messages)

    Scripts.call = call_or_die  # type: ignore[method-assign]
    Publisher._send = send_or_die  # type: ignore[method-assign]


if MARKS:
    create_all(engine(), metadata)
    _hook()


# --- the order -------------------------------------------------------------------------


def _once(what: str) -> str:
    with transaction() as session, receipt(session) as r:
        if not r.done:
            if r.undoes is None or r.acted:
                session.execute(insert(effects), {"run_id": current_step().run_id, "what": what})
            r.store(what)
        return str(r.value)


@step(name="crashing.effect", retry=Retry(1))
def effect(what: str, rest_s: float = 0) -> str:
    threading.Event().wait(rest_s)
    return _once(what)


@step(name="crashing.effect_here", retry=Retry(1), local=True)
def effect_here(what: str) -> str:
    return _once(what)


@step(name="crashing.undo")
def undo(what: str | None) -> None:
    _once("undo")


@step(name="crashing.other")
def other() -> str:
    return "never"


@workflow(name="crashing.order")
async def order(run: Run) -> list[str]:
    async with Saga(run, "s") as saga:
        run.update_status(phase="begun")
        a, b = await fan_out_fail(effect.s("a"), effect.s("b"))
        c = await saga.safe_step("c").with_compensation(undo).execute(effect.s("c"))
        await run.sleep(0.2)
        d = await effect.s("d", 1.3)  # long enough to be vouched for
        run.update_status(phase="ended")
    return [a, b, c, d]


@workflow(name="crashing.near")
async def near(run: Run) -> list[str]:
    """The same in place: whatever its steps take, none of them is a message."""
    async with Saga(run, "s") as saga:
        run.update_status(phase="begun")
        a, b = await fan_out_fail(effect_here.s("a"), effect_here.s("b"))
        c = await saga.safe_step("c").with_compensation(undo).execute(effect_here.s("c"))
        await run.sleep(0.2)
        d = await effect_here.s("d")
        run.update_status(phase="ended")
    return [a, b, c, d]


@workflow(name="crashing.late")
async def late(run: Run) -> None:
    """Its time is up while it sleeps."""
    async with Saga(run, "s") as saga:
        await saga.safe_step("c").with_compensation(undo).execute(effect.s("c"))
        await run.sleep(600)


@workflow(name="crashing.bent")
async def bent(run: Run) -> list[str]:
    """Another workflow, as long as the file `bent` is there."""
    if (Path(str(MARKS)) / "bent").exists():
        return [await other.s()]
    return [await effect.s("a"), await effect.s("b")]
