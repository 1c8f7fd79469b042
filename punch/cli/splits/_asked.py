"""Asks the workers of a namespace what they lend, for commands that plan and borrow nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import attrs
import trio

from ...capability import PeerId
from ...cluster import Borrower, WorkerFacts, open_borrower
from ...cluster.coordinator import UNMEASURED_RATE, Lender
from ...discovery import Directory, join_namespace, new_incarnation
from ...exceptions import NetworkError, PunchError
from ...libp2p import open_node
from ...peers import shown_names
from ...placement import Link
from ...settings import NetworkSettings
from .._identity import claim_identity
from .._namespace import Place, open_membership_of, place_of
from .._shared import bootstraps, known_peers, lan_of
from ._fitting import Told

# How long the namespace may take to let us in, to name a first worker and then the others, and how
# long one of them may take to answer.
JOIN_SECONDS = 5.0
FIRST_SECONDS = 5.0
OTHERS_SECONDS = 0.5
SURVEY_SECONDS = 5.0


@attrs.frozen(kw_only=True)
class Asked:
    """What the workers of a namespace said."""

    workers: tuple[Told, ...] = ()
    """What they lend, a device each."""

    left_out: dict[str, str] = attrs.field(factory=dict)
    """Who lends nothing to us, and why."""


async def ask_foreign(lenders: Sequence[Lender]) -> Asked:
    """Ask RPC servers that run already what they have, all at the same time."""
    told: dict[str, list[Told]] = {}
    left_out: dict[str, str] = {}

    async def ask(lender: Lender) -> None:
        try:
            found = await lender.survey()
        except PunchError as error:
            left_out[lender.name] = error.message
            return
        several = len(found.devices) > 1
        told[lender.name] = [
            Told(
                name=f"{lender.name}/{device.name}" if several else lender.name,
                holder=lender.name,
                memory=device.memory,
                bandwidth=device.bandwidth,
                compute=device.compute,
                link=found.link,
            )
            for device in found.devices
        ]

    async with trio.open_nursery() as nursery:
        for lender in lenders:
            nursery.start_soon(ask, lender)
    workers = [each for lender in lenders for each in told.get(lender.name, ())]
    return Asked(workers=tuple(workers), left_out=left_out)


async def ask_workers(network: NetworkSettings, *, identity: str | None) -> Asked:
    """Ask every worker of the namespace that *network* means.

    Raises:
      NetworkError: if the namespace cannot be reached, or does not let us in.
      ConfigurationError: if a setting makes no sense.

    """
    place = place_of(network)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        # The identity of a listener is that of a coordinator: workers may lend to it alone.
        path = stack.enter_context(claim_identity("listener", identity))
        membership = await enter(open_membership_of(place, path, network))
        node = await enter(open_node(identity=path, transport=network.transport))
        if membership is not None:
            await enter(membership.kept_up(node, serves=False))
        directory = await enter(
            join_namespace(
                node,
                bootstraps(network),
                lan=lan_of(network, is_closed=membership is not None),
                known=known_peers(network),
                namespace=place.name,
                roles={"dialer"},
                incarnation=new_incarnation(),
                membership=membership,
            )
        )
        await _joined(directory, place)
        borrower = await enter(open_borrower(node, namespace=place.name, membership=membership))
        found = await _workers(directory)
        return await survey_all(borrower, found)


async def _joined(directory: Directory, place: Place) -> None:
    with trio.move_on_after(JOIN_SECONDS):
        await directory.joined.wait()
        return
    if directory.trouble is not None:
        raise directory.trouble
    raise NetworkError(
        f"nobody let this machine into the namespace {place} within {JOIN_SECONDS:g} s, so no "
        "worker can be asked: start one of its listeners or workers, or say with --bootstrap "
        "where the namespace meets"
    )


async def _workers(directory: Directory) -> dict[PeerId, tuple[str, ...]]:
    """The workers with their addresses, once a while has brought no further one."""
    is_there = trio.Event()

    def changed() -> None:
        if directory.workers:
            is_there.set()

    with directory.watched(changed):
        changed()
        with trio.move_on_after(FIRST_SECONDS):
            await is_there.wait()
            await trio.sleep(OTHERS_SECONDS)
    return {peer_id: each.addresses for peer_id, each in directory.workers.items()}


async def survey_all(borrower: Borrower, found: dict[PeerId, tuple[str, ...]]) -> Asked:
    """Ask the workers in *found*, with their addresses, all at the same time."""
    told: dict[PeerId, list[Told]] = {}
    left_out: dict[str, str] = {}
    names = shown_names((peer_id, None) for peer_id in found)

    async def ask(peer_id: PeerId, addresses: tuple[str, ...]) -> None:
        left_out[peer_id] = f"it said nothing within {SURVEY_SECONDS:g} s"
        with trio.move_on_after(SURVEY_SECONDS):
            try:
                facts = await borrower.survey(peer_id, addresses)
                told[peer_id] = told_by(facts, names[peer_id])
                del left_out[peer_id]
            except PunchError as error:
                left_out[peer_id] = error.message

    async with trio.open_nursery() as nursery:
        for peer_id, addresses in found.items():
            nursery.start_soon(ask, peer_id, addresses)
    workers = [each for peer_id in found for each in told.get(peer_id, ())]
    return Asked(workers=tuple(workers), left_out=left_out)


def told_by(facts: WorkerFacts, name: str) -> list[Told]:
    """The devices of a worker called *name*, as they can be planned with.

    What it lends in all may be less than what is free of its devices: each gets its share.
    """
    free = sum(device.free for device in facts.devices)
    share = min(1.0, facts.memory / free) if free else 0.0
    several = len(facts.devices) > 1
    return [
        Told(
            name=f"{name}/{device.name}" if several else name,
            holder=name,
            peer_id=facts.peer_id,
            memory=int(device.free * share),
            bandwidth=device.bandwidth or None,
            compute=device.compute or None,
            link=Link(rtt=facts.rtt, rate=UNMEASURED_RATE),
        )
        for device in facts.devices
    ]
