"""The member's side of a request without a code: shows it to people, and does what they decide.

Until a person has approved, the newcomer hears a random number, and nothing of the namespace.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import trio

from ..._logs import get_logger
from ...exceptions import ConfigurationError, NotPermitted, PeerError, RemoteProtocolError
from ...network import Stream
from .._letting_in import grant_by, refused, welcome
from .._members import named
from .._membership import DiskMembership
from .._messages import Opening, Outcome, Proof, Reply, Talk
from .._tries import Tries, host_of
from ..codes import is_same
from ._digits import COMMITMENT_BYTES, NONCE_BYTES, commitment_to, digits_of, shown_digits
from ._requests import (
    REQUEST_SECONDS,
    NearbyRequest,
    add_request,
    close_request,
    read_requests,
)

log = get_logger(__name__)

PATIENCE_SECONDS = 20.0

# How often it is looked whether somebody has decided.
LOOK_SECONDS = 0.5

# How long a newcomer that leaves may keep us at the folder's lock.
CLOSE_SECONDS = 15.0

# Whoever stands in between may ask again and again until the digits are, by chance, those of
# another screen, which shows those of four members at most: with these, in the time that a newcomer
# waits, once in some 30,000 attacks for each.
MAX_ASKED_OF_HOST = 8
MAX_ASKED = 32
ASKED_SECONDS = 600.0
MAX_AT_ONCE = 16

BUSY = Outcome(refused="busy", reason="too many machines ask at present: try again in ten minutes")
UNNAMED = Outcome(refused="malformed", reason="the machine has to say what it is called")
REFUSED = Outcome(refused="refused", reason="an admin has refused")
NOT_APPROVED = Outcome(
    refused="not_approved",
    reason=f"no admin has approved within {REQUEST_SECONDS // 60} minutes: ask again, and have "
    "`punch members approve` run on the machine that was asked",
)

DialBack = Callable[[Stream, int], Awaitable[tuple[str, str]]]


class Reception:
    """Takes requests, for a door.

    Args:
      membership: Whose machine's key signs.
      addresses: Where this process is.
      dial_back: Says where the peer of a stream answers at a port, or why it does not.

    """

    def __init__(
        self,
        membership: DiskMembership,
        *,
        addresses: Callable[[], tuple[str, ...]],
        dial_back: DialBack,
    ) -> None:
        self.membership = membership
        self.tries = Tries(
            of_host=MAX_ASKED_OF_HOST, in_all=MAX_ASKED, seconds=ASKED_SECONDS, at_once=MAX_AT_ONCE
        )
        self._addresses = addresses
        self._dial_back = dial_back

    async def serve(self, talk: Talk, stream: Stream, opening: Opening) -> None:
        """Serve one newcomer, whose first words are *opening*, until it is let in or not.

        Raises:
          PeerError: if it went away.
          RemoteProtocolError: if it says what it should not.
          ConfigurationError: if nothing can be written.

        """
        name = named(opening.name)
        if not name or name != opening.name or len(opening.proof) != COMMITMENT_BYTES:
            await talk.send(UNNAMED)
            return
        host = host_of(stream)
        if not self.tries.begin(host, now=trio.current_time()):
            await talk.send(BUSY)
            return
        try:
            await self._take(talk, stream, opening, host)
        finally:
            self.tries.end(host)

    async def _take(self, talk: Talk, stream: Stream, opening: Opening, host: str) -> None:
        membership, name = self.membership, opening.name
        peers = {"newcomer": stream.peer_id, "member": membership.process}
        nonce = os.urandom(NONCE_BYTES)
        await talk.send(Reply(proof=nonce))
        proof = await talk.receive(Proof, seconds=PATIENCE_SECONDS)
        theirs = proof.confirmation
        if len(theirs) != NONCE_BYTES or not is_same(
            commitment_to(theirs, name=name, **peers), opening.proof
        ):
            raise RemoteProtocolError("the newcomer committed to another number")
        digits = digits_of((theirs, nonce), name=name, **peers)
        request = await trio.to_thread.run_sync(
            partial(
                add_request,
                membership.home,
                machine=stream.peer_id,
                name=name,
                digits=digits,
                host=host,
                now=membership.now(),
            )
        )
        if request is None:
            await talk.send(BUSY)
            return
        has_joined = False
        try:
            log.info(
                "a machine asks to be let in",
                name=name,
                digits=shown_digits(digits),
                host=host,
                hint="if its screen shows the same digits: punch members approve "
                f"{shown_digits(digits).replace(' ', '-')}",
            )
            outcome = await self._decided(talk, request, stream, proof.port)
            await talk.send(outcome)
            has_joined = not outcome.refused
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True), suppress(ConfigurationError):
                await trio.to_thread.run_sync(
                    partial(
                        close_request,
                        membership.home,
                        request,
                        joined=has_joined,
                        now=membership.now(),
                    ),
                    abandon_on_cancel=True,
                )

    async def _decided(
        self, talk: Talk, request: NearbyRequest, stream: Stream, port: int
    ) -> Outcome:
        """What has become of *request*; raises as soon as the newcomer is gone."""
        decided: NearbyRequest | None = None
        gone: PeerError | RemoteProtocolError | None = None

        async def hear() -> None:
            # It has nothing to say any more: whatever comes, its stream's end too, ends this.
            nonlocal gone
            try:
                await talk.receive(Proof, seconds=2 * REQUEST_SECONDS)
                gone = RemoteProtocolError("the newcomer speaks out of turn")
            except (PeerError, RemoteProtocolError) as error:
                gone = error
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            with trio.move_on_after(REQUEST_SECONDS):
                decided = await self._wait(request)
            nursery.cancel_scope.cancel()
        if gone is not None:
            raise gone
        if decided is None or decided.state == "waiting":
            return NOT_APPROVED
        if decided.state == "refused":
            return REFUSED
        reached, trouble = await self._dial_back(stream, port)
        return await trio.to_thread.run_sync(
            partial(self._let_in, decided, reached=reached, trouble=trouble)
        )

    async def _wait(self, request: NearbyRequest) -> NearbyRequest | None:
        """The request as soon as it is decided; `None` if it is gone."""
        membership = self.membership
        while True:
            await trio.sleep(LOOK_SECONDS)
            requests = await trio.to_thread.run_sync(
                partial(read_requests, membership.home, now=membership.now())
            )
            found = next((each for each in requests if each.identifier == request.identifier), None)
            if found is None or found.state != "waiting":
                return found

    def _let_in(self, request: NearbyRequest, *, reached: str, trouble: str) -> Outcome:
        membership = self.membership
        try:
            chain = grant_by(
                membership.home,
                membership.lock,
                request.machine,
                request.right(),
                request.name,
                now=membership.now(),
            )
        except NotPermitted as error:
            return refused(error)
        log.info("a machine has joined", machine=request.machine, scopes=sorted(request.scopes))
        return welcome(
            membership,
            chain,
            called=request.called or request.name,
            addresses=self._addresses(),
            reached=reached,
            trouble=trouble,
        )
