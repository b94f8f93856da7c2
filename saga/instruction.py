"""What an operator has decided of what a run owes, and how it comes into effect: as steps of the run that undoes it."""

from __future__ import annotations

from dataclasses import dataclass
from getpass import getuser
from uuid import uuid4

from celery.app import app_or_default

from canvas import Retry, TerminalError, step
from canvas import engine as engines
from canvas.payload import compact
from saga.log import Entry, EntryState, Move, SagaLog
from saga.writing import reachable, write_log
from status.models import error_to_json
from status.operating import without_failed_undo
from status.states import FINAL, State
from status.store import Store

#: Redis or the database may be away for long: what an operator has decided waits for them.
PATIENCE = Retry(None, first_s=1, max_s=10)

#: What becomes of the entries that a verb is about.
_LEAVES = {"skip": EntryState.SKIPPED, "abort": EntryState.ABORTED}
_SAID = {"skip": "skipped", "abort": "aborted"}


@dataclass(frozen=True)
class Instruction:
    """What an operator wants.

    Attributes:
        verb: `resume`, `retry`, `skip` or `abort`.
        by: Who.
        token: Made once; the same one again is the same instruction.
        keys: Of the entries that are not to be undone.
        names: Of the same, for people.
    """

    verb: str
    by: str
    reason: str
    token: str
    keys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def note(self, entry: Entry) -> str:
        """What the log says of an entry that is not to be undone."""
        said = f"{_SAID[self.verb]} by {self.by}: {self.reason}"
        return f"{said}; before: {entry.error}" if entry.error else said


def instruction(
    verb: str, *, by: str | None, reason: str, token: str | None, entries: tuple[Entry, ...] = ()
) -> Instruction:
    """An instruction; by the user of this process, and a new one, unless it is said otherwise."""
    keys, names = tuple(entry.key for entry in entries), tuple(entry.name for entry in entries)
    return Instruction(verb, by or _user(), reason, token or uuid4().hex, keys, names)


def _user() -> str:
    try:
        return getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"


@step(name="saga.instruct", retry=PATIENCE)
def instruct(run_id: str, given: Instruction, undoer: str) -> None:
    """Note who wants what: with the run, which is not taken up again from here on; then in the log."""
    detail = {"by": given.by, "reason": given.reason, "run": undoer}
    state = _store().operator(
        run_id, given.verb, ", ".join(given.names), compact(detail), token=given.token, undoer=undoer
    )
    if state not in {"noted", "gone"}:
        raise TerminalError(f"run {run_id} is {state} again: it undoes what it owes itself", 409)
    with reachable():
        left = [entry for entry in SagaLog().of_run(run_id) if entry.key in given.keys]
    write_log([Move(key=entry.key, state=_LEAVES[given.verb], error=given.note(entry)) for entry in left])


@step(name="saga.close", retry=PATIENCE)
def close(run_id: str) -> str:
    """Give a run of which nothing is owed any more the end that it would have had. Gives its state, '' if it is gone.

    What an operator has left as it was (`abort`) is not undone: then it stays what it is.
    """
    with reachable():
        entries = SagaLog().of_run(run_id)
    store = _store()
    record = store.load(run_id)
    if record is None:
        return ""
    was = State(record.fields["state"])
    if was not in FINAL or any(entry.state.owed or entry.state is EntryState.ABORTED for entry in entries):
        return was
    state, error = without_failed_undo(record)
    return store.amend(run_id, was=was, state=state, error=error_to_json(error) if error else "")


def _store() -> Store:
    return engines.of(app_or_default()).store
