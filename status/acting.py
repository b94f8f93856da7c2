"""What an operator asks of a run on a page: done, written into its history with who asked, and told in a sentence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple
from uuid import uuid4

from status import here, operating, promises
from status.errors import ConfigError, PayloadError, RunNotFound
from status.models import PROMISE
from status.records import check_run_id
from status.states import FINAL, Answer


class Said(NamedTuple):
    """What came of it."""

    done: bool
    text: str


def cancel(run_id: str, reason: str, *, by: str) -> Said:
    """Ask a run to stop.

    Raises:
        RunNotFound: There is no such run.
    """
    ending = here.store().cancel(check_run_id(run_id), reason, token=uuid4().hex, by=by)
    if ending.code == "late":
        return Said(False, f"{run_id} has ended already: there is nothing to cancel")
    here.follow(run_id, ending)
    return Said(True, f"{run_id} is asked to stop; what it has done is undone, if it says how")


def abandon(run_id: str, reason: str, *, by: str) -> Said:
    """End a run as it stands.

    Raises:
        RunNotFound: There is no such run.
        ConfigError: This process knows no app, so it can't know of sagas.
    """
    owed = operating.owed_of(check_run_id(run_id))
    ending = operating.abandon(here.store(), run_id, reason, owed, by=by)
    if ending.code == "late":
        return Said(False, f"{run_id} has ended already: nothing was changed")
    here.wake(run_id, ending.stop)
    return Said(True, f"{run_id} is ended as it stands" + (f"; not undone: {', '.join(owed)}" if owed else ""))


def retry(run_id: str, *, by: str) -> Said:
    """Take a run up again where it failed.

    Raises:
        RunNotFound: There is no such run.
        RetryRefused: It goes on, did not fail, has begun to undo, or some of its steps still run.
    """
    operating.retry(here.store(), check_run_id(run_id), by=by)
    here.wake(run_id)
    return Said(True, f"{run_id} goes on from where it failed")


def undo(verb: str, run_id: str, entries: Sequence[str], reason: str, *, by: str) -> Said:
    """Do something about what a run still owes.

    Args:
        verb: `retry`, `skip` or `abort`.
        entries: Keys of entries of the saga's log, for `skip`.

    Raises:
        ConfigError: It can't be done now; the message says why. Or this process knows no sagas.
    """
    act = here.undo_acts.get(verb)
    if act is None:
        raise ConfigError(f"{verb} of undos is not known to the app that Flower was started with")
    own_id = act(check_run_id(run_id), entries, reason, by)
    return Said(True, f"{own_id} does it: see there")


def resolve(run_id: str, name: str, text: str, *, by: str) -> Said:
    """Give a promise its value.

    Args:
        text: JSON.

    Raises:
        PayloadError: It is not JSON, or does not fit the promise.
        RunNotFound: There is no such run.
    """
    try:
        checked = promises.json_text(json.loads(text))
    except ValueError as error:
        raise PayloadError(f"{text!r:.80} is not JSON ({error}): text needs its quotes, as '\"yes\"'") from error
    here.check_value(check_run_id(run_id), PROMISE + promises.check_name(name), checked)
    return _told(run_id, name, promises.resolve(run_id, name, checked, by=by), "resolved")


def reject(run_id: str, name: str, message: str, code: int, *, by: str) -> Said:
    """Let a promise fail.

    Raises:
        RunNotFound: There is no such run.
    """
    return _told(run_id, name, promises.reject(run_id, name, message, code, by=by), "rejected")


def _told(run_id: str, name: str, answer: Answer, verb: str) -> Said:
    if answer is Answer.UNKNOWN:
        raise RunNotFound(run_id)
    if answer is Answer.ACCEPTED:
        return Said(True, f"{name} of {run_id} is {verb}")
    found = here.reader().result(run_id)[0]
    if found in FINAL:
        return Said(False, f"{run_id} has ended already, it is {found}: nothing was changed")
    return Said(False, f"{name} of {run_id} has its value already, and the first one stays: nothing was changed")
