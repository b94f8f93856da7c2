"""Arguments as Flower, events and logs show them: by name, without secrets, and short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from canvas.payload import compact
from status.masking import HIDDEN, mask

if TYPE_CHECKING:
    from celery import Celery

#: Arguments longer than this are cut.
REPR_LIMIT = 200


def names_of(app: Celery, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[str]:
    """The parameters that arguments by place are for; () if this process does not know the task."""
    codec = getattr(app.tasks.get(task), "codec", None)
    return () if codec is None else codec.places(args, kwargs)


def args_repr(names: Sequence[str], args: Sequence[Any]) -> str:
    """Arguments by place: `(order_id="A-1001", total="12.00")`; as JSON where their names are not known."""
    if len(names) != len(args):
        return _shown(args)
    text = ", ".join([f"{name}={_quickly(value)}" for name, value in zip(names, args, strict=True)])
    # Made for each message: so it is looked at closely only where there may be a secret.
    if mask().may_hide(text):
        shown = (HIDDEN if mask().hides(name) else _shown(value) for name, value in zip(names, args, strict=True))
        text = ", ".join(f"{name}={value}" for name, value in zip(names, shown, strict=True))
    return shorten(f"({text})")


def kwargs_repr(kwargs: Mapping[str, Any]) -> str:
    """Arguments by name, as JSON."""
    return _shown(kwargs) if kwargs else "{}"


def shorten(text: str) -> str:
    """At most `REPR_LIMIT` characters, and a mark where some are left out."""
    return text if len(text) <= REPR_LIMIT else text[:REPR_LIMIT] + "…"


def _quickly(value: Any) -> str:
    return f'"{value[:REPR_LIMIT]}"' if type(value) is str else compact(value)


def _shown(value: Any) -> str:
    text = compact(value)
    if mask().may_hide(text):
        text = compact(mask().value(value))
        # A value may be prose with a secret in it, or JSON within JSON.
        text = mask().text(text[: 10 * REPR_LIMIT])
    return shorten(text)
