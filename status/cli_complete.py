"""What the shell completes: run ids, states, workflows. Silent, quick, and it never starts a server.

Switched on by `eval "$(_CELERY_COMPLETE=bash_source celery)"` (or `zsh_source`, `fish_source`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

#: Whoever presses a key does not wait longer.
TIMEOUT_S = 1.0

#: The newest runs are looked at, and so many are offered.
LOOKED_AT, OFFERED = 1000, 50


def run_ids(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest runs whose id begins so, each with its workflow and state."""
    return _quietly(ctx, lambda: _run_ids(incomplete))


def workflows(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The workflows of the app."""

    def names() -> Iterable[CompletionItem]:
        app = _app(ctx)
        known = () if app is None else app.tasks.items()
        found = (name for name, task in known if getattr(task, "is_workflow", False) and name.startswith(incomplete))
        return map(CompletionItem, sorted(found))

    return _quietly(ctx, names)


def promises(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The promises that the run before on the line waits for."""

    def names() -> Iterable[CompletionItem]:
        from status.cli_show import awaited_promises  # noqa: PLC0415

        run = _reader().status(ctx.params["run_id"])
        return (CompletionItem(name) for name in awaited_promises(run) if name.startswith(incomplete))

    return _quietly(ctx, names)


def _run_ids(incomplete: str) -> Iterable[CompletionItem]:
    page = _reader().page(limit=LOOKED_AT)
    found = [run for run in page.runs if run.run_id.startswith(incomplete)]
    return (CompletionItem(run.run_id, help=f"{run.workflow} {run.state}") for run in found[:OFFERED])


def _quietly(ctx: click.Context, look: Callable[[], Iterable[CompletionItem]]) -> list[CompletionItem]:
    # In the middle of a line that somebody types no error can be said, and nothing is better than a traceback.
    try:
        _app(ctx)  # it says where its Redis is
        return list(look())
    except Exception:  # noqa: BLE001  # whatever an app's module raises when it is imported
        return []


def _reader() -> Any:
    from status import here  # noqa: PLC0415
    from status.keys import Keys  # noqa: PLC0415
    from status.reading import Reader  # noqa: PLC0415
    from status.settings import Settings  # noqa: PLC0415

    url = here.known_address()
    if url is None:
        raise LookupError("no Redis runs here")
    return Reader(here.connect(url, timeout_s=TIMEOUT_S, retries=0), Keys(Settings.from_environment().shards))


def _app(ctx: click.Context) -> Any:
    """The app that `-A` says; while a line is completed no command has been called, so none is loaded yet."""
    from celery.app.utils import find_app  # noqa: PLC0415

    name = ctx.find_root().params.get("app") or os.environ.get("APP")
    if not name:
        return None
    app = find_app(name)
    if "REDIS_URL" in os.environ:  # else its settings may ask for the embedded server
        app.loader.import_default_modules()
    return app
