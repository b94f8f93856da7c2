"""Each mistake is answered by what says how to put it right; and `docs/mistakes.md` shows it as it is printed."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from canvas import (
    NonDeterministic,
    Retry,
    Run,
    RunConflict,
    RunFailed,
    TerminalError,
    TimedOut,
    fan_out,
    process_batch,
    race,
    step,
    workflow,
)
from canvas.unknown import _Unknown
from clients import Client, client
from saga import Saga

PAGE = Path(__file__).parent.parent.parent / "docs" / "mistakes.md"

_SECTION = re.compile(r"^### (?P<title>.+?)$(?P<text>.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^```text\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def shown() -> dict[str, str]:
    """What the page says that each mistake prints."""
    sections = _SECTION.finditer(PAGE.read_text())
    return {one["title"]: "\n".join(text["text"] for text in _PRINTED.finditer(one["text"])) for one in sections}


def stable(text: str) -> str:
    """What is the same each time: neither lines of code, times, nor how long a line is here."""
    text = re.sub(r"[\w/.-]+\.py:\d+", "FILE:LINE", text)
    text = re.sub(r"\d+\.\d+ s\b", "N s", text)
    text = re.sub(r"0x[0-9a-f]+|127\.0\.0\.1:\d+", "N", text)
    return re.sub(r"\s+", " ", text).strip()


# --- an app --------------------------------------------------------------------------------


@step(name="desk.check")
def check(account: int) -> int:
    return account


@step(name="desk.charge", retry=Retry(1))
def charge(cents: int) -> str:
    if cents > 100:
        raise TerminalError("the card was refused", code=402)
    return "paid"


@step(name="desk.post", queue="mail")
def post(to: str) -> None: ...


@step(name="desk.refund")
def refund(receipt: str) -> None: ...


#: The body of the workflow, as a test has it.
body: list[Callable[[Run], Any]] = []


@workflow(name="desk.pay")
async def pay(run: Run) -> Any:
    return await body[-1](run)


@workflow(name="desk.bill")
async def bill(run: Run, cents: int) -> str:
    return await charge.s(cents)


@pytest.fixture
def desk(redis_url, redis_client, tmp_path, monkeypatch) -> Iterator[Client]:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'saga.db'}")
    with client("desk", redis_url, redis_client, monkeypatch) as made:
        yield made


def error_of(desk: Client, flow: Callable[[Run], Any]) -> str:
    """The error of a run of this workflow, with its notes."""
    body.append(flow)
    desk.submit(pay, run_id="order-7")
    info = desk.error("order-7")
    # What a person sees in `runs show`, or the last lines of its traceback if they say more.
    notes = [line for line in info.traceback.splitlines() if line.startswith(("a workflow has", "desk."))]
    return "\n".join([f"{info.error_type.rpartition('.')[2]}: {info.message}", *notes])


def raised(act: Callable[[], object]) -> str:
    try:
        act()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is printed
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
    return "nothing was raised"


# --- the mistakes --------------------------------------------------------------------------


def call_as_a_condition(desk: Client, _: Any) -> str:
    async def flow(run: Run) -> None:
        if check.s(1):
            ...

    return error_of(desk, flow)


def join_without_await(desk: Client, _: Any) -> str:
    async def flow(run: Run) -> None:
        _ = fan_out(check.s(1), check.s(2)).failed  # type: ignore[attr-defined]

    return error_of(desk, flow)


def step_called_like_a_function(desk: Client, _: Any) -> str:
    async def flow(run: Run) -> None:
        check(1)

    return error_of(desk, flow)


def call_as_an_argument(desk: Client, _: Any) -> str:
    async def flow(run: Run) -> None:
        await charge.s(check.s(1))  # type: ignore[arg-type]

    return error_of(desk, flow)


def list_of_calls(desk: Client, _: Any) -> str:
    async def flow(run: Run) -> None:
        await fan_out([check.s(1), check.s(2)])  # type: ignore[call-overload]

    return error_of(desk, flow)


def join_in_a_join(desk: Client, _: Any) -> str:
    async def flow(run: Run) -> None:
        await race(fan_out(check.s(1)), check.s(2))  # type: ignore[call-overload]

    return error_of(desk, flow)


def submit_in_a_workflow(desk: Client, _: Any) -> str:
    async def submits(run: Run) -> None:
        bill.submit(5)

    async def waits(run: Run) -> None:
        bill.handle("other").result()

    async def delays(run: Run) -> None:
        check.delay(1)

    async def joins(run: Run) -> None:
        fan_out(check.s(1)).submit()

    said = []
    for number, flow in enumerate((submits, waits, delays, joins)):
        body.append(flow)
        desk.submit(pay, run_id=f"order-{number}")
        said.append(f"ConfigError: {desk.error(f'order-{number}').message}")
    return "\n".join(said)


def asyncio_in_a_workflow(desk: Client, _: Any) -> str:
    async def flow(run: Run) -> None:
        await asyncio.sleep(1)

    return error_of(desk, flow)


def call_under_asyncio(desk: Client, _: Any) -> str:
    async def main() -> None:
        await check.s(1)

    return raised(lambda: asyncio.run(main()))


def other_awaitable(desk: Client, _: Any) -> str:
    class Query:
        def __await__(self) -> Iterator[str]:
            yield "rows"

    async def flow(run: Run) -> None:
        await Query()

    return error_of(desk, flow)


def chance_in_a_workflow(desk: Client, _: Any) -> str:
    drawn: list[int] = []

    async def flow(run: Run) -> None:
        drawn.append(uuid4().int)
        if len(drawn) == 1:
            await check.s(1)
        else:
            await charge.s(1)

    said = error_of(desk, flow)
    assert desk.state("order-7") == "suspended"
    assert said.startswith(NonDeterministic.__name__)
    return said


def slow_code(desk: Client, caplog: Any) -> str:
    async def flow(run: Run) -> None:
        threading.Event().wait(1.1)
        await check.s(1)

    desk.hold.add("desk.check")
    body.append(flow)
    desk.submit(pay, run_id="order-7")
    return one_warning(caplog, "of its own code")


def one_warning(caplog: Any, having: str) -> str:
    (record,) = [one for one in caplog.records if having in one.getMessage()]
    assert record.levelno == logging.WARNING
    return f"WARNING {record.getMessage()}"


def very_many_calls(desk: Client, caplog: Any) -> str:
    fan_out(*[check.s(n) for n in range(1000)])
    assert caplog.records == []
    fan_out(*[check.s(n) for n in range(1001)])
    return one_warning(caplog, "fan_out of")


def unseen_failures(desk: Client, caplog: Any) -> str:
    async def flow(run: Run) -> str:
        await fan_out(charge.s(5), charge.s(500))
        await check.s(1)
        return "sent"

    body.append(flow)
    desk.submit(pay, run_id="order-7")
    assert desk.state("order-7") == "completed"
    return one_warning(caplog, "nobody looked")


def async_step(desk: Client, _: Any) -> str:
    async def fetch(url: str) -> str:
        return url

    fetch.__module__, fetch.__qualname__ = "desk", "fetch"
    return raised(lambda: step(fetch))


def plain_workflow(desk: Client, _: Any) -> str:
    def book(run: Run) -> None: ...

    return raised(lambda: workflow(name="desk.book")(book))  # type: ignore[arg-type]


def celery_options(desk: Client, _: Any) -> str:
    def mail(to: str) -> None: ...

    mail.__module__, mail.__qualname__ = "desk", "mail"
    options: list[dict[str, Any]] = [{"bind": True}, {"autoretry_for": (OSError,)}, {"on_retry": print}]
    return "\n".join(raised(lambda given=given: step(**given)(mail)) for given in options)  # type: ignore[misc]


def celery_retry(desk: Client, _: Any) -> str:
    return raised(check.retry)


def celery_set(desk: Client, _: Any) -> str:
    return raised(lambda: check.s(1).set(countdown=5))


def undo_without_none(desk: Client, _: Any) -> str:
    async def flow(run: Run) -> None:
        async with Saga(run, "order") as saga:
            await saga.safe_step("charge").with_compensation(refund).execute(charge.s(5))  # type: ignore[arg-type]

    return error_of(desk, flow)


def exception_in_a_step(desk: Client, _: Any) -> str:
    handle = bill.submit(500, run_id="order-7")
    desk.play()
    with pytest.raises(RunFailed) as failed:
        handle.result(timeout_s=5)
    assert (failed.value.code, failed.value.error_type) == (402, "status.errors.TerminalError")
    (shown_step,) = handle.status().steps
    assert shown_step.error is not None
    assert 'raise TerminalError("the card was refused", code=402)' in shown_step.error.traceback
    return f"RunFailed: {failed.value}"


def unknown_step(desk: Client, _: Any) -> str:
    handle = post.s("ada").submit(run_id="mail-1")
    desk.inbox.pop(0)
    from canvas.turn import take_turn

    take_turn(desk.engine, "mail-1")
    (ref, _spec), *_ = desk.inbox
    worker = SimpleNamespace(app=desk.app, hostname="mail@host-3", on_unknown_task=None)
    _Unknown(worker, lambda *_: None)._turn_down(ref.message_id, "desk.post")
    return too_late(handle)


def too_late(handle: Any) -> str:
    with pytest.raises(TimedOut) as late:
        handle.result(timeout_s=0.1)
    return f"TimedOut: {late.value}"


def unserved_queue(desk: Client, _: Any) -> str:
    handle = post.s("ada").submit(run_id="mail-1")
    desk.hold.add("desk.post")
    from canvas.turn import take_turn

    take_turn(desk.engine, "mail-1")
    return too_late(handle)


def no_worker(desk: Client, _: Any) -> str:
    return too_late(bill.submit(5, run_id="order-7"))


def same_id(desk: Client, _: Any) -> str:
    bill.submit(5, run_id="order-7")
    with pytest.raises(RunConflict) as conflict:
        bill.submit(6, run_id="order-7")
    return f"RunConflict: {conflict.value}"


def wrong_argument(desk: Client, _: Any) -> str:
    return raised(lambda: bill.submit("five"))  # type: ignore[arg-type]


def big_argument(desk: Client, _: Any) -> str:
    return raised(lambda: post.s("x" * 2_000_000))


def iterator_twice(desk: Client, _: Any) -> str:
    batch = process_batch(check, iter([1, 2]), 10)
    batch.submit()
    return raised(batch.submit)


MISTAKES: dict[str, Callable[[Client, Any], str]] = {
    "A call as a condition": call_as_a_condition,
    "A join's values without `await`": join_without_await,
    "A step called like a function": step_called_like_a_function,
    "A call as an argument": call_as_an_argument,
    "A list of calls": list_of_calls,
    "A join in a join": join_in_a_join,
    "Submitting, waiting or delaying in a workflow": submit_in_a_workflow,
    "asyncio in a workflow": asyncio_in_a_workflow,
    "Something else awaited": other_awaitable,
    "A call awaited by asyncio": call_under_asyncio,
    "Chance or the clock in a workflow, or changed code": chance_in_a_workflow,
    "Slow code between two awaits": slow_code,
    "Very many calls in one fan_out": very_many_calls,
    "Failures that nobody looked at": unseen_failures,
    "An `async def` as a step": async_step,
    "A `def` as a workflow": plain_workflow,
    "Celery's options for retries, hooks and `self`": celery_options,
    "`self.retry()`": celery_retry,
    "`countdown` and `eta`": celery_set,
    "An undo that can't take None": undo_without_none,
    "An exception in a step": exception_in_a_step,
    "A step that the worker does not know": unknown_step,
    "A queue that no worker serves": unserved_queue,
    "No worker at all": no_worker,
    "The same run id for something else": same_id,
    "A wrong argument": wrong_argument,
    "A value that is too big": big_argument,
    "An iterator submitted twice": iterator_twice,
}

BY_THE_TYPE_CHECKER = "A call that is not awaited"


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_prints_what_the_page_says(title, desk, caplog):
    printed = MISTAKES[title](desk, caplog)
    assert stable(printed) == stable(shown().get(title, ""))


def test_the_page_has_no_mistake_without_a_test():
    assert set(shown()) == {*MISTAKES, BY_THE_TYPE_CHECKER}


def test_failures_of_a_submitted_fan_out_that_nobody_looked_at_are_told_too(desk, caplog):
    handle = fan_out(charge.s(5), charge.s(500)).submit(run_id="both")
    desk.play()
    looked = handle.result(timeout_s=5)
    assert looked.failed == 1
    del looked
    gc.collect()
    assert "nobody looked" not in caplog.text

    handle.result(timeout_s=5)
    gc.collect()

    assert "run both: 1 of a fan_out failed and nobody looked" in one_warning(caplog, "nobody looked")


def test_one_warning_however_often_the_workflow_is_replayed(desk, caplog):
    """`unseen_failures` awaits once more after its fan_out: it is replayed, and warns when it ends."""
    unseen_failures(desk, caplog)


def test_a_call_that_is_not_awaited_is_found_by_the_type_checker(tmp_path):
    page = PAGE.read_text()
    (settings,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(settings)
    (tmp_path / "desk.py").write_text(
        "from canvas import Run, step, workflow\n\n@step\ndef check(account: int) -> int:\n    return account\n\n"
        "@workflow(name='desk.pay')\nasync def pay(run: Run) -> None:\n    check.s(1)\n"
    )

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "desk.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    (said,) = [line for line in done.stdout.splitlines() if " error: " in line]
    assert stable(said) == stable(shown()[BY_THE_TYPE_CHECKER].strip())
