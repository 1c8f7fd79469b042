"""The original capability score, to six decimals."""

from __future__ import annotations

from random import Random
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import capabilities, maybe, shares

from punch.capability import Capability, Gpu, ModelOffer, PeerId
from punch.peers import PeerRecord
from punch.routing import POLICIES, PRESETS, RouteRequest, WeightedSum, factors

MIB = 1 << 20

# Never heard of but for its name: what it did not measure, it does not have.
BLANK = PeerRecord(
    peer_id=PeerId("blank"),
    capability=Capability.of_one_lane(backend="b", simulated=False),
    incarnation=1,
    sequence=1,
    seen_at=0.0,
    reputation=0.0,
)
FAST = attrs.evolve(
    BLANK,
    peer_id=PeerId("fast"),
    rtt=0.010,
    reputation=1.0,
    capability=Capability.of_one_lane(
        backend="b",
        simulated=False,
        cpu_count=16,
        cpu_usage=0.05,
        memory_total_bytes=32768 * MIB,
        memory_available_bytes=24576 * MIB,
        disk_total_bytes=1_000_000 * MIB,
        disk_available_bytes=900_000 * MIB,
        gpus=(Gpu(name="g", total_bytes=24576 * MIB, usage=0.0, compute_units=10_000),),
    ),
)
SLOW = attrs.evolve(
    BLANK,
    peer_id=PeerId("slow"),
    rtt=0.080,
    reputation=0.7,
    capability=Capability.of_one_lane(
        backend="b",
        simulated=False,
        cpu_count=2,
        cpu_usage=0.5,
        memory_total_bytes=4096 * MIB,
        memory_available_bytes=1024 * MIB,
        disk_total_bytes=100_000 * MIB,
        disk_available_bytes=50_000 * MIB,
    ),
)

# The scores of the original program for the two nodes of its own test.
GOLDEN = MappingProxyType(
    {
        "default": (0.931818, 0.322986),
        "cpu": (0.899318, 0.357361),
        "gpu": (0.951364, 0.279583),
        "latency": (0.928636, 0.418472),
        "reliability": (0.951364, 0.454583),
    }
)


def score(peer: PeerRecord, preset: str = "default") -> float:
    """The score of one peer."""
    found = WeightedSum(PRESETS[preset]).terms(RouteRequest(), peer.candidates(), Random(0))
    # Its lanes share the machine that is scored.
    (total,) = {sum(terms) for terms in found}
    return total


def with_claim(peer: PeerRecord, **claim: Any) -> PeerRecord:
    """A peer that claims something else."""
    return attrs.evolve(peer, capability=attrs.evolve(peer.capability, **claim))


@pytest.mark.parametrize("preset", GOLDEN)
def test_the_scores_are_those_of_the_original(preset: str) -> None:
    """Both nodes, to six decimals."""
    found = (round(score(FAST, preset), 6), round(score(SLOW, preset), 6))
    assert found == GOLDEN[preset]


def test_every_preset_has_golden_scores() -> None:
    """None is added without."""
    assert set(PRESETS) == set(GOLDEN)


@pytest.mark.parametrize("preset", GOLDEN)
def test_every_preset_is_a_policy(preset: str) -> None:
    """The original's words still choose what they chose."""
    policy = POLICIES["capability" if preset == "default" else f"capability-{preset}"]
    peers = [with_claim(peer, models=(ModelOffer(name="m"),)) for peer in (SLOW, FAST)]
    decision = policy.decide(RouteRequest(model="m"), peers, now=0.0, rng=Random(0))
    assert [candidate.peer_id for candidate in decision.order] == ["fast", "slow"]
    assert tuple(round(decision.score(one), 6) for one in decision.order) == GOLDEN[preset]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_weights_add_up_to_one(preset: str) -> None:
    """So that scores of two presets compare."""
    assert sum(PRESETS[preset]) == pytest.approx(1.0)
    assert len(PRESETS[preset]) == len(WeightedSum().term_names)


def test_the_terms_are_named_after_their_factors() -> None:
    """In the order of the weights."""
    assert WeightedSum().term_names == ("cpu", "memory", "disk", "latency", "reputation", "gpu")
    assert factors(FAST) == pytest.approx((0.95, 0.75, 0.9, 1 / 1.1, 1.0, 1.0))
    assert factors(SLOW) == pytest.approx((0.0625, 0.25, 0.5, 1 / 1.8, 0.7, 0.0))


def test_absence_earns_nothing() -> None:
    """A peer that measured nothing has no points to show."""
    assert factors(BLANK) == (0.0,) * 6


@pytest.mark.parametrize(
    "field",
    [
        "cpu_count",
        "cpu_usage",
        "memory_total_bytes",
        "memory_available_bytes",
        "disk_total_bytes",
        "disk_available_bytes",
    ],
)
def test_a_missing_measurement_costs_its_whole_factor(field: str) -> None:
    """Half a fraction is worth nothing, and no other factor changes."""
    index = ("cpu", "memory", "disk").index(field.split("_")[0])
    expected = tuple(0.0 if i == index else f for i, f in enumerate(factors(FAST)))
    assert factors(with_claim(FAST, **{field: None})) == expected


def test_a_total_of_zero_is_no_share() -> None:
    """As in the original; nothing is divided by it."""
    assert factors(with_claim(FAST, memory_total_bytes=0))[1] == 0.0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"usage": None}, 0.8),
        ({"compute_units": None}, 0.7),
        ({"usage": 1.0}, 0.8),
        ({"total_bytes": 12288 * MIB}, 0.75),
        ({"total_bytes": 99999 * MIB, "compute_units": 99999}, 1.0),
        ({"total_bytes": 0, "compute_units": None, "usage": None}, 0.0),
    ],
)
def test_a_gpu_counts_for_its_memory_its_units_and_its_idleness(
    change: dict[str, Any], expected: float
) -> None:
    """Half, three tenths, two tenths; each part up to its full measure."""
    gpu = attrs.evolve(FAST.capability.gpus[0], **change)
    assert factors(with_claim(FAST, gpus=(gpu,)))[5] == pytest.approx(expected)


def test_two_gpus_count_together() -> None:
    """Their memory and units add up, their idleness is the mean."""
    half = Gpu(name="g", total_bytes=12288 * MIB, compute_units=5000, usage=0.0)
    both = (half, attrs.evolve(half, usage=1.0))
    assert factors(with_claim(FAST, gpus=both))[5] == pytest.approx(0.9)


peers = st.builds(
    attrs.evolve,
    st.just(BLANK),
    capability=capabilities,
    rtt=maybe(st.floats(0.0, 1e6)),
    reputation=shares,
)


@given(peer=peers)
def test_factors_stay_between_nothing_and_one(peer: PeerRecord) -> None:
    """Whatever a peer claims, more memory available than it has included."""
    found = factors(peer)
    assert len(found) == 6
    assert all(0.0 <= factor <= 1.0 for factor in found), found


@given(peer=peers, preset=st.sampled_from(sorted(PRESETS)))
def test_a_worse_link_never_helps(peer: PeerRecord, preset: str) -> None:
    """Nor does an unmeasured one."""
    rtt = peer.rtt or 0.0
    scores = [score(attrs.evolve(peer, rtt=r), preset) for r in (rtt, 2 * rtt + 0.1, None)]
    assert scores == sorted(scores, reverse=True)
