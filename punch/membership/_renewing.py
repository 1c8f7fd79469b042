"""Has this machine's grant renewed by any admin that can be reached, well before it ends."""

from __future__ import annotations

from contextlib import suppress

import trio

from .._logs import get_logger
from ..access import Lock, Member, decode_chain, renew_at
from ..exceptions import ConfigurationError, NotPermitted, PeerError, RemoteProtocolError
from ..libp2p import verify
from ..network import Address, Node, parse_address
from ._home import CHAIN, read_revocations, renewed_by_root
from ._membership import DiskMembership
from ._messages import PROTOCOL, Opening, Outcome, Talk

log = get_logger(__name__)

# How often it is looked whether the grant is to be renewed, and how soon it is tried again where no
# admin was there, in seconds. There are thirty days for it.
CHECK_SECONDS = 60.0
AGAIN_SECONDS = 1800.0

PATIENCE_SECONDS = 30.0

# Places that are asked in one round.
MAX_PLACES_ASKED = 32


async def keep_renewed(membership: DiskMembership, node: Node) -> None:
    """Renew the grant of this machine whenever it is due, for ever."""
    while True:
        due = renew_at(membership.grant)
        if due is None or membership.now() < due:
            await trio.sleep(CHECK_SECONDS)
            continue
        try:
            done = await renew(membership, node)
        except ConfigurationError as error:
            log.warning("the grant cannot be renewed", why=str(error))
            done = False
        if done:
            membership.look()
            log.info("the grant of this machine was renewed", ends=membership.grant.ends)
            # An admin whose own grant ends soon gives little more each time.
            await trio.sleep(AGAIN_SECONDS)
            continue
        log.warning(
            "the grant of this machine ends, and no admin is there to renew it",
            days=int((membership.grant.ends - membership.now()) / 86_400),
            hint="start punch on a machine that is an admin; the root renews what it has signed "
            "itself where its key is: punch namespace root import FILE",
        )
        await trio.sleep(AGAIN_SECONDS)


async def renew(membership: DiskMembership, node: Node) -> bool:
    """Try to renew the grant of this machine: by the root's key if it is here, else by an admin.

    Raises:
      ConfigurationError: if the new grant cannot be written.

    """
    if await trio.to_thread.run_sync(
        lambda: renewed_by_root(membership.home, now=membership.now())
    ):
        return True
    for text in membership.places()[:MAX_PLACES_ASKED]:
        with suppress(ConfigurationError, PeerError, RemoteProtocolError, NotPermitted):
            outcome = await _ask(membership, node, parse_address(text))
            if _is_better(membership, outcome.chain):
                membership.home.folder.write(CHAIN, outcome.chain)
                return True
    return False


async def _ask(membership: DiskMembership, node: Node, place: Address) -> Outcome:
    peer_id = place.peer_id or await node.identify(str(place))
    stream = await node.open_stream(peer_id, (str(place),), PROTOCOL)
    try:
        talk = Talk(stream)
        talk.trust()
        await talk.send(Opening(do="renew", chain=membership.chain()))
        outcome = await talk.receive(Outcome, seconds=PATIENCE_SECONDS)
    finally:
        await stream.aclose()
    if outcome.refused:
        log.info("a grant was not renewed", peer=peer_id, rule=outcome.refused)
    return outcome


def _is_better(membership: DiskMembership, chain: bytes) -> bool:
    """Whether *chain* is a grant of this machine that counts, and ends later than the old one."""
    lock = Lock(membership.namespace, verify, read_revocations(membership.home))
    found = lock.judge(membership.home.machine, chain, membership.now())
    if not isinstance(found, Member):
        return False
    new, old = decode_chain(chain)[-1].grant, membership.grant
    # Whoever renews may have fewer scopes to give. But no admin makes a machine of another admin,
    # which would be to remove it, nor the machine of another owner its own.
    if (new.kind, new.owner) != (old.kind, old.owner):
        log.warning("a grant came back as another", machine=membership.home.machine, kind=new.kind)
        return False
    return new.ends > old.ends and old.scopes >= new.scopes
