"""Code that changes under runs: `run.patched`, and what a run says that its code no longer fits. A real Redis."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from canvas import ConfigError, Run, fan_out, step, workflow
from core import current_app
from status import operating
from turns import Turns


@step(name="changed.a")
def a() -> int:
    return 1


@step(name="changed.b")
def b() -> int:
    return 1


@step(name="changed.c")
def c() -> int:
    return 1


async def before(run: Run) -> str:
    await a.s()
    await b.s()
    await c.s()
    return "old"


async def patched(run: Run) -> str:
    """As it was; and, for runs that come to it for the first time, `c` in place of `b`."""
    await a.s()
    if run.patched("c first"):
        await c.s()
        await b.s()
        return "new"
    await b.s()
    await c.s()
    return "old"


async def dropped(run: Run) -> str:
    """The old way is gone."""
    await a.s()
    await c.s()
    await b.s()
    return "new"


#: What the workflow does now; a test changes it.
code: list[Any] = []


@workflow(name="changed.flow")
async def flow(run: Run) -> Any:
    return await code[-1](run)


@pytest.fixture
def turns(redis_client) -> Iterator[Turns]:
    code[:] = [before]
    with current_app() as app:
        yield Turns(app, redis_client)


def play(turns: Turns, n: int) -> None:
    """Until await `n` is open."""
    for at in range(n):
        turns.end(at)
        turns.take()


def asked(turns: Turns) -> str:
    """What the open await asks for."""
    return turns.store.open_as(turns.id, int(turns.field("open") or 0))[0].removeprefix("await(changed.").rstrip(")")


def finish(turns: Turns, at: int) -> Any:
    for n in range(at, 3):
        turns.end(n)
        turns.take()
    assert turns.state == "completed"
    return turns.field("result")


@pytest.mark.parametrize(
    ("reached", "result"),
    [
        (0, '"new"'),  # a is open: it has not come to the change
        (1, '"old"'),  # b is open: it went on from there with the old code
        (2, '"old"'),  # c is open
    ],
)
def test_a_run_from_before_keeps_its_way_and_one_that_comes_to_the_change_takes_the_new(turns, reached, result):
    turns.begun(flow)
    play(turns, reached)

    code.append(patched)
    turns.take()  # a turn that comes twice, while its await is still open

    assert turns.state == "running"
    assert finish(turns, reached) == result


def test_a_run_that_took_the_new_way_keeps_it_and_says_so_in_its_history(turns):
    code.append(patched)
    turns.begun(flow)
    play(turns, 1)

    assert asked(turns) == "c"
    assert turns.events().count("run.patched") == 1
    turns.take()
    assert finish(turns, 1) == '"new"'
    assert turns.events().count("run.patched") == 1


def test_the_call_can_be_dropped_once_no_run_from_before_is_left(turns):
    code.append(patched)
    turns.begun(flow)
    play(turns, 2)

    code.append(dropped)

    assert finish(turns, 2) == '"new"'


def test_dropped_too_soon_a_run_from_before_is_parked_and_goes_on_when_the_code_fits_again(turns):
    turns.begun(flow)
    play(turns, 2)
    code.append(dropped)
    turns.take()
    assert turns.parked.error_type == "status.errors.NonDeterministic"

    code.append(patched)
    turns.take()

    assert finish(turns, 2) == '"old"'


def test_one_run_gets_the_same_answer_at_each_place(turns):
    async def twice(run: Run) -> list[bool]:
        first = run.patched("x")
        await a.s()
        second = run.patched("x")
        await b.s()
        return [first, second, run.patched("x"), run.patched("y")]

    async def without(run: Run) -> None:
        await a.s()
        await b.s()

    code.append(without)
    turns.begun(flow)
    turns.end(0)
    code.append(twice)
    turns.take()
    turns.end(1)
    turns.take()

    assert turns.field("result") == "[false,false,false,true]"


def test_after_a_retry_a_run_takes_the_new_way_from_the_failed_await_on(turns):
    turns.begun(flow)
    turns.end(0)
    turns.take()
    turns.end(1, good=False)
    turns.take()
    assert turns.state == "failed"

    code.append(patched)
    operating.retry(turns.store, turns.id)
    turns.take()

    assert asked(turns) == "c"


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", 7])
def test_a_change_has_a_name(name):
    with pytest.raises(ConfigError, match=r"run\.patched: a name is 1 to 200 printable characters"):
        Run("r", "w", 0).patched(name)


# --- what a parked run says --------------------------------------------------------------


def line(text: str) -> str:
    """File and line of the code in this file that has this text, and no other."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [number for number, one in enumerate(lines, 1) if one.strip() == text]
    return f"integration/test_changed_code.py:{number}"


async def first_way(run: Run) -> None:
    await a.s()
    await b.s().named("as it was")


async def second_way(run: Run) -> None:
    await a.s()
    await fan_out(b.s(), c.s().named("as it is"))


async def third_way(run: Run) -> None:
    await a.s()


@pytest.mark.parametrize("still_open", [True, False])
def test_both_awaits_are_named_with_file_and_line_and_what_to_write(turns, still_open):
    code.append(first_way)
    turns.begun(flow)
    play(turns, 1)
    code.append(second_way)
    if not still_open:
        turns.end(1)
    turns.take()

    said = turns.parked.message

    was, now = line('await b.s().named("as it was")'), line('await fan_out(b.s(), c.s().named("as it is"))')
    assert f"await 1 of run r: the journal has await(changed.b) at {was}" in said
    assert f"the workflow now asks for fan_out(changed.b, changed.c) at {now}" in said
    assert re.search(r"run\.uuid\(\), run\.now\(\)", said)
    assert "run.patched" in said


@pytest.mark.parametrize("still_open", [True, False])
def test_an_await_that_is_no_longer_there_is_named_with_its_line(turns, still_open):
    code.append(first_way)
    turns.begun(flow)
    play(turns, 1)
    code.append(third_way)
    if not still_open:
        turns.end(1)
    turns.take()

    was = line('await b.s().named("as it was")')
    assert f"the journal has await(changed.b) at {was}" in turns.parked.message
    assert "the workflow now asks for nothing more" in turns.parked.message


def test_a_line_that_moved_is_no_other_way(turns):
    async def helper(run: Run) -> None:
        await a.s()
        await b.s()

    async def same_but_moved(run: Run) -> None:
        await a.s()

        await helper_of_b()

    async def helper_of_b() -> None:
        await b.s()

    code.append(helper)
    turns.begun(flow)
    play(turns, 1)
    code.append(same_but_moved)
    turns.take()
    assert turns.state == "running"
    turns.end(1)
    turns.take()

    assert turns.state == "completed"


def test_the_line_is_that_of_the_innermost_function_of_the_user(turns):
    async def outer(run: Run) -> None:
        await inner()

    async def inner() -> None:
        await c.s().named("inner")

    code.append(outer)
    turns.begun(flow)

    assert turns.store.open_as("r", 0) == ("await(changed.c)", line('await c.s().named("inner")'))


@pytest.mark.parametrize(
    "chance", [lambda: uuid4().int, lambda: datetime.now(UTC).microsecond], ids=["uuid4", "datetime.now"]
)
def test_chance_that_changes_the_path_parks_the_run_and_never_gives_a_wrong_result(turns, chance):
    async def by_chance(run: Run) -> str:
        drawn = chance()
        if drawn not in drawn_before:
            drawn_before.append(drawn)
        if len(drawn_before) % 2:
            await a.s()
            return "a"
        await b.s()
        return "b"

    drawn_before: list[int] = []
    code.append(by_chance)
    turns.begun(flow)
    turns.end(0)
    turns.take()

    said = turns.parked.message
    assert "await(changed.a)" in said
    assert "await(changed.b)" in said
    assert "run.uuid()" in said
    assert turns.field("result") is None


def test_a_run_that_takes_another_way_each_time_is_parked_with_the_first(turns):
    """The error says what was there when it was parked; nothing is thrown in, nothing undone."""
    code.append(first_way)
    turns.begun(flow)
    play(turns, 1)
    code.append(second_way)
    turns.take()

    assert turns.events().count("run.status") == 1
    turns.take()
    assert turns.events().count("run.status") == 1
    code.append(first_way)
    turns.end(1)
    turns.take()
    assert turns.state == "completed"
    assert turns.field("error") is None
