"""The guide's seven patterns, played: what each does when all is well, and when it is not."""

from __future__ import annotations

from collections.abc import Sequence

from canvas import Answer, promise
from status import RunStatus, State
from tasks import jobs, sources
from tasks.catalogue import (
    enrich_product,
    fetch_data_with_racing,
    get_job_status,
    process_data,
    process_users,
    process_with_approval,
    validate_user,
)
from tasks.catalogue_data import CACHED_QUERY
from tasks.catalogue_steps import Approval, Data, Enriched, Request
from tasks.domain import Behaviour, Provider
from tasks.jobs import Job
from tasks.showcase.stage import Simulate, Stage, Started, ended, said, state_of

#: Nobody should have to wait for it: who still runs after this was not stopped.
HANGS = Behaviour(latency_ms=20_000)

USERS = 40
TRANSFERS = 40


def slow(latency_ms: int) -> Behaviour:
    """Answers after a while."""
    return Behaviour(latency_ms=latency_ms)


def refuses(error: str, latency_ms: int = 50) -> Behaviour:
    """Says no, for good."""
    return Behaviour(latency_ms=latency_ms, error=error)


def validation(stage: Stage) -> None:
    """Pattern 1."""
    stage.say("three checks at once: ada passes; bob's address is not verified; mallory is on the blacklist")
    ada = stage.start(validate_user.s("ada"), "ada", {Provider.KYC: slow(300)})
    bob = stage.start(validate_user.s("bob"), "bob", {Provider.KYC: slow(300)})
    mallory = stage.start(validate_user.s("mallory"), "mallory", {Provider.KYC: HANGS, Provider.BLACKLIST: slow(200)})
    stage.follow(ada, bob, mallory)
    stage.show("a check that says False is an answer: all three are waited for, and the workflow decides")
    stage.show("a check that raises ends the fan-out at once: mallory's papers, 20 s of work, were not waited for")
    stage.check("who passes all checks is let in", ended(ada, State.COMPLETED), said(ada))
    stage.check("who fails one is refused with code 400", ended(bob, State.FAILED, 400), said(bob))
    stage.check("the first error is the run's error", ended(mallory, State.FAILED, 403), said(mallory))
    stopped = state_of(mallory, 1)
    stage.check(
        "the sibling of the check that failed was stopped", stopped == "stopped", f"check_kyc_completed {stopped}"
    )


def enrichment(stage: Stage) -> None:
    """Pattern 2."""
    stage.say("five sources at once: of p-1 all answer; of p-2 one is down and one hangs; of p-3 all are down")
    sluggish = {Provider.DETAILS: slow(100), Provider.PRICING: slow(200), Provider.UNITS: slow(150)}
    down = refuses("down for repair")
    whole = stage.start(enrich_product.s("p-1", 20.0), "p-1", sluggish)
    partial = stage.start(
        enrich_product.s("p-2"), "p-2", {**sluggish, Provider.REVIEWS: down, Provider.RECOMMENDATIONS: HANGS}
    )
    names = (Provider.DETAILS, Provider.PRICING, Provider.UNITS, Provider.REVIEWS, Provider.RECOMMENDATIONS)
    nothing = stage.start(enrich_product.s("p-3"), "p-3", dict.fromkeys(names, down))
    stage.follow(whole, partial, nothing)
    stage.show("a source that fails, or does not answer within its time, is None; the others are used")
    stage.show("fan_out never raises: with all five down the product is still there, and empty")
    for run in (whole, partial, nothing):
        stage.check(f"{run.label}: what came is used, what failed is None, and nothing else", *_used(run))
    left_out = [state_of(partial, index) for index in (3, 4)]
    stage.check("what was down, or too slow, is left out", "done" not in left_out, left_out)


def _used(run: Started[Enriched]) -> tuple[bool, str]:
    """Whether each field has a value exactly if its source has answered."""
    found = run.value()
    if found is None:
        return False, said(run)
    fields = (found.details, found.pricing, found.stock, found.reviews, found.recommended)
    states = [state_of(run, index) for index in range(len(fields))]
    fits = all((value is not None) == (state == "done") for value, state in zip(fields, states, strict=True))
    return fits, f"sources {', '.join(states)}"


def batch(stage: Stage) -> None:
    """Pattern 3."""
    stage.say(f"{USERS} users, ten at a time on all workers together; then a batch whose CRM refuses")
    users = [f"user-{n}" for n in range(USERS)]
    good = stage.start(process_users.s(users), "all", {Provider.CRM: slow(150)})
    stage.follow(good)
    bad = stage.start(process_users.s(users), "refused", {Provider.CRM: refuses("no such plan")})
    stage.follow(bad)
    there, begun = sources.visits(good.run_id), sources.visits(bad.run_id)
    most = max((visit.alongside for visit in [*there, *begun]), default=0)
    stage.show(f"the window is refilled by whoever ends a step: {most} at a time at most")
    stage.show(f"the first failure ends a batch: {len(begun)} of {USERS} were begun, the rest never will be")
    stage.check("never more than ten at a time", 0 < most <= 10, f"{most} at most, counted in SQL by each that began")
    once = sorted(visit.user_id for visit in there) == sorted(users)
    stage.check("each user once, and none left out", once and good.value() == USERS, f"{len(there)} of {USERS}")
    stage.check("a batch that fails stops", ended(bad, State.FAILED) and len(begun) <= 10, f"{len(begun)} begun")


def racing(stage: Stage) -> None:
    """Pattern 4."""
    stage.say("primary, cache and replica: the cache has it; the cache has it not; nobody answers in time")
    lagging = {Provider.PRIMARY: HANGS, Provider.CACHE: slow(20), Provider.REPLICA: slow(400)}
    hit = stage.start(fetch_data_with_racing.s(CACHED_QUERY, 20.0), "cached", lagging)
    miss = stage.start(fetch_data_with_racing.s("chair", 20.0), "not-cached", lagging)
    none = stage.start(
        fetch_data_with_racing.s("desk", 1.0),
        "silent",
        dict.fromkeys((Provider.PRIMARY, Provider.CACHE, Provider.REPLICA), HANGS),
    )
    stage.follow(hit, miss, none)
    stage.show("the first success wins and the losers are stopped, also one that would have gone on for 20 s")
    stage.show("a failure does not win: the cache was asked, had it not, and the replica answered")
    stage.show("with_timeout ends the race that nobody wins")
    for run, query in ((hit, CACHED_QUERY), (miss, "chair")):
        stage.check(
            f"{run.label}: the winner has the right answer", run.value() == Data(sources.titles_with(query)), said(run)
        )
    states = [state_of(miss, index) for index in range(3)]
    stage.check("one winner, and nobody goes on", states == ["stopped", "failed", "done"], ", ".join(states))
    stage.check("without a winner in time: code 408", ended(none, State.FAILED, 408), said(none))


def approval(stage: Stage) -> None:
    """Pattern 5."""
    ids = {label: f"{stage.id}-{label}" for label in ("yours", "denied", "nobody")}
    denied = stage.start(process_with_approval.s(Request(ids["denied"], 60.0)), "denied")
    promise(f"approval-{ids['denied']}", Approval).resolve(denied.run_id, Approval(approved=False, by="the demo"))
    nobody = stage.start(process_with_approval.s(Request(ids["nobody"], 1.0)), "nobody")
    runs = [denied, nobody]
    if stage.wait_s:
        yours = stage.start(process_with_approval.s(Request(ids["yours"], stage.wait_s)), "yours")
        stage.ask("answer it", yours, f"approval-{ids['yours']}")
        runs.append(yours)
    stage.follow(*runs, wait_s=stage.wait_s)
    late = promise(f"approval-{ids['nobody']}", Approval).resolve(nobody.run_id, Approval(approved=True))
    stage.show("a run waits for a person and holds no worker; without an answer in time it is escalated")
    for run in runs:
        verdicts, result = sources.verdicts(ids[run.label]), run.value()
        agree = verdicts == ([] if result is None else [result])
        stage.check(f"{run.label}: decided once, as the run says", agree, [said(run), *verdicts])
    stage.check("a no is a failure with code 403", ended(denied, State.FAILED, 403), said(denied))
    stage.check("nobody's request is escalated", nobody.value() == "escalated", said(nobody))
    stage.check("an answer that comes too late is told so, and changes nothing", late is Answer.LATE, late)


def status(stage: Stage) -> None:
    """Pattern 7."""
    stage.say("two jobs of five stages, looked at while they run; the table of the second has a wrong line")
    table = "product,cents\nlamp,1250\ndesk,9900\nlamp,1250\n"
    slowly: Simulate = {Provider.EXPORTS: slow(500)}
    good = stage.start(process_data.s(Job(f"{stage.id}-good", table)), "good", slowly)
    bad = stage.start(process_data.s(Job(f"{stage.id}-bad", table + "rug,twelve\n")), "bad", slowly)
    seen: list[tuple[str, float]] = []

    def look(_runs: Sequence[RunStatus]) -> None:
        now = get_job_status(good.run_id)  # as any other process may
        if not seen or seen[-1] != (now.phase, now.progress):
            seen.append((now.phase, now.progress))

    stage.follow(good, bad, look=look)
    stage.show(f"seen from outside: {' → '.join(f'{phase} {progress:.0%}' for phase, progress in seen if phase)}")
    progress = [progress for _, progress in seen]
    stage.check(
        "progress never goes back, and ends at 100 %", progress == sorted(progress) and progress[-1] == 1.0, progress
    )
    report = jobs.artefact(f"{stage.id}-good", "upload")
    stage.check("the report is right", report == "desk: 99.00\nlamp: 25.00\n", repr(report))
    _failed_at(stage, bad)


def _failed_at(stage: Stage, bad: Started[None]) -> None:
    failed = get_job_status(bad.run_id)
    where = (failed.phase, failed.metadata.get("stage"), failed.error and failed.error.code)
    stage.show(f"the failed job says where and why: stage {where[1]}, {failed.metadata.get('error')}")
    stage.check("a failed job names its stage", where == ("failed", "validate", 422), where)
    left = jobs.stages_of(f"{stage.id}-bad")
    stage.check("nothing ran after the stage that failed", left == {"download"}, sorted(left))
