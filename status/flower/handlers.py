"""The pages of the tab, what they fetch, and what their buttons ask for. Flower imports these by name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, StaticFileHandler, authenticated

from status import acting, here
from status.browsing import Wanted
from status.errors import ConfigError
from status.flower.base import STATIC, ApiHandler, TabHandler, version
from status.flower.feed import Send, View
from status.flower.views import ListView, RunView
from status.promises import check_name
from status.reading import decode_cursor
from status.records import RUN_ID, check_run_id

#: Rows of a page of the list.
ROWS = 50

#: Rows that a program may ask for at once.
MOST_ROWS = 1000

#: Messages that a browser has not taken yet. With more it is let go, and begins anew when it comes back.
BACKLOG = 200

#: So long nothing may be sent: proxies close what is silent.
SILENCE_S = 15.0


class ListPage(TabHandler):
    """The list of runs."""

    @authenticated
    async def get(self) -> None:
        """The page; it fetches its rows itself."""
        try:
            workflows = await self.read(lambda source: source.workflows())
            trouble = ""
        except HTTPError as error:
            workflows, trouble = [], str(error.get_message())
        self.render("workflows.html", base=self.base, static=self.static, workflows=workflows, trouble=trouble)


class RunPage(TabHandler):
    """One run."""

    @authenticated
    async def get(self, run_id: str) -> None:
        """The page, or one that says that there is no such run."""
        trouble = ""
        try:
            await self.read(lambda source: source.reader.result(check_run_id(run_id)))
        except HTTPError as error:
            self.set_status(404 if error.status_code == 400 else error.status_code)
            trouble = str(error.get_message())
        self.render(
            "workflow_run.html",
            base=self.base,
            static=self.static,
            run_id=run_id,
            trouble=trouble,
            read_only=self.read_only,
            operator=self.operator,
        )


class Runs(ApiHandler):
    """A page of the list."""

    @authenticated
    async def get(self) -> None:
        """Rows, a cursor for the next ones, and totals."""
        wanted, limit, cursor = self.wanted()
        page = await self.read(lambda source: source.page(wanted, limit, cursor) | {"totals": source.totals()})
        self.answer(page)

    def wanted(self) -> tuple[Wanted, int, str | None]:
        """What was asked for.

        Raises:
            HTTPError: It is malformed.
        """
        try:
            wanted = Wanted(
                state=self.get_argument("state", "", escape=False),
                workflow=self.get_argument("workflow", "", escape=False),
                text=self.get_argument("text", "", escape=False),
            )
            limit = int(self.get_argument("limit", str(ROWS), escape=False))
            cursor = self.get_argument("cursor", "", escape=False) or None
            decode_cursor(cursor)
        except (ConfigError, ValueError) as error:
            raise HTTPError(400, log_message=str(error)) from error
        if not 1 <= limit <= MOST_ROWS:
            raise HTTPError(400, log_message=f"limit must be from 1 to {MOST_ROWS}, got {limit}")
        return wanted, limit, cursor


class Run(ApiHandler):
    """All about one run."""

    @authenticated
    async def get(self, run_id: str) -> None:
        """Its model, see `status.detail`."""
        self.answer_text(await self.read(lambda source: source.run_text(check_run_id(run_id))))


class Step(ApiHandler):
    """What came of one step."""

    @authenticated
    async def get(self, run_id: str, place: str) -> None:
        """Its value or error."""
        self.answer(await self.read(lambda source: source.step(check_run_id(run_id), place)))


class PromiseForm(ApiHandler):
    """What a run wants of a promise."""

    @authenticated
    async def get(self, run_id: str) -> None:
        """A JSON schema, or null."""
        name = self.get_argument("name", "", strip=False, escape=False)
        schema = await self.read(lambda _: here.describe_value(check_run_id(run_id), check_name(name)))
        self.answer({"schema": schema})


class Act(ApiHandler):
    """What an operator asks of a run."""

    def prepare(self) -> None:
        """Refuse what another site's page sends: Flower itself looks at this only where it knows users.

        Raises:
            HTTPError: It is not from a page of this Flower, or Flower is to change nothing.
        """
        site = self.request.headers.get("Sec-Fetch-Site", "same-origin")
        kind = self.request.headers.get("Content-Type", "")
        # A page of another site can't send JSON without asking first.
        if site not in {"same-origin", "none"} or not kind.startswith("application/json"):
            raise HTTPError(403, log_message="only a page of this Flower may ask for that, as application/json")
        if self.read_only:
            raise HTTPError(403, log_message="Flower is in read-only mode: nothing was changed")

    @authenticated
    async def post(self, run_id: str, verb: str) -> None:
        """Do it, and say what came of it; 409 if it came too late."""
        act = ACTS.get(verb)
        if act is None:
            raise HTTPError(404, log_message=f"there is no {verb}; there are {', '.join(ACTS)}")
        try:
            asked = json.loads(self.request.body or b"{}")
            call = act(run_id, asked)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HTTPError(400, log_message=f"{verb} needs other values: {error!r}") from error
        said = await self.read(lambda _: call(by=self.operator))
        self.set_status(200 if said.done else 409)
        self.answer({"said" if said.done else "error": said.text})


Asked = dict[str, Any]

#: Verb -> what makes a call of what was asked.
ACTS: dict[str, Callable[[str, Asked], Callable[..., acting.Said]]] = {
    "cancel": lambda run_id, asked: partial(acting.cancel, run_id, str(asked.get("reason", ""))),
    "abandon": lambda run_id, asked: partial(acting.abandon, run_id, str(asked.get("reason", ""))),
    "retry": lambda run_id, _: partial(acting.retry, run_id),
    "undo_retry": lambda run_id, asked: partial(acting.undo, "retry", run_id, [], str(asked.get("reason", ""))),
    "undo_skip": lambda run_id, asked: partial(
        acting.undo, "skip", run_id, [str(key) for key in asked["entries"]], str(asked["reason"])
    ),
    "undo_abort": lambda run_id, asked: partial(acting.undo, "abort", run_id, [], str(asked["reason"])),
    "resolve": lambda run_id, asked: partial(acting.resolve, run_id, asked["promise"], asked["value"]),
    "reject": lambda run_id, asked: partial(
        acting.reject, run_id, asked["promise"], str(asked["message"]), int(asked.get("code", 500))
    ),
}


class Live(Runs):
    """Server-sent events, as long as the page is open."""

    def initialize(self) -> None:
        """Called by Tornado."""
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def on_connection_close(self) -> None:
        """The page was left."""
        self._messages.put_nowait(None)

    async def stream(self, view: Callable[[Send], View]) -> None:
        """Send what a view says, until the page is left."""
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Accel-Buffering", "no")
        loop = asyncio.get_running_loop()

        def send(message: dict[str, Any]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._put, message)

        opened = view(send)
        self.feed.open(opened)
        try:
            await self._send_all()
        except StreamClosedError:
            return  # the page was left while something was sent
        finally:
            self.feed.close(opened)

    def _put(self, message: dict[str, Any]) -> None:
        self._messages.put_nowait(message if self._messages.qsize() < BACKLOG else None)

    async def _send_all(self) -> None:
        await self.flush()
        while True:
            try:
                message = await asyncio.wait_for(self._messages.get(), SILENCE_S)
            except TimeoutError:
                self.write(": nothing new\n\n")
            else:
                if message is None:
                    return
                self.write(f"data: {json.dumps(message)}\n\n")
            await self.flush()


class LiveRuns(Live):
    """What changes on a page of the list."""

    @authenticated
    async def get(self) -> None:
        """All its rows, then those that change."""
        wanted, limit, cursor = self.wanted()
        given = self.get_argument("also", "", escape=False).split(",")
        also = [run_id for run_id in given if RUN_ID.fullmatch(run_id)][:limit]
        await self.stream(lambda send: ListView(wanted, limit, cursor, send, also=also))


class LiveRun(Live):
    """What changes of one run."""

    @authenticated
    async def get(self, run_id: str) -> None:
        """All about it, then what changes."""
        await self.read(lambda source: source.reader.result(check_run_id(run_id)))
        version = self.get_argument("version", "", escape=False)
        await self.stream(partial(RunView, run_id, version))


class Assets(StaticFileHandler):
    """Scripts and styles."""

    def initialize(self) -> None:  # type: ignore[override]
        """Called by Tornado; without the folder, for Flower drops what a handler is given when it has a prefix."""
        super().initialize(path=str(STATIC))

    def get_cache_time(self, path: str, modified: Any, mime_type: str) -> int:  # noqa: ARG002
        """For a year, where the version is asked for: another version has another address."""
        return 365 * 86_400 if f"/static/{version()}/" in self.request.path else 0
