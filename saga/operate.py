"""What an operator does about a rollback that stopped: try again, leave an undo out, or leave all as it is.

Each of them starts one run, `RUN:resume` (see `saga.resume`), and that is the one thing it writes: who is killed in
the middle has either said nothing, or it will be done. What it asks for comes into effect when a worker runs it.

    retry   undo what is owed, the undo that gave up included, with all its attempts
    skip    ... but for these entries, which were undone by hand, or need not be
    abort   undo nothing more; what was owed stays on record as `aborted`
"""

from __future__ import annotations

from collections.abc import Sequence

from canvas import ConfigError
from saga.instruction import Instruction, instruction
from saga.log import Entry, EntryState, SagaLog
from saga.resume import NothingOwed, Resumed, check_owes, earlier, owner_of, start, undoers
from saga.writing import reachable
from status import here
from status.states import FINAL

__all__ = ["NothingOwed", "Resumed", "abort", "retry", "skip"]


def retry(run_id: str, *, by: str | None = None, reason: str = "", token: str | None = None) -> Resumed:
    """Try the undo that gave up again, and go on with the rest of the rollback.

    When nothing is owed any more the run is what it would have been: `compensated`, `cancelled` or `timed_out`.

    Args:
        by: Who wants it; None: the user of this process.
        token: The same one again is the same instruction and changes nothing; None: a new one.

    Raises:
        NothingOwed: There is nothing to undo.
        ConfigError: It goes on by itself, another run undoes what it owes now, or it is not in Redis (then `resume`).
        LogUnavailable: The database does not answer.
        StoreUnavailable: Redis does not answer; nothing was noted.
    """
    given = instruction("retry", by=by, reason=reason, token=token)
    found = earlier(run_id, given)
    if found is not None:
        return found
    owed = _check_idle(run_id)
    if here.store().load(run_id) is None:
        raise ConfigError(
            f"run {run_id} is not in Redis any more: `runs saga resume {run_id}` undoes what it owes, from the log"
        )
    return _start(run_id, given, owed)


def skip(run_id: str, *entries: str, by: str | None = None, reason: str, token: str | None = None) -> Resumed:
    """Note that these entries were undone by hand, or need not be; then undo the rest, as `retry` does.

    Args:
        entries: Each by its name, its number (`#` in `runs saga show`), or its key in the log.
        by: Who wants it; None: the user of this process.
        reason: Kept in the run's history and in the log.
        token: The same one again is the same instruction and changes nothing; None: a new one.

    Raises:
        NothingOwed: There is nothing to undo.
        ConfigError: An entry is unknown, settled already, or not the only one of its name; no reason was given; the
            run goes on by itself, or another run undoes what it owes now.
        LogUnavailable: The database does not answer.
        StoreUnavailable: Redis does not answer; nothing was noted.
    """
    _check_reason("skip", reason)
    found = earlier(run_id, instruction("skip", by=by, reason=reason, token=token))
    if found is not None:
        return found
    with reachable():
        known = SagaLog().of_run(run_id)
    if not entries:
        raise ConfigError(f"say which undo of run {run_id} is to be skipped: {_listed(known)}")
    found_entries = [_find(run_id, known, name) for name in entries] if known else []
    chosen = {entry.key: entry for entry in found_entries}
    owed = _check_idle(run_id)
    given = instruction("skip", by=by, reason=reason, token=token, entries=tuple(chosen.values()))
    return _start(run_id, given, owed)


def abort(run_id: str, *, by: str | None = None, reason: str, token: str | None = None) -> Resumed:
    """End the rollback for good: nothing more is undone. What was owed is `aborted` in the log, with who and why.

    The run stays `compensation_failed`. Arguments and errors are those of `skip`.
    """
    _check_reason("abort", reason)
    found = earlier(run_id, instruction("abort", by=by, reason=reason, token=token))
    if found is not None:
        return found
    owed = _check_idle(run_id)
    return _start(run_id, instruction("abort", by=by, reason=reason, token=token, entries=tuple(owed)), owed)


def _check_reason(verb: str, reason: str) -> None:
    if not reason.strip():
        raise ConfigError(f"{verb} needs a reason: it is all that those who look later will know")


def _check_idle(run_id: str) -> list[Entry]:
    """What the run owes, if nobody undoes it now.

    Raises:
        NothingOwed: Nothing.
        ConfigError: Somebody does.
    """
    try:
        owed = check_owes(run_id)
    except NothingOwed:
        owner = owner_of(run_id)
        if owner is None:
            raise
        raise NothingOwed(f"run {run_id} undoes what run {owner} owes: name that one") from None
    for own_id, record in undoers(run_id):
        if record.fields["state"] not in FINAL:
            raise _busy(run_id, own_id)
    return owed


def _busy(run_id: str, own_id: str) -> ConfigError:
    return ConfigError(
        f"run {own_id} undoes what {run_id} owes now: wait for it, or `runs cancel {own_id} --abandon`, then again"
    )


def _start(run_id: str, given: Instruction, owed: Sequence[Entry]) -> Resumed:
    started = start(run_id, given, len(owed))
    if not started.started:
        raise _busy(run_id, started.handle.run_id)
    return started


def _find(run_id: str, known: Sequence[Entry], name: str) -> Entry:
    """The entry that is meant.

    Raises:
        ConfigError: There is none, several, or it is settled.
    """
    found = [entry for entry in known if name in {entry.name, entry.key, str(entry.seq), f"#{entry.seq}"}]
    owed = [entry for entry in found if entry.state.owed]
    if len(owed) == 1:
        return owed[0]
    if owed:
        keys = ", ".join(entry.key for entry in owed)
        raise ConfigError(
            f"run {run_id} has {len(owed)} entries {name!r} that are not undone: name one by its key: {keys}"
        )
    if found:
        raise ConfigError(f"the entry {name!r} of run {run_id} is {found[-1].state} already; {_listed(known)}")
    raise ConfigError(f"run {run_id} has no entry {name!r}; {_listed(known)}")


def _listed(known: Sequence[Entry]) -> str:
    owed = [
        f"{entry.name} (#{entry.seq}{', gave up' if entry.state is EntryState.UNDO_FAILED else ''})"
        for entry in reversed(known)
        if entry.state.owed
    ]
    return f"owed, newest first: {', '.join(owed)}" if owed else "nothing is owed"


#: For pages that act on undos; `entries` are keys of the log.
here.undo_acts.update(
    retry=lambda run_id, _entries, reason, by: retry(run_id, by=by, reason=reason).handle.run_id,
    skip=lambda run_id, entries, reason, by: skip(run_id, *entries, by=by, reason=reason).handle.run_id,
    abort=lambda run_id, _entries, reason, by: abort(run_id, by=by, reason=reason).handle.run_id,
)
