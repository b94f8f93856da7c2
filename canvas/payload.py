"""Turns arguments and results into JSON and back, by the annotations of the function they belong to."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import PydanticSerializationError, from_json, to_json

from status.errors import ConfigError, PayloadError
from status.settings import Settings

#: Values of these types are JSON as they stand; of texts, those without half a surrogate pair.
PLAIN = (bool, int, str)

#: Of each argument the type of which it is JSON as it stands, None where there is none; and the places of texts.
_Kinds = tuple[tuple[Any, ...], tuple[int, ...]]


class Adapter:
    """One annotation: checks a value, and converts it to JSON and back.

    Args:
        annotation: Any type that pydantic knows.
        what: What the value is, for messages: `argument n of dogs.walk`.
    """

    def __init__(self, annotation: Any, what: str) -> None:
        self.what = what
        #: The annotation, if values of just that type are JSON as they stand.
        self.plain: Any = annotation if annotation in PLAIN else None
        try:
            self._adapter: TypeAdapter[Any] = _adapter(annotation)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"{what} is annotated {annotation!r}, which can't be carried as JSON ({reason}): use a dataclass, a "
                "pydantic model or plain types"
            ) from error

    def schema(self) -> dict[str, Any]:
        """The JSON schema of what may be given; empty for a type that has none."""
        try:
            return self._adapter.json_schema()
        except PydanticUserError:
            return {}

    def jsonable(self, value: Any) -> Any:
        """The value as plain lists, dicts, strings and numbers."""
        if type(value) is self.plain and (self.plain is not str or value.isascii()):
            if self.plain is str:
                _check_size(value, self.what)
            return value
        # By way of the text: what can't be text (half a surrogate pair, NaN) must be refused here, not in a turn.
        return from_json(self._bytes(value))

    def dumps(self, value: Any) -> str:
        """The value as JSON text."""
        return self._bytes(value).decode()

    def _bytes(self, value: Any) -> bytes:
        if type(value) is self.plain:
            return self._plain_bytes(value)
        try:
            text = self._adapter.dump_json(self._adapter.validate_python(value))
        except (ValidationError, PydanticSerializationError) as error:
            raise self._refused(value, error) from error
        _check_size(text, self.what)
        if b"null" in text:
            # NaN and infinity are written as null, which a float then refuses: too late, the journal has it.
            try:
                self._adapter.validate_json(text)
            except ValidationError as error:
                raise PayloadError(f"{self.what}: would not come back from JSON, got {_short(value)}") from error
        return text

    def _plain_bytes(self, value: Any) -> bytes:
        try:
            text = to_json(value)
        except PydanticSerializationError as error:
            raise self._refused(value, error) from error
        _check_size(text, self.what)
        return text

    def python(self, value: Any) -> Any:
        """What `jsonable` gave, as the annotation says."""
        if type(value) is self.plain:
            return value
        try:
            # Not strict, whatever a model says: these are JSON's types, not Python's.
            return self._adapter.validate_python(value, strict=False)
        except ValidationError as error:
            raise self._refused(value, error) from error

    def loads(self, text: str) -> Any:
        """What `dumps` gave, as the annotation says."""
        try:
            # As `TypeAdapter.validate_json` does: it costs as much again, and a replay reads a value for each await.
            return self._adapter.validator.validate_json(text)
        except ValidationError as error:
            raise self._refused(text, error) from error

    def _refused(self, value: Any, error: Exception) -> PayloadError:
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_context=False)[0]
            where = "".join(f"[{part!r}]" for part in first["loc"])
            return PayloadError(f"{self.what}{where}: {first['msg']}, got {_short(first['input'])}")
        return PayloadError(f"{self.what}: {error}, got {_short(value)}")


class Codec:
    """The arguments and the result of one function.

    Args:
        function: Its annotations are read when first needed, so that forward references may be used.
        name: Of the step or workflow, for messages.
        skip: How many of the first parameters are not part of the call (a workflow's `run`).
    """

    def __init__(self, function: Callable[..., Any], name: str, skip: int = 0) -> None:
        self.name = name
        self.function = function
        parameters = list(inspect.signature(function).parameters.values())[skip:]
        self.signature = inspect.Signature(parameters)
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        #: The parameters, if all may be given by place; binding is not needed for most calls then.
        self._places = [p.name for p in parameters] if all(p.kind in plain for p in parameters) else None
        self._kinds: dict[int, _Kinds] = {}
        self._needed = sum(p.default is p.empty for p in parameters)

    def _by_place(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str] | None:
        """The parameters of a call that gives all it needs by place, as most do."""
        if kwargs or self._places is None or not self._needed <= len(args) <= len(self._places):
            return None
        return self._places[: len(args)]

    def places(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
        """The parameters that `args` are for; [] if they are not a whole call."""
        names = self._names(args, kwargs)
        return names[0] if names else []

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def result(self) -> Adapter:
        """Of the value that the function returns."""
        return Adapter(self._hints.get("return", Any), f"the result of {self.name}")

    @cache  # noqa: B019  # codecs live as long as their function
    def argument(self, name: str) -> Adapter:
        """Of one parameter; for `*args` and `**kwargs`, of one of their values."""
        return Adapter(self._hints.get(name, Any), f"argument {name} of {self.name}")

    def compile(self) -> None:
        """Make what the first call would make, which takes it some milliseconds.

        Raises:
            ConfigError: A type can't be carried as JSON.
            NameError: An annotation names what is not there (yet).
        """
        for name in self.signature.parameters:
            self.argument(name)
        _ = self.result

    def stands(self, args: tuple[Any, ...]) -> bool:
        """Whether a call with these, given by place, is carried as it stands: `encode` would give back the same."""
        kinds, texts = self._kinds.get(len(args)) or self._kinds_of(len(args))
        if tuple(map(type, args)) != kinds:
            return False
        for at in texts:  # noqa: SIM110  # a generator costs as much as all of this
            if not _is_short(args[at]):
                return False
        return True

    def _kinds_of(self, number: int) -> _Kinds:
        """What so many arguments must be, to be JSON as they stand."""
        names = self._by_place([None] * number, {})
        # Annotations that are not needed are not looked at: one of them may name what is not there yet.
        kinds = (None,) * number if names is None else tuple(self.argument(name).plain for name in names)
        self._kinds[number] = kinds, tuple(at for at, kind in enumerate(kinds) if kind is str)
        return self._kinds[number]

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments as plain JSON values.

        A call that leaves arguments open (a stock Celery partial) is carried by the types its values have.

        Raises:
            PayloadError: One does not fit its annotation, or can't be carried.
        """
        return self._each(args, kwargs, lambda adapter, value: adapter.jsonable(value), _jsonable)

    def decode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Plain JSON values as the annotations say.

        Raises:
            PayloadError: One does not fit its annotation.
        """
        return self._each(args, kwargs, lambda adapter, value: adapter.python(value), lambda value: value)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that the function can't be called with.

        Raises:
            PayloadError: One is missing, unknown or given twice.
        """
        if self._by_place(args, kwargs) is not None:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise PayloadError(f"{self.name}{self.signature}: {error}") from error

    def _each(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        known: Callable[[Adapter, Any], Any],
        unknown: Callable[[Any], Any],
    ) -> tuple[list[Any], dict[str, Any]]:
        names = self._names(args, kwargs)
        if names is None:
            return [unknown(value) for value in args], {name: unknown(value) for name, value in kwargs.items()}
        positional, keyword = names
        return (
            [known(self.argument(name), value) for name, value in zip(positional, args, strict=True)],
            {name: known(self.argument(keyword[name]), value) for name, value in kwargs.items()},
        )

    def _names(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[str], dict[str, str]] | None:
        """The parameter that each argument is for; None if they are not a whole call."""
        by_place = self._by_place(args, kwargs)
        if by_place is not None:
            return by_place, {}
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError:
            return None
        positional: list[str] = []
        rest = ""
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional += [parameter.name] * (len(args) - len(positional))
            elif parameter.kind is parameter.VAR_KEYWORD:
                rest = parameter.name
            elif parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append(parameter.name)
        known = self.signature.parameters
        return positional[: len(args)], {name: name if name in known else rest for name in kwargs}


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


@cache
def max_value_bytes() -> int:
    """How long a value may be, as JSON."""
    return Settings.from_environment().max_value_bytes


def _check_size(text: bytes | str, what: str) -> None:
    # All of a run is read at each of its turns, and lies in Redis' memory until its retention is over.
    if len(text) > max_value_bytes():
        raise PayloadError(
            f"{what}: {len(text):,} bytes as JSON are more than CELERIAC_MAX_VALUE_BYTES ({max_value_bytes():,}): "
            "keep it in a store of your own and pass its key, or raise the limit"
        )


def _is_short(value: str) -> bool:
    return value.isascii() and len(value) <= max_value_bytes()


def _jsonable(value: Any) -> Any:
    try:
        text = to_json(value)
        _check_size(text, "an argument")
        return from_json(text)
    except PydanticSerializationError as error:
        raise PayloadError(f"{error}, got {_short(value)}") from error


def compact(value: Any) -> str:
    """JSON without spaces."""
    return to_json(value, inf_nan_mode="constants").decode()


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
