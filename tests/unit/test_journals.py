"""What a process keeps of the journals that it has read: how much, whose, and that nobody sees it change."""

from __future__ import annotations

from status.journals import FIELD_BYTES, Journal, Journals


def fields(first: int, awaits: int) -> dict[str, str]:
    return {field: "x" for n in range(first, first + awaits) for field in (str(n), f"{n}.0")}


def test_short_journals_are_not_kept():
    journals = Journals(10**6, least_fields=10)

    journals.read("short", {}, fields(0, 4))
    journals.read("long", {}, fields(0, 5))

    assert journals.get("short") is None
    assert journals.get("long") == fields(0, 5)


def test_what_is_kept_has_a_bound_and_the_one_used_longest_ago_goes():
    journals = Journals(3 * 10 * (FIELD_BYTES + 10), least_fields=1)
    for name in "abc":
        journals.read(name, {}, fields(0, 5))
    journals.get("a")

    journals.read("d", {}, fields(0, 5))

    assert [name for name in "abcd" if journals.get(name) is not None] == ["a", "c", "d"]
    assert journals.weight <= 3 * 10 * (FIELD_BYTES + 10)


def test_a_journal_beyond_the_bound_is_read_and_not_kept():
    journals = Journals(10 * FIELD_BYTES, least_fields=1)
    journals.read("a", {}, fields(0, 3))

    assert journals.read("a", {}, fields(3, 9), journals.get("a")) == fields(0, 12)

    assert journals.get("a") is None
    assert journals.weight == 0


def test_a_bound_of_0_keeps_nothing():
    journals = Journals(0, least_fields=1)

    journals.read("a", {}, fields(0, 500))

    assert journals.get("a") is None


def test_weights_add_up_however_a_journal_came_to_be():
    parts, whole = Journals(10**6, least_fields=1), Journals(10**6, least_fields=1)
    for n in range(9):
        parts.read("a", {}, fields(n, 1), parts.get("a"))

    whole.read("a", {}, fields(0, 9))

    assert parts.weight == whole.weight
    parts.forget("a")
    assert parts.weight == 0


def test_who_goes_by_a_journal_does_not_see_it_grow():
    before = Journal(fields(0, 2))
    before.read[0] = "made of it"

    after = before.grown(fields(2, 1))
    after.read[2] = "more"

    assert (before, before.read) == (fields(0, 2), {0: "made of it"})
    assert (after, after.read) == (fields(0, 3), {0: "made of it", 2: "more"})


def test_only_what_will_stay_as_it_is_is_kept():
    journals = Journals(10**6, least_fields=1)
    open_yet = {"5.0": "v1", "5:order": "0"}
    left = {"1": "x", "1.0": "x"}

    read = journals.read("a", {"first": "3"}, {**left, **fields(3, 2), "4.late": "{}", **open_yet})

    assert read == {**left, **fields(3, 2), "4.late": "{}", **open_yet}
    kept = journals.get("a")
    assert kept == {**fields(3, 2), "4.late": "{}"}
    assert kept.mark == "4|x"


def test_of_a_round_that_has_decided_nothing_yet_nothing_is_kept():
    journals = Journals(10**6, least_fields=1)

    journals.read("a", {"first": "3"}, fields(0, 2))

    assert journals.get("a") is None
