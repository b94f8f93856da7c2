"""What undoes a step: a call as it stands, or a step that gets what the action returned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic_core import to_jsonable_python

from canvas import Call, ConfigError, PayloadError, Retry, ServiceClient
from canvas.step import Definition, refuse_calls


@dataclass(frozen=True)
class Undo:
    """An undo that is bound to a saga.

    Attributes:
        definition: The step (or workflow) to call.
        takes_value: Whether its first argument is what the action returned.
        args: Further arguments, as JSON values.
    """

    definition: Any
    takes_value: bool
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, undo: Any, args: tuple[Any, ...] = ()) -> Undo:
        """Bind what was given as undo.

        Raises:
            ConfigError: It is neither a call nor a step, or a call was given arguments.
            PayloadError: An argument can't be carried.
        """
        if getattr(undo.definition if isinstance(undo, Call) else undo, "is_workflow", False):
            raise ConfigError(f"{undo!r} is a workflow: an undo is a step, or a call of one")
        if isinstance(undo, Call):
            if args:
                raise ConfigError(f"{undo!r} is a call and runs as it stands: give the step itself, or no arguments")
            return cls(undo.definition, False, tuple(undo["args"]), undo["kwargs"], undo["options"])
        if not isinstance(undo, Definition | ServiceClient):
            raise ConfigError(f"an undo is a step or a call of one (step.s(...)), got {undo!r:.80}")
        refuse_calls(undo.name, args, {})
        return cls(undo, True, tuple(to_jsonable_python(arg) for arg in args), {}, {})

    def check_fits(self, action: Any) -> None:
        """Refuse an undo that can't take what `action` (a part) may give it.

        Raises:
            ConfigError: It does not accept None, or not the action's value.
        """
        if self.takes_value and isinstance(action, Call):
            _check_fits(self.definition.name, self.definition.codec, action.definition.codec)

    def template(self, *, label: str, retry: Retry, key: str) -> dict[str, Any]:
        """As a part's spec carries it, for the case that the part succeeds too late (see `canvas.undoing`)."""
        return {
            "task": getattr(self.definition, "sent_as", self.definition.name),
            "args": list(self.args),
            "kwargs": dict(self.kwargs),
            "queue": self.definition.queue_of(dict(self.options)),
            "label": label,
            "takes_value": self.takes_value,
            "retry": retry.timing(),
            "log": key,
            "key": key,
            "once": not self.definition.idempotent,
        }

    def call(self, value: str | None, *, label: str, retry: Retry, undoes: str | None, key: str) -> Call[Any]:
        """The call that undoes an action.

        Args:
            value: JSON of what the action returned; None if that is unknown.
            key: Its idempotency key: that of its entry in the log, whoever calls it.
        """
        args = ((None if value is None else json.loads(value)), *self.args) if self.takes_value else self.args
        if isinstance(self.definition, ServiceClient):
            call = self.definition.call(args, self.kwargs, self.options)
        else:
            call = Call(self.definition.name, args, dict(self.kwargs), dict(self.options), app=self.definition.app)
        return call.planned(label=label, retry=retry.timing(), undoes=undoes, key=key)


@cache
def _check_fits(name: str, undo: Any, action: Any) -> None:
    first = next(iter(undo.signature.parameters), None)
    if first is None:
        raise ConfigError(
            f"{name}() can't be an undo as it stands: it must take what the action returned, or give a call"
        )
    adapter = undo.argument(first)
    try:
        adapter.python(None)
    except PayloadError as error:
        raise ConfigError(
            f"{name}({first}) must accept None as an undo: the action's outcome may be unknown"
        ) from error
    accepted, given = _classes(undo, first), _classes(action, "return")
    if accepted and given and not all(_fits(kind, accepted) for kind in given if kind is not type(None)):
        raise ConfigError(
            f"{name}({first}: {_names(accepted)}) can't undo {action.name}, which returns {_names(given)}"
        )


def _classes(codec: Any, name: str) -> tuple[type, ...]:
    """The classes of an annotation; () if it has anything that can't be compared."""
    hint = get_type_hints(codec.function).get(name, Any)
    if hint is None:
        return (type(None),)
    options = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    return options if all(isinstance(option, type) and get_origin(option) is None for option in options) else ()


def _fits(kind: type, accepted: tuple[type, ...]) -> bool:
    return any(issubclass(kind, option) or option is object for option in accepted)


def _names(kinds: tuple[type, ...]) -> str:
    return " | ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
