"""What a test takes for granted in an answer; where it is missing, the test fails here."""

from __future__ import annotations

from punch import PeerId
from punch.dialer import Router
from punch.session import ClientCall, PeerSession
from punch.wire import CommandResponse, Completion, Fault, Provenance


def result_of(response: CommandResponse) -> Completion:
    """The answer, of a response that has one."""
    assert response.result is not None, response
    return response.result


def text_of(response: CommandResponse) -> str:
    """The text of the answer."""
    return result_of(response).text


def error_of(response: CommandResponse) -> Fault:
    """The reason, of a response that has no answer."""
    assert response.error is not None, response
    return response.error


def provenance_of(response: CommandResponse) -> Provenance:
    """Where the answer comes from."""
    assert response.provenance is not None, response
    return response.provenance


async def end_of(call: ClientCall) -> CommandResponse:
    """The end of a call, whatever came before it."""
    while not isinstance(part := await call.receive(), CommandResponse):
        pass
    return part


async def immediate_end_of(call: ClientCall) -> CommandResponse:
    """The end of a call that nothing comes before."""
    part = await call.receive()
    assert isinstance(part, CommandResponse), part
    return part


def session_of(router: Router, name: str) -> PeerSession:
    """The open session of a router with a listener, for a test that asks the listener itself."""
    session = router._dispatch.pool.session(PeerId(name))
    assert session is not None, f"no session with {name}"
    return session
