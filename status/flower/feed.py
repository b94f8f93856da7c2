"""Tells open pages what changes: one thread reads for all of them, and only of the runs that they show.

A page is first told all that it shows, then what has changed. What happens to a run is waited for on its events; which
runs are new is asked of the indexes, once a second. While no page is open nothing is read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import RedisError

from status.errors import OrchestrationError
from status.flower.source import Source
from status.following import Follower

logger = logging.getLogger("celeriac")

#: New runs and totals are looked for so often.
LOOK_S = 1.0

#: Events are taken together for so long: a busy run has dozens a second, and nobody reads that fast.
GATHER_S = 0.25

#: One read waits at most so long: a page that was opened meanwhile waits with it.
WAIT_S = 0.25

#: After Redis did not answer.
PAUSE_S = 2.0

Send = Callable[[dict[str, Any]], None]


class View(Protocol):
    """What one open page shows. Its methods are called in the feed's thread."""

    @property
    def run_ids(self) -> set[str]:
        """The runs whose events matter."""

    def begin(self, source: Source) -> None:
        """Send all that it shows."""

    def changed(self, source: Source, run_ids: set[str]) -> None:
        """Send what has changed of these runs."""

    def look(self, source: Source, totals: dict[str, Any]) -> None:
        """A second has gone by: send what else has changed."""

    def trouble(self, text: str) -> None:
        """Say that nothing can be read now."""


class Feed:
    """Reads for all open pages.

    Args:
        source: Gives what to read from; called in the feed's thread.
    """

    def __init__(self, source: Callable[[], Source]) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._new: list[View] = []
        self._views: list[View] = []
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()

    def open(self, view: View) -> None:
        """Let a view be told from now on."""
        with self._lock:
            self._new.append(view)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="celeriac-feed", daemon=True)
                self._thread.start()
        self._woken.set()

    def close(self, view: View) -> None:
        """Tell a view no more."""
        with self._lock:
            self._new = [one for one in self._new if one is not view]
            self._views = [one for one in self._views if one is not view]

    def _open_views(self) -> tuple[list[View], list[View]]:
        """Those to be told, and those of them that are new. None: the thread is to end."""
        with self._lock:
            new, self._new = self._new, []
            self._views = [*self._views, *new]
            if not self._views:
                self._thread = None
            return list(self._views), new

    def _run(self) -> None:
        reading: _Reading | None = None
        while True:
            views, new = self._open_views()
            if not views:
                return
            try:
                reading = reading or _Reading(self._source())
                reading.round(views, new, self._woken)
            except (RedisError, OrchestrationError, OSError) as error:
                reading = None  # all begin anew: what was missed meanwhile is not known
                self._again(views, str(error))
            except Exception as error:  # a page that stands still must not look as if nothing happened
                logger.exception("the live view of workflows broke off and begins anew")
                reading = None
                self._again(views, str(error))

    def _again(self, views: list[View], why: str) -> None:
        for view in views:
            view.trouble(why)
        threading.Event().wait(PAUSE_S)
        with self._lock:
            self._new += [view for view in self._views if view in views]
            self._views = [view for view in self._views if view not in views]


class _Reading:
    """One stretch of reading without trouble."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._follower: Follower = source.follower()
        self._followed: set[str] = set()
        self._look_s = 0.0

    def round(self, views: list[View], new: list[View], woken: threading.Event) -> None:
        """Begin with what is new, wait for something to happen, and tell it."""
        woken.clear()
        for view in new:
            _tell(view, partial(view.begin, self._source))
        # What happened to a run between the first reading and this is asked for again.
        changed = self._follow(views)
        left_s = max(0.0, self._look_s - monotonic())
        if left_s > 0 and not changed:
            changed |= self._wait(left_s, woken)
        if changed:
            for view in views:
                _tell(view, partial(view.changed, self._source, changed & view.run_ids))
        if monotonic() >= self._look_s:
            self._look_s = monotonic() + LOOK_S
            totals = self._source.totals()
            for view in views:
                _tell(view, partial(view.look, self._source, totals))

    def _wait(self, left_s: float, woken: threading.Event) -> set[str]:
        if not self._followed:
            woken.wait(left_s)
            return set()
        events = self._follower.read(min(left_s, WAIT_S))
        if events and left_s > GATHER_S:
            woken.wait(GATHER_S)
            events += self._follower.read(0.001)
        return {event.run_id for event in events}

    def _follow(self, views: list[View]) -> set[str]:
        """Follow the runs that are shown, and no others; gives those that are new."""
        wanted = {run_id for view in views for run_id in view.run_ids}
        for run_id in self._followed - wanted:
            self._follower.forget(run_id)
        fresh = wanted - self._followed
        self._follower.follow_many(fresh)
        self._followed = wanted
        return fresh


def _tell(view: View, tell: Callable[[], None]) -> None:
    """Let one view be told; what is wrong with it alone must not keep the others waiting.

    Raises:
        RedisError: That is no fault of the view.
    """
    try:
        tell()
    except OrchestrationError as error:
        view.trouble(str(error))
    except (RedisError, OSError):
        raise
    except Exception as error:
        logger.exception("a live view of workflows could not be told")
        view.trouble(str(error))
