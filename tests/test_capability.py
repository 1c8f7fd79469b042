"""What a peer claims, as a value."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import capabilities

from punch.capability import Capability, Gpu, Lane, Load, ModelOffer

OLD, NEW = "a" * 64, "b" * 64
PEER = Capability.of_one_lane(
    backend="llama_cpp",
    simulated=False,
    models=(
        ModelOffer(name="llama", digest=OLD),
        ModelOffer(name="llama", digest=NEW),
        ModelOffer(name="qwen"),
    ),
)


@pytest.mark.parametrize(
    ("model", "digest", "index"),
    [
        (None, None, 0),
        ("llama", None, 0),
        ("llama", OLD, 0),
        ("llama", NEW, 1),
        (None, NEW, 1),
        ("qwen", None, 2),
    ],
)
def test_the_first_offer_that_fits_is_taken(
    model: str | None, digest: str | None, index: int
) -> None:
    """A name, a digest, both or neither."""
    assert PEER.offer(model, digest) is PEER.models[index]


@pytest.mark.parametrize(
    ("model", "digest"),
    [("phi", None), ("LLAMA", None), ("lla", None), (None, "c" * 64), ("qwen", NEW), ("", None)],
)
def test_an_offer_that_does_not_fit_is_none(model: str | None, digest: str | None) -> None:
    """Nothing is guessed from a similar name, and an unknown digest fits no wish for one."""
    assert PEER.offer(model, digest) is None


def test_a_peer_without_models_offers_nothing() -> None:
    """Not even to those who take any model."""
    assert Capability.of_one_lane(backend="mock", simulated=True).offer(None) is None


@given(capability=capabilities, data=st.data())
def test_an_offer_satisfies_the_wish(capability: Capability, data: st.DataObject) -> None:
    """Whatever is found has the name and the digest asked for; whatever exists is found."""
    if capability.models:
        wish = data.draw(st.sampled_from(capability.models))
        offer = capability.offer(wish.name, wish.digest)
        assert offer is not None
        assert offer.name == wish.name
        assert wish.digest in (None, offer.digest)


@pytest.mark.parametrize(
    "value",
    [
        Capability.of_one_lane(backend="b", simulated=False),
        Gpu(name="g", total_bytes=1),
        ModelOffer(name="m"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_was_not_measured_is_none(
    value: Capability | Gpu | ModelOffer,
) -> None:
    """Nothing is made up: no field that holds a measurement has another default."""
    measured = {
        field.name: getattr(value, field.name)
        for field in attrs.fields(type(value))
        if "None" in str(field.type)
    }
    assert measured
    assert set(measured.values()) == {None}


def test_a_load_nobody_reported_is_an_idle_slot() -> None:
    """One slot, nothing in it, nothing waiting."""
    assert Load() == Load(
        slots=1, busy=0, queued=0, queue_limit=0, queued_prompt_tokens=0, draining=False
    )


@given(capability=capabilities)
def test_a_claim_cannot_be_changed(capability: Capability) -> None:
    """What was decided on is what can be shown later."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        capability.models = ()  # type: ignore[misc]  # what is tried


MOCK = Lane(id="m", backend="mock", simulated=True, load=Load(slots=2, busy=1))
REAL = Lane(id="r", backend="llama_cpp", simulated=False, load=Load(slots=3, queued=1), threads=4)
TWO = Capability(
    lanes=(MOCK, REAL),
    models=(
        ModelOffer(name="llama", digest=OLD, id="1", lane="m"),
        ModelOffer(name="llama", digest=NEW, id="2", lane="r"),
        ModelOffer(name="qwen", id="3", lane="r"),
    ),
)


def test_what_a_whole_peer_is_told_to_be_comes_from_its_lanes() -> None:
    """The first real backend, simulated if any lane is, and the sum of the loads."""
    assert (TWO.backend, TWO.simulated, TWO.threads) == ("llama_cpp", True, 4)
    assert TWO.load == Load(slots=5, busy=1, queued=1)


def test_a_peer_drains_when_all_its_lanes_do() -> None:
    """One lane that takes requests is enough."""
    one = TWO.with_loads({"m": Load(draining=True)})
    assert not one.load.draining
    assert one.with_loads({"r": Load(draining=True)}).load.draining


def test_a_peer_without_lanes_takes_nothing() -> None:
    """It has no backend, simulates nothing, and drains."""
    assert (Capability().backend, Capability().simulated) == ("", False)
    assert Capability().load.draining


def test_an_offer_is_of_its_lane() -> None:
    """The lane with the id that it says, and no other."""
    assert [TWO.lane(offer) for offer in TWO.models] == [MOCK, REAL, REAL]
    with pytest.raises(KeyError):
        TWO.lane(ModelOffer(name="m", lane="unknown"))


@pytest.mark.parametrize(
    ("model", "digest", "ids"),
    [(None, None, "123"), ("llama", None, "12"), ("llama", NEW, "2"), ("phi", None, "")],
)
def test_all_offers_that_fit_are_found(model: str | None, digest: str | None, ids: str) -> None:
    """In the order of the claim; `offer` is the first of them."""
    found = TWO.offers(model, digest)
    assert "".join(offer.id or "" for offer in found) == ids
    assert TWO.offer(model, digest) == next(iter(found), None)


def test_newer_loads_are_those_of_known_lanes() -> None:
    """An unknown id changes nothing, and what is not said stays."""
    assert TWO.with_loads({"x": Load(busy=1), "m": MOCK.load}) is TWO
    assert TWO.with_loads({"m": Load(slots=9)}).lanes == (
        attrs.evolve(MOCK, load=Load(slots=9)),
        REAL,
    )


def test_the_offers_of_one_lane_are_of_that_lane() -> None:
    """Whatever they said before."""
    claim = Capability.of_one_lane(backend="b", simulated=False, lane="x", models=TWO.models)
    assert {offer.lane for offer in claim.models} == {"x"}
    assert claim.lane(claim.models[0]) == Lane(id="x", backend="b", simulated=False)
