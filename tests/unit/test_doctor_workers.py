"""What the doctor says of app and workers, from what they say of themselves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from canvas import doctor as asking
from canvas import doctor_app, step, workflow
from canvas.doctor_app import Setup, app_findings
from canvas.doctor_workers import Needs, Node, worker_findings
from canvas.worker_info import describe, digest
from core import current_app

OWN = {
    "version": "1.0",
    "python": "3.11",
    "steps": ["shop.pay", "shop.pack"],
    "workflows": ["shop.order"],
    "modules": {"shop": "abc"},
}
NEEDS = Needs(
    queue_of={"shop.pay": "pay", "shop.pack": "pack", "shop.order": "turns"},
    interruptible=frozenset({"shop.pay"}),
    own=OWN,
)
NODE = Node(name="w1@a", pool="prefork", slots=2, prefetch=8, queues=frozenset({"pay", "pack", "turns"}), info=OWN)
SETUP = Setup(backend="canvas.backend:RunBackend+redis://x/0", transport=doctor_app.OUR_TRANSPORT)


def findings(*nodes: Node, needs: Needs = NEEDS) -> list[tuple[str, str]]:
    """What is said that is not ok."""
    found = worker_findings(nodes, needs, "shop", 2.0)
    assert all(each.remedy for each in found if each.severity in {"warning", "error"}), found
    return [(each.severity.value, each.check) for each in found if each.severity != "ok"]


def told(*nodes: Node, needs: Needs = NEEDS) -> str:
    return "\n".join(f"{each.seen} → {each.remedy}" for each in worker_findings(nodes, needs, "shop", 2.0))


def other(**info: Any) -> Node:
    return replace(NODE, name="w2@b", info=OWN | info)


# --- workers --------------------------------------------------------------------------


def test_a_worker_that_serves_everything_gives_nothing_but_ok():
    assert findings(NODE) == []
    assert findings(NODE, other()) == []


def test_no_worker_is_a_warning_and_with_runs_an_error():
    assert findings() == [("warning", "workers")]
    assert findings(needs=replace(NEEDS, unfinished=3)) == [("error", "workers")]
    assert "3 runs wait" in told(needs=replace(NEEDS, unfinished=3))


def test_a_queue_without_a_worker_is_a_warning_and_with_something_on_it_an_error():
    half = replace(NODE, queues=frozenset({"pay", "turns"}))
    waiting = replace(NEEDS, runs_on={"pack": 2}, messages_on={"pack": 1})

    assert findings(half) == [("warning", "workers.queues")]
    assert findings(half, needs=waiting) == [("error", "workers.queues")]
    assert findings(half, needs=replace(NEEDS, messages_on={"pack": 1})) == [("error", "workers.queues")]
    assert "no worker listens on queue 'pack': 2 runs wait on it, 1 message lies there" in told(half, needs=waiting)
    assert "start one with `celery -A shop worker -Q pack`" in told(half, needs=waiting)


def test_a_queue_that_only_runs_know_of_counts_too():
    assert findings(NODE, needs=replace(NEEDS, runs_on={"attic": 1})) == [("error", "workers.queues")]


def test_numbers_of_a_sample_are_said_to_be_that():
    sampled = replace(NEEDS, runs_on={"attic": 40}, is_complete=False)

    assert "at least 40 runs wait on it" in told(NODE, needs=sampled)


def test_a_worker_without_celeriac_is_an_error_only_where_it_takes_our_messages():
    stock = replace(NODE, name="stock@a", info=None)

    assert findings(NODE, stock) == [("error", "workers.install")]
    assert findings(NODE, replace(stock, queues=frozenset({"mail"}))) == []


def test_another_version_or_other_code_is_a_warning():
    assert findings(other(version="0.9")) == [("warning", "workers.version")]
    assert findings(other(modules={"shop": "xyz"})) == [("warning", "workers.code")]
    assert "w2@b runs other code of shop" in told(other(modules={"shop": "xyz"}))
    assert findings(other(modules={"more": "xyz", "shop": "abc"})) == []


def test_code_of_another_python_can_not_be_compared():
    assert findings(other(python="3.12", modules={"shop": "xyz"})) == [("info", "workers.code")]


def test_a_workflow_of_runs_that_no_worker_knows_is_an_error():
    runs = replace(NEEDS, running={"shop.order": 1, "shop.refund": 2})

    assert findings(NODE, needs=runs) == [("error", "workers.workflows")]
    assert "no worker knows the workflow 'shop.refund', of which 2 runs have not ended" in told(NODE, needs=runs)


def test_a_worker_that_listens_for_what_it_does_not_know_is_a_warning():
    lacking = other(steps=["shop.pay"])

    assert findings(NODE, lacking) == [("warning", "workers.tasks")]
    assert findings(NODE, replace(lacking, queues=frozenset({"pay"}))) == []


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_a_pool_that_can_not_kill_is_a_warning_where_its_steps_may_be_interrupted(pool: str):
    soft = replace(NODE, pool=pool)

    assert findings(soft) == [("warning", "workers.pool")]
    assert findings(NODE, replace(soft, queues=frozenset({"pack"}))) == []
    assert findings(soft, needs=replace(NEEDS, interruptible=frozenset())) == []


@pytest.mark.parametrize(("number", "slots", "bad"), [(0, 2, True), (32, 2, False), (33, 2, True)])
def test_a_worker_that_takes_more_than_it_can_do_soon_is_a_warning(number: int, slots: int, bad: bool):
    greedy = replace(NODE, prefetch=number, slots=slots)

    assert findings(greedy) == ([("warning", "workers.prefetch")] if bad else [])


def test_a_clock_that_is_certainly_off_is_a_warning():
    assert findings(replace(NODE, off_s=3.0)) == [("warning", "workers.clock")]
    assert "at least 3.0 s before" in told(replace(NODE, off_s=3.0))
    assert "at least 3.0 s behind" in told(replace(NODE, off_s=-3.0))


@pytest.mark.parametrize(("theirs_s", "off_s"), [(100.0, 0.0), (100.5, 0.0), (101.0, 0.0), (104.0, 3.0), (97.0, -3.0)])
def test_a_clock_is_off_only_as_far_as_the_way_of_the_message_does_not_explain(theirs_s: float, off_s: float):
    assert asking.off_s(theirs_s, 100.0, 101.0) == off_s


# --- the app --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"backend": "redis://x"}, [("error", "app.install")]),
        ({"backend": ""}, [("error", "app.install")]),
        ({"has_pulse": False}, [("error", "app.install")]),
        ({"transport": ""}, [("warning", "app.transport")]),
        ({"on_redis": False, "transport": "", "options": {}}, [("info", "app.transport")]),
        ({"options": SETUP.options | {"retry_on_timeout": True}}, [("error", "app.options")]),
        ({"options": {"visibility_timeout": 3600}}, [("warning", "app.options")]),
        ({"options": SETUP.options | {"visibility_timeout": 30}}, [("warning", "app.visibility")]),
        ({"longest_s": 7200}, [("warning", "app.visibility")]),
        ({"multiplier": 0}, [("warning", "app.prefetch")]),
        ({"early_acks": ["shop.pay"]}, [("warning", "app.acks")]),
        ({"others": ["mail.send"]}, [("info", "app.acks")]),
    ],
)
def test_each_setting_that_loses_or_repeats_work_is_found(change: dict[str, Any], expected: list[tuple[str, str]]):
    found = app_findings(replace(SETUP, **change))

    assert [(each.severity.value, each.check) for each in found if each.severity != "ok"] == expected
    assert all(each.remedy for each in found if each.severity in {"warning", "error"})


# --- code -----------------------------------------------------------------------------

SHOP = """
LIMIT = frozenset({"a", "b", "c", "d"})
def helper(x): return x in {"a", "b", "c", "d"} and [y for y in x]
class Order:
    def total(self): return {total}
"""


def digest_in_another_process(hash_seed: int, total: int = 1, comment: str = "") -> str:
    code = f"""
import sys, types
module = types.ModuleType("shop"); sys.modules["shop"] = module
exec(compile({comment!r} + {SHOP.replace("{total}", str(total))!r}, "shop.py", "exec"), vars(module))
from canvas.worker_info import digest
print(digest("shop", [module.helper]))
"""
    env = {"PYTHONHASHSEED": str(hash_seed), "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_the_same_code_has_the_same_digest_in_each_process_and_other_code_another():
    first = digest_in_another_process(1)

    assert digest_in_another_process(2, comment="# a line more\n") == first
    assert digest_in_another_process(1, total=2) != first


def test_a_worker_tells_its_steps_workflows_and_their_code():
    with current_app() as app:

        @step(name="info.step")
        def one() -> None: ...

        @workflow(name="info.workflow")
        async def flow(run: Any) -> None: ...

        told = describe(app)

    assert ("info.step" in told["steps"], "info.workflow" in told["workflows"]) == (True, True)
    assert set(told["modules"]) >= {__name__}
    assert len(digest(__name__, [])) == 12
