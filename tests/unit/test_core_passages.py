"""What is recorded of awaits that a turn went through ahead of the journal, and the events made of it."""

from __future__ import annotations

from datetime import UTC, datetime

from status.decoding import events_of
from status.passages import AWAITS_A_ROW, PASSED, Passage, PassedPart, arguments
from status.records import News, Remark

BASE_MS = 1_790_000_000_000


def passage(n: int, *, parts: int = 1, news: News | None = None) -> Passage:
    began_ms = BASE_MS + 10 * n
    steps = [
        PassedPart(str(p), f"q|step {p}", f"v{p}", began_ms + p, began_ms + p + 1, f"step {p}") for p in range(parts)
    ]
    return Passage(
        n, f"seen{n}", f"n{n}", f"by{n}", f"all({parts})", began_ms + parts, "{}", "lease", news or News(), steps, list
    )


def lists_of(flat: list[str | int]) -> list[list[str | int]]:
    """The lists after the first eight arguments, as `pass.lua` takes them apart."""
    at, found = 8, []
    while at < len(flat):
        end = at + 1 + int(flat[at])
        found.append(flat[at + 1 : end])
        at = end
    return found


def test_a_way_through_several_awaits_is_recorded_from_the_first_to_the_last():
    said = News(("packed", 0.5, "{}"), (Remark("run.status", "packed"), Remark("run.patched", "new-way")))

    flat = arguments([passage(3), passage(4, parts=2, news=said)])

    assert flat[:8] == [3, "seen3", "n3", "by3", "n4", "by4", BASE_MS + 42, "lease"]
    statuses, patched, rows, journal, steps = lists_of(flat)
    assert statuses == ["packed", "0.5", "{}", BASE_MS + 40]
    assert patched == ["new-way", 4]
    assert len(rows) == 1
    assert journal == [3, "{}", "3.0", "v0", 4, "{}", "4.0", "v0", "4.1", "v1"]
    assert steps[-4:] == ["4.1", "q|step 1", "4.1:s", f"done|1|{BASE_MS + 41}|{BASE_MS + 42}"]


def test_a_row_of_events_tells_what_happened_and_when():
    news = News(None, (Remark("run.status", "packed", '{"progress":0.5}'),))
    (row,) = lists_of(arguments([passage(0, parts=2, news=news)]))[2]

    events = list(events_of("r", "1-0", {"k": PASSED, "d": str(row)}))

    assert [(event.kind, event.name) for event in events] == [
        ("run.status", "packed"),
        ("join.opened", "0"),
        ("step.started", "step 0"),
        ("step.done", "step 0"),
        ("step.started", "step 1"),
        ("step.done", "step 1"),
        ("join.decided", "0"),
    ]
    assert events[0].detail == {"progress": 0.5}
    assert [event.at for event in events[-3:]] == [
        datetime.fromtimestamp((BASE_MS + ms) / 1000, UTC) for ms in (1, 2, 2)
    ]


def test_a_row_tells_of_few_awaits_so_that_the_cap_on_rows_is_one_on_events():
    rows = lists_of(arguments([passage(n) for n in range(3 * AWAITS_A_ROW + 1)]))[2]

    told = [
        [e.name for e in events_of("r", "1-0", {"k": PASSED, "d": str(row)}) if e.kind == "join.opened"] for row in rows
    ]

    assert [len(names) for names in told] == [AWAITS_A_ROW] * 3 + [1]
    assert [name for names in told for name in names] == [str(n) for n in range(3 * AWAITS_A_ROW + 1)]
