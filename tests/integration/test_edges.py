"""The edges of each join: nothing, one, the same twice, very many, joins in each other, values that can't be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from pydantic import BeforeValidator, PlainSerializer

from canvas import (
    FanOutResult,
    Join,
    RaceResult,
    Retry,
    Run,
    TerminalError,
    fan_out,
    fan_out_fail,
    map_concurrent,
    process_batch,
    promise,
    quorum,
    race,
    race_promise_with_timeout,
    step,
    with_timeout,
    workflow,
)
from canvas.joins import MANY
from clients import Client, client
from leaks import keys_without_end
from saga import Saga
from status import operating

#: What steps have done; and whether values can be read just now.
effects: list[Any] = []
unreadable: list[bool] = []


def _read(value: Any) -> int:
    if not isinstance(value, str):
        return int(value)
    if unreadable:
        raise ValueError("nobody can read this")
    return int(value.removeprefix("#"))


#: A number that is carried as a text, which some code can't read.
Moody = Annotated[int, BeforeValidator(_read), PlainSerializer(lambda n: f"#{n}", return_type=str)]


@step(name="edges.double")
def double(n: int) -> Moody:
    effects.append(n)
    return 2 * n


@step(name="edges.bad", retry=Retry(1))
def bad(n: int) -> Moody:
    raise TerminalError(f"bad {n}")


@step(name="edges.undo")
def undo(it: Moody | None, what: str = "") -> None:
    effects.append(f"undo {it}{what}")


@workflow(name="edges.child")
async def child(run: Run, n: int) -> Moody:
    if n < 0:
        raise LookupError(f"no {n}")
    return await double.s(n)


@workflow(name="edges.inner")
async def inner(run: Run, numbers: list[int]) -> list[Moody]:
    return list(await fan_out_fail(*(double.s(n) for n in numbers)))


Make = Callable[[list[int]], Join[Any]]

#: Each join, of a step for each number; those of all values give them in the order of the numbers.
ALL: dict[str, Make] = {
    "fan_out": lambda numbers: fan_out(*(double.s(n) for n in numbers)),
    "fan_out_fail": lambda numbers: fan_out_fail(*(double.s(n) for n in numbers)),
    "map_concurrent": lambda numbers: map_concurrent(double, numbers),
    "map_concurrent of children": lambda numbers: map_concurrent(child, numbers, 3),
    "process_batch": lambda numbers: process_batch(double, numbers, 7),
    "process_batch, settled": lambda numbers: process_batch(double, numbers, 7, settle=True),
    "with_timeout": lambda numbers: with_timeout(fan_out(*(double.s(n) for n in numbers)), 60),
    "with_timeout of a batch": lambda numbers: with_timeout(process_batch(double, numbers, 7), 60),
}
SOME: dict[str, Make] = {
    "race": lambda numbers: race(*(double.s(n) for n in numbers)),
    "quorum": lambda numbers: quorum(max(1, len(numbers)), *(double.s(n) for n in numbers)),
    "with_timeout of a race": lambda numbers: with_timeout(race(*(double.s(n) for n in numbers)), 60),
}
EACH = ALL | SOME
COUNTED = {"process_batch, counted": lambda numbers: process_batch(double, numbers, 7, collect=False)}


def plain(value: Any) -> Any:
    """What a join gave, in a form that is the same for all."""
    match value:
        case FanOutResult():
            assert not list(value.bad)
            return list(value.results)
        case RaceResult():
            return [value.value]
        case [(int(), int()), *_]:
            return [number for _, number in sorted(value)]
    return list(value)


@workflow(name="edges.one")
async def one(run: Run, name: str, numbers: list[int]) -> Any:
    return plain(await EACH[name](numbers))


@workflow(name="edges.counts")
async def counts(run: Run, numbers: list[int]) -> list[int]:
    found = await COUNTED["process_batch, counted"](numbers)
    return [found.succeeded, found.failed]


#: A workflow's body that a test sets.
body: list[Any] = []


@workflow(name="edges.flow")
async def flow(run: Run) -> Any:
    return await body[-1](run)


@pytest.fixture
def desk(redis_url, redis_client, tmp_path, monkeypatch) -> Iterator[Client]:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'saga.db'}")
    effects.clear()
    unreadable.clear()
    with client("edges", redis_url, redis_client, monkeypatch) as made:
        yield made


def outcome(desk: Client, name: str, numbers: list[int]) -> Any:
    desk.submit(one, name, numbers)
    assert desk.state() == "completed", desk.error()
    desk.sweep(1)
    assert desk.left() == set()
    assert keys_without_end(desk.redis) == []
    return json.loads(desk.redis.hget(desk.store.keys.run("top"), "result") or "")


@pytest.mark.parametrize("name", ALL)
def test_of_nothing_it_is_nothing_and_no_await(desk, name):
    assert outcome(desk, name, []) == []
    assert desk.journal("top") == {}


@pytest.mark.parametrize("name", SOME)
def test_of_nothing_there_is_no_first_and_it_says_so(desk, name):
    desk.submit(one, name, [])

    assert desk.state() == "failed"
    assert "at least one" in desk.error().message or "n must be from 1" in desk.error().message


@pytest.mark.parametrize("name", EACH)
def test_of_one_it_is_that_one(desk, name):
    assert outcome(desk, name, [3]) == [6]


@pytest.mark.parametrize("name", [*ALL, "quorum"])
def test_the_same_twice_is_done_twice(desk, name):
    assert outcome(desk, name, [5, 5, 1, 5]) == [10, 10, 2, 10]
    assert sorted(effects) == [1, 5, 5, 5]


@pytest.mark.parametrize("name", EACH)
def test_of_very_many_none_is_missing_and_none_is_twice(desk, name):
    size = 60 if "children" in name else MANY + 200 if name in ("fan_out", "race") else 600
    many = list(range(size))

    found = outcome(desk, name, many)

    assert found == ([2 * n for n in many] if name in ALL or name == "quorum" else [0])
    assert sorted(effects) == (many if name in ALL or name == "quorum" else sorted(effects))


@pytest.mark.parametrize("numbers", [[], [1], [2, 2], list(range(600))])
def test_counts_count_all_of_them(desk, numbers):
    desk.submit(counts, numbers)

    assert Client.result(desk, counts.handle("top")) == [len(numbers), 0]


@pytest.mark.parametrize("name", EACH)
def test_a_value_that_can_not_be_read_parks_the_run_and_it_goes_on_when_it_can(desk, name):
    unreadable.append(True)
    desk.submit(one, name, [4])

    if name == "map_concurrent of children":
        desk.inbox.append("top@0.0")  # it is the child that can't go on
        desk.play()
    assert desk.state() == "suspended" or desk.state("top@0.0") == "suspended"
    parked = desk.error("top@0.0" if "children" in name else "top")
    assert parked.error_type == "status.errors.PayloadError"
    assert "the result of edges.double: Value error, nobody can read this" in parked.message
    assert effects == [4]

    unreadable.clear()
    desk.sweep(8)
    assert desk.state() == "completed"
    assert desk.redis.hget(desk.store.keys.run("top"), "result") == "[8]"
    assert effects == [4]


@pytest.mark.parametrize("name", EACH)
def test_an_argument_that_does_not_fit_is_raised_at_the_await_and_nothing_starts(desk, name):
    async def misfits(run: Run) -> None:
        await EACH[name](["many"])  # type: ignore[list-item]

    body.append(misfits)
    desk.submit(flow)

    assert desk.state() == "failed"
    assert desk.error().error_type == "status.errors.PayloadError"
    assert "argument n of edges." in desk.error().message
    assert desk.journal("top") == {}


def test_one_call_used_twice_is_two_parts_and_two_awaits(desk):
    async def twice(run: Run) -> list[int]:
        call = double.s(3)
        join = fan_out_fail(call, call.named("other"), call)
        return [await call, await call, *await join, *await join]

    body.append(twice)
    desk.submit(flow)

    assert Client.result(desk, flow.handle("top")) == [6] * 8
    assert effects == [3] * 8


@pytest.mark.parametrize(
    "nest",
    [
        lambda: with_timeout(with_timeout(fan_out_fail(double.s(1), double.s(2)), 60), 90),
        lambda: fan_out_fail(inner.s([1, 2])),
        lambda: race(inner.s([1, 2]), double.s(9).after(60)),
        lambda: map_concurrent(inner, [[1, 2]]),
    ],
)
def test_a_join_in_another_is_a_child_or_a_time_limit(desk, nest):
    async def nested(run: Run) -> Any:
        found = await nest()
        return found.value if isinstance(found, RaceResult) else found

    body.append(nested)
    desk.submit(flow)

    found = Client.result(desk, flow.handle("top"))
    assert found in ([2, 4], [[2, 4]])


@pytest.mark.parametrize("name", ["map_concurrent", "process_batch", "process_batch, settled"])
def test_a_call_as_an_item_is_refused(desk, name):
    async def misfits(run: Run) -> None:
        await EACH[name]([1, double.s(1)])  # type: ignore[list-item]

    body.append(misfits)
    desk.submit(flow)

    assert "got a call of edges.double(...) for argument 1: await it first" in desk.error().message


# --- sleeps, promises ------------------------------------------------------------------


def test_a_sleep_that_is_raced_is_a_time_limit_without_an_error(desk):
    async def raced(run: Run) -> list[Any]:
        late = await race(double.s(1).named("slow"), run.sleep(60))
        quick = await race(double.s(2), run.sleep(60))
        return [late.index, late.name, late.value, quick.index, quick.value]

    body.append(raced)
    desk.hold.add("slow")
    desk.submit(flow)
    desk.fire("sleep")
    desk.let_go("slow")

    assert Client.result(desk, flow.handle("top")) == [1, "sleep", None, 0, 4]
    assert desk.left() == set()


def test_a_sleep_is_a_part_like_another(desk):
    async def slept(run: Run) -> list[Any]:
        return [await fan_out_fail(run.sleep(0), double.s(1)), await quorum(1, run.sleep(60), double.s(2))]

    body.append(slept)
    desk.submit(flow)
    desk.fire("sleep")

    assert Client.result(desk, flow.handle("top")) == [[None, 2], [[1, 4]]]


def test_a_promise_that_is_awaited_twice_in_one_join_gives_its_value_twice(desk):
    answer = promise("answer", int)

    async def asked(run: Run) -> list[Any]:
        both = await fan_out_fail(answer, answer)
        again = await race_promise_with_timeout(answer, 60)
        return [*both, again.value]

    body.append(asked)
    desk.submit(flow)
    answer.resolve("top", 7)
    desk.inbox.append("top")

    assert Client.result(desk, flow.handle("top")) == [7, 7, 7]


# --- workflows as a batch's step ---------------------------------------------------------


@workflow(name="edges.batch")
async def batch(run: Run, numbers: list[int], settle: bool, window: int = 2) -> Any:
    if settle:
        found = await process_batch(child, numbers, window, settle=True)
        return [found.results, [(index, error.step, error.message) for index, error in found.bad]]
    return await process_batch(child, numbers, window)


def test_each_child_of_a_batch_is_a_run_of_its_own_and_no_more_than_the_window_at_once(desk):
    desk.hold.add("edges.double")
    desk.submit(batch, [1, 2, 3, 4], True)

    assert [desk.state(f"top@0.{p}") for p in range(4)] == ["running", "running", "", ""]
    shown = {step.step_id: (step.child_run_id, step.queue) for step in desk.status().steps}
    assert shown == {f"top/0.{p}": (f"top@0.{p}", "") for p in range(2)}
    desk.hold.clear()
    desk.let_go("edges.double")
    desk.sweep()

    assert Client.result(desk, batch.handle("top")) == [[2, 4, 6, 8], []]
    assert desk.left() == set()


def test_a_child_that_fails_is_one_failure_of_the_batch(desk):
    desk.submit(batch, [1, -2, 3], True)

    results, failed = Client.result(desk, batch.handle("top"))
    assert failed == [[1, "edges.child", "no -2"]]
    assert results == [2, None, 6]


def test_the_first_child_that_fails_ends_a_batch_and_stops_the_others(desk):
    desk.hold.add("edges.double")
    desk.submit(batch, [1, -2, 3], False)
    desk.sweep()

    assert desk.state() == "failed"
    assert (desk.state("top@0.0"), desk.state("top@0.2")) == ("cancelled", "")
    assert desk.left() == set()


def test_a_cancel_reaches_the_children_of_a_batch(desk):
    desk.hold.add("edges.double")
    desk.submit(batch, [1, 2, 3], False)

    desk.cancel().sweep()

    assert [desk.state(run_id) for run_id in ("top", "top@0.0", "top@0.1", "top@0.2")] == ["cancelled"] * 3 + [""]


def test_a_long_run_id_has_children_with_ids_that_are_no_longer(desk):
    run_id = "x" * 200
    desk.submit(batch, [1, 2, 3], False, run_id=run_id)

    assert desk.state(run_id) == "completed"
    children = [one.child_run_id for one in desk.status(run_id).steps]
    assert len({*children}) == 3
    assert all(len(one or "") < 200 and desk.state(one) == "completed" for one in children)


def test_a_retried_batch_has_new_children_where_they_had_failed(desk):
    desk.submit(batch, [1, -2], False, 1)
    assert desk.state() == "failed"

    operating.retry(desk.store, "top")
    desk.inbox.append("top")
    desk.play()

    assert desk.state("top@0.1-r1") == "failed"
    assert effects.count(1) == 1


# --- undone_by -----------------------------------------------------------------------------


@workflow(name="edges.undone")
async def undone(run: Run, limit_s: float) -> Any:
    async with Saga(run, "s") as saga:
        join = fan_out(
            double.s(1).undone_by(undo),
            double.s(2).undone_by(undo, "!"),
            double.s(3).undone_by(undo.s(None, "as it is")),
        )
        found = await (saga.run(with_timeout(join, limit_s)) if limit_s else saga.run(join))
        await saga.run(double.s(4).named("alone").undone_by(undo))
        if not found.failed:
            raise ValueError("enough")


@pytest.mark.parametrize("limit_s", [0, 60])
def test_each_part_of_saga_run_is_undone_by_its_own_undo_newest_first(desk, limit_s):
    desk.submit(undone, limit_s)

    assert desk.state() == "compensated"
    assert effects == [1, 2, 3, 4, "undo 8", "undo Noneas it is", "undo 4!", "undo 2"]


def test_a_part_of_saga_run_that_succeeds_too_late_is_undone_by_its_own_undo(desk):
    async def raced(run: Run) -> int:
        async with Saga(run, "s") as saga:
            won = await saga.run(
                race(double.s(1).named("quick").undone_by(undo, "a"), double.s(2).named("late").undone_by(undo, "b"))
            )
        return won.value

    body.append(raced)
    desk.hold |= {"quick", "late"}
    desk.submit(flow)
    desk.let_go("quick")
    assert desk.state() == "completed"

    desk.let_go("late")
    desk.sweep()

    assert effects == [1, 2, "undo 4b"]


def test_children_are_undone_by_their_parent_s_undo(desk):
    async def two(run: Run) -> None:
        async with Saga(run, "s") as saga:
            await saga.run(fan_out_fail(child.s(1).undone_by(undo), child.s(2).undone_by(undo)))
            raise ValueError("enough")

    body.append(two)
    desk.submit(flow)

    assert desk.state() == "compensated"
    assert effects == [1, 2, "undo 4", "undo 2"]


def test_what_bad_parts_leave_is_undone_too(desk):
    async def some(run: Run) -> None:
        async with Saga(run, "s") as saga:
            await saga.run(fan_out_fail(double.s(1).undone_by(undo), bad.s(2).undone_by(undo)))

    body.append(some)
    desk.submit(flow)

    assert desk.state() == "compensated"
    assert effects == [1, "undo None", "undo 2"]


# --- wait_for ------------------------------------------------------------------------------


def test_wait_for_gives_the_first_status_that_fulfils_the_condition(desk):
    async def talks(run: Run) -> int:
        run.update_status(phase="first")
        await double.s(1)
        run.update_status(phase="second")
        return await double.s(2)

    body.append(talks)
    handle = flow.submit(run_id="top")
    desk.play()

    assert handle.wait_for(lambda status: status.phase == "second", timeout_s=5).phase == "second"
    assert handle.wait_for(lambda status: status.finished, timeout_s=5).state == "completed"


def test_wait_for_ends_with_the_run_or_with_its_time(desk):
    handle = flow.submit(run_id="top")

    with pytest.raises(TimeoutError, match=r"timed out|never fulfilled|not ended|not over"):
        handle.wait_for(lambda status: status.phase == "never", timeout_s=0.2)

    async def ends(run: Run) -> None: ...

    body.append(ends)
    desk.play()
    with pytest.raises(TimeoutError, match="completed and the condition was never fulfilled"):
        handle.wait_for(lambda status: status.phase == "never", timeout_s=5)
