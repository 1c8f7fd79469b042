"""The newcomer's side of ``/punch/join/1``: finds a member, proves to know a code, checks the rest.

Nothing is written before the grant was checked: it must be for this machine's key, from the root
that the code names, and told by a member of the same namespace.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from .._logs import get_logger
from ..access import Lock, Member, Namespace, Refusal, encode_chain, key_of
from ..capability import PeerId
from ..discovery import parse_bootstrap
from ..discovery.lan import Lan
from ..exceptions import (
    ConfigurationError,
    LocalProtocolError,
    NotPermitted,
    PeerError,
    PeerUnreachable,
    RemoteProtocolError,
)
from ..libp2p import open_node, verify
from ..network import WILDCARDS, Address, Node, Stream, own_hosts, parse_address, resolve
from ..wire import quoted, short_word
from ._folder import INFO, Folder, default_folder, keep, new_folder
from ._home import (
    CHAIN,
    MACHINE_KEY,
    Home,
    add_revocations,
    home_in,
    homes,
    read_revocations,
    record_of,
    write_info,
)
from ._invites import identifier_of
from ._members import MemberRecord, add_members, named
from ._messages import PROTOCOL, Opening, Outcome, Proof, Reply, Talk
from ._places import Places, told_places
from .codes import Code, Exchange, LongCode, is_same, parse_code
from .finding import find_joining

log = get_logger(__name__)

# The member computes, writes to its disk and dials back meanwhile.
PATIENCE_SECONDS = 30.0

MEMBER_PORTS = range(21820, 21836)
"""TCP ports of which a member takes the first that is free: those of listeners, so that whoever
was let in finds the inviting machine there later, too."""

# Peers to which a short code is shown at most, or a request without a code: each that is hostile
# has one guess at it.
MAX_MEMBERS_TRIED = 4

UNPROVED = ("wrong_code", "busy", "turned_away")
"""Rules that a peer names which has not proved to know the code: another may know it."""

WRONG_CODE = (
    "the code is wrong, or was tried before: a short one is good for one try. Ask for another, and "
    "see that it is for this member"
)


@attrs.frozen(kw_only=True)
class Joined:
    """What came of joining; see `keep_joined` for what makes it last."""

    namespace: Namespace
    """The namespace."""

    member: Member
    """This machine in it."""

    name: str
    """What this machine is called in it."""

    by: PeerId
    """The peer that let it in."""

    address: str
    """Where that peer was found."""

    reached: str
    """Where this machine was reached from there; empty if it was not."""

    trouble: str
    """Why it was not reached."""

    outcome: Outcome = attrs.field(repr=False)
    """Everything that was told."""


async def join_with(
    node: Node,
    code: Code,
    *,
    called: str,
    now: float,
    at: Sequence[Address] = (),
    port: int = 0,
) -> Joined:
    """Redeem *code* at a member; nothing is written yet.

    Args:
      node: The node of this machine, whose identity is the key that the grant is for.
      code: The code.
      called: What this machine is called, unless the invite says.
      now: UTC, in seconds since 1970.
      at: Where a member is, beside the addresses of the code.
      port: TCP port at which *node* can be dialled back; 0 for none.

    Raises:
      PeerUnreachable: if no member answers; the text has the reason for each address.
      NotPermitted: if the code is wrong, or its invite used up, expired or revoked; `rule` says
        which.
      ConfigurationError: if it is not known where to go.

    """
    places = (*at, *(code.addresses if isinstance(code, LongCode) else ()))
    if not places:
        raise ConfigurationError(
            "this code does not say where a member is, and none was found nearby: name one with "
            "--at HOST[:PORT], which `punch invite` has printed beside the code"
        )
    reasons: list[str] = []
    refusal: NotPermitted | None = None
    tried: set[PeerId] = set()
    for place in places:
        try:
            stream = await open_talk(node, place, tried)
        except PeerUnreachable as error:
            reasons.append(f"{place}: {error.message}")
            continue
        if stream is None:
            continue
        try:
            return await _redeem(
                node, stream, code, called=called, now=now, address=str(place), port=port
            )
        except NotPermitted as error:
            if error.rule not in UNPROVED:
                raise
            refusal = error
        except (PeerError, RemoteProtocolError) as error:
            reasons.append(f"{place}: {error}")
        finally:
            await stream.aclose()
        if len(tried) >= MAX_MEMBERS_TRIED:
            break
    if refusal is not None:
        raise refusal
    raise PeerUnreachable(
        "no member could be reached: " + "; ".join(dict.fromkeys(reasons)), why="no_answer"
    )


async def open_talk(node: Node, place: Address, tried: set[PeerId]) -> Stream | None:
    """A stream to whoever is at *place*; `None` if that peer was tried, or enough others were."""
    trouble: PeerUnreachable | None = None
    try:
        found = await resolve(place)
    except (OSError, ValueError, trio.TooSlowError):
        raise PeerUnreachable("its name is not known", why="no_name") from None
    for each in found:
        try:
            peer_id = each.peer_id or await node.identify(str(each))
            if peer_id in tried or len(tried) >= MAX_MEMBERS_TRIED:
                return None
            # At once: another task may come to the same peer by another address.
            tried.add(peer_id)
            try:
                return await node.open_stream(peer_id, (str(each),), PROTOCOL)
            except PeerUnreachable:
                tried.discard(peer_id)
                raise
        except PeerUnreachable as error:
            trouble = error
    raise trouble or PeerUnreachable("its name stands for no address", why="no_name")


async def _redeem(
    node: Node, stream: Stream, code: Code, *, called: str, now: float, address: str, port: int
) -> Joined:
    exchange = await trio.to_thread.run_sync(
        partial(
            Exchange,
            code.secret,
            newcomer=node.peer_id,
            member=stream.peer_id,
            is_member=False,
        )
    )
    talk = Talk(stream)
    opening = Opening(do="code", invite=identifier_of(code), proof=exchange.message)
    with suppress(PeerUnreachable):
        # A member that has no time says so at once, and ends the stream.
        await talk.send(opening)
    reply = await talk.receive(Reply, seconds=PATIENCE_SECONDS)
    if reply.refused:
        raise turned_away(address, reply)
    theirs, mine = await trio.to_thread.run_sync(exchange.finish, reply.proof)
    if not is_same(reply.confirmation, theirs):
        # Whoever is there does not know the code, and gets no second look at it.
        raise not_permitted(WRONG_CODE, "wrong_code")
    talk.trust()
    await talk.send(Proof(confirmation=mine, name=named(called), port=port))
    outcome = await talk.receive(Outcome, seconds=PATIENCE_SECONDS)
    expected = (code.name, code.root) if isinstance(code, LongCode) else None
    return checked(
        outcome, me=node.peer_id, member=stream.peer_id, address=address, now=now, expected=expected
    )


def not_permitted(message: str, rule: str) -> NotPermitted:
    """The error that *rule* forbids to join."""
    error = NotPermitted(message)
    error.rule = rule
    return error


def turned_away(address: str, reply: Reply) -> NotPermitted:
    """The error that whoever is at *address* refuses to talk: its words, and nobody else's."""
    rule = "busy" if reply.refused == "busy" else "turned_away"
    return not_permitted(f"{address} lets nobody in now. It says: {quoted(reply.reason)}", rule)


def checked(
    outcome: Outcome,
    *,
    me: PeerId,
    member: PeerId,
    address: str,
    now: float,
    expected: tuple[str, bytes] | None,
) -> Joined:
    """What *outcome*, the words of *member*, comes to, if all of it is true.

    Raises:
      NotPermitted: if it is a refusal, or the grant is no good.
      RemoteProtocolError: if it names no namespace.

    """
    if outcome.refused:
        raise not_permitted(quoted(outcome.reason), short_word(outcome.refused))
    try:
        namespace = Namespace(name=outcome.namespace, root=PeerId(outcome.root))
    except (ConfigurationError, LocalProtocolError) as error:
        raise RemoteProtocolError(f"outcome.namespace: {error}") from None
    if expected is not None and (namespace.name, namespace.key) != expected:
        raise not_permitted(
            f"{address} is a member of another namespace than the code is for, or of another of "
            "the same name",
            "wrong_namespace",
        )
    lock = Lock(namespace, verify, outcome.revocations)
    host = lock.judge(member, outcome.member_chain, now)
    if isinstance(host, Refusal):
        raise not_permitted(
            f"{address} is no member of {namespace}: {host.reason}", "wrong_namespace"
        )
    mine = lock.judge(me, outcome.chain, now)
    if isinstance(mine, Refusal):
        raise not_permitted(
            f"the grant that {address} gave is no good here: {mine.reason} "
            "See that the clocks of both machines are right",
            mine.rule,
        )
    return Joined(
        namespace=namespace,
        member=mine,
        name=named(outcome.name),
        by=member,
        address=address,
        reached=quoted(outcome.reached),
        trouble=quoted(outcome.trouble),
        outcome=outcome,
    )


def keep_joined(joined: Joined, folder: Folder, *, now: float) -> Home:
    """Write what came of joining: from now on this machine is a member.

    Args:
      joined: Of `join_with`.
      folder: A new folder, with the key that the grant is for.
      now: UTC, in seconds since 1970.

    Raises:
      ConfigurationError: if it cannot be written.

    """
    outcome, chain = joined.outcome, joined.member.chain
    grant = chain[-1].grant
    name = str(joined.namespace)
    earlier = Folder(folder.path.with_name(name))
    if earlier.exists(INFO) and home_in(earlier).namespace != joined.namespace:
        raise ConfigurationError(
            f"this machine is a member of another namespace that is written {name} too, with the "
            f"root {home_in(earlier).namespace.root}: eight letters do not tell the two apart, and "
            "one of them may be made to look like the other. `punch leave` the other one first"
        )
    if earlier.exists(INFO):
        # A membership that has ended. Its root key, if it has one, and what it knows stay.
        earlier.write(MACHINE_KEY, folder.read(MACHINE_KEY) or b"")
        folder = earlier
    folder.write(CHAIN, outcome.chain)
    told = []
    for text in outcome.members:
        with suppress(ValueError, RecursionError):
            # What is told proves nothing: a chain is kept from whoever has shown it.
            record = MemberRecord.decode(text)
            told.append(attrs.evolve(record, chain=b"", called="", seen=0, addresses=()))
    add_members(folder, [*told, record_of(chain, called=joined.name, now=now)])
    places = Places(folder)
    # Where it was found counts whatever the member says of its addresses: this machine came there.
    places.remember(joined.by, [*told_places(outcome.places, at=joined.address), joined.address])
    places.flush()
    write_info(folder, joined.namespace, machine=key_of(grant.subject), called=joined.name)
    home = home_in(folder)
    add_revocations(home, outcome.revocations)
    return home if folder is earlier else home_in(keep(folder, name))


@asynccontextmanager
async def open_joining(
    code: Code | None, *, parent: Path | None = None, ports: Sequence[int] = MEMBER_PORTS
) -> AsyncIterator[tuple[Node, Folder, int]]:
    """A node with a fresh key of this machine, the folder with the key, and the port of the node.

    Without a *code*, see `check_is_news`. Nothing of it is left unless `keep_joined` is called.

    Raises:
      ConfigurationError: if this machine is a member of the namespace that *code* is for.

    """
    if isinstance(code, LongCode):
        check_is_news(code.root, parent)
    with new_folder(parent or default_folder()) as folder:
        async with open_node(identity=folder / MACHINE_KEY, wanted=everywhere, ports=ports) as node:
            yield node, folder, next((each.port for each in map(parse_address, node.addresses)), 0)


def check_is_news(root: bytes, parent: Path | None = None) -> None:
    """Raise if this machine is a member of the namespace of *root*, in the folder *parent*.

    Raises:
      ConfigurationError: with the way to end that.

    """
    for home in homes(parent):
        if home.namespace.key == root:
            lock = Lock(home.namespace, verify, read_revocations(home))
            found = lock.judge(home.machine, encode_chain(home.chain()), time.time())
            if isinstance(found, Member):
                raise ConfigurationError(
                    f"this machine is a member of {home.namespace} already; "
                    f"`punch leave {home.namespace}` ends that"
                )


async def everywhere() -> tuple[str, ...]:
    """Where a member listens if nothing is said: at all addresses that this machine has."""
    kinds = {f"ip{ipaddress.ip_address(host).version}" for host in own_hosts()}
    return tuple(f"/{kind}/{host}/tcp/0" for kind, host in WILDCARDS.items() if kind in kinds)


def places_of(text: str, *, setting: str = "--at") -> tuple[Address, ...]:
    """Where a member may be, as people write it: as `parse_bootstrap`, with the ports of listeners.

    Raises:
      ConfigurationError: naming *setting*, the text and the forms there are.

    """
    place = parse_bootstrap(text, setting=setting)
    if text.strip().startswith("/") or text.strip().endswith(f":{place.port}"):
        return (place,)
    return tuple(attrs.evolve(place, port=port) for port in MEMBER_PORTS)


async def redeem_invite(
    code: str,
    *,
    called: str,
    at: Sequence[str] = (),
    lan: Lan | None = None,
    folder: Path | None = None,
    found: Callable[[Joined], None] = lambda joined: None,
) -> Home:
    """Join a closed namespace with the code of an invite; the same as ``punch join``.

    Args:
      code: The code, long or short.
      called: What people call this machine, unless the invite says.
      at: Where a member is, ``HOST`` or ``HOST:PORT``, beside what a long code says.
      lan: Where to look for members if neither *at* nor the code says where one is; a short code
        is tried at a few of these. By default nowhere.
      folder: Where the namespaces of this machine are kept; by default in the data folder.
      found: Is called with what was found, before anything is written; it may raise to have
        nothing written.

    Raises:
      ConfigurationError: if the code is none, or this machine is a member already.
      PeerUnreachable: if no member can be reached.
      NotPermitted: if the code is wrong, or its invite is used up, expired or revoked.

    """
    parsed = parse_code(code)
    places = [place for text in at for place in places_of(text)]
    if not places and lan is not None and not (isinstance(parsed, LongCode) and parsed.addresses):
        places = [place for machine in await find_joining(lan) for place in machine]
    async with open_joining(parsed, parent=folder) as (node, fresh, port):
        joined = await join_with(node, parsed, called=called, now=time.time(), at=places, port=port)
        found(joined)
        return await trio.to_thread.run_sync(partial(keep_joined, joined, fresh, now=time.time()))
