"""What all of `celery runs` shares: errors become one line and exit code 2, and Redis is asked for first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from celery.bin.base import CeleryCommand
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from status import here
from status.errors import OrchestrationError


class Refused(click.ClickException):
    """Ends the command with one line on stderr and exit code 2."""

    exit_code = 2


@contextmanager
def plainly() -> Iterator[None]:
    """Say errors that are not bugs in one line."""
    try:
        yield
    except OrchestrationError as error:
        raise Refused(_one_line(error)) from error
    except (RedisError, OperationalError) as error:
        raise Refused(
            f"Redis at {here.where()} went away ({_one_line(error)}): what was recorded stays; "
            "try again when it is there"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class PlainCommand(CeleryCommand):
    """A command that needs Redis and says so at once if it is not there."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, plainly."""
        with plainly():
            here.check()
            return super().invoke(ctx)
