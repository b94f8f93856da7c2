"""What the parts of the core share in one process: the store, the publisher, and how to go on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from canvas import children, tracing
from canvas.lives import enter_again
from canvas.publisher import Publisher
from canvas.run_events import RunEvents
from canvas.stopping import send_stop
from canvas.undoing import undo_message
from status import here
from status.advice import advice
from status.records import Claim, Ending, PartRef, Publishable, RunRecord, TurnTaken
from status.store import Store

if TYPE_CHECKING:
    from celery import Celery

    from canvas.in_place import InPlace
    from canvas.step import Step
    from canvas.workflow import Workflow

T = TypeVar("T")

logger = logging.getLogger("celeriac")

#: How long a finished attempt waits for Redis before it gives its claim up. The claim would be dead by then.
PATIENCE_S = 60.0


class Engine:
    """Runs workflows on a Celery app.

    Args:
        store: Where runs are; None: where `status.here` says.
    """

    def __init__(self, app: Celery, store: Store | None = None) -> None:
        self.app = app
        self.publisher = Publisher(app)
        self.events = RunEvents(app)
        self._store = store

    @property
    def store(self) -> Store:
        """The transitions; connected when first asked for."""
        if self._store is None:
            self._store = here.store()
        return self._store

    def workflow(self, name: str) -> Workflow[Any, Any] | None:
        """The workflow of that name, if this process knows it."""
        found = self.app.tasks.get(name)
        return cast("Workflow[Any, Any]", found) if getattr(found, "is_workflow", False) else None

    def patiently(self, write: Callable[[], T]) -> T | None:
        """Record something, whatever Redis is up to.

        An error while recording is never an outcome: it is tried again until Redis answers. None after
        `PATIENCE_S`: then nothing is recorded, the claim is no longer vouched for, and the sweep repeats the step.
        """
        end_s, wait_s = monotonic() + PATIENCE_S, 0.05
        while True:
            try:
                return write()
            except RedisError as error:
                if monotonic() + wait_s > end_s:
                    logger.exception("could not record an outcome for %s s, the step will run again", PATIENCE_S)
                    return None
                logger.warning("could not record an outcome, trying again in %.2f s: %s", wait_s, advice(error))
                sleep(wait_s)
                wait_s = min(wait_s * 2, 2.0)

    # --- going on -----------------------------------------------------------------

    def go_on(self, run_id: str, ending: Ending, workflow: str | None = None) -> bool:
        """Send and stop what an ending asks for. Returns whether it owes the run a turn.

        Args:
            workflow: The run's, where it is known; else it is looked up if it is needed.
        """
        if ending.publish:
            self.publish(run_id, ending.publish, workflow)
        if ending.stop:
            self.stop(ending.stop)
        return ending.code == "decided"

    def stop(self, claims: Sequence[Claim]) -> None:
        """Stop steps and children that nobody waits for."""
        send_stop(self.app, claims)
        try:
            children.stop(self, claims)
        except RedisError as error:
            logger.warning("a child was not told to stop, the sweep will tell it: %s", error)

    def publish(self, run_id: str, parts: Iterable[Publishable], workflow: str | None = None) -> None:
        """Send parts that the store says may start now."""
        rows = [(part.ref, self.spec_of(part)) for part in parts]
        try:
            name = workflow or cast("str", self.store.redis.hget(self.store.keys.run(run_id), "workflow") or "")
        except RedisError as error:
            # Not raised: what called this has recorded its outcome, and Celery would take it for a failure.
            logger.warning("%s: %d step(s) recorded but not sent, the sweep will: %s", run_id, len(rows), error)
            return
        self.send(run_id, rows, name)

    def drop_connections(self) -> None:
        """Forget all connections of this process, to Redis and to the broker: as Celery does after a fork."""
        self.store.redis.connection_pool.disconnect()
        app: Any = self.app
        # What a step had taken from these when it was cut would never come back.
        for pool in (app.producer_pool, app.pool):
            pool.force_close_all(close_pool=False)
            pool.setup()
        app._after_fork()  # noqa: SLF001  # there is no public way

    def priority(self, part: Publishable) -> int:
        """What a part's message is sent with."""
        return int(self.spec_of(part).get("priority") or 0)

    def spec_of(self, part: Publishable) -> dict[str, Any]:
        """What is sent of a part, as `Publisher.step` takes it."""
        spec: dict[str, Any] = json.loads(part.spec)
        if "items" in spec:  # a part of a batch: its argument is one of these
            item = spec.pop("items")[spec.pop("at")]
            if spec.get("batch") == "wide":
                spec["args"], spec["kwargs"] = item
            else:
                spec = children.of_item(spec, part.ref, item) if "child" in spec else {**spec, "args": [item]}
        return undo_message(spec, part.ref, part.undoes) if part.ref.p.endswith("u") else spec

    def send(self, run_id: str, rows: list[tuple[PartRef, dict[str, Any]]], workflow: str) -> None:
        """Send step messages; what can't be sent stays due."""
        try:
            with tracing.below(self.store, run_id, rows[0][0].nonce if rows else "") as trace:
                if any("child" in spec or "canvas" in spec for _, spec in rows):
                    rows = self._without_others(rows, workflow, trace)
                self.publisher.steps(rows, workflow)
        except (OperationalError, RedisError, OSError) as error:
            logger.warning("%s: %d step(s) recorded but not sent, the sweep will: %s", run_id, len(rows), error)

    def _without_others(self, rows: list[tuple[PartRef, dict[str, Any]]], workflow: str, trace: str) -> list[Any]:
        """Start the children and stock canvases among these parts; gives the steps."""
        from canvas import stock  # noqa: PLC0415  # it needs the engine

        for ref, spec in rows:
            if "child" in spec:
                children.submit(self, ref, spec, trace)
            elif "canvas" in spec:
                stock.publish(self, ref, spec, workflow)
        return [row for row in rows if "child" not in row[1] and "canvas" not in row[1]]

    def turn_queue(self, workflow: str, recorded: str = "") -> str:
        """The queue that turns of a workflow go to.

        Args:
            recorded: As the run has it; asked where this process does not know the workflow.
        """
        known = self.workflow(workflow)
        if known is not None:
            return known.queue_of({})
        return recorded or str(self.app.conf.get("celeriac_turn_queue") or self.app.conf.task_default_queue)

    def send_turn(
        self, run_id: str, workflow: str, *, queue: str = "", first: bool = False, again: int | None = None
    ) -> None:
        """Send a turn as a message; what can't be sent stays due.

        Args:
            queue: Recorded with the run, see `turn_queue`.
            again: See `Publisher.turn`.
        """
        try:
            with tracing.below(self.store, run_id):
                self.publisher.turn(run_id, workflow, self.turn_queue(workflow, queue), first=first, again=again)
        except (OperationalError, RedisError, OSError) as error:
            logger.warning("%s: a turn is owed but not sent, the sweep will: %s", run_id, error)

    def send_turn_of(self, run_id: str, *, again: int | None = None) -> None:
        """Send a turn of a run of which only the id is known. `again`: see `Publisher.turn`."""
        found = self.store.redis.hmget(self.store.keys.run(run_id), ["workflow", "queue"])
        workflow, queue = cast("list[str | None]", found)
        if workflow is not None:
            self.send_turn(run_id, workflow, queue=queue or "", again=again)

    def turn_here(self, run_id: str, record: RunRecord | None = None) -> bool:
        """Take a run's turn in this process. Returns whether it is this one's.

        Args:
            record: The run as it was a moment ago, if that is known.
        """
        from canvas.turn import take_turn  # noqa: PLC0415  # the turn needs the engine

        try:
            take_turn(self, run_id, record)
        except TurnTaken:
            logger.info("%s: another process has its turn", run_id)
            return False
        except RedisError as error:
            logger.warning("%s: its turn broke off, the sweep will send it again: %s", run_id, error)
        return True

    def turn_again(self, run_id: str, workflow: str, *, known: int, where: str) -> None:
        """Take a turn that was sent before, if it has not killed too many processes (see `canvas.lives`)."""
        try:
            if enter_again(self, run_id, workflow, known=known, where=where) and self.turn_here(run_id):
                self.store.survived(run_id)
        except RedisError as error:
            logger.warning("%s: its turn broke off, the sweep will send it again: %s", run_id, error)

    @property
    def goes_ahead(self) -> bool:
        """Whether turns here may go ahead of the journal: this process is a worker's, which vouches for them."""
        return "_celeriac_place" in self.app.__dict__

    def in_place(self) -> InPlace | None:
        """What a turn that begins now runs by itself; None: this process is no worker's."""
        from canvas.in_place import InPlace, place_of  # noqa: PLC0415  # steps need the engine

        place = place_of(self.app)
        return InPlace(self, place) if place else None

    def widens_by(self, step: Step[Any, Any]) -> int:
        """How many more parts of a wide join may start as one begins here (see `canvas.wide`)."""
        from canvas.in_place import place_of  # noqa: PLC0415  # as above
        from canvas.wide import widens_by  # noqa: PLC0415

        place = place_of(self.app)
        prefetch = int(self.app.conf.worker_prefetch_multiplier or 0)
        return widens_by(step, short_s=place.short_s if place else 0.0, prefetch=prefetch)

    def cancel(self, run_id: str, reason: str, code: int = 409) -> Ending:
        """Cancel a run and let it know."""
        ending = self.store.cancel(run_id, reason, token=uuid4().hex, code=code)
        if self.go_on(run_id, ending):
            self.send_turn_of(run_id)
        return ending

    def follow(self, run_id: str, ending: Ending) -> None:
        """Send and stop what an ending asks for, the run's turn too; what can't be sent stays due."""
        try:
            if self.go_on(run_id, ending):
                self.send_turn_of(run_id)
        except (RedisError, OperationalError, OSError) as error:
            logger.warning("%s: it is recorded but not sent, the sweep will: %s", run_id, error)

    def follow_others(self, run_id: str, endings: Iterable[Ending]) -> None:
        """The same of endings that were recorded before another, which is yet to be followed."""
        for ending in endings:
            if ending.publish or ending.stop or ending.code == "decided":
                self.follow(run_id, ending)

    def wake(self, run_id: str, stop: Sequence[Claim]) -> None:
        """Stop these claims, and let the run's workers know that it may owe a turn."""
        self.stop(stop)
        self.send_turn_of(run_id)


def of(app: Celery) -> Engine:
    """The engine of an app: one in each process."""
    found = app.__dict__.get("_celeriac")
    if found is None:
        found = app.__dict__["_celeriac"] = Engine(app)
    return cast("Engine", found)
