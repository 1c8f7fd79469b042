"""Makes the `Status` of what is open: what it is, what it waits for, and what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import attrs

from ..._version import __version__
from ...adoption import AdoptedServer
from ...capability import PeerId
from ...listener import Listener
from ...membership import DiskMembership, MemberStatus
from ...peers import PeerRecord, short_id
from ...wire import short_word
from ._lending import Lending
from ._opened import Opened
from ._own_lane import OwnLane
from ._status import Addresses, LaneRow, MemberRow, State, Status
from ._words import missing_here

# What runs here is found within this time; before, nothing is missed.
SETTLED_SECONDS = 4.0

# A peer may claim any number of models; more than these fill no line.
MAX_MODELS = 32


def status_of(
    opened: Opened | None,
    *,
    state: State,
    own: OwnLane,
    lending: Lending,
    known: Sequence[MemberStatus],
    now: float,
) -> Status:
    """What a `punch up` is.

    Args:
      opened: What is open; `None` while nothing is.
      state: What it is doing.
      own: The lane of this machine's own engine.
      lending: What is lent.
      known: The members that this machine knows of, in a closed namespace.
      now: Seconds of trio's clock.

    """
    base = Status(state=state, process=os.getpid(), version=__version__)
    if opened is None:
        return base
    place, settings = opened.target.place, opened.target.settings
    router, gateway, home = opened.serving.router, opened.serving.gateway, place.home
    membership, listener = opened.membership, opened.listener
    roles = ["listener", "gateway"]
    if home is not None:
        # Every listener of a closed namespace is one.
        roles.append("meeting point")
    if lending.lends:
        roles.append("worker")
    is_settled = now - opened.since > SETTLED_SECONDS
    return attrs.evolve(
        base,
        namespace=str(place),
        is_closed=home is not None,
        is_new=opened.target.is_new,
        # Not as the file says now: somebody may be taking this machine out of the namespace.
        is_admin=membership is not None and membership.grant.kind == "admin",
        name=settings.listener.name or (home.name if home is not None else ""),
        peer=listener.peer_id,
        roles=tuple(roles),
        listens=listener.addresses,
        addresses=Addresses(
            gateway=local_address(gateway.url), ollama=local_address(gateway.ollama_url)
        ),
        has_keys=gateway.has_keys,
        members=member_rows(
            router.peers, here=listener.peer_id, membership=membership, known=known
        ),
        lanes=lane_rows(listener, opened.adoption.adopted),
        adopted=opened.adoption.adopted,
        workers=worker_names(router.workers, membership=membership, known=known),
        waits_for=tuple(_waits(opened, own, is_settled=is_settled)),
        wrong=tuple(_wrong(opened, own, lending, is_settled=is_settled)),
    )


def local_address(url: str) -> str:
    """The address of a gateway as programs of this machine ask it, whatever it listens on."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _waits(opened: Opened, own: OwnLane, *, is_settled: bool) -> list[str]:
    """What is not there yet, and will be taken by itself."""
    waits = []
    if own.is_starting and own.engine is not None:
        backend = own.engine.settings
        waits.append(f"{backend.name}, which is loading {backend.model or 'its model'}")
    if own.missing is not None and is_settled and not opened.listener.lanes:
        waits.append(missing_here(own.missing))
    return waits + adopted_waits(opened.adoption.adopted)


def adopted_waits(adopted: Sequence[AdoptedServer]) -> list[str]:
    """What is not there yet of servers: a named one itself, or a model of one with a lane."""
    waits = []
    for each in adopted:
        if each.how == "named" and each.state == "looking":
            waits.append(f"{each.url}, which was named")
        elif each.lane is not None and not each.models and each.seconds > SETTLED_SECONDS:
            why = each.reason or "it has none"
            waits.append(f"a model of {each.program} at {each.url}: {why}")
    return waits


def _wrong(opened: Opened, own: OwnLane, lending: Lending, *, is_settled: bool) -> list[str]:
    """What does not work, and needs somebody."""
    wrong = [*opened.serving.router.warnings]
    wrong += [
        f"{each.url} was named and is not adopted: {each.reason}"
        for each in opened.adoption.adopted
        # What is found at a usual port may be anything, and is nobody's fault.
        if each.how == "named" and each.state == "left alone"
    ]
    if opened.listener.trouble is not None and is_settled:
        wrong.append(f"{opened.listener.trouble.message}; it is tried again")
    wrong.extend(f"{trouble}; it is tried again" for trouble in own.troubles)
    if lending.trouble is not None:
        wrong.append(f"nothing is lent: {lending.trouble}; it is tried again")
    return wrong


# ---- rows ----


def lane_rows(listener: Listener, adopted: Sequence[AdoptedServer]) -> tuple[LaneRow, ...]:
    """The lanes of the listener here, those of *adopted* servers included."""
    servers = {each.lane: each.url for each in adopted}
    return tuple(
        LaneRow(
            name=lane.name,
            backend=lane.backend.name,
            state=lane.state,
            models=_names(offer.name for offer in lane.offered.offers),
            simulated=lane.backend.simulated,
            slots=lane.slots.slots,
            busy=lane.slots.busy,
            reason=lane.claim().reason,
            server=servers.get(lane.id),
        )
        for lane in listener.lanes
    )


def member_rows(
    peers: Sequence[PeerRecord],
    *,
    here: PeerId,
    membership: DiskMembership | None,
    known: Sequence[MemberStatus],
) -> tuple[MemberRow, ...]:
    """The machines of the namespace, this one first, then by name.

    Args:
      peers: The listeners that there is a session with.
      here: The identity of this process.
      membership: In a closed namespace; it knows whose machine a peer is on.
      known: The members that this machine knows of, in a closed namespace.

    """
    own = next((each.machine for each in known if each.is_this_machine), here)
    models: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for peer in peers:
        key = own if peer.peer_id == here else _machine(peer.peer_id, membership)
        if key is None:
            name = peer.capability.machine_name
            called = [each.machine for each in known if name and each.own_name == name]
            key = called[0] if len(called) == 1 else None
        if key is None:
            # A session with a member whose machine nobody has told yet: it is told in a moment.
            continue
        models.setdefault(key, []).extend(offer.name for offer in peer.capability.models)
        names.setdefault(key, short_word(peer.capability.machine_name or "") or short_id(key))
    rows = [
        MemberRow(
            name=each.name or short_id(each.machine),
            machine=each.machine,
            is_here=each.is_this_machine,
            is_connected=each.is_this_machine or each.machine in models,
            is_admin=each.is_admin,
            models=_names(models.pop(each.machine, ())),
        )
        for each in known
        if each.state == "member"
    ]
    # In an open namespace, or heard of before it was written down.
    rows += [
        MemberRow(
            name=names[key],
            machine=key,
            is_here=key == own,
            is_connected=True,
            models=_names(found),
        )
        for key, found in models.items()
    ]
    return tuple(sorted(rows, key=lambda row: (not row.is_here, row.name.casefold(), row.machine)))


def worker_names(
    workers: Mapping[PeerId, object],
    *,
    membership: DiskMembership | None,
    known: Sequence[MemberStatus],
) -> tuple[str, ...]:
    """The machines that lend memory, by name."""
    called = {each.machine: each.name for each in known}
    found = set()
    for peer in workers:
        machine = _machine(peer, membership)
        if machine is not None:
            found.add(called.get(machine) or short_id(machine))
    return tuple(sorted(found))


def _machine(peer: PeerId, membership: DiskMembership | None) -> PeerId | None:
    """The machine of *peer*, `None` if it is not known yet; in an open namespace, the peer."""
    return peer if membership is None else membership.machine_of(peer)


def _names(models: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({short_word(name) for name in models}))[:MAX_MODELS]
