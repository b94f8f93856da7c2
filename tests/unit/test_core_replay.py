"""Replay and suspension: a workflow goes as far as its journal, and nothing it does after that counts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys

import pytest

from canvas import (
    Cancelled,
    ConfigError,
    NotAwaitable,
    Run,
    StepFailed,
    TerminalError,
    fan_out,
    fan_out_fail,
    quorum,
    race,
    step,
    with_timeout,
    workflow,
)
from canvas.replay import Asks, Parked, Raised, Returned, Stopped, replay
from core import SUBMITTED_MS, current_app, play
from saga import Saga
from status.journals import Journal

log: list[str] = []


@step(name="replay.do")
def do(what: str = "") -> str | int | None:
    return what


@step(name="replay.listed")
def listed() -> list[int]:
    return []


@step(name="replay.other")
def other() -> None: ...


@step(name="replay.undo")
def undo(it: object = None) -> None: ...


@workflow(name="replay.child")
async def child(run: Run) -> None: ...


@pytest.fixture(autouse=True)
def app(monkeypatch):
    log.clear()
    # If anything here did reach for Redis, it must not find one.
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with current_app("replay") as app:
        yield app


def last_play(body, *outcomes, **options):
    """What the last of the replays did, and what it left in `log`."""
    return play(body, *outcomes, before=log.clear, **options)


# --- putting away (stubs/suspend_cases.py) -------------------------------------------


async def with_finally(run: Run):
    try:
        await do.s("charge")
    finally:
        log.append("finally")
        run.update_status(phase="cleanup")
        await do.s("unlock")
        log.append("after unlock")
        await do.s("unlock again")


async def with_saga(run: Run):
    async with Saga(run, "s") as saga:
        saga.register("a", undo.s("a"))
        await do.s("one")
        saga.register("b", undo.s("b"))
        await do.s("two")


async def bare_except(run: Run):
    try:
        await do.s("x")
    except:  # noqa: E722
        log.append("bare except")
    log.append("went on")
    run.update_status(phase="after bare except")
    await do.s("y")
    return "done"


async def endless(run: Run):
    while True:
        try:
            return await do.s("x")
        except BaseException:  # noqa: BLE001
            log.append("again")


@contextlib.asynccontextmanager
async def lock(run: Run):
    await do.s("lock")
    try:
        yield
    finally:
        log.append("unlocking")
        await do.s("unlock")


async def with_manager(run: Run):
    async with lock(run):
        await do.s("work")


async def pages(run: Run):
    try:
        for i in range(3):
            yield await do.s(f"page {i}")
    finally:
        log.append("generator finally")
        await do.s("close pages")


async def with_generator(run: Run):
    async for page in pages(run):
        log.append(page)  # noqa: PERF401


async def swallows(run: Run):
    with contextlib.suppress(BaseException):
        await do.s("x")
    return "swallowed"


async def with_file(run: Run):
    with contextlib.ExitStack() as stack:
        stack.callback(log.append, "file closed")
        await do.s("x")


ERROR = ValueError("no")


@pytest.mark.parametrize(
    ("body", "outcomes", "asks", "logged"),
    [
        (with_finally, [], "charge", ["finally"]),
        (with_finally, [ERROR], "unlock", ["finally"]),
        (with_saga, ["1"], "two", []),
        (bare_except, [], "x", ["bare except", "went on"]),
        (with_manager, ["1"], "work", ["unlocking"]),
        (with_generator, ["p0"], "page 1", ["p0", "generator finally"]),
        (swallows, [], "x", []),
        (with_file, [], "x", ["file closed"]),
    ],
)
def test_a_suspended_workflow_is_put_away_at_once(body, outcomes, asks, logged):
    move, run = last_play(body, *outcomes)

    assert isinstance(move, Asks)
    assert move.recipe.parts[0]["args"] == (asks,)
    # `async for` over a generator leaves it to us to close it: its finally runs, once, before replay returns.
    assert log in (logged, logged[:1]) if body is with_generator else log == logged
    gc.collect()
    assert log in (logged, logged[:1]) if body is with_generator else log == logged
    assert run.live is False


def test_a_finally_that_awaits_goes_on_when_its_await_is_recorded():
    move, _ = last_play(with_finally, ERROR, 1, 1)

    assert isinstance(move, Raised)
    assert isinstance(move.error, StepFailed)
    assert log == ["finally", "after unlock"]


@pytest.mark.parametrize("outcome", [ERROR, Cancelled("enough")])
def test_a_saga_undoes_for_an_error_and_a_cancel_and_not_for_a_suspension(outcome):
    move, _ = last_play(with_saga, 1, outcome)

    assert isinstance(move, Asks)
    assert move.recipe.policy == "settled"


def test_nothing_that_is_said_after_suspension_is_news():
    move, run = last_play(bare_except)

    assert isinstance(move, Asks)
    assert run.news().status is None
    assert run.news().remarks == ()


def test_what_was_said_before_the_suspension_is_news():
    async def says(run: Run):
        run.update_status(phase="a", progress=0.1, x=1)
        try:
            await do.s("x")
        finally:
            run.update_status(phase="late", progress=0.9, x=None, y=2)
            run.log.error("late")

    _, run = last_play(says)

    assert run.news().status == ("a", 0.1, '{"x":1}')
    assert [remark.name for remark in run.news().remarks] == ["a"]
    assert run._lines == []


def test_what_a_saga_is_told_after_suspension_is_not_logged():
    async def body(run: Run):
        saga = Saga(run, "s")
        saga.register("undo", undo)
        try:
            await do.s("x")
        finally:
            saga.add("undo", 1)
            saga.register("late", undo.s(1))

    _, run = last_play(body)

    assert run._rows == {}


def test_a_workflow_that_does_not_let_go_says_so():
    hooks = sys.get_asyncgen_hooks()

    with pytest.raises(RuntimeError, match="does not let go: it awaited 100 times"):
        last_play(endless)

    assert sys.get_asyncgen_hooks() == hooks


def test_the_asyncgen_hooks_are_put_back():
    hooks = sys.get_asyncgen_hooks()

    last_play(with_generator, "p0")

    assert sys.get_asyncgen_hooks() == hooks


@pytest.mark.parametrize(
    "act",
    [
        lambda: do.delay("x"),
        lambda: do.apply_async(("x",)),
        lambda: do.s("x").apply_async(),
        lambda: do.s("x").delay(),
        lambda: child.submit(run_id="r"),
        lambda: child.s().submit(),
        lambda: child.handle("r").result(),
        lambda: child.handle("r").cancel(),
        lambda: do("x"),
    ],
    ids=["delay", "apply_async", "call.apply_async", "call.delay", "submit", "s.submit", "result", "cancel", "direct"],
)
@pytest.mark.parametrize("where", ["live", "in finally"])
def test_what_would_happen_at_each_replay_is_refused(app, act, where):
    app.conf.task_always_eager = True
    seen: list[object] = []

    def attempt():
        try:
            act()
        except BaseException as error:  # noqa: BLE001
            seen.append(error)
        else:
            seen.append("done")

    async def body(run: Run):
        if where == "live":
            attempt()
        try:
            await do.s("x")
        finally:
            if where != "live":
                attempt()

    play(body)

    assert len(seen) == 1
    assert isinstance(seen[0], ConfigError | NotAwaitable), seen
    assert "each replay" in str(seen[0])


# --- what may be awaited ---------------------------------------------------------------


class Foreign:
    def __await__(self):
        yield "foreign"


@pytest.mark.parametrize(
    "make",
    [
        lambda: asyncio.sleep(0),
        lambda: asyncio.sleep(1),
        lambda: asyncio.gather(do.s("x")),
        lambda: asyncio.wait_for(do.s("x"), 1),
        lambda: asyncio.to_thread(print),
        Foreign,
    ],
    ids=["sleep0", "sleep", "gather", "wait_for", "to_thread", "foreign"],
)
def test_awaiting_what_is_not_ours_names_what_to_write(make):
    async def body(run: Run):
        await make()

    move, _ = play(body)

    assert isinstance(move, Raised)
    said = " ".join([str(move.error), *getattr(move.error, "__notes__", [])])
    for name in ("run.sleep", "fan_out", "with_timeout"):
        assert name in said


def test_a_foreign_awaitable_is_not_awaitable():
    async def body(run: Run):
        await Foreign()

    move, _ = play(body)

    assert isinstance(move, Raised)
    assert isinstance(move.error, NotAwaitable)
    assert isinstance(move.error, TypeError)
    assert "str" in str(move.error)


def test_a_workflow_may_catch_not_awaitable_and_go_on():
    async def body(run: Run):
        with contextlib.suppress(NotAwaitable):
            await Foreign()
        return await do.s("x")

    move, _ = play(body, "y")

    assert move == Returned("y")


# --- outcomes --------------------------------------------------------------------------


def test_a_failed_step_is_raised_at_its_await_and_may_be_caught():
    async def body(run: Run):
        try:
            await do.s("x").named("the thing")
        except StepFailed as error:
            return error.step, error.message, error.code, error.is_a(TerminalError), error.is_a(KeyError)

    move, _ = play(body, TerminalError("gone", 410))

    assert move == Returned(("the thing", "gone", 410, True, False))


def test_a_cancel_is_thrown_and_is_no_exception():
    async def body(run: Run):
        try:
            await do.s("x")
        except Exception:  # noqa: BLE001
            return "swallowed"

    move, _ = play(body, Cancelled("enough"))

    assert isinstance(move, Stopped)
    assert move.error.reason == "enough"


def test_a_workflow_may_catch_a_cancel_and_await_as_usual():
    async def body(run: Run):
        try:
            await do.s("x")
        except Cancelled:
            return await do.s("clean up")

    assert play(body, Cancelled("enough"), "cleaned")[0] == Returned("cleaned")


def test_an_empty_fan_out_needs_no_await():
    async def body(run: Run):
        none = await fan_out_fail()
        all_of_none = await fan_out()
        return none, all_of_none.results, all_of_none.failed, await do.s("x")

    assert play(body, "y")[0] == Returned(((), (), 0, "y"))


def test_one_waitable_awaited_twice_is_two_awaits():
    async def body(run: Run):
        call = do.s("x")
        return [await call, await call]

    assert play(body, "a", "b")[0] == Returned(["a", "b"])


# --- determinism -----------------------------------------------------------------------


def test_now_uuid_and_random_are_the_same_at_each_replay():
    seen: list[tuple[object, ...]] = []

    async def body(run: Run):
        said = [run.now(), run.uuid(), run.random().random()]
        await do.s("x")
        said += [run.now(), run.uuid(), run.random().random()]
        await do.s("y")
        seen.append(tuple(said))

    play(body, 1, 2)
    play(body, 1, 2)

    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 6
    play(body, 1, 2, run_id="r2")
    assert seen[2][1:3] != seen[0][1:3]


def test_random_does_not_disturb_uuid():
    async def body(run: Run, draws: int):
        for _ in range(draws):
            run.random().random()
        return run.uuid()

    first, second = (replay(body, Run("r", "w", SUBMITTED_MS), [draws], {}, {}) for draws in (0, 5))

    assert first == second


def test_now_is_when_the_last_outcome_was_recorded():
    async def body(run: Run):
        before = run.now()
        await do.s("x")
        return before.timestamp() * 1000, run.now().timestamp() * 1000

    assert play(body, 1)[0] == Returned((SUBMITTED_MS, SUBMITTED_MS + 1000))


def journal_of(body, *outcomes):
    from core import record

    journal: dict[str, str] = {}
    for outcome in outcomes:
        move = replay(body, Run("r1", "w", SUBMITTED_MS), [], {}, journal)
        assert isinstance(move, Asks)
        record(journal, move, outcome)
    return journal


async def two_steps(run: Run):
    await do.s("x")
    await other.s()
    await do.s("z")


async def one_step(run: Run):
    await do.s("x")


async def raises_early(run: Run):
    await do.s("x")
    raise ValueError("new code")


async def another_step(run: Run):
    await do.s("x")
    await do.s("y")


async def a_join(run: Run):
    await do.s("x")
    await fan_out(other.s())


@pytest.mark.parametrize("changed", [another_step, a_join, one_step, raises_early])
def test_another_path_than_the_journals_is_parked_and_never_thrown_in(changed):
    journal = journal_of(two_steps, 1, None)

    move = replay(changed, Run("r1", "w", SUBMITTED_MS), [], {}, journal)

    assert isinstance(move, Parked)
    assert move.error.error_type == "status.errors.NonDeterministic"
    assert "await 1 of run r1" in move.error.message
    assert "await(replay.other)" in move.error.message
    for remedy in ("run.uuid", "run.now"):
        assert remedy in move.error.message


def test_other_arguments_to_the_same_step_are_no_other_path():
    async def first(run: Run):
        await do.s("x")

    async def then(run: Run):
        await do.s("y")

    assert isinstance(replay(then, Run("r", "w", 0), [], {}, journal_of(first, 1)), Returned)


def test_a_value_that_no_longer_fits_is_parked():
    @step(name="replay.number")
    def number() -> int:
        return 1

    async def body(run: Run):
        await number.s()

    move = replay(body, Run("r", "w", 0), [], {}, journal_of(body, "not a number"))

    assert isinstance(move, Parked)
    assert move.error.error_type == "status.errors.PayloadError"


@pytest.mark.parametrize(
    "make",
    [
        lambda: fan_out(do.s("a"), do.s("b")),
        lambda: fan_out_fail(do.s("a"), do.s("b")),
        lambda: race(do.s("a"), do.s("b")),
        lambda: quorum(1, do.s("a"), do.s("b")),
        lambda: quorum(2, do.s("a"), do.s("b")),
        lambda: with_timeout(fan_out(do.s("a"), do.s("b")), 1),
    ],
)
def test_the_fingerprint_tells_kinds_and_names_but_not_times(make):
    assert make().recipe().fingerprint == make().recipe().fingerprint
    kinds = {
        "fan_out(replay.do*2)",
        "fan_out_fail(replay.do*2)",
        "race(replay.do*2)",
        "quorum-1(replay.do*2)",
        "quorum-2(replay.do*2)",
    }
    assert make().recipe().fingerprint in kinds


# --- sagas -----------------------------------------------------------------------------


def test_a_time_limit_around_a_safe_step_keeps_its_undo():
    async def body(run: Run):
        saga = Saga(run, "s")
        await with_timeout(saga.safe_step("a").with_compensation(undo).execute(do.s("x")), 5)

    move, run = play(body)

    assert isinstance(move, Asks)
    assert move.recipe.timeout_s == 5
    assert [row.name for rows in run._rows.values() for row in rows] == ["a"]
    assert "undo" in move.recipe.parts[0].spec("q")


def test_a_time_limit_around_a_rollback_is_refused():
    async def body(run: Run):
        saga = Saga(run, "s")
        saga.register("a", undo.s(1))
        await with_timeout(saga.rollback(), 5)

    move, _ = play(body)

    assert isinstance(move, Raised)
    assert isinstance(move.error, ConfigError)
    assert "no time limit" in str(move.error)


def test_what_has_an_undo_is_not_given_another():
    saga = Saga(Run("r", "w", 0), "s")
    entered = saga.safe_step("a").with_compensation(undo).execute(do.s())

    with pytest.raises(ConfigError, match="has its undo already"):
        saga.safe_step("b").with_compensation(undo).execute(entered)
    with pytest.raises(ConfigError, match="has its undo already"):
        saga.run(entered)


@step(name="replay.undo_number")
def undo_number(it: int | None) -> None: ...


@step(name="replay.undo_known")
def undo_known(it: int) -> None: ...


@step(name="replay.text")
def text() -> str:
    return ""


@pytest.mark.parametrize(
    ("enter", "message"),
    [
        (lambda s: s.safe_step("a").with_compensation(undo_known).execute(do.s()), "must accept None"),
        (lambda s: s.safe_step("a").with_compensation(undo_number).execute(text.s()), "can't undo replay.text"),
        (lambda s: s.safe_step("a").with_compensation(text).execute(do.s()), "must take what the action returned"),
        (lambda s: s.safe_step("a").with_compensation(undo.s(1), 2), "is a call and runs as it stands"),
        (lambda s: s.safe_step("a").with_compensation(lambda: None), "an undo is a step or a call of one"),
        (lambda s: s.add("b", 1), "no step is registered as 'b'; known: nothing yet"),
        (lambda s: s.run(do.s()), r"has no undo: write .*undone_by"),
    ],
)
def test_an_undo_that_does_not_fit_is_refused_before_anything_starts(enter, message):
    saga = Saga(Run("r", "w", 0), "s")

    with pytest.raises(ConfigError, match=message):
        enter(saga)


# --- what a replay costs --------------------------------------------------------------


async def many(run: Run, awaits: int):
    total = 0
    for _ in range(awaits):
        total = await do.s("x")
    return total


async def many_joins(run: Run, awaits: int):
    for _ in range(awaits):
        await fan_out_fail(do.s("x"), do.s("y"), do.s("z"))


def recorded(awaits: int, fingerprint: str, parts: int) -> dict[str, str]:
    entry = {"v": "all", "i": "", "at": SUBMITTED_MS, "x": "nonce", "by": "t", "fp": fingerprint}
    fields = {str(n): json.dumps(entry) for n in range(awaits)}
    return fields | {f"{n}.{p}": 'v"x"' for n in range(awaits) for p in range(parts)}


def calls_of_a_replay(body, awaits: int, journal) -> int:
    """How many of Python's functions are entered; the same on every machine."""
    entered = 0

    def count(_frame, event: str, _arg) -> None:
        nonlocal entered
        entered += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        assert isinstance(replay(body, Run("r", "w", SUBMITTED_MS), [awaits], {}, journal), Returned)
    finally:
        sys.setprofile(before)
    return entered


@pytest.mark.parametrize(
    ("body", "fingerprint", "parts", "most"),
    [(many, "await(replay.do)", 1, 30), (many_joins, "fan_out_fail(replay.do*3)", 3, 85)],
)
def test_an_await_that_is_on_record_costs_few_calls(body, fingerprint, parts, most):
    # A turn of a long run makes a thousand of these. There were 47 and 112 before somebody counted.
    few, lots = (Journal(recorded(awaits, fingerprint, parts)) for awaits in (10, 110))
    for _ in range(2):  # the first time it is read
        costs = calls_of_a_replay(body, 10, few), calls_of_a_replay(body, 110, lots)

    assert (costs[1] - costs[0]) / 100 <= most


def test_an_entry_is_made_something_of_once_for_as_long_as_the_journal_is_kept(monkeypatch):
    read = []
    monkeypatch.setattr("canvas.outcomes.from_json", lambda text: read.append(text) or json.loads(text))
    journal = Journal(recorded(3, "await(replay.do)", 1))

    for _ in range(3):
        assert replay(many, Run("r", "w", SUBMITTED_MS), [3], {}, journal) == Returned("x")
    assert replay(many, Run("r", "w", SUBMITTED_MS), [4], {}, journal.grown(recorded(4, "await(replay.do)", 1))) == (
        Returned("x")
    )

    assert len(read) == 4


def test_values_are_made_anew_at_each_replay():
    async def changes(run: Run):
        found = await listed.s()
        found.append(1)
        return found

    journal = Journal(recorded(1, "await(replay.listed)", 0) | {"0.0": "v[]"})

    for _ in range(2):
        assert replay(changes, Run("r", "w", SUBMITTED_MS), [], {}, journal) == Returned([1])
