"""Windows hold one hour each, and batches hold exactly what was in them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from settle_mp.core import window as windowing
from settle_mp.core.event import pack_event
from settle_mp.core.fold import Entry, Folded, Key, Repeats, fold_payload, row_text, total
from settle_mp.core.record import TIME_S_MAX
from settle_mp.core.rules import read_rules
from settle_mp.core.window import (
    BODY_BYTES_MAX,
    HOUR_S,
    Draft,
    Lot,
    Window,
    Windows,
    decode_lots,
    draft_batches,
    encode_lots,
    hour_of,
    join_rows,
    rows_of,
)
from tests.core.strategies import PAYLOADS, QUANTITIES, exact

HOUR = 500_000
START_S = HOUR * HOUR_S
RULES = read_rules({"RULED": {"keep": ["model"], "sum": ["tokens"], "drop": ["id"]}})
RULED = st.builds(
    pack_event,
    st.sampled_from(["u", "v", "\u2028"]),
    st.just("RULED"),
    QUANTITIES,
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from(["a", 1, 1.0, True]),
            "tokens": st.floats(0, 9),
            "id": st.integers(0, 9),
        },
    ),
)
TIMES = st.floats(START_S, START_S + HOUR_S, exclude_max=True)
COUNTED = st.lists(st.tuples(RULED | PAYLOADS, st.integers(1, 1000), TIMES), max_size=15)
Counted = list[tuple[bytes, int, float]]


def window_of(counted: Counted) -> Window:
    """An hour's window with these events, so many of each, at these times."""
    window = Window(HOUR)
    for payload, count, at_s in counted:
        window.reach(at_s)
        window.add([(fold_payload(payload, RULES), count)])
    return window


def window_with(sizes: list[int]) -> Window:
    """A window whose rows take so many bytes each."""
    window = Window(HOUR)
    for number, size in enumerate(sizes):
        empty = len(row_text(Key(f"{number:04}", "E", ""), Entry(1, 1), None))
        window.add([(Folded(Key(f"{number:04}{'x' * (size - empty)}", "E", ""), 1, None), 1)])
    return window


def parsed(body: bytes) -> list[dict[str, Any]]:
    """The rows in a body, read exactly."""
    document = json.loads(body, parse_float=Decimal)
    assert list(document) == ["events"]
    rows: list[dict[str, Any]] = document["events"]
    return rows


# --- Batches ---


@given(COUNTED, st.integers(1, 5), st.booleans())
def test_batches_hold_exactly_the_window(counted: Counted, rows_max: int, is_annotated: bool) -> None:  # noqa: FBT001
    """Each sum stands in one row of one batch, each row says what its lot says, no batch is too long."""
    window = window_of(counted)
    drafts = list(draft_batches(window, rows_max=rows_max, is_annotated=is_annotated))
    left = dict(window.entries)
    for draft in drafts:
        rows = parsed(draft.body)
        assert 1 <= len(rows) == len(draft.lots) <= rows_max
        assert len(draft.body) <= BODY_BYTES_MAX
        assert draft.hour == HOUR
        for row, lot, (text, _) in zip(rows, draft.lots, rows_of(draft), strict=True):
            assert json.loads(text, parse_float=Decimal) == row
            assert row["quantity"] == lot.quantity
            metadata = row.get("metadata", {})
            ours = metadata.pop("settle_mp", None)
            assert (ours is not None) == is_annotated
            assert ours is None or ours["count"] == lot.events_count
            key, entry = next((key, entry) for key, entry in left.items() if says(key, entry, row))
            assert (entry.count, entry.quantity) == (lot.events_count, lot.quantity)
            del left[key]
        assert draft.events_count == sum(lot.events_count for lot in draft.lots)
        assert draft.quantity == total(lot.quantity for lot in draft.lots)
    assert not left
    assert sum(draft.events_count for draft in drafts) == window.events_count
    assert window.events_count == sum(count for _, count, _ in counted)
    assert total(draft.quantity for draft in drafts) == window.quantity


def says(key: Key, entry: Entry, row: dict[str, Any]) -> bool:
    """Whether a row, without our annotation, is this sum: 1, 1.0 and true are not each other."""
    metadata = dict(row.get("metadata", {}))
    sums = {name: metadata.pop(name, None) for name in entry.sums}
    kept = json.loads(key.metadata or "{}", parse_float=Decimal)
    names = (row["userId"], row["eventType"])
    return names == (key.user_id, key.event_type) and repr(metadata) == repr(kept) and sums == entry.sums


@given(COUNTED)
def test_rows_are_unique_in_their_key(counted: Counted) -> None:
    """No two rows of a window have the same user, type and metadata."""
    rows = [
        json.dumps(
            [row["userId"], row["eventType"], {**row.get("metadata", {}), "tokens": None}],
            sort_keys=True,
            default=repr,
        )
        for draft in draft_batches(window_of(counted), rows_max=3, is_annotated=False)
        for row in parsed(draft.body)
        if row["eventType"] == "RULED"
    ]
    assert len(set(rows)) == len(rows)


def test_an_empty_window_makes_no_batch() -> None:
    """Nothing is sent for it."""
    assert list(draft_batches(Window(HOUR), rows_max=50, is_annotated=True)) == []


@pytest.mark.parametrize(("rows", "sizes"), [(49, [49]), (50, [50]), (51, [50, 1]), (150, [50, 50, 50])])
def test_batches_have_rows_up_to_the_bound(rows: int, sizes: list[int]) -> None:
    """The last row that fits, and the first that does not."""
    drafts = list(draft_batches(window_with([60] * rows), rows_max=50, is_annotated=False))
    assert [len(draft.lots) for draft in drafts] == sizes


def test_batches_have_bytes_up_to_the_bound() -> None:
    """A body of exactly the bound is one batch, one byte more makes two."""
    room = BODY_BYTES_MAX - len(b'{"events":[,]}')
    (draft,) = draft_batches(window_with([1000, room - 1000]), rows_max=50, is_annotated=False)
    assert len(draft.body) == BODY_BYTES_MAX
    drafts = list(draft_batches(window_with([1000, room - 999]), rows_max=50, is_annotated=False))
    assert [len(parsed(draft.body)) for draft in drafts] == [1, 1]


def test_batches_begin_anew_after_a_full_one() -> None:
    """Each batch is filled up to the bound, not only the first."""
    drafts = list(draft_batches(window_with([BODY_BYTES_MAX // 4] * 9), rows_max=50, is_annotated=False))
    assert [len(draft.lots) for draft in drafts] == [3, 3, 3]


def test_a_row_beyond_the_bound_is_a_batch_of_its_own() -> None:
    """It is not left out, and does not take others with it."""
    drafts = list(draft_batches(window_with([60, BODY_BYTES_MAX, 60]), rows_max=50, is_annotated=False))
    assert [len(draft.lots) for draft in drafts] == [1, 1, 1]


# --- Annotations ---


def annotation_of(window: Window) -> dict[str, Any]:
    """What a window's first row says of itself."""
    draft = next(draft_batches(window, rows_max=1, is_annotated=True))
    ours: dict[str, Any] = parsed(draft.body)[0]["metadata"]["settle_mp"]
    return ours


def utc(text: str) -> datetime:
    """An annotation's time."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text[:-1] + "+00:00")


def test_an_annotation_tells_count_and_window() -> None:
    """Whole seconds around the first and the last time."""
    window = window_of([(pack_event("u", "E", 1, None), 40, START_S + 0.5)])
    window.reach(START_S + 1.25)
    start = datetime.fromtimestamp(START_S, timezone.utc)
    ours = annotation_of(window)
    assert ours["count"] == 40
    assert utc(ours["window_start"]) == start
    assert utc(ours["window_end"]) == start + timedelta(seconds=2)
    assert ours["window_start"] == "2027-01-15T08:00:00Z"


@given(
    st.lists(st.floats(0, TIME_S_MAX, exclude_max=True), max_size=4),
    st.integers(0, int(TIME_S_MAX / HOUR_S) - 1),
)
def test_an_annotation_never_leaves_its_hour(times: list[float], hour: int) -> None:
    """Whatever times were reached, also none and those of a clock that was set; start comes before end."""
    window = Window(hour)
    window.add([(Folded(Key("u", "E", ""), 1, None), 1)])
    for at_s in times:
        window.reach(at_s)
    ours = annotation_of(window)
    start, end = utc(ours["window_start"]), utc(ours["window_end"])
    hour_start = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(hours=hour)
    assert hour_start <= start <= end <= hour_start + timedelta(hours=1)


@given(st.lists(TIMES, min_size=1, max_size=5))
@example([START_S])
@example([START_S + HOUR_S - 0.5])
def test_a_window_covers_the_times_it_reached(times: list[float]) -> None:
    """In any order."""
    window = Window(HOUR)
    window.add([(Folded(Key("u", "E", ""), 1, None), 1)])
    for at_s in times:
        window.reach(at_s)
    assert (window.first_s, window.last_s) == (min(times), max(times))
    ours = annotation_of(window)
    assert utc(ours["window_start"]).timestamp() == int(min(times))
    assert utc(ours["window_end"]).timestamp() == int(max(times)) + 1


# --- Dividing ---


@given(COUNTED.filter(bool), st.lists(st.integers(0, 20), max_size=5))
def test_joining_keeps_every_byte_of_every_row(counted: Counted, cuts: list[int]) -> None:
    """However the rows of a batch are grouped, each comes out once and as it was."""
    (draft,) = draft_batches(window_of(counted), rows_max=50, is_annotated=True)
    rows = rows_of(draft)
    ends = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    pieces = [join_rows(draft.hour, rows[start:end]) for start, end in pairwise(ends)]
    assert [row for piece in pieces for row in rows_of(piece)] == rows
    assert [row for piece in pieces for row in parsed(piece.body)] == parsed(draft.body)
    assert all(piece.lots and piece.hour == draft.hour for piece in pieces)


def test_all_rows_joined_are_the_batch_itself() -> None:
    """Byte for byte: joining is the inverse of taking apart."""
    (draft,) = draft_batches(window_with([60, 70, 80]), rows_max=50, is_annotated=True)
    assert join_rows(draft.hour, rows_of(draft)) == draft


def test_a_single_row_is_a_batch_too() -> None:
    """What a bisect comes down to."""
    (draft,) = draft_batches(window_with([60, 70, 80]), rows_max=50, is_annotated=False)
    singles = [join_rows(draft.hour, [row]) for row in rows_of(draft)]
    assert [piece.body for piece in singles] == [b'{"events":[' + text + b"]}" for text, _ in rows_of(draft)]
    assert [piece.lots for piece in singles] == [(lot,) for lot in draft.lots]


LOTS = st.builds(Lot, st.integers(1, 2**40), st.integers(1, 2**63), QUANTITIES.map(exact))


@given(st.lists(LOTS, max_size=5))
def test_lots_come_back_from_the_ledger(lots: list[Lot]) -> None:
    """Through JSON, exactly."""
    assert decode_lots(json.loads(json.dumps(encode_lots(lots)))) == tuple(lots)


def test_an_empty_draft_has_nothing() -> None:
    """Its sums are zero, as an int."""
    draft = Draft(hour=HOUR, body=b'{"events":[]}', lots=())
    assert (draft.events_count, draft.quantity) == (0, 0)
    assert rows_of(draft) == []


# --- Hours and when to seal ---


@pytest.mark.parametrize(
    ("at_s", "hour"), [(0.0, 0), (3599.999999, 0), (3600.0, 1), (START_S - 0.001, HOUR - 1), (START_S, HOUR)]
)
def test_an_hour_begins_on_its_second(at_s: float, hour: int) -> None:
    """The last moment before it belongs to the one before."""
    assert hour_of(at_s) == hour


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=20))
def test_windows_keep_hours_apart(added: list[tuple[int, int]]) -> None:
    """Events of one key in two hours are two sums, told in the order of the hours."""
    windows = Windows()
    folded = Folded(Key("u", "E", ""), 1, None)
    for hour, count in added:
        windows.at(hour, 0.0).add([(folded, count)])
    hours = sorted({hour for hour, _ in added})
    assert [window.hour for window in windows] == hours
    assert [window.events_count for window in windows] == [
        sum(count for at, count in added if at == hour) for hour in hours
    ]
    assert bool(windows) == bool(hours)
    assert windows.rows_count == len(hours)
    windows.clear()
    assert (list(windows), bool(windows), windows.rows_count, windows.opened_s) == ([], False, 0, None)


@given(
    st.lists(RULED | PAYLOADS, min_size=1, max_size=4),
    st.lists(
        st.tuples(st.integers(0, 1), st.lists(st.integers(0, 3), max_size=8), st.booleans()), max_size=12
    ),
    st.integers(0, 3),
)
def test_counted_events_are_added_up_whoever_looks_when(
    payloads: list[bytes], runs: list[tuple[int, list[int], bool]], waiting_max: int
) -> None:
    """Repeats that count for two hours in turn, looked at or not in between, leave each hour its own sums."""
    folded = [fold_payload(payload, RULES) for payload in payloads]
    repeats = [Repeats(each) for each in folded]
    windows, expected = [Window(HOUR), Window(HOUR + 1)], [Window(HOUR), Window(HOUR + 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windowing, "WAITING_MAX", waiting_max)
        for at, numbers, is_looked_at in runs:
            picked = [number % len(payloads) for number in numbers]
            windows[at].count([repeats[number] for number in picked])
            expected[at].add([(folded[number], 1) for number in picked])
            assert len(windows[at]._waiting) <= waiting_max
            assert windows[at].rows_count == expected[at].rows_count
            if is_looked_at:
                assert windows[at].entries == expected[at].entries
    assert [window.entries for window in windows] == [window.entries for window in expected]
    assert [window.events_count for window in windows] == [window.events_count for window in expected]


def opened_at(now_s: float, rows: int = 1) -> Windows:
    """Windows with so many sums, opened at a time."""
    windows = Windows()
    for number in range(rows):
        windows.at(HOUR + number % 2, now_s).add([(Folded(Key(f"u{number}", "E", ""), 1, None), 1)])
    return windows


@pytest.mark.parametrize(
    ("now_s", "is_due"),
    [(100.0, False), (101.999, False), (102.0, True), (1e9, True), (99.999, True), (0.0, True)],
    ids=["new", "almost", "old", "very old", "clock set back a little", "clock set back far"],
)
def test_windows_are_due_by_age(now_s: float, is_due: bool) -> None:  # noqa: FBT001
    """At the interval; a clock that was set back makes them due at once rather than late."""
    assert opened_at(100.0).is_due(now_s, interval_s=2.0, rows_max=50) is is_due


@pytest.mark.parametrize(("rows", "is_due"), [(49, False), (50, True), (51, True)])
def test_windows_are_due_by_size(rows: int, is_due: bool) -> None:  # noqa: FBT001
    """Counted over all hours."""
    assert opened_at(100.0, rows).is_due(100.0, interval_s=2.0, rows_max=50) is is_due


def test_no_windows_are_never_due() -> None:
    """Nothing is sealed where nothing is open, also after a seal."""
    windows = opened_at(100.0)
    windows.clear()
    for now_s in (0.0, 100.0, 1e9):
        assert not windows.is_due(now_s, interval_s=2.0, rows_max=0)


def test_the_oldest_window_tells_the_age() -> None:
    """A later hour opened beside it makes them no younger, and a new one after a seal begins anew."""
    windows = opened_at(100.0)
    windows.at(HOUR + 5, 101.9)
    assert windows.opened_s == 100.0
    assert windows.is_due(102.0, interval_s=2.0, rows_max=50)
    windows.clear()
    windows.at(HOUR, 102.0)
    assert windows.opened_s == 102.0
