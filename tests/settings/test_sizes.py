"""Sizes, rates and times with their units."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.settings import DURATION, RATE, SIZE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8GB", 8_000_000_000),
        ("8 gb", 8_000_000_000),
        ("8G", 8_000_000_000),
        ("1.5GiB", 3 * 2**29),
        (" 512MiB ", 512 * 2**20),
        ("700kb", 700_000),
        ("4096B", 4096),
        (".5g", 500_000_000),
    ],
)
def test_a_size_is_what_its_unit_says(text: str, value: int) -> None:
    """A thousand for GB and 1024 for GiB."""
    assert SIZE.value(text) == value


def test_a_rate_may_be_in_bytes_or_in_bits() -> None:
    """With the second or without."""
    assert RATE.value("20GB/s") == RATE.value("20GB") == 20e9
    assert RATE.value("100Mbit/s") == RATE.value("100mbit") == 12.5e6


def test_a_time_is_in_seconds() -> None:
    """Also none at all, for a machine that is this one."""
    assert DURATION.value("20ms") == pytest.approx(0.02)
    assert DURATION.value("150us") == DURATION.value("150 µs") == pytest.approx(150e-6)
    assert DURATION.value("0s") == 0.0


@pytest.mark.parametrize("text", ["8", "", "GB", "8 potatoes", "-1GB", "1,5GB", "nan", "1e400GB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    """A number without a unit means one thing to one person and another to the next."""
    with pytest.raises(ValueError, match=r"such as 8GB|more than there is"):
        SIZE.value(text)


@pytest.mark.parametrize("text", ["0GB", "0.1B"])
def test_no_size_at_all_is_refused(text: str) -> None:
    """Nothing can be done in no memory."""
    with pytest.raises(ValueError, match="above 0"):
        SIZE.value(text)


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    """And nothing else happens."""
    for rule in (SIZE, RATE, DURATION):
        with contextlib.suppress(ValueError):
            assert rule.value(text) >= 0
