"""How fast a peer is: what is learned from what its backend timed, and when it is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.peers import Rates, Sample, with_sample
from punch.peers import _rates as limits


def learn(
    *samples: tuple[float, float | None], rate: float = 10.0, rates: Rates | None = None
) -> Rates:
    """Rates after samples of (slowdown of the token, batch), of a peer this fast alone."""
    rates = rates or Rates()
    for factor, batch in samples:
        rates = with_sample(
            rates, Sample(decode_tokens=100, decode_seconds=100 * factor / rate, batch=batch)
        )
    return rates


def test_a_measurement_replaces_the_claim_after_three_answers() -> None:
    """Two may be a cold start; they keep the claim within twice what they show."""
    rates, believed = Rates(), []
    for _ in range(4):
        believed.append((rates.decode_or(99.0), rates.prefill_or(110.0)))
        rates = with_sample(
            rates,
            Sample(prefill_tokens=100, prefill_seconds=1.0, decode_tokens=100, decode_seconds=10.0),
        )
    assert believed == [(99.0, 110.0), (20.0, 110.0), (20.0, 110.0), (10.0, 100.0)]


def test_without_a_claim_the_first_measurement_is_believed() -> None:
    """It is better than nothing."""
    assert learn((1.0, 1.0)).decode_or(None) == pytest.approx(10.0)
    assert Rates().decode_or(None) is None


def test_the_average_of_prefill_moves_a_fifth_of_the_way() -> None:
    """About the last ten answers count."""
    rates = Rates()
    for seconds in (10.0, 5.0):
        rates = with_sample(rates, Sample(prefill_tokens=100, prefill_seconds=seconds))
    assert rates.prefill == pytest.approx(12.0)


@given(samples=st.lists(st.floats(0.1, 1e4), min_size=1, max_size=30))
def test_the_rate_stays_within_its_samples(samples: list[float]) -> None:
    """No answer makes a peer look faster than its fastest or slower than its slowest."""
    rates = Rates()
    for rate in samples:
        rates = with_sample(
            rates,
            Sample(
                decode_tokens=100,
                decode_seconds=100 / rate,
                prefill_tokens=100,
                prefill_seconds=100 / rate,
            ),
        )
    for found in (rates.decode, rates.prefill):
        assert found is not None
        assert min(samples) * 0.999 <= found <= max(samples) * 1.001
    assert (rates.decode_samples, rates.prefill_samples) == (len(samples), len(samples))


def test_a_change_of_speed_is_noticed_within_twenty_answers() -> None:
    """A laptop that went on battery is taken for what it is now."""
    slow = learn(*[(4.0, 1.0)] * 20, rates=learn(*[(1.0, 1.0)] * 50))
    assert slow.decode == pytest.approx(2.5, rel=0.15)


# ---- in company ----


def test_speed_alone_and_slowdown_are_told_apart() -> None:
    """From answers made alone, in twos and in fours."""
    found = learn(*[(1 + 0.2 * (b - 1), b) for b in (1, 2, 4, 1, 4, 2) * 5])
    assert found.decode == pytest.approx(10.0, rel=0.01)
    assert found.slowdown == pytest.approx(0.2, abs=0.01)


@given(
    slowdown=st.floats(0.0, 1.5),
    batches=st.lists(st.integers(1, 8), min_size=2, max_size=5, unique=True),
)
def test_any_slowdown_is_learned_from_unlike_batches(slowdown: float, batches: list[int]) -> None:
    """Whatever it is, without noise it is found."""
    found = learn(*[(1 + slowdown * (b - 1), b) for b in batches * 100])
    assert found.slowdown == pytest.approx(slowdown, abs=0.05)
    assert found.decode == pytest.approx(10.0, rel=0.1)


@given(batch=st.floats(1.0, 16.0), factor=st.floats(0.1, 10.0), count=st.integers(1, 30))
def test_answers_of_one_batch_do_not_move_the_slowdown(
    batch: float, factor: float, count: int
) -> None:
    """They cannot tell it from the speed; at that batch the prediction is what was seen."""
    found = learn(*[(factor, batch)] * count)
    assert found.slowdown in (None, pytest.approx(limits.DEFAULT_SLOWDOWN))
    assert found.decode is not None
    seconds = (1 + limits.DEFAULT_SLOWDOWN * (batch - 1)) / found.decode
    assert seconds == pytest.approx(factor / 10.0)


def test_a_slowdown_nobody_measured_is_none() -> None:
    """Alone, or nearly so, it does not show."""
    assert learn((1.0, 1.0), (1.0, None), (1.0, 1.2)).slowdown is None
    assert learn((1.0, 2.0)).slowdown is not None


def test_what_was_learned_in_company_is_not_forgotten_alone() -> None:
    """The load was low for a while; how the peer bears company has not changed."""
    busy = learn(*[(1 + 0.2 * (b - 1), b) for b in (1, 4) * 20])
    assert learn(*[(1.0, 1.0)] * 200, rates=busy).slowdown == pytest.approx(0.2, abs=0.02)


@given(
    samples=st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(-1.0, 1e9)), min_size=1, max_size=20)
)
def test_no_samples_make_a_slowdown_that_cannot_be(samples: list[tuple[float, float]]) -> None:
    """It stays between nothing and twice as long for each, and the speed above nothing."""
    found = learn(*samples)
    assert found.decode is not None
    assert found.decode > 0
    if found.slowdown is not None:
        assert 0.0 <= found.slowdown <= limits.MAX_SLOWDOWN


# ---- what is no sample ----


@pytest.mark.parametrize(
    ("tokens", "seconds"), [(None, 1.0), (100, None), (3, 1.0), (0, 0.0), (100, 0.0), (100, -1.0)]
)
def test_what_is_absent_or_too_short_is_no_sample(
    tokens: int | None, seconds: float | None
) -> None:
    """Three tokens time the clock, not the model."""
    sampled = with_sample(
        Rates(),
        Sample(prefill_tokens=tokens, prefill_seconds=seconds, decode_tokens=4, decode_seconds=1.0),
    )
    assert (sampled.prefill, sampled.prefill_samples) == (None, 0)
    assert (sampled.decode, sampled.decode_samples) == (4.0, 1)


def test_no_timing_makes_a_rate_that_is_no_number() -> None:
    """An answer of 2**53 tokens in no time at all is not believed, now or later."""
    rates = Rates()
    for seconds in (1e-300, 1.0, 1e-300):
        rates = with_sample(rates, Sample(decode_tokens=2**53, decode_seconds=seconds))
    assert rates == Rates()
