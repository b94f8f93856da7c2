"""Arguments as Flower shows them."""

from __future__ import annotations

import pytest

from canvas.reprs import REPR_LIMIT, args_repr, kwargs_repr


@pytest.mark.parametrize(
    ("names", "args", "shown"),
    [
        (["order_id", "total"], ["A-1", 12], '(order_id="A-1", total=12)'),
        (["order_id", "card_number"], ["A-1", "4111"], '(order_id="A-1", card_number=***)'),
        (["options"], [{"api_key": "k", "tries": 2}], '(options={"api_key":"***","tries":2})'),
        (["note"], ["password=hunter2 it was"], '(note="password=*** it was")'),
        (["note"], ['{"password":"hunter2"}'], '(note="{\\"password\\":\\"***\\"}")'),
        (["url"], ["redis://me:pw@host"], '(url="redis://me:***@host")'),
        ([], ["A-1", 12], '["A-1",12]'),
        ([], [], "()"),
    ],
)
def test_arguments_are_shown_by_name_without_secrets(names, args, shown):
    assert args_repr(names, args) == shown


def test_arguments_by_name_are_masked_too():
    assert kwargs_repr({"token": "t", "n": 1}) == '{"token":"***","n":1}'
    assert kwargs_repr({}) == "{}"


@pytest.mark.parametrize("value", ["x" * 5000, ["x" * 5000], "token=" + "x" * 5000])
def test_no_argument_is_shown_at_full_length(value):
    shown = args_repr(["a", "b"], [value, 1])

    assert len(shown) <= REPR_LIMIT + 1


def test_a_secret_is_not_shown_by_being_cut():
    text = 'the key is "' + "x" * (REPR_LIMIT - 30) + '", password="' + "y" * 5000

    assert "yy" not in args_repr(["note"], [text])
