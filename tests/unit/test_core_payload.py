"""What may be an argument or a result, and what is said when something may not."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from canvas import ConfigError, PayloadError
from canvas.payload import Adapter, Codec, compact


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass(frozen=True)
class Line:
    sku: str
    price: Decimal


@dataclass
class Order:
    order_id: UUID
    lines: list[Line]
    at: datetime
    size: Size = Size.SMALL
    notes: dict[str, str] = field(default_factory=dict)


class Model(BaseModel):
    name: str
    born: date | None = None
    line: Line | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    at: datetime
    size: Size


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Point(NamedTuple):
    x: int
    y: int


ORDER = Order(
    UUID(int=7), [Line("A", Decimal("1.10"))], datetime(2026, 1, 2, 3, 4, 5, 678, UTC), Size.LARGE, {"a": "b"}
)

ROUND_TRIPS = [
    (int, 2**60),
    (str, 'quote " slash \\ snowman ☃ null \0'),
    (bool, True),
    (float, 0.1),
    (bytes, b"abc"),
    (None, None),
    (Size, Size.LARGE),
    (Literal["a", "b"], "b"),
    (Decimal, Decimal("0.10")),
    (UUID, UUID(int=5)),
    (datetime, datetime(2026, 11, 23, 12, 0, 0, 123456, UTC)),
    (datetime, datetime(2026, 11, 23, 12, 0)),  # noqa: DTZ001  # one without a zone stays so
    (date, date(2026, 2, 28)),
    (timedelta, timedelta(days=1, microseconds=1)),
    (Optional[int], None),  # noqa: UP045  # as people write it
    (int | str, "5"),
    (list[Line], [Line("A", Decimal(1))]),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (dict[int, Size], {1: Size.SMALL}),
    (Movie, {"title": "Alien"}),
    (Point, Point(1, 2)),
    (Model, Model(name="x", born=date(2000, 1, 1), line=Line("A", Decimal("2.50")))),
    (Strict, Strict(at=datetime(2026, 1, 1, tzinfo=UTC), size=Size.LARGE)),
    (Order, ORDER),
    (Annotated[int, Field(gt=0)], 3),
    (Any, {"a": [1, None, True]}),
]


@pytest.mark.parametrize(("annotation", "value"), ROUND_TRIPS, ids=[str(at) for at in range(len(ROUND_TRIPS))])
def test_an_argument_comes_out_as_it_went_in(annotation, value):
    adapter = Adapter(annotation, "argument x of f")

    carried = adapter.jsonable(value)

    import json

    back = adapter.python(json.loads(compact(carried)))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(("annotation", "value"), ROUND_TRIPS, ids=[str(at) for at in range(len(ROUND_TRIPS))])
def test_a_result_comes_out_as_it_went_in(annotation, value):
    adapter = Adapter(annotation, "the result of f")

    back = adapter.loads(adapter.dumps(value))

    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_result_that_would_not_come_back_is_refused_when_it_is_written(value):
    with pytest.raises(PayloadError, match=r"the result of f.*got (nan|-?inf)"):
        Adapter(float, "the result of f").dumps(value)


@pytest.mark.parametrize("annotation", [str, Any, list[str]])
def test_text_that_redis_can_not_carry_is_refused_as_argument(annotation):
    value = ["\ud800"] if annotation == list[str] else "\ud800"

    with pytest.raises(PayloadError, match="argument x of f"):
        Adapter(annotation, "argument x of f").jsonable(value)


def pay(amount: Decimal, *tags: str, to: UUID | None = None, **extra: int) -> Order | None: ...


CODEC = Codec(pay, "shop.pay")


def test_each_of_star_args_and_star_kwargs_is_converted_by_its_own_annotation():
    args, kwargs = CODEC.encode((Decimal("1.5"), "a", "b"), {"to": UUID(int=1), "x": 4})

    assert args == ["1.5", "a", "b"]
    assert kwargs == {"to": str(UUID(int=1)), "x": 4}
    assert CODEC.decode(args, kwargs) == ([Decimal("1.5"), "a", "b"], {"to": UUID(int=1), "x": 4})


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("many",), {}, r"argument amount of shop\.pay: .*decimal.*, got 'many'"),
        ((1, "a", 7), {}, r"argument tags of shop\.pay: .*string.*, got 7"),
        ((1,), {"to": "me"}, r"argument to of shop\.pay.*UUID.*, got 'me'"),
        ((1,), {"more": "x"}, r"argument extra of shop\.pay: .*integer.*, got 'x'"),
    ],
)
def test_an_error_names_the_argument_and_the_value(args, kwargs, message):
    with pytest.raises(PayloadError, match=message):
        CODEC.encode(args, kwargs)


def test_an_error_deep_in_a_value_says_where():
    adapter = Adapter(Order, "argument order of f")

    with pytest.raises(PayloadError, match=r"argument order of f\['lines'\]\[0\]\['price'\]: .*, got 'cheap'"):
        adapter.python({"order_id": str(UUID(int=1)), "lines": [{"sku": "A", "price": "cheap"}], "at": 0})


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(PayloadError) as raised:
        Adapter(int, "x").jsonable("9" * 10_000 + "x")

    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [((), {}, "amount"), ((1,), {"amount": 2}, "multiple values for argument 'amount'")],
)
def test_a_call_that_does_not_fit_names_the_signature(args, kwargs, message):
    with pytest.raises(PayloadError, match=message):
        CODEC.check(args, kwargs)


def test_a_type_that_is_no_payload_is_refused_by_its_name():
    class Connection: ...

    def use(it: Connection) -> None: ...

    use.__annotations__ = {"it": Connection}

    with pytest.raises(ConfigError, match=r"argument it of f is annotated .*Connection.*dataclass"):
        Codec(use, "f").argument("it")


def test_a_type_that_pydantic_does_not_take_is_refused_with_its_reason():
    class Old(typing.TypedDict):  # before Python 3.12 pydantic wants that of typing_extensions
        x: int

    with pytest.raises(ConfigError, match=r"argument x of f is annotated .*typing_extensions.TypedDict"):
        Adapter(Old, "argument x of f")


def test_an_object_in_an_untyped_argument_is_refused():
    with pytest.raises(PayloadError, match="argument x of f"):
        Adapter(Any, "argument x of f").jsonable(object())


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(PayloadError, match="argument x of f"):
        Adapter(bytes, "argument x of f").jsonable(b"\xff")


def plain(n: int, text: str = "", good: bool = False) -> None: ...
def mixed(n: int, order: Order | None = None) -> None: ...
def starred(*numbers: int) -> None: ...
def named(*, n: int = 0) -> None: ...
def with_a_float(x: float) -> None: ...


class Number(int): ...


VALUES = st.one_of(
    st.integers(), st.booleans(), st.floats(), st.none(), st.text(max_size=5), st.just(Number(3)), st.just("x" * 2000),
    st.just("\ud800"), st.just(ORDER), st.lists(st.integers(), max_size=2),
)  # fmt: skip


@pytest.mark.parametrize("function", [plain, mixed, starred, named, with_a_float])
@given(args=st.lists(VALUES, max_size=4))
def test_arguments_that_stand_are_those_that_encoding_would_give_back(function, args):
    codec = Codec(function, "f")

    for _ in range(2):
        stands = codec.stands(tuple(args))
        try:
            encoded, kwargs = codec.encode(args, {})
        except PayloadError:
            assert not stands
        else:
            if stands:
                assert ([*map(type, encoded)], encoded, kwargs) == ([*map(type, args)], args, {})


def test_the_calls_of_most_workflows_stand():
    codec = Codec(plain, "f")

    assert codec.stands((1,))
    assert codec.stands((1, "two", True))
    assert not codec.stands((1, "zw\u00f6lf"))
    assert not Codec(mixed, "f").stands((1, ORDER))


def test_a_text_that_is_too_long_does_not_stand(monkeypatch):
    monkeypatch.setattr("canvas.payload.max_value_bytes", lambda: 5)

    assert Codec(plain, "f").stands((1, "12345"))
    assert not Codec(plain, "f").stands((1, "123456"))
