"""What the tab's handlers share: who asks, what may be done, and errors as a person or a program reads them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from flower.views import BaseHandler
from redis.exceptions import RedisError
from tornado.web import HTTPError

from status.errors import ConfigError, OrchestrationError, PayloadError, RetryRefused, RunNotFound
from status.flower.feed import Feed
from status.flower.source import Source

T = TypeVar("T")

STATIC = Path(__file__).parent / "static"

#: Who acts where Flower knows no user.
NOBODY = "flower"

_making = threading.Lock()


class TabHandler(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """A handler of the tab, behind Flower's own authentication."""

    @property
    def base(self) -> str:
        """Where the tab is, below Flower's `url_prefix`."""
        return f"{self.reverse_url('main')}workflows"

    @property
    def static(self) -> str:
        """Where its scripts and styles are: with their version in the path, so that what they import has it too."""
        return f"{self.base}/static/{version()}"

    @property
    def read_only(self) -> bool:
        """Whether Flower was told to change nothing."""
        return bool(self.application.options.read_only)

    @property
    def operator(self) -> str:
        """Who asks: the name that they gave to Flower."""
        user = self.current_user
        if isinstance(user, str) and user:
            return user
        if self.application.options.basic_auth:
            _, _, credentials = self.request.headers.get("Authorization", "").partition(" ")
            return b64decode(credentials).decode().partition(":")[0] or NOBODY
        return NOBODY

    @property
    def feed(self) -> Feed:
        """The one that all pages of this Flower share."""
        found: Feed | None = getattr(self.application, "celeriac_feed", None)
        if found is None:
            found = self.application.celeriac_feed = Feed(self.source)
        return found

    def source(self) -> Source:
        """What is read from; blocks while it is made.

        Raises:
            ConfigError: The app runs no workflows, or its runs can't be found.
            RedisError: Redis does not answer.
        """
        with _making:
            found: Source | None = getattr(self.application, "celeriac_source", None)
            if found is None:
                found = self.application.celeriac_source = Source(self.capp)
            return found

    async def read(self, ask: Callable[[Source], T]) -> T:
        """Ask for something that blocks, beside Flower's loop.

        Raises:
            HTTPError: It can't be had; with a sentence that says why.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(None, lambda: ask(self.source()))
        except RunNotFound as error:
            raise HTTPError(404, reason="Not Found", log_message=str(error)) from error
        except RetryRefused as error:
            raise HTTPError(409, reason="Conflict", log_message=str(error)) from error
        except (ConfigError, PayloadError) as error:
            raise HTTPError(400, reason="Bad Request", log_message=str(error)) from error
        except (RedisError, OrchestrationError, OSError) as error:
            raise HTTPError(503, reason="Service Unavailable", log_message=f"Redis: {error}") from error


class ApiHandler(TabHandler):
    """Answers JSON."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """The error as JSON, with its sentence."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        said = error.get_message() if isinstance(error, HTTPError) else ""
        if status_code == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.answer({"error": said or f"that did not work ({status_code})"})

    def answer(self, value: Any) -> None:
        """End with a JSON value."""
        self.answer_text(json.dumps(value))

    def answer_text(self, text: str) -> None:
        """End with a JSON value that is in words already."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(text)


@cache
def version() -> str:
    """Of the scripts and styles: a browser that has others fetches them anew."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
