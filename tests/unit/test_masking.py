"""What is a secret by its name is shown nowhere."""

from __future__ import annotations

import json

import pytest

from status.errors import ConfigError
from status.masking import HIDDEN, Mask, mask


@pytest.mark.parametrize(
    "name", ["password", "DB_PASSWORD", "api-key", "X-Api-Key", "accessToken", "card_number", "CVV"]
)
def test_a_secret_is_known_by_its_name_whatever_its_spelling(name):
    assert Mask().hides(name)


@pytest.mark.parametrize("name", ["order_id", "pass", "amount", "key", "card"])
def test_other_names_are_shown(name):
    assert not Mask().hides(name)


def test_a_value_is_hidden_however_deep_it_is():
    value = {"user": "ada", "login": [{"password": "x1", "tries": 2, "token": None}], "secrets": {"a": 1}}

    assert Mask().value(value) == {
        "user": "ada",
        "login": [{"password": HIDDEN, "tries": 2, "token": None}],
        "secrets": HIDDEN,
    }


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("login failed: password=hunter2, user=ada", "login failed: password=***, user=ada"),
        ('sent {"api_key": "k1", "to": "x"}', 'sent {"api_key": ***, "to": "x"}'),
        ("Client(token='a b', n=1)", "Client(token=***, n=1)"),
        ("Authorization: Bearer abc.def next", "Authorization: *** next"),
        ("could not reach redis://me:pw1@host:6379/0", "could not reach redis://me:***@host:6379/0"),
        ("GET /pay?card_number=4111&amount=3", "GET /pay?card_number=***&amount=3"),
        ("the token was refused", "the token was refused"),
        ("no room in Atlantis: 404", "no room in Atlantis: 404"),
    ],
)
def test_prose_keeps_all_but_the_secret(said, shown):
    assert Mask().text(said) == shown


def test_json_that_was_cut_short_is_masked_as_prose():
    text = json.dumps({"order": 7, "password": "hunter2", "note": "x" * 100})[:60]

    assert "hunter2" not in Mask().json(text)


def test_a_secret_in_json_within_json_is_hidden():
    assert "hunter2" not in Mask().text(json.dumps({"body": json.dumps({"password": "hunter2"})}))


def test_own_patterns_take_the_place_of_the_usual_ones(monkeypatch):
    mask.cache_clear()
    monkeypatch.setenv("CELERIAC_MASK", "ssn, *_pin")

    own = mask()

    mask.cache_clear()
    assert [own.hides(name) for name in ("ssn", "card_pin", "password")] == [True, True, False]


def test_nothing_is_hidden_where_no_name_is_given(monkeypatch):
    mask.cache_clear()
    monkeypatch.setenv("CELERIAC_MASK", "")

    none = mask()

    mask.cache_clear()
    assert none.value({"password": "x"}) == {"password": "x"}
    assert none.text("password=x") == "password=x"


def test_a_pattern_that_is_none_is_refused_with_its_text():
    with pytest.raises(ConfigError, match=r"'pass\(word'"):
        Mask(["pass(word"])
