"""What a peer says of its answer is held against what it offered and what it was asked."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from punch import CommandRequest, PeerId, PeerRecord
from punch.capability import Capability, Lane, ModelOffer
from punch.dialer._verdict import check_provenance
from punch.exceptions import PeerError, PeerFailed, PeerSimulated
from punch.wire import Provenance

DIGEST = "a" * 64
OTHER = "b" * 64

PEER = PeerRecord(
    peer_id=PeerId("peer"),
    capability=Capability.of_one_lane(
        backend="llama_cpp",
        simulated=False,
        models=(ModelOffer(name="m", digest=DIGEST), ModelOffer(name="other", digest=OTHER)),
    ),
    incarnation=1,
    sequence=1,
    seen_at=0.0,
)
HONEST = Provenance(kind="real", backend="llama_cpp", model="m", model_digest=DIGEST)


def check(provenance: Provenance, *, before: Provenance | None = None, **asked: Any) -> None:
    """Judge what `PEER` says of the answer to a request for the model ``m``."""
    request = CommandRequest(**{"request_id": "r", "model": "m", **asked})
    (candidate,) = PEER.candidates(request.model, request.model_digest)
    check_provenance(provenance, request=request, candidate=candidate, before=before)


def test_an_honest_answer_passes() -> None:
    """With the digest asked for or not, strict or not, and said twice alike."""
    check(HONEST, before=HONEST, strict=True, model_digest=DIGEST)
    check(HONEST, model=None)


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        ({"model_digest": OTHER}, PeerFailed),
        ({"model_digest": None}, PeerFailed),
        ({"model": "other", "model_digest": OTHER}, PeerFailed),
        ({"model": "unknown"}, PeerFailed),
        ({"backend": "mock"}, PeerSimulated),
    ],
)
def test_a_lie_about_the_answer_is_the_peers_fault(
    lie: dict[str, Any], error: type[PeerError]
) -> None:
    """Another file than the one offered, another model, a mock that is called real."""
    with pytest.raises(error):
        check(attrs.evolve(HONEST, **lie))


def test_a_strict_request_takes_no_simulated_answer() -> None:
    """However honestly it says so."""
    simulated = attrs.evolve(HONEST, kind="simulated")
    check(simulated)
    with pytest.raises(PeerSimulated):
        check(simulated, strict=True)


def test_where_an_answer_comes_from_does_not_change_on_the_way() -> None:
    """What was said before its first word holds for the last."""
    with pytest.raises(PeerFailed):
        check(HONEST, before=attrs.evolve(HONEST, backend="openai"))


def test_each_lane_is_held_to_what_it_is() -> None:
    """A peer with a mock beside its model: neither answers for the other, by any name."""
    lanes = (
        Lane(id="real", backend="llama_cpp", simulated=False),
        Lane(id="mock", backend="mock", simulated=True),
    )
    offers = tuple(
        ModelOffer(name="m", digest=DIGEST, id=f"{lane.id}/m", lane=lane.id) for lane in lanes
    )
    peer = attrs.evolve(PEER, capability=Capability(lanes=lanes, models=offers))
    real, mock = peer.candidates("m")
    request = CommandRequest(request_id="r", model="m")
    check_provenance(HONEST, request=request, candidate=real, before=None)
    with pytest.raises(PeerSimulated):
        check_provenance(HONEST, request=request, candidate=mock, before=None)
    named = attrs.evolve(HONEST, model="another")
    with pytest.raises(PeerFailed):
        check_provenance(
            named, request=attrs.evolve(request, model=None), candidate=real, before=None
        )
