"""What is learned from measurements."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import SMOL

from punch.placement import (
    MAX_FACTOR,
    MIN_FACTOR,
    Calibration,
    Device,
    Factors,
    Link,
    Measured,
    Mix,
    Parts,
    Prediction,
    Share,
    Wants,
    predict,
)

WANTS = Wants(mix=Mix(prompt_tokens=300, answer_tokens=50))


def prediction(calibration: Calibration, *, rtt: float = 0.01, rate: float = 1e7) -> Prediction:
    """Of SmolLM2 over two workers."""
    devices = [
        Device(
            id=f"RPC{i}",
            holder=f"worker-{i}",
            memory=10**9,
            bandwidth=6e9,
            compute=2e10,
            link=Link(rtt=rtt, rate=rate),
        )
        for i in range(2)
    ]
    shares = [
        Share(device=one.id, layers=range(15 * i, 15 * i + 15), weights=0, kv=0)
        for i, one in enumerate(devices)
    ]
    return predict(SMOL, shares, devices=devices, wants=WANTS, calibration=calibration)


def errors(found: Prediction, truth: Measured) -> list[float]:
    """By how much each formula is off, in seconds."""
    assert truth.token is not None
    assert truth.first_token is not None
    assert truth.load is not None
    return [
        abs(found.token - truth.token),
        abs(found.first_token - truth.first_token),
        abs(found.load - truth.load),
    ]


@settings(deadline=None)
@given(st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0.3, 3))
def test_each_measurement_of_a_split_makes_its_prediction_better(
    token: float, first: float, load: float
) -> None:
    """Whatever the truth, as long as the bounds reach it."""
    bare = prediction(Calibration())
    truth = Measured(
        token=bare.token * token, first_token=bare.first_token * first, load=bare.load * load
    )
    calibration, before = Calibration(), errors(bare, truth)
    for _ in range(12):
        calibration = calibration.learned(prediction(calibration), truth)
        after = errors(prediction(calibration), truth)
        assert all(new <= old + 1e-12 for new, old in zip(after, before, strict=True))
        before = after
    assert before[0] <= 0.1 * bare.token
    assert calibration.samples == 36


def test_what_was_learned_of_some_links_is_good_for_others() -> None:
    """Two splits on machines that compute at half their speed teach the third."""
    slow = Calibration(token=Factors(compute=2.0))
    calibration = Calibration()
    for _ in range(60):
        for rtt in (0.0, 0.005):
            seen = Measured(token=prediction(slow, rtt=rtt, rate=1e9).token)
            calibration = calibration.learned(prediction(calibration, rtt=rtt, rate=1e9), seen)
    found, truth = prediction(calibration, rtt=0.04).token, prediction(slow, rtt=0.04).token
    assert found == pytest.approx(truth, rel=0.02)
    assert calibration.token.compute == pytest.approx(2.0, rel=0.05)
    assert calibration.token.waits == pytest.approx(1.0, rel=0.02)


def test_a_difference_is_put_down_to_computing_before_round_trips() -> None:
    """Round trips were measured often, and devices have neighbours."""
    bare = prediction(Calibration())
    found = Calibration().learned(bare, Measured(token=bare.token * 1.2))
    assert found.token.compute - 1 > 10 * (found.token.waits - 1) > 0


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 10)] * 4, st.floats(0, 1e6)), max_size=20))
def test_no_measurement_leads_out_of_the_bounds(
    seen: list[tuple[float, float, float, float, float]],
) -> None:
    """Nor does one of nothing."""
    factors = Factors()
    for compute, waits, traffic, logits, seconds in seen:
        parts = Parts(compute=compute, waits=waits, traffic=traffic, logits=logits)
        factors = factors.learned(factors.scaled(parts), seconds)
        for one in (factors.compute, factors.waits, factors.traffic):
            assert MIN_FACTOR <= one <= MAX_FACTOR


def test_nothing_seen_is_nothing_learned() -> None:
    """A measurement without numbers is none."""
    assert Calibration().learned(prediction(Calibration()), Measured()) == Calibration()
