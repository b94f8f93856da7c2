"""All workloads, by name."""

from __future__ import annotations

from bench.w1_orders import Orders
from bench.w2_fan import Fan
from bench.w3_batch import Batch
from bench.w4_race import Race
from bench.w5_undo import Undo
from bench.w6_crash import Crash
from bench.workload import Workload

WORKLOADS: dict[str, Workload] = {
    workload.name: workload for workload in (Orders(), Fan(), Batch(), Race(), Undo(), Crash())
}
