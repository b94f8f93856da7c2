"""The saga log of a world, in memory, and what a saga must have done in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import StaticPool, create_engine, event, text

from saga import schema
from saga.log import Begin, EntryState, SagaLog
from simulation.reference import Late, Reference
from simulation.watch import Violation
from status.records import PartRef

if TYPE_CHECKING:
    from simulation.world import World


def in_memory() -> Any:
    """A database that one thread sees."""
    opened = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

    def begin_ourselves(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    event.listen(opened, "connect", begin_ourselves)
    event.listen(opened, "begin", lambda connection: connection.connection.driver_connection.execute("BEGIN IMMEDIATE"))
    schema.create_all(opened)
    return opened


class SimLog(SagaLog):
    """The real log, with a boundary before and after each write."""

    world: World
    database: Any

    def __init__(self) -> None:
        super().__init__(self.database)

    def write(self, changes: Any) -> None:
        for change in changes:
            if isinstance(change, Begin):
                self._must_be_next(change)
        self.world.boundary("before saga log")
        super().write(changes)
        self.world.boundary("after saga log")

    def _must_be_next(self, change: Begin) -> None:
        """What is written ahead must come to be, so its turn may not be ahead of the journal."""
        n, watch = int(str(change.undo["undoes"]).rpartition("/")[2].partition(".")[0]), self.world.watch
        if not watch.restored and not set(range(n)) <= watch.seen.decided.keys():
            raise Violation(f"an undo of await {n} is logged, and only {sorted(watch.seen.decided)} are recorded")


class SagaWatch:
    """Whether what was done is undone."""

    def __init__(self, world: World, database: Any) -> None:
        self._world = world
        self._database = database
        SimLog.world, SimLog.database = world, database
        with database.begin() as connection:
            connection.execute(text("DELETE FROM saga_log"))

    def must_know(self, ref: PartRef, undoes: str | None) -> None:
        """An action begins: its undo must be in the log."""
        n = self._world.action_of(ref, undoes)
        joins = self._world.plan.joins
        if n is None or not joins[n].undone:
            return
        seq = sum(len(join.good) for join in joins[:n] if join.undone) + int(ref.p)
        with self._database.begin() as connection:
            key = {"key": f"{ref.run_id}#{seq}"}
            if not connection.execute(text("SELECT 1 FROM saga_log WHERE key = :key"), key).scalar():
                raise Violation(f"{ref.step_id} begins, and its undo is not in the saga's log")

    def check(self, reference: Reference) -> None:
        """The run has ended: nothing is forgotten, nothing undone twice."""
        plan, seen = self._world.plan, self._world.watch.seen
        if not plan.strategy:
            return
        awaited = [place for place, _ in reference.undos]
        at_once = [
            f"{entry.n}.{entry.p[:-1]}" for entry in seen.log if isinstance(entry, Late) and entry.p.endswith("u")
        ]
        undone = [*awaited, *at_once]
        if len(undone) != len(set(undone)):
            raise Violation(f"undone twice: {sorted(undone)}")
        for n, join in enumerate(plan.joins[: reference.reached]):
            for p in range(len(join.good) if join.undone else 0):
                place = f"{n}.{p}"
                if self._must_be_undone(reference, place) and place not in undone:
                    gave_up = plan.strategy != "best_effort" and any(how != "v" for _, how in reference.undos)
                    if not gave_up:
                        raise Violation(f"{place} was never undone: {seen.log}")
        gave_up_late = any(
            isinstance(entry, Late) and entry.p.endswith("u") and entry.came != "v" for entry in seen.log
        )
        if not reference.undo_failed and not gave_up_late and not self._world.watch.restored:
            self._nothing_is_owed()

    def _must_be_undone(self, reference: Reference, place: str) -> bool:
        """By nothing but what was recorded and who began."""
        seen, plan = self._world.watch.seen, self._world.plan
        n, _, p = place.partition(".")
        in_time, late = seen.journal.get(place, ""), seen.late.get(place, "")
        if late[:1] in {"v", "u", "t"} and in_time in {"", "t"}:
            return True  # nobody could use what it did
        if not reference.rolled_back or (int(n), p) not in self._world.watch.seen.granted:
            return False
        # Its time was up and then it said what came of it: that is better than nothing.
        known = late if in_time == "t" and late else in_time or late
        return plan.strategy != "compensate_completed" or known[:1] != "e"

    def _nothing_is_owed(self) -> None:
        owed = [(entry.key, entry.state) for entry in SimLog().of_run(self._world.run_id) if entry.state.owed]
        began = [(key, state) for key, state in owed if state is not EntryState.BEGUN]
        if began:
            raise Violation(f"the saga's log still owes {began}")
