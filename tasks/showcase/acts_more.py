"""The catalogue's other patterns, played."""

from __future__ import annotations

from datetime import timedelta

from canvas import promise
from status import State, StepStatus, get_status
from tasks import sources
from tasks.catalogue import (
    APPROVERS,
    fetch_hedged,
    four_eyes,
    freshest,
    onboard,
    price_list,
    read_quorum,
    write_quorum,
)
from tasks.catalogue_data import ARTICLES, CACHED_QUERY
from tasks.catalogue_steps import Approval, Data, Request
from tasks.domain import Provider
from tasks.showcase.acts import HANGS, refuses, slow
from tasks.showcase.stage import Stage, Started, ended, said, state_of
from tasks.sources import Version


def mapped(stage: Stage) -> None:
    """Pattern 8."""
    stage.say("the prices of eight articles, four at a time; then with one that nobody knows")
    good = stage.start(price_list.s(list(ARTICLES)), "prices", {Provider.PRICING: slow(100)})
    bad = stage.start(price_list.s([*ARTICLES, "p-99"]), "unknown")
    stage.follow(good, bad)
    stage.show("the values come in the order of the items, whoever was done first")
    right = {product_id: article.cents for product_id, article in ARTICLES.items()}
    stage.check("each article has its own price", good.value() == right, good.value())
    stage.check("the first failure ends it", ended(bad, State.FAILED, 404), said(bad))


def quorums(stage: Stage) -> None:
    """Pattern 9."""
    name = f"price-{stage.id}"
    stage.say("three copies: a write and a read of two each; one copy may be down; two may not")
    down = refuses("no answer")
    first = stage.start(write_quorum.s(name, Version(1, "10 €")), "write-1")
    stage.follow(first)
    second = stage.start(write_quorum.s(name, Version(2, "12 €")), "write-2", {Provider.COPY_C: down})
    stage.follow(second)
    read = stage.start(read_quorum.s(name), "read", {Provider.COPY_A: down})
    lost = stage.start(read_quorum.s(name), "read-one", {Provider.COPY_A: down, Provider.COPY_B: down})
    stage.follow(read, lost)
    stage.show("the first two that answer are enough; of any two copies one has seen the last write")
    stage.show("when two can't be had any more, the quorum fails at once")
    stage.check(
        "two copies have confirmed each write",
        all(len(run.value() or ()) == 2 for run in (first, second)),
        second.value(),
    )
    stage.check(
        "a read sees the last write, though the copy it was read from may be old",
        read.value() == Version(2, "12 €"),
        read.value(),
    )
    stage.check("with two copies down nothing is read", ended(lost, State.FAILED), said(lost))


def hedged(stage: Stage) -> None:
    """Pattern 10."""
    stage.say(
        "a primary that is quick, hangs, fails; the replica is asked after 0.3 s, or as soon as the primary has failed"
    )
    truth = Data(sources.titles_with(CACHED_QUERY))
    quick = stage.start(fetch_hedged.s(CACHED_QUERY), "quick")
    hangs = stage.start(fetch_hedged.s(CACHED_QUERY), "hangs", {Provider.PRIMARY: HANGS})
    fails = stage.start(fetch_hedged.s(CACHED_QUERY), "fails", {Provider.PRIMARY: refuses("full")})
    both = stage.start(
        fetch_hedged.s(CACHED_QUERY), "both-fail", {Provider.PRIMARY: refuses("full"), Provider.REPLICA: refuses("too")}
    )
    stage.follow(quick, hangs, fails, both)
    stage.show("a second request is only made where the first is slow or has failed")
    for run in (quick, hangs, fails):
        stage.check(f"{run.label}: the right answer", run.value() == truth, said(run))
    stage.check("not before its time", *_patient(quick))
    stage.check("the one that hangs is stopped", state_of(hangs, 0) == "stopped", f"primary {state_of(hangs, 0)}")
    stage.check("if both fail, it fails", ended(both, State.FAILED), said(both))


def _patient(run: Started[Data]) -> tuple[bool, str]:
    """Whether the hedge was not sent, or only when the first had had its time."""
    first, hedge = _parts(run)
    if hedge.started_at is None or first.started_at is None:
        return True, "the replica was never asked"
    waited = hedge.started_at - run.status.started_at
    return waited >= timedelta(seconds=0.25), f"the primary was slow today: asked after {waited.total_seconds():.2f} s"


def _parts(run: Started[Data]) -> tuple[StepStatus, StepStatus]:
    first, hedge = run.status.steps[:2]
    return first, hedge


def children(stage: Stage) -> None:
    """Pattern 11."""
    stage.say("a team is let in by a child workflow each; then one of them may not; then a child as a part of a race")
    team = stage.start(onboard.s(["ada", "cleo"]), "team")
    stopped = stage.start(
        onboard.s(["ada", "mallory"]),
        "stopped",
        children={"ada": {Provider.KYC: HANGS}, "mallory": {Provider.BLACKLIST: slow(200)}},
    )
    raced = stage.start(freshest.s("rug"), "raced")
    stage.follow(team, stopped, raced)
    ada = stage.child(stopped, "ada")
    stage.follow(ada)
    stage.show("a child is a run of its own, with a status and a history; its parent sees its error as its own step's")
    stage.show("a child that nobody needs any more is cancelled, and its steps are stopped")
    stage.check("all were let in", team.value() == 2, said(team))
    states = [get_status(f"{team.run_id}.{user}").state.value for user in ("ada", "cleo")]
    stage.check("each child has ended well", states == ["completed", "completed"], states)
    stage.check("the parent fails with the child's error", ended(stopped, State.FAILED, 403), said(stopped))
    stage.check("the sibling is cancelled", ended(ada, State.CANCELLED), said(ada))
    stage.check("a child may win a race", raced.value() == Data(sources.titles_with("rug")), said(raced))


def approvals(stage: Stage) -> None:
    """Pattern 12."""
    requests = {label: Request(f"{stage.id}-{label}", 60.0) for label in ("agreed", "denied")}
    requests["nobody"] = Request(f"{stage.id}-nobody", 1.0)
    agreed, denied, nobody = (stage.start(four_eyes.s(request), label) for label, request in requests.items())
    for run, answers in ((agreed, {"ann": True, "cy": True}), (denied, {"ann": True, "bob": False})):
        for who, yes in answers.items():
            promise(f"approval-{who}", Approval).resolve(run.run_id, Approval(approved=yes, by=who))
    runs = [agreed, denied, nobody]
    if stage.wait_s:
        requests["yours"] = Request(f"{stage.id}-yours", stage.wait_s)
        yours = stage.start(four_eyes.s(requests["yours"]), "yours")
        stage.ask("answer two of these", yours, *(f"approval-{who}" for who in APPROVERS))
        runs.append(yours)
    stage.follow(*runs, wait_s=stage.wait_s)
    stage.show("two of three approvers are enough, and nobody waits for the third; one no denies it")
    for run in runs:
        verdicts, result = sources.verdicts(requests[run.label].request_id), run.value()
        agree = verdicts == ([] if result is None else [result])
        stage.check(f"{run.label}: decided once, as the run says", agree, [said(run), *verdicts])
    stage.check("two yes carry it out", agreed.value() == "carried out", said(agreed))
    stage.check("a no denies it, with code 403", ended(denied, State.FAILED, 403), said(denied))
    stage.check("without two answers in time it is escalated", nobody.value() == "escalated", said(nobody))
