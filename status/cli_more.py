"""Commands of `celery runs` that other folders add: they know this one, it does not know them."""

from __future__ import annotations

from collections.abc import Callable

import click

#: Name -> what makes the command; an app that uses the folder has imported it by then.
commands: dict[str, Callable[[], click.Command]] = {}


class OpenGroup(click.Group):
    """A group with the commands that were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Its own, and those that were added."""
        _load(ctx)
        return sorted({*super().list_commands(ctx), *commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Its own, or one that was added."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if cmd_name not in commands:  # to load asks the app's settings, for which a server may have to be started
            _load(ctx)
        make = commands.get(cmd_name)
        return make() if make else None


def _load(ctx: click.Context) -> None:
    # What the app imports late (`include`, autodiscovery) may be what adds a command.
    app = getattr(ctx.obj, "app", None)
    if app is not None:
        app.loader.import_default_modules()
