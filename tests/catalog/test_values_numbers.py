"""Prices and ratings in the forms that shops export them."""

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.values.numbers import read_numbers


def read(*values, decimal="auto", rating=False):
    """The numbers of a column, and the notes on it."""
    notes = Notes()
    column = pa.chunked_array([pa.array(list(values))])
    numbers = read_numbers(column, "price", "items", notes, decimal=decimal, rating=rating)
    assert numbers.type == pa.float64()
    return numbers.to_pylist(), [str(note) for note in notes.listed]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["$85.00", ""], [85.0, None]),
        (["405 AED"], [405.0]),
        (["12,50 EUR", "1.234,56 €"], [12.5, 1234.56]),
        (["1,234.56", "7"], [1234.56, 7.0]),
        (["1 234,50"], [1234.5]),
        (["1\u00a0234,50 €"], [1234.5]),
        (["CHF 1'200.–", "CHF 49.-"], [1200.0, 49.0]),
        (["12,50", "8,90"], [12.5, 8.9]),
        (["1,234", "2.50"], [1234.0, 2.5]),
        (["1.234 €", "2,50 €"], [1234.0, 2.5]),
        (["Rs. 1,23,456"], [123456.0]),
        (["1.234.567 €"], [1234567.0]),
        (["-$3.50", "$-3"], [-3.5, -3.0]),
        (["£3.50 each", "£2/kg", "Price: £5"], [3.5, 2.0, 5.0]),
        (["US$ 12.50", "$3"], [12.5, 3.0]),
        ([1, 2, None], [1.0, 2.0, None]),
        ([Decimal("1.50")], [1.5]),
        ([True, False], [1.0, 0.0]),
        ([1.5, float("nan")], [1.5, None]),
        (["1e3", "nan"], [1000.0, None]),
    ],
)
def test_prices_are_read_in_each_usual_form(texts, expected):
    assert read(*texts) == (expected, [])


@pytest.mark.parametrize(
    "text", ["from 14.99", "14.99 - 20", "$14.99–$20.00", "14.99+", "ab 14.99"]
)
def test_of_ranges_the_lower_bound_is_read_and_said(text):
    numbers, (note,) = read(text, "1.50")
    assert numbers == [14.99, 1.5]
    assert "1 values are ranges or lower bounds" in note


def test_texts_that_say_there_is_no_price_become_empty_and_are_counted():
    numbers, (note,) = read("free", "N/A", "3", "N/A")
    assert numbers == [None, None, 3.0, None]
    assert "3 values say that there is no number" in note


def test_prices_that_cannot_be_read_become_empty_and_are_counted():
    numbers, (note,) = read("SKU-12", "5 for 3 x", "12 34", "3.50")
    assert numbers == [None, None, None, 3.5]
    assert "3 values hold no number" in note
    assert "SKU-12" in note


def test_a_mark_before_three_digits_throughout_is_said():
    numbers, (note,) = read("1,234", "2,345")
    assert numbers == [1234.0, 2345.0]
    assert "set --catalog.decimal" in note
    assert read("1,234", decimal="comma") == ([1.234], [])
    numbers, (note,) = read("1.234")
    assert numbers == [1.234]
    assert "set --catalog.decimal comma" in note
    assert read("1.234", decimal="comma") == ([1234.0], [])
    assert read("1.234", decimal="point") == ([1.234], [])


def test_both_decimal_marks_in_one_column_are_said():
    numbers, (note,) = read("12,50", "12.50")
    assert numbers == [12.5, 12.5]
    assert "decimal commas and decimal points" in note
    assert read("12,50", "8,90", "1.50", "2,345")[0] == [12.5, 8.9, 1.5, 2.345]


def test_several_currencies_are_said():
    numbers, (note,) = read("$3.00", "4.00 EUR", "5.00 €")
    assert numbers == [3.0, 4.0, 5.0]
    assert "2 currencies" in note


def test_infinite_numbers_become_empty_and_are_counted():
    numbers, (note,) = read(1.0, float("inf"))
    assert numbers == [1.0, None]
    assert "1 infinite" in note


def test_a_column_without_any_number_is_refused():
    with pytest.raises(VitrineError, match=r"price is not numeric.*'good'"):
        read("good", "bad")


def test_ratings_are_read_with_commas_and_out_of_five():
    assert read("4,5", "3,0", rating=True) == ([4.5, 3.0], [])
    assert read("4.5 out of 5 stars", "4 / 5", "3 stars", rating=True) == ([4.5, 4.0, 3.0], [])


WRITTEN = {
    "point": lambda n: f"{n:.2f}",
    "grouped": lambda n: f"${n:,.2f}",
    "comma": lambda n: f"{n:.2f} €".replace(".", ","),
    "continental": lambda n: f"{n:,.2f} EUR".translate(str.maketrans(",.", ".,")),
    "blanks": lambda n: f"{n:,.2f}".replace(",", " ").replace(".", ","),
    "swiss": lambda n: f"CHF {n:,.2f}".replace(",", "’"),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8), st.sampled_from(sorted(WRITTEN)))
def test_what_is_written_in_a_usual_form_is_read_back(cents, form):
    texts = [WRITTEN[form](number / 100) for number in cents]
    assert read(*texts) == ([float(f"{number / 100:.2f}") for number in cents], [])
