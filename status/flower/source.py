"""What the pages read, made once for a Flower. All of it blocks: call it in an executor or in the feed's thread."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

from celery import Celery
from redis.exceptions import RedisError

from status import here
from status.browsing import Browser, Listing, Row, Wanted
from status.detail import Details
from status.errors import ConfigError, OrchestrationError
from status.following import Follower
from status.masking import mask
from status.reading import Reader
from status.states import FINAL
from status.throughput import Throughput

#: A saga log that did not answer is asked again only after so long.
LOG_PAUSE_S = 15.0

#: Totals are good for so long.
TOTALS_MS = 500


class Source:
    """The runs of an app, as JSON values.

    Args:
        app: For the names of workflows and their arguments.

    Raises:
        ConfigError: The app's runs can't be found.
        RedisError: Redis does not answer.
    """

    def __init__(self, app: Celery) -> None:
        if here.canceller() is None:
            raise ConfigError("this app runs no workflows: call canvas.install(app) where it is made")
        app.loader.import_default_modules()  # its settings say where runs are, its modules which workflows there are
        store = here.store()
        self._app = app
        self._mask = mask()
        self.reader = Reader(store.redis, store.keys)
        self.browser = Browser(store.redis, store.keys)
        self._details = Details(store.redis, store.keys, self._mask, self._argument_names)
        self._throughput = Throughput(store.redis, store.keys)
        self._log_down_until_s = 0.0
        self._counting = threading.Lock()
        self._totals: dict[str, Any] = {"now_ms": 0}

    def follower(self) -> Follower:
        """Reads events from here on."""
        return Follower(self.reader)

    def page(self, wanted: Wanted, limit: int, cursor: str | None) -> dict[str, Any]:
        """Some runs, newest first."""
        listing: Listing = self.browser.page(wanted, limit=limit, cursor=cursor)
        return {
            "rows": [self.row(row) for row in listing.rows],
            "cursor": listing.cursor,
            "looked_ms": listing.looked_ms,
        }

    def row(self, row: Row) -> dict[str, Any]:
        """A run of a listing."""
        return {
            "id": row.run_id,
            "workflow": row.workflow,
            "state": row.state,
            "phase": row.phase,
            "progress": row.progress,
            "submitted_ms": row.submitted_ms,
            "finished_ms": row.finished_ms,
            "parent": row.parent,
            "error": self._mask.text(row.error)[:200],
            "parked": bool(row.error) and row.state not in FINAL,
        }

    def totals(self) -> dict[str, Any]:
        """How many runs are in each state, and how many were started in each minute of the last hour."""
        with self._counting:
            now_ms = self.now_ms()
            if now_ms - self._totals["now_ms"] > TOTALS_MS:
                self._totals = self._count(now_ms)
            return self._totals

    def _count(self, now_ms: int) -> dict[str, Any]:
        counts = self.reader.counts()
        return {
            "now_ms": now_ms,
            "states": {state.value: number for state, number in counts.items()},
            "started": self._throughput.started(now_ms, counts),
            "ended_per_s": self._throughput.ended_per_s(now_ms, counts),
        }

    def now_ms(self) -> int:
        """Redis' time, by which all times of runs are taken."""
        seconds, micros = self.reader.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def run(self, run_id: str) -> dict[str, Any]:
        """All about a run.

        Raises:
            RunNotFound: There is no such run.
        """
        whole, now_ms = self._run(run_id)
        return whole | {"now_ms": now_ms, "version": _version(json.dumps(whole))}

    def run_text(self, run_id: str) -> str:
        """The same as JSON. It may be long: it is put into words once, for its version and its reader.

        Raises:
            RunNotFound: There is no such run.
        """
        whole, now_ms = self._run(run_id)
        text = json.dumps(whole)
        return f'{{"now_ms": {now_ms}, "version": "{_version(text)}", {text[1:]}'

    def _run(self, run_id: str) -> tuple[dict[str, Any], int]:
        """All but the time, and the time."""
        model, sagas = self._details.of(run_id), self._sagas(run_id)
        owes = model["head"]["final"] and any(entry["owed"] for entry in sagas["entries"])
        acts = {f"undo_{verb}": owes for verb in here.undo_acts}
        now_ms = model.pop("now_ms")
        return model | {"sagas": sagas, "can": model["can"] | acts}, now_ms

    def step(self, run_id: str, place: str) -> dict[str, Any]:
        """What came of one step."""
        return self._details.step(run_id, place)

    def workflows(self) -> list[str]:
        """The names of the app's workflows."""
        return sorted(name for name, task in self._app.tasks.items() if getattr(task, "is_workflow", False))

    def _argument_names(self, workflow: str) -> Sequence[str]:
        codec = getattr(self._app.tasks.get(workflow), "codec", None)
        return [] if codec is None else list(codec.signature.parameters)

    def _sagas(self, run_id: str) -> dict[str, Any]:
        """What the run entered in sagas, from their log in SQL; what is wrong, if that can't be read."""
        if monotonic() < self._log_down_until_s:
            return {"entries": [], "trouble": "the saga log can't be read"}
        try:
            found = [entry for ask in here.entered for entry in ask(run_id)]
        except (OrchestrationError, RedisError) as error:
            self._log_down_until_s = monotonic() + LOG_PAUSE_S
            return {"entries": [], "trouble": self._mask.text(str(error))}
        entries = [
            {
                "key": entry.key,
                "saga": entry.saga,
                "name": entry.name,
                "state": entry.state,
                "undo": entry.undo,
                "place": entry.place,
                "error": self._mask.text(entry.error or ""),
                "owed": entry.owed,
            }
            for entry in found
        ]
        return {"entries": entries, "trouble": None}


def _version(text: str) -> str:
    """Of all but the time: a page that has this one need not be told it again."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
