"""Twelve patterns, each a workflow: the guide's seven, and five more.

Run one: `celery -A tasks runs demo race`; which there are: `celery -A tasks runs demo --list`.
When to use which, and what to look out for: docs/patterns.md. Their steps: `tasks.catalogue_steps`.
"""

from __future__ import annotations

from dataclasses import dataclass

from canvas import (
    Cancelled,
    Part,
    Promise,
    Run,
    StepFailed,
    TerminalError,
    TimedOut,
    fan_out,
    fan_out_fail,
    map_concurrent,
    process_batch,
    promise,
    quorum,
    race,
    race_promise_with_timeout,
    with_timeout,
    workflow,
)
from saga import Saga, Strategy
from status import RunStatus, get_status
from tasks import jobs
from tasks.accounts import Transaction, credit_account, debit_account, remove_analytics, take_back, update_analytics
from tasks.catalogue_steps import (
    Approval,
    Data,
    Enriched,
    Request,
    carry_out,
    check_email_verified,
    check_kyc_completed,
    check_not_blacklisted,
    escalate,
    fetch_cache,
    fetch_details,
    fetch_inventory,
    fetch_pricing,
    fetch_primary,
    fetch_recommendations,
    fetch_replica,
    fetch_reviews,
    process_user,
    read_copy,
    write_copy,
)
from tasks.jobs import Job
from tasks.sources import COPIES, Version

#: Those who may say yes; two of them must.
APPROVERS = ("ann", "bob", "cy")

# 1. Fan-out validation: all must pass.


@workflow(name="users.validate")
async def validate_user(run: Run, user_id: str) -> None:
    """Let a user in if all checks say yes.

    Raises:
        TerminalError: One of them said no (code 400).
    """
    checks = await fan_out_fail(
        check_email_verified.s(user_id), check_kyc_completed.s(user_id), check_not_blacklisted.s(user_id)
    )
    if not all(checks):
        raise TerminalError("validation check failed", code=400)


# 2. Enrichment: use what came.


@workflow(name="products.enrich")
async def enrich_product(run: Run, product_id: str, patience_s: float = 2.0) -> Enriched:
    """Ask five sources at once, and use what comes in time."""
    found = await fan_out(
        fetch_details.s(product_id).within(patience_s),
        fetch_pricing.s(product_id).within(patience_s),
        fetch_inventory.s(product_id).within(patience_s),
        fetch_reviews.s(product_id).within(patience_s),
        fetch_recommendations.s(product_id).within(patience_s),
    )
    for _, error in found.bad:
        run.log.info("source left out", step=error.step, error=error.message)
    return Enriched(product_id, *found.results)


# 3. A batch with a limit.


@workflow(name="users.process")
async def process_users(run: Run, user_ids: list[str]) -> int:
    """Do it for all of them, ten at a time, on all workers together. The first failure ends it."""
    results = await process_batch(process_user, user_ids, max_concurrency=10)
    run.log.info("batch complete", processed=len(results))
    return len(results)


# 4. A race with a timeout.


@workflow(name="data.fetch")
async def fetch_data_with_racing(run: Run, query: str, limit_s: float = 2.0) -> Data:
    """The first that has it.

    Raises:
        TimedOut: Nobody had it by then.
        AllFailed: All of them failed.
    """
    winner = await with_timeout(race(fetch_primary.s(query), fetch_cache.s(query), fetch_replica.s(query)), limit_s)
    return winner.value


# 5. A person decides, in time.


@workflow(name="requests.approve")
async def process_with_approval(run: Run, request: Request) -> str:
    """Wait for a person's answer; without one in time, escalate.

    Raises:
        TerminalError: The person said no (code 403).
    """
    answer = await race_promise_with_timeout(f"approval-{request.request_id}", Approval, timeout_s=request.patience_s)
    if answer.timed_out:
        return await escalate.s(request)
    if not answer.value.approved:
        raise TerminalError("request denied", code=403)
    return await carry_out.s(request)


# 6. A saga with an optional step and partial compensation.


@dataclass(frozen=True)
class Settled:
    """How a transfer ended; `why` it did not move."""

    tx_id: str
    moved: bool
    why: str = ""


@workflow(name="transactions.complex")
async def complex_transaction(run: Run, tx: Transaction) -> Settled:
    """Move money. The analysts need not hear of it; the other account must take it, or all is undone."""
    async with Saga(run, "complex-tx") as saga:
        await (
            saga.safe_step("debit-account")
            .with_compensation(credit_account.s(tx.from_account, tx.cents, tx.tx_id))
            .execute(debit_account.s(tx.from_account, tx.cents, tx.tx_id))
        )
        try:
            await saga.safe_step("update-analytics").with_compensation(remove_analytics).execute(update_analytics.s(tx))
        except StepFailed as failed:
            run.log.warning("not counted", error=failed.message)  # optional: the transfer goes on
        try:
            await (
                saga.safe_step("credit-account")
                .with_compensation(take_back.s(tx.to_account, tx.cents, tx.tx_id))
                .execute(credit_account.s(tx.to_account, tx.cents, tx.tx_id))
            )
        except StepFailed as refused:
            await saga.rollback(Strategy.COMPENSATE_COMPLETED)  # what has failed needs no undo
            return Settled(tx.tx_id, moved=False, why=refused.message)
    return Settled(tx.tx_id, moved=True)


# 7. Status tracking.


@workflow(name="jobs.process")
async def process_data(run: Run, job: Job) -> None:
    """Make a report, stage by stage; who looks sees the stage, and which one failed."""
    stages = [
        ("download", 0.2, jobs.download),
        ("validate", 0.4, jobs.validate),
        ("transform", 0.6, jobs.transform),
        ("upload", 0.8, jobs.upload),
        ("notify", 1.0, jobs.complete),
    ]
    for stage, progress, work in stages:
        run.update_status(phase=stage, progress=progress)
        try:
            await work.s(job)
        except StepFailed as failed:
            run.update_status(phase="failed", progress=progress, error=str(failed), stage=stage)
            raise


def get_job_status(run_id: str) -> RunStatus:
    """How far a job is: from any process, while it runs and afterwards.

    Raises:
        RunNotFound: There is no such run.
    """
    return get_status(run_id)


# 8. A step for each item, and the values in their order.


@workflow(name="products.price_list")
async def price_list(run: Run, product_ids: list[str]) -> dict[str, int]:
    """What each article costs, in cents; four are asked for at a time."""
    prices = await map_concurrent(fetch_pricing, product_ids, max_concurrency=4)
    return {product_id: price.cents for product_id, price in zip(product_ids, prices, strict=True)}


# 9. Two of three copies.


@workflow(name="data.read_quorum")
async def read_quorum(run: Run, name: str) -> Version:
    """The newest of what the first two copies say: one of any two has seen the last write.

    Raises:
        QuorumFailed: Two of the three do not answer.
    """
    answers = await quorum(2, *(read_copy.s(copy, name).named(f"copy-{copy}") for copy in COPIES))
    return max((version for _, version in answers), key=lambda version: version.number)


@workflow(name="data.write_quorum")
async def write_quorum(run: Run, name: str, version: Version) -> list[str]:
    """Write a version to two copies at least; gives those that have confirmed it.

    Raises:
        QuorumFailed: Two of the three can't be written.
    """
    written = await quorum(2, *(write_copy.s(copy, name, version).named(f"copy-{copy}") for copy in COPIES))
    return [list(COPIES)[index] for index, _ in written]


# 10. A second request, if the first is slow.


@workflow(name="data.hedged")
async def fetch_hedged(run: Run, query: str) -> Data:
    """Ask the primary; after 0.3 s, or when it has failed, the replica too.

    Raises:
        AllFailed: Both failed.
    """
    winner = await race(fetch_primary.s(query), fetch_replica.s(query).named("hedge").after(0.3))
    return winner.value


# 11. Children.


@workflow(name="users.onboard")
async def onboard(run: Run, user_ids: list[str]) -> int:
    """Let a team in, if each of it may; one who may not ends it for all.

    Raises:
        StepFailed: Of the first who may not.
    """
    run.update_status(phase="validation", progress=0.0)
    await fan_out_fail(*(validate_user.s(user_id).with_run_id(f"{run.id}.{user_id}") for user_id in user_ids))
    run.update_status(phase="welcome", progress=1.0)
    return len(user_ids)


@workflow(name="data.freshest")
async def freshest(run: Run, query: str) -> Data:
    """A child workflow is a part of a join as any call is.

    Raises:
        AllFailed: Neither had it.
    """
    found: list[Part[Data]] = [fetch_cache.s(query), fetch_data_with_racing.s(query)]
    return (await race(*found)).value


# 12. Several approvers.


@workflow(name="requests.four_eyes")
async def four_eyes(run: Run, request: Request) -> str:
    """Two of three must answer, and both say yes; nobody need wait for the third.

    Raises:
        TerminalError: One of the two said no (code 403).
    """
    answers: list[Promise[Approval]] = [promise(f"approval-{who}", Approval) for who in APPROVERS]
    try:
        votes = await with_timeout(quorum(2, *answers), request.patience_s)
    except TimedOut:
        return await escalate.s(request)
    if not all(vote.approved for _, vote in votes):
        raise TerminalError("denied", code=403)
    try:
        return await carry_out.s(request)
    except Cancelled:
        await escalate.s(request)
        raise
