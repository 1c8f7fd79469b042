"""What a peer claims, as a value."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import capabilities

from punch.capability import Capability, Gpu, Load, ModelOffer

OLD, NEW = "a" * 64, "b" * 64
PEER = Capability(
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
    assert Capability(backend="mock", simulated=True).offer(None) is None


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
    [Capability(backend="b", simulated=False), Gpu(name="g", total_bytes=1), ModelOffer(name="m")],
    ids=lambda value: type(value).__name__,
)
def test_what_was_not_measured_is_none(value: object) -> None:
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
        capability.backend = "another"  # type: ignore[misc]
