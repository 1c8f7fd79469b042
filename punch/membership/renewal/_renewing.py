"""Has this machine's grant renewed by any admin that can be reached, well before it ends.

An admin that has less to give, or whose owner is another, gives a lesser grant. That one is taken
only where no other admin has answered until the end is near.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from ..._logs import get_logger
from ...access import Grant, Lock, Member, decode_chain, renew_at
from ...exceptions import ConfigurationError, NotPermitted, PeerError, RemoteProtocolError
from ...libp2p import verify
from ...network import Address, Node, parse_address
from .._home import CHAIN, read_revocations, renewed_by_root
from .._membership import DiskMembership
from .._messages import PROTOCOL, Opening, Outcome, Talk

log = get_logger(__name__)

# How often it is looked whether the grant is to be renewed, and how soon it is tried again where no
# admin was there, in seconds. There are thirty days for it.
CHECK_SECONDS = 60.0
AGAIN_SECONDS = 1800.0

PATIENCE_SECONDS = 30.0

# How much of the time in which a grant is renewed is left when a lesser one is taken, too: of the
# thirty days of a usual grant the last seven.
LAST_PART = 0.25


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
        else:
            _warn(membership)
        # Done or not: an admin whose own grant ends soon gives little more each time.
        await trio.sleep(AGAIN_SECONDS)


def _warn(membership: DiskMembership) -> None:
    left = membership.grant.ends - membership.now()
    if left < 0:
        log.warning(
            "the grant of this machine has ended: it is no member any more",
            hint="ask an admin for an invite, and redeem it with: punch join",
        )
        return
    log.warning(
        "the grant of this machine ends, and no admin is there to renew it",
        days=int(left / 86_400),
        hint="start punch on a machine that is an admin; or bring the root key to one that is: "
        "punch namespace root import FILE",
    )


async def renew(membership: DiskMembership, node: Node) -> bool:
    """Try to renew the grant of this machine: by the root's key if it is here, else by an admin.

    Raises:
      ConfigurationError: if the new grant cannot be written.

    """
    if await trio.to_thread.run_sync(
        lambda: renewed_by_root(membership.home, now=membership.now())
    ):
        return True
    best: bytes = b""
    for text in membership.places():
        with suppress(ConfigurationError, PeerError, RemoteProtocolError, NotPermitted):
            outcome = await _ask(membership, node, parse_address(text))
            if not _is_longer(membership, outcome.chain):
                continue
            if not best or _worth(membership, outcome.chain) > _worth(membership, best):
                best = outcome.chain
            if _is_enough(membership, best):
                break
    if not best:
        return False
    lost = _lost(membership.grant, decode_chain(best)[-1].grant)
    if lost and not _is_last_moment(membership):
        return False
    if lost:
        log.warning("no admin was there to renew the whole grant of this machine", without=lost)
    membership.home.folder.write(CHAIN, best)
    return True


def _worth(membership: DiskMembership, chain: bytes) -> tuple[bool, int]:
    """What is better has more: first all that there was, then the later end."""
    grant = decode_chain(chain)[-1].grant
    return not _lost(membership.grant, grant), grant.ends


def _is_enough(membership: DiskMembership, chain: bytes) -> bool:
    """Whether nobody else needs to be asked: an admin may give a grant that ends with its own."""
    grant = decode_chain(chain)[-1].grant
    due = renew_at(grant)
    return not _lost(membership.grant, grant) and due is not None and due > membership.now()


def _is_last_moment(membership: DiskMembership) -> bool:
    due, ends = renew_at(membership.grant), membership.grant.ends
    return due is not None and membership.now() > ends - LAST_PART * (ends - due)


def _lost(old: Grant, new: Grant) -> list[str]:
    """What *new* has not that *old* has."""
    return sorted(old.scopes - new.scopes) + (["owner"] if old.owner != new.owner else [])


async def _ask(membership: DiskMembership, node: Node, place: Address) -> Outcome:
    outcome = await ask_admin(node, place, Opening(do="renew", chain=membership.chain()))
    if outcome.refused:
        log.info("a grant was not renewed", at=str(place), rule=outcome.refused)
    return outcome


async def ask_admin(node: Node, place: Address, opening: Opening) -> Outcome:
    """What the admin at *place* answers to a member.

    Raises:
      PeerError: if nobody answers there.
      RemoteProtocolError: if whoever is there says what it should not.

    """
    peer_id = place.peer_id or await node.identify(str(place))
    stream = await node.open_stream(peer_id, (str(place),), PROTOCOL)
    try:
        talk = Talk(stream)
        talk.trust()
        await talk.send(opening)
        return await talk.receive(Outcome, seconds=PATIENCE_SECONDS)
    finally:
        await stream.aclose()


def _is_longer(membership: DiskMembership, chain: bytes) -> bool:
    """Whether *chain* is a grant of this machine that counts, and ends later than the old one."""
    lock = Lock(membership.namespace, verify, read_revocations(membership.home))
    found = lock.judge(membership.home.machine, chain, membership.now())
    if not isinstance(found, Member):
        return False
    new, old = decode_chain(chain)[-1].grant, membership.grant
    # No admin makes a machine of another admin, which would be to remove it, nor the machine of
    # another owner its own; it may say that the machine is its own.
    if new.kind != old.kind or new.owner not in (old.owner, new.subject):
        log.warning("a grant came back as another", machine=membership.home.machine, kind=new.kind)
        return False
    return new.ends > old.ends and old.scopes >= new.scopes
