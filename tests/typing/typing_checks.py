"""What must type-check, with its exact type; and what must not. Run by both checkers.

A line with an ignore is an error on purpose: both checkers report an ignore that is not needed.
"""


from __future__ import annotations

from typing import Any, assert_type

import celery
from canvas import (
    Answer, Call, Channel, Counts, FanOutResult, Join, PromiseResult, RaceResult, Run, RunHandle, ServiceClient, Step, channel,
    fan_out,
    fan_out_fail, map_concurrent, process_batch, promise, quorum, race, race_promise_with_timeout, step, with_timeout, workflow,
)
from canvas.testing import Fake, PlayedRun, Workflows
from saga import Saga, chain


approval = promise("approval", bool)
vet = ServiceClient("vets", "check", int, str)


class Cat: ...
class Dog: ...
class Pet: ...


cats = channel("cats", Cat)


@step
def cat(n: int) -> Cat: return Cat()

@step(name="dog", queue="dogs", acks_late=True)
def dog(n: int, loud: bool = False) -> Dog: return Dog()

@step
def free_cat(it: Cat | None) -> None: ...

@step
def free_known_cat(it: Cat) -> None: ...

@step
def nothing() -> None: ...

@workflow(name="w")
async def child(run: Run, n: int, loud: bool = False) -> Pet: return Pet()

@workflow(name="w0")
async def no_arguments(run: Run) -> Pet: return Pet()


@workflow(name="good")
async def good(run: Run) -> None:
    one = cat.s(1)
    _ = assert_type(one, Call[Cat])
    assert_type(await cat.s(1), Cat)
    assert_type(await cat.s(n=1), Cat)
    assert_type(cat(1), Cat)
    assert_type(await dog.s(1, loud=True).after(1).within(2).named("d").set(priority=3), Dog)

    assert_type(await run.start(child.s(1)), str)
    assert_type(await fan_out_fail(cat.s(1)), tuple[Cat])
    assert_type(await fan_out_fail(cat.s(1), dog.s(1)), tuple[Cat, Dog])
    assert_type(await fan_out_fail(cat.s(1), dog.s(1), child.s(1)), tuple[Cat, Dog, Pet])
    assert_type(await fan_out_fail(*[cat.s(i) for i in range(9)]), tuple[Cat, ...])
    calls = [cat.s(i) for i in range(9)]
    assert_type(await fan_out_fail(*calls), tuple[Cat, ...])
    seven = await fan_out_fail(cat.s(1), cat.s(1), cat.s(1), cat.s(1), cat.s(1), cat.s(1), cat.s(1))
    assert_type(seven, tuple[Cat, ...])

    result = await fan_out(cat.s(1), dog.s(1))
    assert_type(result, FanOutResult[tuple[Cat | None, Dog | None]])
    assert_type(result.results[1], Dog | None)
    assert_type(await fan_out(*calls), FanOutResult[tuple[Cat | None, ...]])

    assert_type(await race(cat.s(1), dog.s(1)), RaceResult[Cat | Dog])
    assert_type((await race(cat.s(1), cat.s(2).after(0.1))).value, Cat)
    assert_type((await race(*calls)).value, Cat)
    assert_type((await race(cat.s(1), child.s(1))).value, Cat | Pet)

    assert_type(await quorum(2, *calls), list[tuple[int, Cat]])
    assert_type(await promise("p", Cat), Cat)
    assert_type((await race(promise("p", Cat), promise("q", Dog))).value, Cat | Dog)
    assert_type(await race_promise_with_timeout("p", Cat, 5), PromiseResult[Cat])
    assert_type((await race_promise_with_timeout("p", Cat, 5)).value, Cat)
    assert_type(await race_promise_with_timeout(approval, 5), PromiseResult[bool])
    assert_type(await with_timeout(fan_out_fail(cat.s(1), dog.s(1)), 5), tuple[Cat, Dog])
    assert_type(await with_timeout(cat.s(1), 5), Cat)
    assert_type(await with_timeout(promise("p", Cat), 5), Cat)

    assert_type(await map_concurrent(cat, [1, 2]), list[Cat])
    assert_type(await map_concurrent(dog, (1, 2), max_concurrency=5), list[Dog])
    assert_type(await map_concurrent(child, (1, 2)), list[Pet])
    assert_type(await process_batch(cat, range(9), 10), list[Cat])
    assert_type(await process_batch(cat, range(9), 10, settle=True), FanOutResult[list[Cat | None]])
    assert_type(await process_batch(cat, range(9), 10, collect=False), Counts)
    assert_type(await process_batch(cat, range(9), 10, settle=True, collect=False), Counts)

    assert_type(await approval, bool)
    assert_type(await quorum(2, promise("a", bool), promise("b", bool), approval), list[tuple[int, bool]])
    assert_type(cats, Channel[Cat])
    assert_type(await cats.receive(), Cat)
    assert_type(await cats.receive().within(5), Cat)
    assert_type(await with_timeout(cats.receive(), 5), Cat)
    assert_type(await fan_out_fail(cats.receive(), dog.s(1), approval), tuple[Cat, Dog, bool])
    assert_type((await race(cats.receive(), dog.s(1))).value, Cat | Dog)
    assert_type(await vet.s(1), str)
    assert_type(await map_concurrent(vet, [1, 2]), list[str])
    assert_type(await fan_out_fail(vet.s(1), cat.s(1), approval), tuple[str, Cat, bool])
    assert_type(run.random().choice([1, 2]), int)
    assert_type(await run.sleep(1), None)
    assert_type(await run.apply(celery.chain(cat.s(1), dog.s(1))), Any)
    assert_type(await run.apply(cat.s(1)), Cat)
    assert_type(run.patched("x"), bool)
    await nothing.s()

    async with Saga(run, "s") as saga:
        kept = await saga.safe_step("a").with_compensation(free_cat).execute(cat.s(1))
        assert_type(kept, Cat)
        kept = await saga.safe_step("b").with_compensation(nothing.s()).execute(cat.s(1))
        winner = await saga.safe_step("c").with_compensation(free_cat).execute(race(cat.s(1), cat.s(2)))
        assert_type(winner, RaceResult[Cat])
        saga.register("d", free_known_cat)
        saga.add("d", kept)
    print(kept)  # bound: __aexit__ gives None


@workflow(name="again")
async def again(run: Run, n: int) -> Pet:
    if n < 0:
        return await run.restart(n + 1)
    return Pet()


def outside() -> None:
    assert_type(cats.send("run-1", Cat()), Answer)
    assert_type(good.submit(run_id="x"), RunHandle[None])
    assert_type(child.submit(1), RunHandle[Pet])
    assert_type(child.s(1).with_run_id("x").submit(), RunHandle[Pet])
    assert_type(child.submit(1, run_id="x", timeout_s=3), RunHandle[Pet])
    assert_type(child.submit(1, True, run_id="x"), RunHandle[Pet])
    assert_type(child.submit(n=1, loud=True), RunHandle[Pet])
    assert_type(child.s(1, loud=True).submit(run_id="x"), RunHandle[Pet])
    assert_type(no_arguments.submit(run_id="x"), RunHandle[Pet])
    assert_type(child.submit(1).result(timeout_s=3), Pet)
    assert_type(fan_out_fail(cat.s(1), dog.s(1)).submit(), RunHandle[tuple[Cat, Dog]])
    assert_type(race(cat.s(1), dog.s(1)).submit().result().value, Cat | Dog)
    assert_type(cat.s(1).submit(run_id="x", timeout_s=3), RunHandle[Cat])
    assert_type(approval.submit().result(), bool)
    assert_type(process_batch(cat, iter([1]), 10, collect=False).submit(), RunHandle[Counts])
    assert_type(with_timeout(map_concurrent(child, [1]), 5).submit(), RunHandle[list[Pet]])
    assert_type(approval.resolve("run-1", True), Answer)
    cat.delay(1)
    cat.apply_async((1,))
    celery.group(cat.s(1), cat.s(2))
    celery.chord([cat.s(1), cat.s(2)], dog.s(1))
    chain((cat.s(1), free_cat), (dog.s(1), nothing.s()))
    pair: Join[tuple[Cat, Dog]] = fan_out_fail(cat.s(1), dog.s(1))
    print(pair)


def tested() -> None:
    with Workflows(fakes={cat: Cat(), "dog": Fake.fails("no", code=404), vet: "fine"}, strict=True) as flows:
        played = flows.start(child.s(1), fakes={dog: Fake.returns(Dog(), takes_s=3).then(OSError())})
        assert_type(played, PlayedRun[Pet])
        assert_type(played.result(), Pet)
        assert_type(played.resolve(approval, True), Answer)
        assert_type(played.resolve("approval", True), Answer)
        played.resolve(approval, "yes")  # type: ignore # of another type
        played.advance(hour=1)  # type: ignore # a typo


async def bad(run: Run, saga: Saga) -> None:
    cat.s("one")  # type: ignore # wrong type, at the line of the mistake
    cat.s()  # type: ignore # an argument is missing
    child.submit("one")  # type: ignore
    child.submit("one", run_id="x")  # no error here: see the stub; found when it runs
    child.s("one").submit(run_id="x")  # type: ignore
    child.s(1).submit(run_ID="x")  # type: ignore # a typo in an option
    forgotten: Cat = cat.s(1)  # type: ignore # no await
    forgotten_too: bool = child.s(1)  # type: ignore
    await cat(1)  # type: ignore # step(...) is the plain function
    await dog.s(cat.s(1))  # type: ignore # a call passed as a value
    await race(fan_out_fail(cat.s(1)), cat.s(2))  # type: ignore # a join is not a part
    _, _, _ = await fan_out_fail(cat.s(1), dog.s(1))  # type: ignore # wrong number
    vet.s("one")  # type: ignore
    await map_concurrent(cat, ["one"])  # type: ignore
    await process_batch(cat, [1])  # type: ignore # the limit is not optional
    saga.safe_step("x").execute(cat.s(1))  # type: ignore # no undo
    saga.safe_step("x").with_compensation(free_known_cat)  # type: ignore # must take None
    saga.safe_step("x").with_compensation(lambda: None)  # type: ignore # not a step
    approval.resolve("run-1", "yes")  # type: ignore # wrong type from outside
    cats.send("run-1", Dog())  # type: ignore # wrong type from outside
    await cats  # type: ignore # a channel is not a message: receive() it
    await race(run.restart(1), cat.s(1))  # type: ignore # the end of a round is no part
    await fan_out([cat.s(1), cat.s(2)])  # type: ignore # the star is missing
    first = (await fan_out(cat.s(1))).results[0]
    free_known_cat(first)  # type: ignore # may be None
    print(forgotten, forgotten_too)


@workflow(name="sync")  # type: ignore
def not_async(run: Run) -> None: ...


def takes(it: Step[[int], Cat]) -> None: ...


takes(cat)
