"""`make chaos`, bounded: each kind of fault once, few orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.children import ChildFailed
from chaos.audit import audit
from chaos.faults import KILL_EVERY_S, Fault, plan
from chaos.stage import Plan, play
from status import here, places

#: Each kind once, with time between them to get over it.
ONE_OF_EACH = tuple(
    Fault(1.5 + 1.5 * number, kind, 0.3)
    for number, kind in enumerate(("parent", "child", "client", "cut", "group", "stop", "valkey"))
)


@pytest.fixture
def _own_environment(monkeypatch):
    """A run says in the environment where its Redis is; nobody after it is to see that."""
    for name in ("REDIS_URL", "DATABASE_URL", "CELERIAC_DATA_DIR", "CHAOS_SIDE", "CHAOS_SEED", "CHAOS_REST_MS"):
        monkeypatch.setenv(name, "")
    for name in ("CHAOS_ORDERS", "CHAOS_ORDERS_PER_S", "PYTHONPATH", "PYTHONUNBUFFERED"):
        monkeypatch.setenv(name, "")
    yield
    here.use(None)
    places.reset()


@pytest.mark.usefixtures("_own_environment")
def test_each_kind_of_fault_once_loses_no_order_and_repeats_no_effect(tmp_path: Path):
    bounds = Plan(seed=1, orders=24, orders_per_s=2, workers=3, rest="10-80", wait_s=60, faults=ONE_OF_EACH)
    try:
        ending = play("ours_saga", bounds, tmp_path, print)
    except ChildFailed as failed:
        pytest.fail(str(failed))

    verdict = audit("ours_saga", bounds.orders, tmp_path, ending)

    assert verdict.wrong == ()
    assert (verdict.completed, verdict.stuck, verdict.effects_twice) == (24, 0, 0)
    # What takes longer on a busy machine is the boot of processes; `make chaos` alone has the bar of 8 s.
    assert verdict.worst_recovery_s < 30, verdict.worst_at
    assert set(verdict.faults) >= {"parent", "child", "group", "cut"}


def test_a_seed_gives_the_same_faults_again():
    assert plan(3, 40) == plan(3, 40)
    assert plan(3, 40) != plan(4, 40)


def test_a_worker_is_killed_every_two_seconds_and_valkey_twice():
    faults = plan(1, 40)

    kills = [fault.at_s for fault in faults if fault.kind in {"parent", "group"} and fault.at_s < 40]
    assert kills == [KILL_EVERY_S * (number + 1) for number in range(len(kills))]
    assert [fault.kind for fault in faults].count("valkey") == 2
    assert {fault.kind for fault in faults} == {"parent", "group", "child", "client", "stop", "valkey", "cut"}
