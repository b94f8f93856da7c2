"""The catalogue's patterns where it hurts: nobody answers, all is down, nothing is there to do, too late."""

# ruff: noqa: F811  # the fixture is imported
from __future__ import annotations

from typing import Any

import pytest

from canvas import Answer, RunFailed, promise
from showroom import HANGS, Showroom, _show_its_log, refuses, showroom  # noqa: F401  # fixtures
from status import State, get_status
from tasks import jobs, sources
from tasks.catalogue import (
    enrich_product,
    fetch_data_with_racing,
    fetch_hedged,
    four_eyes,
    get_job_status,
    onboard,
    price_list,
    process_data,
    process_users,
    process_with_approval,
    read_quorum,
    validate_user,
    write_quorum,
)
from tasks.catalogue_steps import Approval, Data, Details, Enriched, Request
from tasks.domain import Behaviour, Provider
from tasks.jobs import Job
from tasks.sources import Version
from waiting import wait_until

TIMEOUT_S = 60


def failure(handle: Any) -> RunFailed:
    with pytest.raises(RunFailed) as raised:
        handle.result(timeout_s=TIMEOUT_S)
    return raised.value


def steps(run_id: str) -> dict[str, str]:
    """The state of each step, by its name."""
    return {step.name: step.state for step in get_status(run_id).steps}


def stopped(run_id: str, *names: str) -> None:
    """These steps are stopped, and long before they would have ended by themselves."""
    wait_until(lambda: {steps(run_id)[name] for name in names} == {"stopped"}, f"{names} are stopped", 20)


# --- 1. fan-out validation


def test_a_check_that_says_no_waits_for_the_others_and_one_that_raises_does_not(showroom: Showroom) -> None:
    said_no = validate_user.s("bob").submit(run_id=showroom.run_id())
    raised = validate_user.s("mallory").submit(run_id=showroom.run_id({Provider.KYC: HANGS}))

    assert (failure(said_no).code, failure(said_no).message) == (400, "validation check failed")
    assert set(steps(said_no.run_id).values()) == {"done"}
    assert (failure(raised).code, failure(raised).message) == (403, "mallory is on the blacklist")
    stopped(raised.run_id, "users.check_kyc_completed")


def test_a_check_whose_register_is_down_for_a_moment_is_asked_again(showroom: Showroom) -> None:
    run_id = showroom.run_id({Provider.KYC: Behaviour(error="busy", failing_attempts=2)})

    assert validate_user.s("ada").submit(run_id=run_id).result(timeout_s=TIMEOUT_S) is None

    assert {step.name: step.attempt for step in get_status(run_id).steps}["users.check_kyc_completed"] == 3


# --- 2. enrichment


def test_with_some_sources_down_the_rest_is_used(showroom: Showroom) -> None:
    run_id = showroom.run_id({Provider.PRICING: refuses(), Provider.REVIEWS: refuses()})

    found = enrich_product.s("p-1", 50.0).submit(run_id=run_id).result(timeout_s=TIMEOUT_S)

    assert found == Enriched("p-1", Details("Brass lamp"), None, 3, None, ["p-2"])


def test_with_all_sources_down_there_is_an_empty_product_and_no_failure(showroom: Showroom) -> None:
    five = (Provider.DETAILS, Provider.PRICING, Provider.UNITS, Provider.REVIEWS, Provider.RECOMMENDATIONS)
    run_id = showroom.run_id(dict.fromkeys(five, refuses()))

    found = enrich_product.s("p-1", 50.0).submit(run_id=run_id).result(timeout_s=TIMEOUT_S)

    assert found == Enriched("p-1", None, None, None, None, None)
    assert get_status(run_id).state is State.COMPLETED


# --- 3. batch


def test_a_batch_of_nobody_is_done_at_once(showroom: Showroom) -> None:
    assert process_users.s([]).submit(run_id=showroom.run_id()).result(timeout_s=TIMEOUT_S) == 0


def test_a_batch_never_works_on_more_than_ten_and_leaves_nobody_out(showroom: Showroom) -> None:
    users = [f"u{n}" for n in range(24)]
    run_id = showroom.run_id({Provider.CRM: Behaviour(latency_ms=1000)})

    assert process_users.s(users).submit(run_id=run_id).result(timeout_s=TIMEOUT_S) == 24

    visits = sources.visits(run_id)
    assert sorted(visit.user_id for visit in visits) == sorted(users)
    assert max(visit.alongside for visit in visits) <= 10


# --- 4. race


def test_when_all_fail_the_race_fails_with_every_error(showroom: Showroom) -> None:
    run_id = showroom.run_id({Provider.PRIMARY: refuses("p"), Provider.REPLICA: refuses("r")})

    failed = failure(fetch_data_with_racing.s("chair", 50.0).submit(run_id=run_id))

    assert failed.error_type == "status.errors.AllFailed"
    for said in ("primary: p", "replica: r", "'chair' is not in the cache"):
        assert said in failed.message


def test_when_nobody_answers_in_time_the_race_ends_and_all_are_stopped(showroom: Showroom) -> None:
    run_id = showroom.run_id(dict.fromkeys((Provider.PRIMARY, Provider.CACHE, Provider.REPLICA), HANGS))

    failed = failure(fetch_data_with_racing.s("lamp", 0.5).submit(run_id=run_id))

    assert (failed.code, failed.error_type) == (408, "status.errors.TimedOut")
    stopped(run_id, "data.fetch_primary", "data.fetch_cache", "data.fetch_replica")


# --- 5. approval


def test_without_an_answer_in_time_a_request_is_escalated_and_a_later_answer_is_late(showroom: Showroom) -> None:
    request = Request(showroom.run_id(), patience_s=0.3)
    handle = process_with_approval.s(request).submit(run_id=request.request_id)

    assert handle.result(timeout_s=TIMEOUT_S) == "escalated"

    answer = promise(f"approval-{request.request_id}", Approval).resolve(handle.run_id, Approval(approved=True))
    assert answer is Answer.LATE
    assert sources.verdicts(request.request_id) == ["escalated"]


@pytest.mark.parametrize("approved", [True, False])
def test_the_first_answer_counts_also_one_that_comes_before_the_question(showroom: Showroom, approved: bool) -> None:
    request = Request(showroom.run_id(), patience_s=300.0)
    handle = process_with_approval.s(request).submit(run_id=request.request_id)
    approval = promise(f"approval-{request.request_id}", Approval)

    answers = [approval.resolve(handle.run_id, Approval(approved=said)) for said in (approved, not approved)]

    assert answers == [Answer.ACCEPTED, Answer.LATE]
    if approved:
        assert handle.result(timeout_s=TIMEOUT_S) == "carried out"
    else:
        assert (failure(handle).code, failure(handle).message) == (403, "request denied")
    assert sources.verdicts(request.request_id) == (["carried out"] if approved else [])


# --- 7. status


def test_a_job_can_be_asked_while_it_runs_and_afterwards_which_stage_failed(showroom: Showroom) -> None:
    run_id = showroom.run_id({Provider.EXPORTS: Behaviour(latency_ms=500)})
    handle = process_data.s(Job(run_id, "product,cents\nlamp,much\n")).submit(run_id=run_id)

    during = wait_until(lambda: (now := get_job_status(run_id)).phase and now, "it has begun", TIMEOUT_S)

    assert (during.phase, during.progress, during.finished) == ("download", 0.2, False)
    assert failure(handle).code == 422
    after = get_job_status(run_id)
    assert (after.state, after.phase, after.progress) == (State.FAILED, "failed", 0.4)
    assert after.metadata["stage"] == "validate"
    assert "line 2: 'much' is no number of cents" in after.metadata["error"]
    assert jobs.stages_of(run_id) == {"download"}


# --- 8. map


@pytest.mark.parametrize("product_ids", [[], ["p-3"], ["p-3", "p-1", "p-3"]])
def test_a_map_gives_a_value_for_each_item(showroom: Showroom, product_ids: list[str]) -> None:
    prices = price_list.s(product_ids).submit(run_id=showroom.run_id()).result(timeout_s=TIMEOUT_S)

    assert prices == {product_id: {"p-1": 1250, "p-3": 1750}[product_id] for product_id in product_ids}


# --- 9. quorum


def test_a_quorum_reads_the_last_write_from_any_two_copies_and_fails_when_there_is_one(showroom: Showroom) -> None:
    name, newest = showroom.run_id(), Version(2, "new")
    for version, down in ((Version(1, "old"), Provider.COPY_A), (newest, Provider.COPY_C)):
        run_id = showroom.run_id({down: refuses()})
        assert len(write_quorum.s(name, version).submit(run_id=run_id).result(timeout_s=TIMEOUT_S)) == 2

    for down in (Provider.COPY_A, Provider.COPY_B, Provider.COPY_C):
        read = read_quorum.s(name).submit(run_id=showroom.run_id({down: refuses()}))
        assert read.result(timeout_s=TIMEOUT_S) == newest

    alone = showroom.run_id({Provider.COPY_A: refuses(), Provider.COPY_B: refuses(), Provider.COPY_C: HANGS})
    assert failure(read_quorum.s(name).submit(run_id=alone)).error_type == "status.errors.QuorumFailed"


# --- 10. hedge


def test_a_hedge_does_not_wait_for_its_time_when_the_first_has_failed(showroom: Showroom) -> None:
    run_id = showroom.run_id({Provider.PRIMARY: refuses()})

    found = fetch_hedged.s("lamp").submit(run_id=run_id).result(timeout_s=TIMEOUT_S)

    assert found == Data(["Brass lamp", "Desk lamp", "Oil lamp"])
    assert steps(run_id) == {"data.fetch_primary": "failed", "hedge": "done"}


# --- 11. children


def test_one_child_that_fails_cancels_the_others_and_no_team_is_a_team_too(showroom: Showroom) -> None:
    run_id = showroom.run_id()
    showroom.behave(f"{run_id}.ada", {Provider.KYC: HANGS})

    failed = failure(onboard.s(["ada", "mallory"]).submit(run_id=run_id))

    assert (failed.code, failed.message) == (403, "mallory is on the blacklist")
    wait_until(lambda: get_status(f"{run_id}.ada").finished, "ada's child has ended", TIMEOUT_S)
    assert get_status(f"{run_id}.ada").state is State.CANCELLED
    assert onboard.s([]).submit(run_id=showroom.run_id()).result(timeout_s=TIMEOUT_S) == 0


# --- 12. approvals


def ask_two(showroom: Showroom, patience_s: float = 300.0) -> tuple[Request, Any]:
    request = Request(showroom.run_id(), patience_s)
    return request, four_eyes.s(request).submit(run_id=request.request_id)


def answer(handle: Any, **says: bool) -> None:
    for who, yes in says.items():
        promise(f"approval-{who}", Approval).resolve(handle.run_id, Approval(approved=yes, by=who))


def test_two_of_three_are_enough_and_one_no_among_them_denies(showroom: Showroom) -> None:
    agreed, handle = ask_two(showroom)
    answer(handle, bob=True, cy=True)
    denied, refused = ask_two(showroom)
    answer(refused, ann=True, cy=False)

    assert handle.result(timeout_s=TIMEOUT_S) == "carried out"
    assert failure(refused).code == 403
    assert [sources.verdicts(request.request_id) for request in (agreed, denied)] == [["carried out"], []]


def test_one_yes_is_not_enough_and_after_its_time_the_request_is_escalated(showroom: Showroom) -> None:
    request, handle = ask_two(showroom, patience_s=1.0)
    answer(handle, ann=True)

    assert handle.result(timeout_s=TIMEOUT_S) == "escalated"
    assert sources.verdicts(request.request_id) == ["escalated"]


def test_two_approvers_who_can_not_be_asked_end_it_at_once(showroom: Showroom) -> None:
    request, handle = ask_two(showroom)
    for who in ("ann", "cy"):
        promise(f"approval-{who}", Approval).reject(handle.run_id, f"{who} has left", code=410)

    assert failure(handle).error_type == "status.errors.QuorumFailed"
    assert sources.verdicts(request.request_id) == []
