"""What a caller gets as the response to the whole is what the last peer said, and nothing less."""

from __future__ import annotations

from typing import Any

import attrs

from punch.capability import Capability, Load, PeerId
from punch.dialer._delivered import Delivered
from punch.wire import (
    CommandRequest,
    CommandResponse,
    Completion,
    Fault,
    Provenance,
    Timings,
    Usage,
)

# What the router fills in: a peer says none of it.
FILLED_IN = {"decision", "attempts", "segments"}


def test_no_field_of_the_last_peers_response_is_lost() -> None:
    """Each has a value here that it does not have by itself."""
    result = Completion(finish_reason="length")
    said = CommandResponse(
        request_id="r1",
        status="success",
        result=result,
        error=Fault(code="x", message="y"),
        executor=PeerId("a"),
        provenance=Provenance(kind="real", backend="mock"),
        usage=Usage(completion_tokens=3),
        timings=Timings(batch=2),
        capability=Capability(cpu_count=1),
        load=Load(slots=7),
        lane="one",
    )
    for field in attrs.fields(CommandResponse):
        if field.name not in FILLED_IN:
            assert getattr(said, field.name) != field.default
    story: dict[str, Any] = {"decision": {"chosen": "a"}, "attempts": ({"peer_id": "b"},)}
    whole = Delivered(CommandRequest(request_id="r1", prompt="x")).whole(said, result, **story)
    assert whole == attrs.evolve(said, **story)
