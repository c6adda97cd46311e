"""Exact numbers."""

from __future__ import annotations

import functools
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.sandbox import exact

_quantities = st.one_of(
    st.integers(0, 10**40),
    st.decimals(0, 10**30, allow_nan=False, allow_infinity=False, places=20),
)


def test_a_tenth_ten_times_is_one() -> None:
    """Ten times 0.1 is 1, and is written so."""
    assert functools.reduce(exact.add, ["0.1"] * 10) == "1"


@given(st.lists(_quantities, min_size=1, max_size=20))
def test_sums_are_exact(quantities: list[int | Decimal]) -> None:
    """Any sum of plain numbers equals their sum as fractions."""
    total = functools.reduce(exact.add, map(exact.plain, quantities))
    assert Fraction(total) == sum(map(Fraction, quantities))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (Decimal("1.50"), "1.5"),
        (Decimal("1.00"), "1"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
    ],
)
def test_one_plain_form(value: int | Decimal, text: str) -> None:
    """A number has one plain form, without an exponent and without idle zeros."""
    assert exact.plain(value) == text


@pytest.mark.parametrize("text", [b"NaN", b"-Infinity", b"{", b'"\xff"', b"[" * 100_000, b"1" * 5_000])
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    """Whatever is wrong with the text, it is a ValueError."""
    with pytest.raises(ValueError, match=r"\w"):
        exact.loads(text)


def test_json_keeps_every_digit() -> None:
    """Numbers leave with the digits that they came with."""
    text = b'{"a":[0.1,1.50,123456789012345678901234567890.5,true,null],"b":{"\\u00e9":1e400}}'
    assert exact.loads(exact.dumps(exact.loads(text)).encode()) == exact.loads(text)
    assert exact.dumps(exact.loads(b'{"a":[1.50,"x"]}')) == '{"a":[1.50,"x"]}'


@pytest.mark.parametrize(
    ("value", "is_within"),
    [
        (10**60 - 1, True),
        (10**60, False),
        (Decimal("1e-60"), True),
        (Decimal("1e-61"), False),
        (Decimal("9.5e59"), True),
        (Decimal("1e60"), False),
    ],
)
def test_digits_are_bounded(value: int | Decimal, *, is_within: bool) -> None:
    """A quantity has at most 60 digits on either side of its point."""
    assert exact.is_within_digits(value) is is_within
