"""The entry point by which the stock `celery -A APP flower` has the tab, with no configuration.

Celery loads every plugin at each of its commands. So this imports what Flower's own plugin has imported anyway; the
pages are imported when Flower builds its application, by their names.
"""

from __future__ import annotations

import logging
from typing import Any

import click

logger = logging.getLogger("celeriac")

PAGES = "status.flower.handlers"

#: In front of Flower's own, whose last one takes whatever it is given. Tuples with names, for then Flower puts its
#: `url_prefix` before them, and imports them only when it starts.
HANDLERS = [
    (r"/workflows/?", f"{PAGES}.ListPage"),
    (r"/workflows/run/([^/]+)/?", f"{PAGES}.RunPage"),
    (r"/workflows/api/runs", f"{PAGES}.Runs"),
    (r"/workflows/api/live", f"{PAGES}.LiveRuns"),
    (r"/workflows/api/run/([^/]+)", f"{PAGES}.Run"),
    (r"/workflows/api/run/([^/]+)/live", f"{PAGES}.LiveRun"),
    (r"/workflows/api/run/([^/]+)/step/(\d+\.\d+u?)", f"{PAGES}.Step"),
    (r"/workflows/api/run/([^/]+)/promise", f"{PAGES}.PromiseForm"),
    (r"/workflows/api/run/([^/]+)/act/([a-z_]+)", f"{PAGES}.Act"),
    (r"/workflows/static/[0-9a-f]+/(.+)", f"{PAGES}.Assets"),
]


def install(handlers: list[Any], settings: dict[str, Any]) -> None:
    """Put the tab into Flower, once.

    Args:
        handlers: Flower's, before its application is built.
        settings: Flower's, with its `template_path`.
    """
    from status.flower.pages import Pages  # noqa: PLC0415  # where there is a Flower, there is Tornado

    if isinstance(settings.get("template_loader"), Pages):
        return
    settings["template_loader"] = Pages(settings["template_path"])
    handlers[:0] = HANDLERS


def _find() -> click.Command:
    try:
        from flower import urls  # noqa: PLC0415
        from flower.command import flower  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "flower":
            raise
        return _missing
    try:
        install(urls.handlers, urls.settings)
    except Exception:
        # Flower without the tab is better than none.
        logger.exception("the Workflows tab does not fit this Flower: pip install 'flower>=2.2,<2.3'")
    found: click.Command = flower
    return found


@click.command(name="flower", context_settings={"ignore_unknown_options": True})
@click.argument("_options", nargs=-1, type=click.UNPROCESSED)
def _missing(_options: tuple[str, ...]) -> None:
    """Watch workers, tasks and workflows in a browser (not installed)."""
    raise click.ClickException("Flower is not installed: pip install 'celeriac[flower]'")


flower = _find()
