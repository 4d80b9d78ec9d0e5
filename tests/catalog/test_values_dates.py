"""Times in the forms that shops export them."""

from datetime import UTC, datetime, time, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.values.dates import is_clock, read_times


def read(*values, dates="auto"):
    """The times of a column, and the notes on it."""
    notes = Notes()
    column = pa.chunked_array([pa.array(list(values))])
    return read_times(column, "when", dates, notes).to_pylist(), [
        str(note) for note in notes.listed
    ]


def seconds(*moment: int, ahead: float = 0) -> int:
    return int(datetime(*moment, tzinfo=timezone(timedelta(hours=ahead))).timestamp())  # type: ignore


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-05 09:15:22 -0500", seconds(2024, 3, 5, 9, 15, 22, ahead=-5)),
        ("2024-03-05T09:15:22+05:30", seconds(2024, 3, 5, 9, 15, 22, ahead=5.5)),
        ("2024-03-05T09:15Z", seconds(2024, 3, 5, 9, 15)),
        ("2019-10-01 00:00:00 UTC", seconds(2019, 10, 1)),
        ("12/13/2010 8:26", seconds(2010, 12, 13, 8, 26)),
        ("13.12.2020 14:03", seconds(2020, 12, 13, 14, 3)),
        ("2020/1/5", seconds(2020, 1, 5)),
        ("11/13/2019 2:14:46 PM", seconds(2019, 11, 13, 14, 14, 46)),
        ("11/13/2019 12:14 am", seconds(2019, 11, 13, 0, 14)),
        ("Thu, 22 Mar 2012 14:31:30 -0700", seconds(2012, 3, 22, 14, 31, 30, ahead=-7)),
        ("Thu Mar 22 14:31:30 -0700 2012", seconds(2012, 3, 22, 14, 31, 30, ahead=-7)),
        ("Thu Mar 22 14:31:30 PST 2012", seconds(2012, 3, 22, 14, 31, 30, ahead=-8)),
        ("09 20, 2015", seconds(2015, 9, 20)),
        ("Sep 20, 2015", seconds(2015, 9, 20)),
        ("20 September 2015", seconds(2015, 9, 20)),
        ("September 3rd, 2015 at 5:06 p.m.", seconds(2015, 9, 3, 17, 6)),
        ("2020-09-21T10:00:00.123456789Z", seconds(2020, 9, 21, 10) * 10**6 + 123456),
    ],
)
def test_dates_are_read_in_each_usual_form(text, expected):
    assert read(text) == ([expected], [])


def test_forms_may_be_mixed_in_one_column():
    times, notes = read("2020-09-21", "Sep 21, 2020", "21.9.2020", "2020-09-21 00:00:00 +0000")
    assert times == [1600646400] * 4
    assert not notes


@pytest.mark.parametrize("other", ["12/01/2020", "12/1/2020 8:00"])
def test_one_day_above_twelve_decides_for_the_whole_column(other):
    assert read("13/12/2020", other)[0][1] in (seconds(2020, 1, 12), seconds(2020, 1, 12, 8))
    assert read("12/13/2020", other)[0][1] in (seconds(2020, 12, 1), seconds(2020, 12, 1, 8))
    assert read("13/12/2020", other)[1] == []


def test_dates_that_contradict_each_other_are_refused_with_both():
    with pytest.raises(
        VitrineError, match=r"day first \('13/12/2020'\).*month first \('1/13/2020'\)"
    ):
        read("1/13/2020", "13/12/2020")


def test_undecidable_dates_are_read_month_first_and_said():
    times, (note,) = read("01/02/2020", "03/04/2020")
    assert times == [seconds(2020, 1, 2), seconds(2020, 3, 4)]
    assert "set --catalog.dates day-first" in note
    assert read("01/02/2020", dates="day-first") == ([seconds(2020, 2, 1)], [])
    assert read("02/02/2020") == ([seconds(2020, 2, 2)], [])


def test_undecidable_dates_with_points_are_read_day_first_and_said():
    times, (note,) = read("01.02.2020")
    assert times == [seconds(2020, 2, 1)]
    assert "set --catalog.dates month-first" in note
    assert read("01.02.2020", dates="month-first")[0] == [seconds(2020, 1, 2)]


def test_years_of_two_digits_are_said():
    times, (note,) = read("13/12/20")
    assert times == [seconds(2020, 12, 13)]
    assert "two digits" in note


def test_times_without_a_zone_beside_others_are_read_as_utc_and_said():
    times, (note,) = read("2020-01-01 10:00", "2020-01-01 10:00 +01:00")
    assert times == [seconds(2020, 1, 1, 10), seconds(2020, 1, 1, 9)]
    assert "read as UTC" in note


@pytest.mark.parametrize("value", ["9:05:58 AM", "14:05", time(9, 5)])
def test_times_of_day_are_refused_with_a_remedy(value):
    with pytest.raises(VitrineError, match=r"without a date.*join them.*time: null"):
        read(value)
    assert is_clock(pa.chunked_array([[value]]))
    assert not is_clock(pa.chunked_array([["2020-01-01 9:05"]]))


@pytest.mark.parametrize(
    ("number", "unit"),
    [(1600646400000, "milliseconds"), (1600646400 * 10**6, "micro"), (1600646400 * 10**9, "nano")],
)
@pytest.mark.parametrize("form", [int, str])
def test_numbers_stay_as_they_are_and_units_other_than_seconds_are_said(number, unit, form):
    times, (note,) = read(form(number))
    assert times == [number]
    assert unit in note
    assert read(form(1600646400)) == ([1600646400], [])


def test_fractions_of_milliseconds_become_microseconds():
    assert read(1600646400123.5)[0] == [1600646400123500]


@pytest.mark.parametrize("form", [int, str, float])
def test_mixed_units_are_refused_by_name(form):
    with pytest.raises(VitrineError, match=r"mixes units.*in seconds.*in milliseconds"):
        read(form(1600646400), form(1600646400000))


@pytest.mark.parametrize("values", [(43831.5, 43832.0), (43831, 43900), ("43831.25", "43832")])
def test_serial_days_of_spreadsheets_are_refused_with_a_remedy(values):
    with pytest.raises(VitrineError, match=r"serial days; format the column as a date"):
        read(*values)


def test_times_that_a_spreadsheet_rounded_are_refused():
    with pytest.raises(VitrineError, match=r"1\.60065E\+12, which a spreadsheet rounded"):
        read("1.60065E+12")


def test_dates_without_separators_order_and_are_said():
    times, (note,) = read("20200921", "20200920")
    assert times == [20200921, 20200920]
    assert "write them as 2020-09-21" in note


@pytest.mark.parametrize("blank", ["", "NaN", "n/a", None])
def test_missing_times_are_counted(blank):
    with pytest.raises(VitrineError, match=r"lacks 2 times.*time: null"):
        read("2020-01-01", blank, blank)


def test_unreadable_times_are_counted_with_the_first_three():
    bad = ["soon", "31.02.2020", "2020-13-01", "25:00", "soon"]
    with pytest.raises(
        VitrineError,
        match=r"5 of 6 values \('soon', '31.02.2020', '2020-13-01'\).*neither numbers nor dates",
    ) as error:
        read("2020-01-01", *bad)
    assert "\n" not in str(error.value)


def test_a_column_that_is_no_time_is_refused():
    with pytest.raises(VitrineError, match=r"holds bool, which is no time"):
        read(True)
    with pytest.raises(VitrineError, match=r"too large for a time"):
        read(float("inf"))


FORMATS = [
    *("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y/%m/%d %H:%M:%S", "%d %B %Y %H:%M:%S"),
    *("%Y-%m-%d %H:%M:%S +0000", "%b %d, %Y %I:%M:%S %p", "%a, %d %b %Y %H:%M:%S GMT"),
    *(
        "%a %b %d %H:%M:%S +0000 %Y",
        "%m %d, %Y %H:%M:%S",
        "%m/%d/%Y %I:%M:%S %p",
        "%d.%m.%Y %H:%M:%S",
    ),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(10**9), 4 * 10**9), min_size=1, max_size=8), st.sampled_from(FORMATS))
def test_what_is_written_in_a_usual_form_is_read_back(moments, form):
    texts = [datetime.fromtimestamp(moment, UTC).strftime(form) for moment in moments]
    dates = "month-first" if form.startswith("%m/") else "day-first"
    assert read(*texts, dates=dates)[0] == moments


def test_a_column_of_many_chunks_keeps_its_order():
    days = [f"{day}.1.2020" for day in range(1, 32)] * 3
    column = pa.chunked_array([days[:10], days[10:11], days[11:]])
    times = read_times(column, "when").to_numpy()
    assert (np.diff(times[:31]) == 86_400).all()
    assert (times[:31] == times[62:]).all()
