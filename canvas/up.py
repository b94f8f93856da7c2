"""`celery -A APP up`: Valkey, the workers of every queue and Flower, with one command."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import click
from celery import Celery
from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options

from canvas.supervisor import Program, Supervisor
from canvas.up_server import NAME as SERVER_NAME
from canvas.up_server import ServerWatch
from canvas.up_workers import choose, groups_of
from status.errors import ConfigError
from status.places import Places, places, without_password

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")

#: Only shows things, so it may go after the workers and need not be waited for long.
FLOWER_STAGE = 1
FLOWER_GRACE_S = 5.0


class Voice:
    """Prints lines with a coloured name before each. Safe to use from several threads."""

    def __init__(self, names: Sequence[str], *, no_color: bool) -> None:
        self._lock = threading.Lock()
        self._color = False if no_color else None  # None: if it is a terminal
        width = max(map(len, names))
        self._prefixes = {
            name: click.style(f"{name:{width}} |", fg=colour)
            for name, colour in zip(names, cycle(COLOURS), strict=False)
        }

    def __call__(self, name: str, line: str) -> None:
        """Print `line` as said by `name`.

        Raises:
            OSError: Nobody reads the output any more.
        """
        with self._lock:
            click.echo(f"{self._prefixes[name]} {line}", color=self._color)


def _scale(_ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, int]:
    """`NAME=N` as numbers by name."""
    scale: dict[str, int] = {}
    for value in values:
        name, _, count = value.rpartition("=")
        if not name or not count.isdecimal() or int(count) < 1:
            raise click.BadParameter(f"{value!r} is not NAME=N with N of at least 1", param=param)
        scale[name] = int(count)
    return scale


@click.command(cls=CeleryCommand)
@click.option("--only", multiple=True, metavar="NAME", cls=CeleryOption, help="Only this group of workers.")
@click.option(
    "--scale",
    multiple=True,
    metavar="NAME=N",
    callback=_scale,
    cls=CeleryOption,
    help="N processes of this group of workers.",
)
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    cls=CeleryOption,
    help="Seconds that tasks have to end when all is stopped.",
)
@click.option("--no-flower", is_flag=True, cls=CeleryOption, help="Workers only.")
@click.option("--flower-port", type=click.IntRange(1, 65535), default=5555, show_default=True, cls=CeleryOption)
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="INFO",
    show_default=True,
    cls=CeleryOption,
    help="Of the workers.",
)
@click.pass_context
@handle_preload_options
def up(ctx: click.Context, *, no_flower: bool, flower_port: int, **options: Any) -> None:
    """Run everything: Valkey, the workers of every queue, and Flower.

    Valkey is started unless REDIS_URL says where a Redis is. What dies is started again. Ctrl-C or
    SIGTERM stops all, workers first; a second one does not wait for tasks that run.

    Which workers there are is said by the setting `celeriac_workers` of the app.
    """
    try:
        app_name = _app_name(ctx)
        programs = _workers(ctx.obj.app, app_name, **options)
        if not no_flower and importlib.util.find_spec("flower") is not None:
            programs.append(_flower(app_name, flower_port))
        place = places()
    except ConfigError as error:
        ctx.fail(str(error))
    _run(programs, place, no_color=ctx.obj.no_color)


def _workers(
    app: Celery,
    app_name: str,
    *,
    only: Sequence[str],
    scale: Mapping[str, int],
    loglevel: str,
    grace_s: float,
    **_preload: Any,  # options that the app added to every command; its signal handlers have seen them
) -> list[Program]:
    return [
        group.program(app_name, number, loglevel=loglevel.upper(), grace_s=grace_s)
        for group, processes in choose(groups_of(app), only, scale)
        for number in range(1, processes + 1)
    ]


def _run(programs: Sequence[Program], place: Places, *, no_color: bool) -> None:
    voice = Voice([SERVER_NAME, *(program.name for program in programs)], no_color=no_color)
    supervisor = Supervisor(programs, env=_environment(place), say=voice)
    with _stop_signals(supervisor):
        if not place.embedded:
            voice(SERVER_NAME, f"is not started: REDIS_URL is {without_password(place.redis_url)}")
            supervisor.run()
            return
        watch = ServerWatch(place, say=voice, on_moved=lambda moved: supervisor.restart(_environment(moved)))
        watch.start()
        try:
            supervisor.run()
        finally:
            watch.stop()


def _app_name(ctx: click.Context) -> str:
    name = ctx.parent.params.get("app") if ctx.parent is not None else None
    if not isinstance(name, str):
        raise ConfigError("say which app the workers are for, by its name: celery -A tasks up")
    return name


def _flower(app_name: str, port: int) -> Program:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Flower does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"Flower can't have port {port} ({error.strerror}): use --flower-port or --no-flower"
            ) from error
    argv = [sys.executable, "-m", "celery", "-A", app_name, "flower", "--address=127.0.0.1", f"--port={port}"]
    return Program(name="flower", argv=argv, stage=FLOWER_STAGE, grace_s=FLOWER_GRACE_S)


def _environment(place: Places) -> dict[str, str]:
    """That of the children: all find the same places, wherever their app looks for them."""
    return {
        **os.environ,
        "REDIS_URL": place.redis_url,
        "DATABASE_URL": place.database_url,
        "CELERIAC_DATA_DIR": str(place.data_dir),
        "PYTHONUNBUFFERED": "1",  # what a task prints is shown when it prints it
    }


@contextmanager
def _stop_signals(supervisor: Supervisor) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal stop in order, and do nothing else."""
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup means to outlive its terminal
        wanted.append(signal.SIGHUP)
    before = {signum: signal.signal(signum, lambda *_: supervisor.request_stop()) for signum in wanted}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
