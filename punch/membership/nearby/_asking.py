"""The newcomer's side of a request without a code: asks members nearby, and shows the digits.

What a member says is checked as with a code, but for one thing: no code says which namespace is
meant. So a person confirms that the machine that let this one in is the one with the same digits.
Anybody on the LAN may pose as a member, so

1. each machine has one conversation in which digits are shown: who looks for digits that are, by
   chance, those of another screen, gets no second ones;
2. one that says what it should not, or is not confirmed, keeps no other from being asked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import attrs
import trio

from ..._logs import get_logger
from ...capability import PeerId
from ...discovery.lan import Lan
from ...exceptions import (
    ConfigurationError,
    NotPermitted,
    PeerError,
    PeerUnreachable,
    PunchError,
    RemoteProtocolError,
)
from ...network import Address, Node, Stream
from ...wire import quoted, short_word
from .._home import Home
from .._joining import (
    PATIENCE_SECONDS,
    Joined,
    check_is_news,
    checked,
    keep_joined,
    not_permitted,
    open_joining,
    open_talk,
    places_of,
)
from .._members import named
from .._messages import Opening, Outcome, Proof, Reply, Talk
from ..codes import is_same
from ..finding import find_joining
from ._digits import NONCE_BYTES, commitment_to, digits_of
from ._requests import REQUEST_SECONDS

log = get_logger(__name__)

# Hosts that are asked at once; a machine has a few addresses, each of which counts.
MAX_HOSTS_TRIED = 16


@attrs.frozen(kw_only=True)
class Asked:
    """A member that was asked to let this machine in."""

    digits: str
    """What its screen shows too, if nobody stands in between."""

    address: str
    """Where it is."""

    member: PeerId
    """The peer there."""


Confirm = Callable[["Joined", Asked], Awaitable[bool]]
"""Says whether the member that let this machine in is the one that people meant, by its digits."""


async def believe(joined: Joined, asked: Asked) -> bool:
    """Take the first member that lets this machine in, whoever that is: a `Confirm`."""
    del joined, asked
    return True


async def ask_members(
    node: Node,
    *,
    called: str,
    now: Callable[[], float],
    at: Sequence[Sequence[Address]],
    port: int = 0,
    asked: Callable[[Asked], None],
    confirm: Confirm = believe,
) -> Joined:
    """Ask members until one lets this machine in; nothing is written yet.

    Args:
      node: The node of this machine, whose identity is the key that the grant is for.
      called: What this machine is called.
      now: Says the time, in seconds of UTC since 1970.
      at: Where members are: of each machine its addresses, of which the first that answers counts.
      port: TCP port at which *node* can be dialled back; 0 for none.
      asked: Is called with each member that was asked, to show the digits.
      confirm: Is called with each that lets this machine in, one at a time, until one is meant.

    Raises:
      PeerUnreachable: if nobody answers; the text has the reason for each address.
      NotPermitted: if all refuse, nobody approves in time, or none was confirmed; `rule` says
        which.
      ConfigurationError: if this machine has no name.

    """
    name = named(called)
    if not name:
        raise ConfigurationError("say what this machine is called, for people, with --called NAME")
    reasons: list[str] = []
    refusals: list[PunchError] = []
    found: list[Joined] = []
    tried: set[PeerId] = set()
    # A person answers one question at a time.
    person = trio.Lock()

    async def ask_one(machine: Sequence[Address], nursery: trio.Nursery) -> None:
        shown: list[Asked] = []

        def show(one: Asked) -> None:
            shown.append(one)
            asked(one)

        for place in machine:
            try:
                stream = await open_talk(node, place, tried)
                if stream is None:
                    return
            except PeerUnreachable as error:
                reasons.append(f"{place}: {error.message}")
                continue
            try:
                joined = await _ask(node, stream, name, now, str(place), port, show)
                async with person:
                    if not await confirm(joined, shown[0]):
                        refusals.append(not_confirmed(joined))
                        return
                    found.append(joined)
                    nursery.cancel_scope.cancel()
                    return
            except (NotPermitted, ConfigurationError) as error:
                refusals.append(error)
                return
            except (PeerError, RemoteProtocolError) as error:
                reasons.append(f"{place}: {error}")
                if shown:
                    return
            finally:
                with trio.move_on_after(1.0, shield=True):
                    await stream.aclose()

    async with trio.open_nursery() as nursery:
        for machine in at[:MAX_HOSTS_TRIED]:
            nursery.start_soon(ask_one, machine, nursery)
    if found:
        return found[0]
    if refusals:
        raise refusals[0]
    raise PeerUnreachable(
        "no member lets anybody ask there: " + "; ".join(dict.fromkeys(reasons)), why="no_answer"
    )


def not_confirmed(joined: Joined) -> NotPermitted:
    """The error that the member that let this machine in is not the one that people meant."""
    return not_permitted(
        f"{joined.namespace} was not what you meant, and nothing was written; tell its admin to "
        f"run `punch members remove` for {joined.name or joined.member.machine}",
        "not_confirmed",
    )


async def _ask(
    node: Node,
    stream: Stream,
    name: str,
    now: Callable[[], float],
    address: str,
    port: int,
    asked: Callable[[Asked], None],
) -> Joined:
    peers = {"newcomer": node.peer_id, "member": stream.peer_id}
    nonce = os.urandom(NONCE_BYTES)
    talk = Talk(stream)
    commitment = commitment_to(nonce, name=name, **peers)
    await talk.send(Opening(do="nearby", name=name, proof=commitment))
    reply = await talk.receive(Reply, seconds=PATIENCE_SECONDS)
    if reply.refused:
        raise _refused(address, reply)
    if len(reply.proof) != NONCE_BYTES or is_same(reply.proof, nonce):
        raise RemoteProtocolError(f"reply.proof: expected {NONCE_BYTES} bytes of its own")
    await talk.send(Proof(confirmation=nonce, name=name, port=port))
    digits = digits_of((nonce, reply.proof), name=name, **peers)
    asked(Asked(digits=digits, address=address, member=stream.peer_id))
    talk.trust()
    outcome = await talk.receive(Outcome, seconds=REQUEST_SECONDS + PATIENCE_SECONDS)
    if outcome.refused:
        raise _refused(address, outcome)
    return checked(
        outcome, me=node.peer_id, member=stream.peer_id, address=address, now=now(), expected=None
    )


def _refused(address: str, said: Reply | Outcome) -> NotPermitted:
    """The error that whoever is at *address* refuses: its words, and nobody else's."""
    return not_permitted(f"{address} says: {quoted(said.reason)}", short_word(said.refused))


async def ask_nearby(
    *,
    called: str,
    asked: Callable[[Asked], None],
    confirm: Confirm,
    at: Sequence[str] = (),
    lan: Lan | None = None,
    folder: Path | None = None,
) -> Home:
    """Join a closed namespace without a code; the same as ``punch join --nearby``.

    Args:
      called: What people call this machine.
      asked: Is called with each member that was asked: people compare its digits on both screens.
      confirm: Says whether the member that let this machine in is the one that people meant, by
        its digits, before anything is written. A stranger can let anybody into its own namespace.
      at: Where a member is, ``HOST`` or ``HOST:PORT``; by default those that are found on the LAN.
      lan: Where to look; see `real_lan`.
      folder: Where the namespaces of this machine are kept; by default in the data folder.

    Raises:
      ConfigurationError: if nobody is found, or this machine is a member already.
      PeerUnreachable: if no member can be reached.
      NotPermitted: if it was refused, not approved in time, or not confirmed.

    """
    machines: list[Sequence[Address]] = [places_of(text) for text in at]
    if not machines:
        machines = list(await find_joining(lan))
    async with open_joining(None, parent=folder) as (node, fresh, port):

        async def confirm_news(joined: Joined, mine: Asked) -> bool:
            check_is_news(joined.namespace.key, folder)
            return await confirm(joined, mine)

        joined = await ask_members(
            node,
            called=called,
            now=time.time,
            at=machines,
            port=port,
            asked=asked,
            confirm=confirm_news,
        )
        return await trio.to_thread.run_sync(partial(keep_joined, joined, fresh, now=time.time()))
