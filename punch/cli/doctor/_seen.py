"""Looks at the namespace as a dialer does for some seconds, and tries what answers here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from ...capability import Lane, ModelOffer, PeerId
from ...dialer import Router, chat_request, open_router
from ...doctor import EngineTry, LaneFact, MeetingFacts, MeetingPoint, OtherSource
from ...exceptions import PeerUnreachable, PunchError
from ...libp2p import open_node
from ...membership import Home, list_members
from ...network import Address, Node, places_here
from ...peers import PeerRecord
from ...settings import NetworkSettings
from ...wire import Hints
from .._identity import claim_identity
from .._namespace import Place, open_membership_of
from .._shared import bootstraps, known_peers, lan_of
from ..running import running_here

# The state of a lane that takes a request at once.
READY = "ready"

# How long it is waited for all that are known, and for the next one of them; see `punch peers`.
SETTLE_SECONDS = 8.0
QUIET_SECONDS = 1.5

# A dial takes 5 s at most.
DIAL_SECONDS = 8.0

# A token of a model that is loaded takes a second; a long prompt may be before it.
TOKEN_SECONDS = 20.0

# Models of this machine that are asked, one after the other.
MAX_ASKED = 4


@attrs.frozen(kw_only=True)
class Seen:
    """A namespace at one instant."""

    meeting: MeetingFacts
    """Where it is met."""

    peers: tuple[PeerRecord, ...]
    """The listeners that there is a session with."""

    minors: Mapping[PeerId, int]
    """The minor version that each of them and this machine speak."""

    unreached: Mapping[PeerId, str]
    """The listeners that there is none with, each with the reason."""

    tries: tuple[EngineTry, ...] = ()
    """What came of asking those of this machine for one token."""

    @property
    def here(self) -> tuple[PeerRecord, ...]:
        """The listeners of this machine."""
        return tuple(peer for peer in self.peers if peer.is_here)

    @property
    def is_met(self) -> bool:
        """Whether the namespace is met anywhere."""
        points, others = self.meeting.points, self.meeting.others
        return any(each.works for each in points) or any(each.works for each in others)


async def look_around(network: NetworkSettings, place: Place, given: str | None) -> Seen:
    """What a dialer of *place* sees, after some seconds.

    Args:
      network: Where the namespace is met.
      place: The namespace.
      given: The file of this process's key; `None` for one that no other process has.

    Raises:
      PunchError: if this machine cannot be in the namespace at all.

    """
    places = bootstraps(network)
    async with _opened(network, place, places, given) as (node, router):
        dials: dict[Address, str | None] = {}
        async with trio.open_nursery() as nursery:
            for address in places:
                nursery.start_soon(_dial, node, address, dials)
            nursery.start_soon(_settle, router)
        meeting = await _meeting(router, places, dials, network, place.home)
        seen = Seen(
            meeting=meeting,
            peers=router.peers,
            minors=router.minors,
            unreached=dict(router.unreachable),
        )
        return attrs.evolve(seen, tries=await _ask(router, seen.here))


@asynccontextmanager
async def _opened(
    network: NetworkSettings, place: Place, places: Sequence[Address], given: str | None
) -> AsyncIterator[tuple[Node, Router]]:
    async with AsyncExitStack() as stack:
        identity = stack.enter_context(claim_identity("dialer", given))
        enter = stack.enter_async_context
        membership = await enter(open_membership_of(place, identity, network))
        node = await enter(open_node(identity=identity, transport=network.transport))
        router = await enter(
            open_router(
                bootstrap=places,
                namespace=place.name,
                transport=network.transport,
                node=node,
                known=known_peers(network),
                lan=lan_of(network, is_closed=membership is not None),
                membership=membership,
            )
        )
        yield node, router


async def _settle(router: Router) -> None:
    """Wait until every source and every listener has said what it will, or the time is over."""
    with trio.move_on_after(SETTLE_SECONDS):
        await router.wait_for_peers(
            lambda _: all(each.is_working or each.trouble for each in router.sources)
        )
        # Who is there already becomes known one after the other; where nobody is, nobody comes.
        with trio.move_on_after(QUIET_SECONDS):
            await router.wait_for_peers()
        if router.peers or router.unreachable:
            await router.wait_until_settled(quiet=QUIET_SECONDS)


async def _dial(node: Node, address: Address, dials: dict[Address, str | None]) -> None:
    """Note the word for why nobody answers at *address*; `None` if somebody does."""
    dials[address] = "no_answer"
    with trio.move_on_after(DIAL_SECONDS):
        try:
            found = await node.identify(str(address))
        except PeerUnreachable as error:
            dials[address] = error.why or "no_answer"
            return
        is_other = address.peer_id is not None and found != address.peer_id
        dials[address] = "other_peer" if is_other else None


async def _meeting(
    router: Router,
    places: Sequence[Address],
    dials: Mapping[Address, str | None],
    network: NetworkSettings,
    home: Home | None,
) -> MeetingFacts:
    # The bootstraps are the first sources, in the order in which they were given.
    at_places, others = router.sources[: len(places)], router.sources[len(places) :]
    points = []
    for address, source in zip(places, at_places, strict=True):
        trouble = source.trouble
        points.append(
            MeetingPoint(
                address=str(address),
                is_here=await _is_here(address),
                is_named=network.origin("bootstrap").layer != "default",
                works=source.is_working,
                why=dials.get(address),
                code=None if trouble is None else trouble.code,
                words="" if trouble is None else trouble.message,
            )
        )
    return MeetingFacts(
        points=tuple(points),
        others=tuple(
            OtherSource(
                name=each.name,
                works=each.is_working,
                code=None if each.trouble is None else each.trouble.code,
                words="" if each.trouble is None else each.trouble.message,
            )
            for each in others
        ),
        is_closed=home is not None,
        members=0 if home is None else _other_members(home),
        warnings=router.warnings,
        runs=bool(running_here()),
    )


def _other_members(home: Home) -> int:
    members = list_members(home)
    return sum(each.state == "member" and not each.is_this_machine for each in members)


async def _is_here(address: Address) -> bool:
    try:
        return bool(await places_here(address))
    except OSError:
        return False


# ---- one token ----


async def _ask(router: Router, here: Sequence[PeerRecord]) -> tuple[EngineTry, ...]:
    wanted = [(peer, offer) for peer in here for offer in _loaded(peer)][:MAX_ASKED]
    return tuple([await _one_token(router, peer, offer) for peer, offer in wanted])


def _loaded(peer: PeerRecord) -> list[ModelOffer]:
    """The models of *peer* that no mock makes up, and that could answer a chat at once."""
    free = {
        lane.id
        for lane in peer.capability.lanes
        if lane.state == READY and not lane.simulated and not _is_busy(lane)
    }
    return [
        offer
        for offer in peer.capability.models
        if offer.lane in free and "chat" in offer.features and offer.load_seconds == 0
    ]


def _is_busy(lane: Lane) -> bool:
    """Whether a request would have to wait, so that what came of it would tell nothing."""
    return lane.load.draining or lane.load.busy >= lane.load.slots


async def _one_token(router: Router, peer: PeerRecord, offer: ModelOffer) -> EngineTry:
    request = chat_request(
        "Say yes.",
        model=offer.name,
        max_tokens=1,
        timeout=TOKEN_SECONDS,
        hints=Hints(only=(peer.peer_id,), naming="exact"),
    )
    try:
        async with router.answer(request, keep=False) as answer:
            await answer.complete()
    except PunchError as error:
        return EngineTry(name=offer.name, is_program=False, words=str(error))
    return EngineTry(name=offer.name, is_program=False)


def lanes_that_rest(here: Sequence[PeerRecord]) -> tuple[LaneFact, ...]:
    """The lanes of this machine that cannot be asked."""
    return tuple(
        LaneFact(backend=lane.backend, has_failed=lane.state == "failed", words=lane.reason)
        for peer in here
        for lane in peer.capability.lanes
        if lane.state != READY
    )


def models_at_work(here: Sequence[PeerRecord]) -> tuple[str, ...]:
    """The models of this machine whose lanes have no free slot."""
    found = (
        offer
        for peer in here
        for offer in peer.capability.models
        if _is_busy(lane := peer.capability.lane(offer)) and lane.state == READY
    )
    return tuple(sorted({offer.name for offer in found}))


def models_to_load(here: Sequence[PeerRecord]) -> tuple[str, ...]:
    """The models of this machine that nobody has loaded."""
    found = (offer for peer in here for offer in peer.capability.models if offer.load_seconds > 0)
    return tuple(sorted({offer.name for offer in found}))


def models_on_cpu(here: Sequence[PeerRecord]) -> tuple[str, ...]:
    """The models of this machine that their engine has loaded, and nothing of it in a GPU."""
    found = (
        offer
        for peer in here
        for offer in peer.capability.models
        if offer.loaded_bytes and offer.gpu_bytes == 0
    )
    return tuple(sorted({offer.name for offer in found}))
