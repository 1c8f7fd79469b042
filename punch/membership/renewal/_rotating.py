"""Gives this machine a new key in a namespace, while the old one still counts.

The old key signs the new one; an admin, or the root where its key is here, gives the new one a
grant of the same terms. Then the machine and its programs change over, and the old key is removed
by its own word, a moment later: no session ends, and nothing that it holds lets anybody in again.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import trio

from ..._logs import get_logger
from ...access import (
    Issuer,
    Lock,
    Member,
    Refusal,
    decode_chain,
    encode_chain,
    remove,
    sign_rotation,
)
from ...exceptions import (
    ConfigurationError,
    NotPermitted,
    PeerError,
    PeerUnreachable,
    RemoteProtocolError,
)
from ...libp2p import open_node, verify
from ...network import Node, parse_address
from ...wire import quoted
from .._home import Home, fresh_key, read_revocations, retire_key, switch_key
from .._membership import DiskMembership
from .._messages import Opening, Outcome
from .._removing import read_removals
from ..leaving import open_telling
from ._renewing import ask_admin

log = get_logger(__name__)

OVERLAP_SECONDS = 3.0
"""How long both keys count: programs of this machine look at its files four times a second, and
tell their new chains at once."""


async def rotate_key(home: Home) -> Home:
    """Give this machine a new key in a namespace, with what its grant allows; returns it as it is.

    Raises:
      NotPermitted: if no admin gives the new key what the old one has.
      PeerUnreachable: if no admin can be reached.
      ConfigurationError: if it takes the root's key, which is not here; or files cannot be written.

    """
    with tempfile.TemporaryDirectory() as folder:
        membership = DiskMembership(home, Path(folder) / "rotating.key")
        membership.check()
        home = membership.home
        identity = await trio.to_thread.run_sync(fresh_key, home)
        async with open_node(identity=identity) as node:
            chain = await new_chain(membership, node)
        word = await trio.to_thread.run_sync(_removal, home)
        switched = await trio.to_thread.run_sync(
            partial(switch_key, home, chain, word=word, now=membership.now())
        )
        log.info("this machine has a new key", machine=switched.machine)
        await trio.sleep(OVERLAP_SECONDS)
        await trio.to_thread.run_sync(retire_key, switched)
        await _tell(DiskMembership(switched, Path(folder) / "telling.key"), word)
        return switched


async def _tell(membership: DiskMembership, word: bytes) -> None:
    """Tell the members of the old key's removal, since no program of this machine may run."""
    places = [*membership.places(), *membership.bare_places()]
    if not places:
        return
    async with (
        open_node(identity=membership.identity) as node,
        open_telling(membership, node, places) as telling,
    ):
        told = await telling.tell([word])
        log.info("the old key is removed", told=sorted(told.machines))


async def new_chain(membership: DiskMembership, node: Node) -> bytes:
    """The grant of the new key of this machine, which *node* has, encoded; nothing is written.

    Raises:
      NotPermitted: if no admin gives it what the old key has.
      PeerUnreachable: if no admin can be reached.
      ConfigurationError: if it takes the root's key, which is not here.

    """
    home = membership.home
    old = await trio.to_thread.run_sync(partial(_by_root, membership, node))
    if old is not None:
        return old
    signature = sign_rotation(
        home.namespace, old=home.machine, new=node.peer_id, sign=membership.key().sign
    )
    opening = Opening(
        do="rotate", chain=encode_chain(home.chain()), proof=signature, name=home.name
    )
    refusals: list[str] = []
    for text in membership.places():
        try:
            outcome = await ask_admin(node, parse_address(text), opening)
        except (PeerError, RemoteProtocolError, ConfigurationError) as error:
            log.debug("no admin there", at=text, why=str(error))
            continue
        fault = _fault(membership, node, outcome)
        if fault is None:
            return outcome.chain
        refusals.append(f"{text}: {fault}")
    if refusals:
        raise NotPermitted("no admin gives the new key a grant: " + "; ".join(refusals))
    raise PeerUnreachable(
        f"no admin of {home.namespace} can be reached, and only one can give the new key a grant: "
        "start punch on a machine that is an admin",
        why="no_answer",
    )


def _by_root(membership: DiskMembership, node: Node) -> bytes | None:
    """The grant of the new key by the root, for a machine whose own grant the root has signed.

    Raises:
      ConfigurationError: if the root's key is not here: an admin would give it far less.

    """
    home, grant = membership.home, membership.grant
    if grant.issuer != home.namespace.root:
        return None
    root = home.root_key()
    if root is None:
        raise ConfigurationError(
            f"the grant of this machine was signed by the root key of {home.namespace}, which is "
            "not here: bring it back with `punch namespace root import FILE`"
        )
    renewed = Issuer(key=root.peer_id, sign=root.sign, owner=grant.owner).renew(
        read_removals(home),
        encode_chain(home.chain()),
        home.machine,
        now=membership.now(),
        subject=node.peer_id,
    )
    if isinstance(renewed, Refusal):
        raise NotPermitted(f"the key cannot be changed: {renewed.reason}")
    return encode_chain(renewed)


def _fault(membership: DiskMembership, node: Node, outcome: Outcome) -> str | None:
    """What is wrong with what an admin has answered, for a person."""
    if outcome.refused:
        return quoted(outcome.reason)
    lock = Lock(membership.namespace, verify, read_revocations(membership.home))
    found = lock.judge(node.peer_id, outcome.chain, membership.now())
    if not isinstance(found, Member):
        return found.reason
    old, new = membership.grant, decode_chain(outcome.chain)[-1].grant
    if new.kind != old.kind or new.scopes != old.scopes:
        return "it would allow other things than the old one does"
    if old.owner not in (old.subject, new.owner):
        return f"it would not say that the machine is {old.owner}'s: ask an admin of that owner"
    return None


def _removal(home: Home) -> bytes:
    """The word of the old key that it is out."""
    return remove(
        read_removals(home),
        home.machine,
        issuer=home.machine,
        sign=home.key().sign,
        chain=home.chain(),
    )
