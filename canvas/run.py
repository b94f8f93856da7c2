"""`Run`: what a workflow is given. None of its plain methods does I/O."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any, Never, TypeVar
from uuid import UUID

from canvas.children import Start
from canvas.outcomes import Decision
from canvas.patches import Patches
from canvas.payload import compact
from canvas.restart import Restart, refuse_while_owed
from canvas.waitables import Join, Part, Sleep
from status.errors import ConfigError
from status.records import FIRST_GENERATION, Generations, News, Remark, key_of_part
from status.rounds import Round

if TYPE_CHECKING:
    from celery.canvas import Signature

    from canvas.call import Call

R = TypeVar("R")

logger = logging.getLogger("celeriac.run")


class RunLog:
    """Logs once, however often the workflow is replayed: the lines of a turn go out when it is recorded."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def debug(self, message: str, **fields: Any) -> None:
        """Log with level DEBUG."""
        self._run.say(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """Log with level INFO."""
        self._run.say(logging.INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Log with level WARNING."""
        self._run.say(logging.WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Log with level ERROR."""
        self._run.say(logging.ERROR, message, fields)


class Run:
    """One execution of a workflow, as the workflow sees it.

    Attributes:
        id: The run's id.
        deadline: When its time is up, or None.
        log: Logs with the run's id, once.
    """

    def __init__(
        self,
        run_id: str,
        workflow: str,
        submitted_ms: int,
        deadline_ms: int = 0,
        generations: Generations = FIRST_GENERATION,
    ) -> None:
        self.id = run_id
        self.workflow = workflow
        self.deadline = datetime.fromtimestamp(deadline_ms / 1000, UTC) if deadline_ms else None
        self.log = RunLog(self)
        self.generations = generations
        #: What `patched` goes by.
        self.patches = Patches()
        self._began_ms = submitted_ms
        #: Of its own chance, which most workflows don't ask for: made when first asked.
        self._seed = run_id
        self._random: Random | None = None
        self._ids: Random | None = None
        # A suspended workflow's `finally` runs when it is put away; nothing it says then counts.
        self._live = True
        self._phase, self._progress = "", 0.0
        self._metadata: dict[str, Any] = {}
        self._status_changed = False
        self._remarks: list[Remark] = []
        self._lines: list[tuple[int, str, dict[str, Any]]] = []
        self._rows: dict[Callable[[Sequence[Any]], None], list[Any]] = {}
        self._at_good_end: list[Callable[[], None]] = []
        #: The longest way between two awaits of this replay, s, and where it led to; short ones are not looked at.
        self.longest = (0.1, "any one await")
        self.next_await = 0
        self.last_decision: Decision | None = None
        #: Whether the next await is in the journal: what is said before it was recorded with it.
        self.replaying = False
        #: Makes the arguments of a further round a text; who drives the workflow says how.
        self.write_input: Callable[[Any, Any], str] = lambda args, kwargs: compact([args, kwargs])
        #: Each is asked what may still have to be undone.
        self.owed: list[Callable[[], Sequence[str]]] = []
        #: Entries in sagas so far, undos that succeeded, and whether one gave up.
        self.entered = 0
        self.undone = 0
        self.undo_failed = False

    def in_round(self, round: Round) -> Run:  # noqa: A002  # as one says it
        """Begin with what a later round of the run begins with."""
        if round.number == 1:
            return self
        self.next_await, self.entered, self._began_ms = round.first, round.entered, round.began_ms
        self._seed, self._random, self._ids = f"{self.id}~{round.number}", None, None
        self._phase, self._progress, self._metadata = round.phase, round.progress, dict(round.metadata)
        return self

    @property
    def status(self) -> tuple[str, float, dict[str, Any]]:
        """Phase, progress and metadata as the workflow has set them."""
        return self._phase, self._progress, self._metadata

    # --- for workflows ------------------------------------------------------------

    def now(self) -> datetime:
        """When the last journaled outcome was recorded; before the first, when the run was submitted."""
        now_ms = self.last_decision.at_ms if self.last_decision else self._began_ms
        return datetime.fromtimestamp(now_ms / 1000, UTC)

    def uuid(self) -> UUID:
        """A UUID that is the same at each replay; each call gives another."""
        if self._ids is None:
            self._ids = Random(f"{self._seed}/uuid")  # noqa: S311  # reproducible is the point
        return UUID(int=self._ids.getrandbits(128), version=4)

    def random(self) -> Random:
        """One generator, seeded from the run's id, that goes on where it was."""
        if self._random is None:
            self._random = Random(self._seed)  # noqa: S311  # reproducible is the point
        return self._random

    def patched(self, name: str) -> bool:
        """Whether this run takes the way that was written under this name; for code that changes under running runs.

        True where the run comes here for the first time, which is then on record; False where it has gone on from here
        before, with the code of that time. One run always gets the same answer. Once no run from before is left, the
        call and the old way can be dropped.

        Args:
            name: Of the change; anything printable, another for each.

        Raises:
            ConfigError: The name is empty, too long, or no text.
        """
        return self.patches.asked(name, self)

    def sleep(self, delay_s: float) -> Part[None]:
        """Wait, durably; may be a part of a race.

        Args:
            delay_s: Seconds; days are fine.
        """
        return Sleep(delay_s)

    def apply(self, signature: Signature[R]) -> Join[R]:
        """Await any stock Celery signature, chain, group or chord; gives what it gives.

        It runs by Celery's own rules: what is lost on the way is not found again, and then this waits for ever: put
        `with_timeout` around it. What stops it revokes its tasks, as far as they have not begun.

        Raises:
            ConfigError: It is no signature.
            PayloadError: Its arguments can't be carried as JSON.
            StepFailed (when awaited): A task in it failed, with that task's error.
        """
        from canvas.stock import Applied  # noqa: PLC0415  # it registers tasks, which a run has no need of

        return Join(Applied(signature).recipe())

    def start(self, call: Call[Any], *, run_id: str | None = None) -> Join[str]:
        """Start a run of its own, that this one does not wait for; its value is the run's id.

        Args:
            call: Of a workflow.
            run_id: None: made of this run's id.

        Raises:
            ConfigError: It is a step's call, or the id is malformed.
            StepFailed (when awaited): The id is taken by a run with other arguments.
        """
        return Join(Start(call.with_run_id(run_id) if run_id else call).recipe())

    def restart(self, *args: Any, **kwargs: Any) -> Join[Never]:
        """Begin anew, with an empty journal: `return await run.restart(...)`, for loops without end.

        The run keeps its id, deadline and status, its promises and the messages that are not received yet. What a
        round remembers it gives to the next as an argument. Nothing that follows is run.

        Args:
            *args: As the workflow takes them.
            **kwargs: Likewise.

        Raises:
            PayloadError: An argument does not fit.
            ConfigError: A saga's block that has something to undo is not left yet.
        """
        refuse_while_owed([name for ask in self.owed for name in ask()])
        return Restart(self.write_input(args, kwargs))

    def update_status(
        self, *, phase: str | None = None, progress: float | None = None, **metadata: str | float | bool | None
    ) -> None:
        """Say where the run is. What is not given stays; a metadata value of None removes its key.

        Args:
            progress: From 0 to 1.

        Raises:
            ConfigError: `progress` is out of its range.
        """
        if progress is not None and not 0 <= progress <= 1:
            raise ConfigError(f"progress must be from 0 to 1, got {progress}")
        if not self._live:
            return
        self._phase = self._phase if phase is None else phase
        self._progress = self._progress if progress is None else float(progress)
        merged = {**self._metadata, **metadata}
        self._metadata = {name: value for name, value in merged.items() if value is not None}
        if self.replaying:
            return
        self._status_changed = True
        detail = {"phase": self._phase, "progress": self._progress, **metadata}
        self._remarks.append(Remark("run.status", self._phase, compact(detail)))

    # --- for the engine and sagas -------------------------------------------------

    @property
    def live(self) -> bool:
        """False once the workflow is being put away."""
        return self._live

    @property
    def fresh(self) -> bool:
        """Whether what is said now has not been recorded before."""
        return self._live and not self.replaying

    def key_of(self, place: str) -> str:
        """The idempotency key of the part at `await.part`."""
        return key_of_part(self.id, place, self.generations.of_part(place))

    def remark(self, kind: str, name: str, detail: str = "") -> None:
        """Let an event travel with whatever this turn records."""
        if self.fresh:
            self._remarks.append(Remark(kind, name, detail))

    def say(self, level: int, message: str, fields: dict[str, Any]) -> None:
        """Let a log line out when this turn is recorded."""
        if self.fresh:
            self._lines.append((level, message, fields))

    def before_recording(self, write: Callable[[Sequence[Any]], None], *rows: Any) -> None:
        """Give `rows` to `write` before this turn records anything; another turn may do so again."""
        if self.fresh:
            self._rows.setdefault(write, []).extend(rows)

    def at_good_end(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the workflow has returned, before that is recorded."""
        self._at_good_end.append(tell)

    def returned(self) -> None:
        """The workflow has returned."""
        for tell in self._at_good_end:
            tell()

    def told(self, decision: Decision) -> None:
        """The workflow is given a journaled outcome: what it said before was recorded with that await."""
        self.last_decision = decision
        self.next_await += 1
        self._status_changed = False
        for said in (self._remarks, self._lines, self._rows):
            if said:
                said.clear()

    def news(self) -> News:
        """What was said since the last journaled outcome."""
        status = (self._phase, self._progress, compact(self._metadata)) if self._status_changed else None
        return News(status, tuple(self._remarks))

    @property
    def writes(self) -> bool:
        """Whether there is something to write before this turn records anything."""
        return bool(self._rows)

    def write_ahead(self) -> None:
        """Do the writes that must be there before this turn records anything."""
        for write, rows in self._rows.items():
            write(rows)

    def let_out(self) -> None:
        """Log the lines of this turn: it has been recorded."""
        self.kept_back()()

    def kept_back(self) -> Callable[[], None]:
        """What logs the lines that were said since the last journaled outcome."""
        lines = tuple(self._lines)
        return lambda: self._log(lines)

    def _log(self, lines: Sequence[tuple[int, str, dict[str, Any]]]) -> None:
        for level, message, fields in lines:
            said = " ".join(f"{name}={value!r}" for name, value in fields.items())
            logger.log(
                level,
                "%s: %s%s",
                self.id,
                message,
                f" ({said})" if said else "",
                extra={"run_id": self.id, **_safe(fields)},
            )

    def put_away(self) -> None:
        """Nothing that is done through this run takes effect any more."""
        self._live = False


def _safe(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as attributes of a log record, which has names of its own."""
    return {f"run_{name}": value for name, value in fields.items()}
