"""The member's side of ``/punch/join/1``: lets in who knows an invite, renews members' grants.

A stranger learns nothing here: an invite that does not exist looks like a wrong guess, and what an
invite has come to is told to whoever has proved to know its secret. Nothing secret is logged.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from itertools import islice

import trio

from .._logs import get_logger
from ..access import (
    Chain,
    Guess,
    Invite,
    Refusal,
    decode_chain,
    encode_chain,
    is_rotation,
    key_of,
)
from ..capability import PeerId
from ..exceptions import (
    ConfigurationError,
    LocalProtocolError,
    NotPermitted,
    PeerError,
    PeerUnreachable,
    RemoteProtocolError,
)
from ..libp2p import verify
from ..network import Address, Node, Stream, ip_of, links_to, plain_ip
from ._invites import changed_invites
from ._letting_in import grant_by, refused, renewer_of, welcome
from ._members import named, own_name, read_members
from ._membership import DiskMembership
from ._messages import Opening, Outcome, Proof, Reply, Talk
from ._tries import Tries, host_of
from .codes import SECRET_BYTES, Exchange, is_same
from .nearby import Reception

log = get_logger(__name__)

# Seconds that a guest has for its next words: it computes, and dials nobody meanwhile.
PATIENCE_SECONDS = 20.0

# How long a guest may be dialled back.
DIAL_BACK_SECONDS = 6.0

# A guest on a link-local address is on one of the links of this machine; which, no stream tells.
MAX_LINKS = 4

MAX_IDENTIFIER_CHARACTERS = 64

WRONG = Outcome(
    refused="wrong_code",
    reason="the code is wrong, or was tried before: a short one is good for one try",
)
BUSY = Outcome(refused="busy", reason="there were too many tries: wait a minute")

REASONS = {
    "used_up": "the invite is used up: as many machines have joined with it as it is for",
    "expired": "the invite has expired",
    "withdrawn": "the invite was revoked",
    "unknown": WRONG.reason,
}
"""How an invite has ended, to what its holder is told."""


def is_key(peer_id: PeerId) -> bool:
    """Whether a peer has a key that a grant can be for; libp2p has others beside Ed25519."""
    try:
        key_of(peer_id)
    except LocalProtocolError:
        return False
    return True


class Door:
    """Serves ``/punch/join/1`` for a membership.

    Args:
      membership: Whose machine's key signs.
      node: The node of this process.

    """

    def __init__(self, membership: DiskMembership, node: Node) -> None:
        self.membership = membership
        self.node = node
        self.tries = Tries()
        self.reception = Reception(
            membership, addresses=lambda: node.addresses, dial_back=self._dial_back
        )
        # One at a time: what strangers can have computed here is bounded.
        self._exchanges = trio.CapacityLimiter(1)

    async def serve(self, stream: Stream) -> None:
        """Serve one stream: a `Handler`."""
        if self.membership.grant.kind != "admin" or not is_key(stream.peer_id):
            return
        host = host_of(stream)
        talk = Talk(stream)
        if not self.tries.begin(host, now=trio.current_time()):
            with suppress(PeerError):
                await talk.send(BUSY)
            return
        try:
            try:
                opening = await self._served(talk, stream)
            finally:
                # A person decides on those that ask nearby, who wait in a place of their own.
                self.tries.end(host)
            if opening is not None:
                await self.reception.serve(talk, stream, opening)
        except (PeerError, RemoteProtocolError) as error:
            log.debug("a guest went away", peer=stream.peer_id, why=str(error))
        except ConfigurationError as error:
            # A disk that is full. Whoever may join tries again.
            log.warning("nobody can be let in", why=str(error))

    async def _served(self, talk: Talk, stream: Stream) -> Opening | None:
        """Serve who has a code or a grant; the first words of one who has neither."""
        opening = await talk.receive(Opening, seconds=PATIENCE_SECONDS)
        match opening.do:
            case "nearby":
                return opening
            case "code":
                outcome = await self._code(talk, stream, opening)
            case "renew":
                outcome = await trio.to_thread.run_sync(self._renew, stream.peer_id, opening)
            case "rotate":
                outcome = await trio.to_thread.run_sync(self._rotate, stream.peer_id, opening)
            case _:
                outcome = Outcome(refused="unknown", reason="this version knows no such way in")
        await talk.send(outcome)
        return None

    # ---- a code ----

    async def _code(self, talk: Talk, stream: Stream, opening: Opening) -> Outcome:
        guest = stream.peer_id
        is_right = False
        try:
            guess, exchange, (mine, theirs) = await trio.to_thread.run_sync(
                self._begin, guest, opening, limiter=self._exchanges
            )
            await talk.send(Reply(proof=exchange.message, confirmation=mine))
            proof = await talk.receive(Proof, seconds=PATIENCE_SECONDS)
            is_right = is_same(proof.confirmation, theirs)
        finally:
            # A guest that goes away, or says what is no guess, has ended a short code too.
            if not is_right:
                self.tries.missed(host_of(stream), now=trio.current_time())
        if not is_right:
            log.info("a wrong code", peer=guest, host=ip_of(stream))
            return WRONG
        reached, trouble = await self._dial_back(stream, proof.port)
        return await trio.to_thread.run_sync(
            partial(self._let_in, guess, guest, proof, reached=reached, trouble=trouble)
        )

    def _begin(
        self, guest: PeerId, opening: Opening
    ) -> tuple[Guess, Exchange, tuple[bytes, bytes]]:
        """What the guest must know, and the member's half of the exchange about it."""
        # Written before the guest hears anything: a code that was tried stays so. And in any case:
        # how long it takes tells nothing of which invites there are.
        with changed_invites(self.membership.home) as invites:
            guess = invites.begin(
                opening.invite[:MAX_IDENTIFIER_CHARACTERS], os.urandom(SECRET_BYTES)
            )
        exchange = Exchange(guess.secret, newcomer=guest, member=self.node.peer_id, is_member=True)
        return guess, exchange, exchange.finish(opening.proof)

    def _let_in(
        self, guess: Guess, guest: PeerId, proof: Proof, *, reached: str, trouble: str
    ) -> Outcome:
        """The grant of a guest that knew the secret, or how the invite has ended."""
        membership = self.membership
        with changed_invites(membership.home) as invites:
            found = invites.right(guess, guest, now=membership.now(), lock=membership.lock)
            if not isinstance(found, Invite):
                return Outcome(refused=found, reason=REASONS[found])
            try:
                chain = grant_by(
                    membership.home,
                    membership.lock,
                    guest,
                    found,
                    proof.name,
                    now=membership.now(),
                )
            except NotPermitted as error:
                # Since the invite was made, this machine has come to have less. What it may not
                # give uses nothing up.
                invites.not_given(guess)
                return refused(error)
        log.info("a machine has joined", machine=guest, scopes=sorted(chain[-1].grant.scopes))
        return welcome(
            membership,
            chain,
            called=found.name or proof.name,
            addresses=self.node.addresses,
            reached=reached,
            trouble=trouble,
        )

    async def _dial_back(self, stream: Stream, port: int) -> tuple[str, str]:
        """Where the guest answers when it is dialled, or why it does not; its own host only."""
        ip = ip_of(stream)
        if not port or ip is None:
            return "", "it listens at no port"
        ip = plain_ip(ip)
        place = Address(kind="ip6" if ":" in ip else "ip4", host=ip, transport="tcp", port=port)
        why = f"{place}: no answer"
        with trio.move_on_after(DIAL_BACK_SECONDS):
            for way in islice(links_to(place), MAX_LINKS):
                try:
                    found = await self.node.identify(str(way))
                except PeerUnreachable as error:
                    why = str(error)
                    continue
                if found == stream.peer_id:
                    return str(way), ""
                why = f"{way}: another peer"
        return "", why

    # ---- renewal ----

    def _renew(self, peer_id: PeerId, opening: Opening) -> Outcome:
        """A new grant for the machine of a process that shows the old one."""
        membership = self.membership
        member = membership.lock.judge(peer_id, opening.chain, membership.now())
        if isinstance(member, Refusal):
            return Outcome(refused=member.rule, reason=member.reason)
        # The process speaks for its machine, whose key has signed for it, and gets nothing else
        # than the machine has.
        chain = member.chain[:-1] if member.peer_id != member.machine else member.chain
        renewed = renewer_of(membership.home, chain[-1].grant).renew(
            membership.lock, encode_chain(chain), member.machine, now=membership.now()
        )
        return self._renewed(renewed, called="")

    def _rotate(self, peer_id: PeerId, opening: Opening) -> Outcome:
        """A grant for a new key of a machine, whose old key has signed it."""
        membership = self.membership
        try:
            last = decode_chain(opening.chain)[-1].grant
        except RemoteProtocolError as error:
            return Outcome(refused="malformed", reason=str(error))
        if not is_rotation(
            membership.namespace,
            old=last.subject,
            new=peer_id,
            signature=opening.proof,
            verify=verify,
        ):
            return Outcome(refused="bad_signature", reason="the old key has not signed the new one")
        renewed = renewer_of(membership.home, last).renew(
            membership.lock, opening.chain, last.subject, now=membership.now(), subject=peer_id
        )
        # It stays what people know it as: they remove it by that name.
        known = read_members(membership.home.folder).get(last.subject)
        names = ("" if known is None else known.name, named(opening.name))
        return self._renewed(renewed, called=own_name(opening.chain, *names))

    def _renewed(self, renewed: Chain | Refusal, *, called: str) -> Outcome:
        if isinstance(renewed, Refusal):
            return Outcome(refused=renewed.rule, reason=renewed.reason)
        log.info("a grant was renewed", machine=renewed[-1].grant.subject)
        return welcome(self.membership, renewed, called=called, addresses=self.node.addresses)
