"""The workflow that does what a plan says, and its steps, whose bodies the world plays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from canvas import (
    AllFailed,
    Cancelled,
    QuorumFailed,
    Retry,
    Run,
    StepFailed,
    StepTimeout,
    TerminalError,
    TimedOut,
    channel,
    current_step,
    fan_out,
    fan_out_fail,
    process_batch,
    promise,
    quorum,
    race,
    step,
    with_timeout,
    workflow,
)
from saga import Saga, Strategy
from simulation.plans import Join, Plan, basis_of, message, value

AGAIN = Retry(None, first_s=0.5, factor=1.5, max_s=2.0)


class Running(BaseException):
    """The body of a step has begun; the world calls it again when its time is over."""


class Stage:
    """What is played now: set by the world."""

    plan: Plan
    #: Whether the body that is called now has only begun.
    begins: Callable[[], bool]


stage = Stage()


class CrashError(ValueError):
    """The workflow's own error."""


def _play(n: int, p: int, basis: int) -> int:
    if stage.begins():
        raise Running
    join = stage.plan.joins[n]
    if current_step().attempt <= join.flaky[p]:
        raise ValueError(f"{n}.{p} failed once")
    if not join.good[p]:
        raise TerminalError(message(n, p))
    return basis + value(n, p)


@step(name="sim.do", retry=AGAIN)
def do(n: int, p: int, basis: int) -> int:
    return _play(n, p, basis)


@step(name="sim.brisk", retry=AGAIN, interruptible=True)
def brisk(n: int, p: int, basis: int) -> int:
    return _play(n, p, basis)


@step(name="sim.once", retry=AGAIN, idempotent=False)
def once(n: int, p: int, basis: int) -> int:
    return _play(n, p, basis)


@step(name="sim.limited", retry=Retry(4, first_s=0.5, factor=1), timeout_s=2.0)
def limited(n: int, p: int, basis: int) -> int:
    return _play(n, p, basis)


# A batch's step takes one item.
@step(name="sim.do_item", retry=AGAIN)
def do_item(item: tuple[int, int, int]) -> int:
    return _play(*item)


@step(name="sim.brisk_item", retry=AGAIN, interruptible=True)
def brisk_item(item: tuple[int, int, int]) -> int:
    return _play(*item)


@step(name="sim.once_item", retry=AGAIN, idempotent=False)
def once_item(item: tuple[int, int, int]) -> int:
    return _play(*item)


@step(name="sim.limited_item", retry=Retry(4, first_s=0.5, factor=1), timeout_s=2.0)
def limited_item(item: tuple[int, int, int]) -> int:
    return _play(*item)


@step(name="sim.undo")
def undo(_value: int | None) -> None:
    if stage.begins():
        raise Running
    undoes = current_step().undoes or ""
    if undoes.partition("/")[2] in stage.plan.bad_undos:
        raise ValueError(f"{undoes} can't be undone")


STEPS = {"do": do, "brisk": brisk, "once": once, "limited": limited}
ITEMS = {"do": do_item, "brisk": brisk_item, "once": once_item, "limited": limited_item}


messages = channel("messages", int)


@workflow(name="sim.flow")
async def flow(run: Run, begin: int = 0, said: list[Any] | None = None) -> list[Any]:
    """What the plan says, from its await `begin` on."""
    plan, said = stage.plan, said or []
    if plan.strategy and begin == 0:
        undos = Retry(2, first_s=0.5, factor=1)
        async with Saga(run, "all", strategy=Strategy(plan.strategy), retry=undos) as saga:
            for n, join in enumerate(plan.joins[: plan.covered]):
                said.append(await _answer(run, n, join, said, saga))
            if plan.raises:
                raise CrashError("the saga ends badly")
    for n, join in enumerate(plan.joins[max(begin, plan.covered) :], max(begin, plan.covered)):
        if n in plan.rounds and n != begin:
            return await run.restart(n, said=said)
        said.append(await _answer(run, n, join, said, None))
    if len(plan.joins) in plan.rounds and begin != len(plan.joins):
        return await run.restart(len(plan.joins), said)
    run.update_status(phase="end")
    return said


async def _answer(run: Run, n: int, join: Join, said: list[Any], saga: Saga | None) -> Any:
    run.update_status(phase=f"join {n}")
    try:
        return await _await(run, n, join, basis_of(said), saga)
    except (StepFailed, AllFailed, TimedOut) as error:
        if join.fatal:
            raise
        return _told(error)
    except Cancelled as error:
        if not stage.plan.catches:
            raise
        return ["Cancelled", error.reason]


def _told(error: Exception) -> list[Any]:
    if isinstance(error, AllFailed):
        name = "QuorumFailed" if isinstance(error, QuorumFailed) else "AllFailed"
        return [name, [[one.index, _why(one)] for one in error.errors]]
    if isinstance(error, StepFailed):
        return ["StepFailed", [[error.index, _why(error)]]]
    return ["TimedOut"]


def _why(error: StepFailed) -> str:
    if isinstance(error, StepTimeout):
        return "t"
    return "u" if error.error_type == "OutcomeUnknown" else error.message


async def _await(run: Run, n: int, join: Join, basis: int, saga: Saga | None) -> Any:
    if join.kind == "sleep":
        return await run.sleep(join.delay_s)
    recipe = _batch(n, join, basis) if join.window else _recipe(join, _parts(n, join, basis))
    if join.timeout_s:
        recipe = with_timeout(recipe, join.timeout_s)
    if saga is not None and join.undone:
        recipe = saga.safe_step(f"await {n}").with_compensation(undo).execute(recipe)
    got = await recipe
    match join.kind:
        case "fan_out_fail" | "batch":
            return list(got)
        case "fan_out" | "settled":
            return [list(got.results), [[p, _why(error)] for p, error in got.bad]]
        case "race":
            return [got.index, got.value]
        case "quorum":
            return [list(one) for one in got]
    return got


def _batch(n: int, join: Join, basis: int) -> Any:
    items = [(n, p, basis) for p in range(len(join.good))]
    return process_batch(ITEMS[join.step(0)], items, join.window, settle=join.kind == "settled")


def _parts(n: int, join: Join, basis: int) -> list[Any]:
    return [_part(n, join, p, basis) for p in range(len(join.good))]


def _part(n: int, join: Join, p: int, basis: int) -> Any:
    if join.step(p) == "promise":
        return promise(f"p{n}.{p}", int)
    if join.step(p) == "receive":
        within_s = join.within_s[p] if join.within_s else 0
        return messages.receive().within(within_s) if within_s else messages.receive()
    call = STEPS[join.step(p)].s(n, p, basis)
    if join.delayed[p]:
        call = call.after(join.delay_s)
    if join.within_s and join.within_s[p]:
        call = call.within(join.within_s[p])
    return call


def _recipe(join: Join, parts: list[Any]) -> Any:
    match join.kind:
        case "await":
            return parts[0]
        case "fan_out_fail":
            return fan_out_fail(*parts)
        case "fan_out":
            return fan_out(*parts)
        case "race":
            return race(*parts)
    return quorum(join.need, *parts)
