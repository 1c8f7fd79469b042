"""``punch peers``: shows the listeners of a namespace, their lanes and models, as they change."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import attrs
import trio

from ...capability import Lane, ModelOffer, PeerId
from ...dialer import Router, open_router
from ...exceptions import NoPeerAvailable
from ...peers import ANSWERING, OVER_RELAY, PeerRecord, shown_names
from ...settings import (
    DIALER_IDENTITY,
    LOG_LEVEL,
    SWITCH,
    NetworkSettings,
    ProgramSettings,
    group,
    of,
    setting,
)
from .._columns import aligned, cut, folded, shortened, width_of
from .._exits import ExitCode
from .._identity import claim_identity
from .._namespace import open_membership_of, place_of
from .._output import plain
from .._run import Shutdown, run_program
from .._shared import bootstraps, known_peers, lan_of

ABOUT = "Show the listeners of a namespace, again every second."

ONCE = setting("once", SWITCH, False, help="show them once, as soon as all of them were heard")
AS_JSON = setting("json", SWITCH, False, help="one JSON object a peer and line")


@attrs.frozen(kw_only=True)
class PeersSettings(ProgramSettings):
    """Settings of ``punch peers``."""

    network: NetworkSettings = group(NetworkSettings)
    once: bool = of(ONCE)
    json: bool = of(AS_JSON)
    identity: str | None = of(DIALER_IDENTITY)
    log_level: str = of(LOG_LEVEL, default="warning")


# Adverts come every second: more often there is nothing new.
INTERVAL = 1.0

# How long `--once` waits for all that are known, and for the next one of them, in seconds.
FIRST_SECONDS = 8.0
OTHERS_SECONDS = 0.5

# On a LAN the next one may be heard at the second question only, which is asked a second after the
# first (RFC 6762, section 5.2).
OTHERS_ON_LAN_SECONDS = 1.5

# Home, and clear from there: what stays the same does not flicker.
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR_ALL = "\x1b[2J"

# What a peer may call a model, and what nobody wants to see whole.
WIDEST = 80

COLUMNS = (
    "peer",
    "lane",
    "backend",
    "state",
    "model",
    "busy",
    "queue",
    "prefill tok/s",
    "decode tok/s",
    "rtt",
    "breaker",
    "heard",
)

# Names, which may be shortened where the screen is narrow; numbers may not.
NAMES = tuple(map(COLUMNS.index, ("peer", "lane", "backend", "model")))

# Where it is narrower still, the numbers of each row are in a line below its names.
_NUMBERS = COLUMNS.index("busy")


def rows(peers: Sequence[PeerRecord], now: float) -> list[tuple[str, ...]]:
    """The table's cells: one row for each model of each lane of each peer.

    Rates are those that were measured here; those that are only claimed have a ``~``.
    """
    names = shown_names((peer.peer_id, peer.capability.machine_name) for peer in peers)
    return [
        (names[peer.peer_id], *_row(peer, lane, offer, now))
        for peer in sorted(peers, key=lambda peer: peer.peer_id)
        for lane in peer.capability.lanes or (None,)
        for offer in _offers(peer, lane) or (None,)
    ]


def _offers(peer: PeerRecord, lane: Lane | None) -> list[ModelOffer]:
    return [offer for offer in peer.capability.models if lane is not None and offer.lane == lane.id]


def _row(
    peer: PeerRecord, lane: Lane | None, offer: ModelOffer | None, now: float
) -> tuple[str, ...]:
    load = peer.capability.load if lane is None else lane.load
    return (
        # A peer of minor 0 has one lane, and no name for it.
        "-" if lane is None else lane.id or "-",
        "-" if lane is None else lane.backend,
        "-" if lane is None else lane.state,
        "-" if offer is None else _with_senses(offer),
        "leaves" if load.draining else f"{load.busy}/{load.slots}",
        f"{load.queued}/{load.queue_limit}",
        _rate(peer, offer, "prefill"),
        _rate(peer, offer, "decode"),
        "-" if peer.rtt is None else f"{peer.rtt * 1000:.1f} ms",
        state(peer, offer, now),
        f"{max(0.0, now - peer.seen_at):.1f} s",
    )


def _with_senses(offer: ModelOffer) -> str:
    """The name of a model, and whether it thinks or takes pictures, which few do."""
    found = sorted(offer.features & {"image", "reasoning"})
    return f"{offer.name} ({', '.join(found)})" if found else offer.name


def _rate(peer: PeerRecord, offer: ModelOffer | None, name: str) -> str:
    if offer is None:
        return "-"
    measured: float | None = getattr(peer.rates_of(offer.key), name)
    claimed: float | None = getattr(offer, f"{name}_rate")
    if measured is not None:
        return f"{measured:.1f}"
    return "-" if claimed is None else f"~{claimed:.1f}"


def state(peer: PeerRecord, offer: ModelOffer | None, now: float) -> str:
    """The state of the peer's breaker, or why else the peer might not be asked."""
    breaker = peer.breaker(None if offer is None else offer.key)
    if breaker.state == "open" and breaker.until > now:
        return f"open {breaker.until - now:.0f} s"
    if breaker.state != "closed":
        return breaker.state
    lane = None if offer is None else peer.capability.lane(offer)
    if lane is not None and lane.state not in ANSWERING:
        return plain(lane.state)
    own = peer if lane is None else peer.lanes.get(lane.id, peer)
    if own.resting_until > now:
        return f"rests {own.resting_until - now:.0f} s"
    if offer is not None and offer.load_seconds > 0:
        return f"loads {offer.load_seconds:.0f} s"
    return "closed"


def table(peers: Sequence[PeerRecord], now: float, *, width: int | None = None) -> str:
    """The whole table, as text of at most *width* columns."""
    found = [tuple(_cell(cell) for cell in row) for row in rows(peers, now)]
    texts = _lines(found, width) if found else ["no listener is known in this namespace"]
    reasons = _reasons(peers)
    if width is not None:
        texts = [cut(text, width) for text in texts]
        reasons = [part for each in reasons for part in folded(each, width, indent="    ")]
    return "\n".join((*texts, *reasons))


def _cell(text: str) -> str:
    return shortened(plain(text).replace("\n", " "), WIDEST)


def _lines(found: Sequence[tuple[str, ...]], width: int | None) -> list[str]:
    lines = [COLUMNS, *found]
    whole = aligned(lines, width=width, give_way=NAMES)
    if width is None or max(map(width_of, whole)) <= width:
        return whole
    names = aligned([line[:_NUMBERS] for line in lines], width=width, give_way=NAMES)
    numbers = aligned([line[_NUMBERS:] for line in lines])
    return [part for pair in zip(names, numbers, strict=True) for part in (pair[0], f"  {pair[1]}")]


def _reasons(peers: Sequence[PeerRecord]) -> list[str]:
    """A line for each lane that is not ready and says why, in its peer's words."""
    names = shown_names((peer.peer_id, peer.capability.machine_name) for peer in peers)
    return [
        plain(f"  {names[peer.peer_id]}, lane {lane.id}, says: {lane.reason}").replace("\n", " ")
        for peer in sorted(peers, key=lambda peer: peer.peer_id)
        for lane in peer.capability.lanes
        if lane.reason is not None
    ]


def _ours(peer: PeerRecord, lane: Lane) -> int:
    return peer.lanes.get(lane.id, peer).in_flight


def as_data(peer: PeerRecord, now: float) -> dict[str, Any]:
    """A peer as plain data: what the table shows, in full, and what the peer claims."""
    return {
        "peer_id": peer.peer_id,
        "name": peer.capability.machine_name,
        # Of several lanes what a peer of minor 0 would say; each of them is below.
        "backend": peer.capability.backend,
        "simulated": peer.capability.simulated,
        "load": attrs.asdict(peer.capability.load),
        "lanes": [
            {**attrs.asdict(lane), "ours": _ours(peer, lane)} for lane in peer.capability.lanes
        ],
        "rtt": peer.rtt,
        "path": peer.path,
        "reachable": peer.reachable,
        "unreachable_why": peer.unreachable_why,
        "reputation": peer.reputation,
        "in_flight": peer.in_flight,
        "age": max(0.0, now - peer.seen_at),
        "models": [
            {
                "name": offer.name,
                "id": offer.id,
                "lane": offer.lane,
                "digest": offer.digest,
                "features": sorted(offer.features),
                "claimed": {"prefill": offer.prefill_rate, "decode": offer.decode_rate},
                "measured": attrs.asdict(peer.rates_of(offer.key)),
                "state": state(peer, offer, now),
            }
            for offer in peer.capability.models
        ],
    }


def away_as_data(peer_id: PeerId, why: str) -> dict[str, Any]:
    """A listener without a session as plain data: with no more than why that is so."""
    return {
        "peer_id": peer_id,
        "connected": False,
        "unreachable_why": why,
        "lanes": [],
        "models": [],
    }


def notes(router: Router) -> list[str]:
    """What there is to say of who cannot be reached, from here or from elsewhere, and who lends."""
    lines = [f"{peer_id} cannot be asked: {why}" for peer_id, why in router.unreachable.items()]
    lines += [
        f"{peer.peer_id} is reached from here, and perhaps not by others: {peer.unreachable_why}"
        for peer in router.peers
        if peer.reachable is False and peer.path != OVER_RELAY
    ]
    lines += [
        f"{peer.peer_id} is reached through a relay, which takes longer: {peer.unreachable_why}"
        for peer in router.peers
        if peer.path == OVER_RELAY
    ]
    for peer_id, addresses in router.workers.items():
        lines.append(f"{peer_id} lends memory: at {', '.join(addresses) or 'no address'}")
    return [plain(line).replace("\n", " ") for line in lines]


def worker_as_data(peer_id: PeerId, addresses: Sequence[str]) -> dict[str, Any]:
    """A worker that is no listener, as plain data: nobody has a session with it."""
    return {
        "peer_id": peer_id,
        "connected": False,
        "lends": True,
        "addresses": list(addresses),
        "lanes": [],
        "models": [],
    }


def _show(router: Router, settings: PeersSettings, *, redraw: bool) -> None:
    peers, now = router.peers, trio.current_time()
    if settings.json:
        workers = dict(router.workers)
        for peer in peers:
            lends = workers.pop(peer.peer_id, None) is not None
            data = {**as_data(peer, now), "connected": True, "lends": lends}
            print(json.dumps(data), flush=True)
        for peer_id, why in router.unreachable.items():
            lends = workers.pop(peer_id, None) is not None
            print(json.dumps({**away_as_data(peer_id, why), "lends": lends}), flush=True)
        for peer_id, addresses in workers.items():
            print(json.dumps(worker_as_data(peer_id, addresses)), flush=True)
        return
    if not redraw:
        lines = [table(peers, now), *found_by(router), *_warnings(router), *notes(router)]
        print(*lines, sep="\n", flush=True)
        return
    size = shutil.get_terminal_size()
    head = (
        f"namespace {plain(str(place_of(settings.network)))}, {len(peers)} listeners; Ctrl-C ends"
    )
    lines = [cut(head, size.columns), *table(peers, now, width=size.columns).split("\n")]
    # Whole, over as many lines as it takes: the reason is at the end.
    said = (*found_by(router), *_warnings(router), *notes(router))
    lines += [part for each in said for part in folded(each, size.columns)]
    body = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines[: size.lines - 1])
    print(f"{_HOME}{body}{_CLEAR_REST}", end="", flush=True)


def _warnings(router: Router) -> list[str]:
    return [plain(f"warning: {each}").replace("\n", " ") for each in router.warnings]


def found_by(router: Router) -> list[str]:
    """A line for each way in which listeners are found, and how well it works."""
    lines = []
    for source in router.sources:
        if source.trouble is not None:
            said = source.trouble.message
        elif source.is_working or source.listeners:
            said = "1 listener" if source.listeners == 1 else f"{source.listeners} listeners"
        else:
            said = "nobody was heard yet"
        lines.append(plain(f"found by {source.name}: {said}").replace("\n", " "))
    return lines


async def _wait_for_all(router: Router, *, on_lan: bool) -> None:
    quiet = OTHERS_ON_LAN_SECONDS if on_lan else OTHERS_SECONDS
    with trio.move_on_after(FIRST_SECONDS):
        await router.wait_until_settled(quiet=quiet)
    if router.trouble is not None and not router.peers:
        raise router.trouble


async def show_peers(settings: PeersSettings, shutdown: Shutdown) -> ExitCode:
    """Show the table once or until a signal."""
    shutdown.drains = True
    place = place_of(settings.network)
    with claim_identity("dialer", settings.identity) as identity:
        async with AsyncExitStack() as stack:
            membership = await stack.enter_async_context(
                open_membership_of(place, identity, settings.network)
            )
            lan = lan_of(settings.network, is_closed=membership is not None)
            router = await stack.enter_async_context(
                open_router(
                    bootstrap=bootstraps(settings.network),
                    namespace=place.name,
                    transport=settings.network.transport,
                    identity=identity,
                    known=known_peers(settings.network),
                    lan=lan,
                    membership=membership,
                )
            )
            if settings.once:
                await _wait_for_all(router, on_lan=lan is not None)
                _show(router, settings, redraw=False)
                if not router.peers:
                    raise NoPeerAvailable(
                        "no listener can be reached"
                        if router.unreachable
                        else "no listener is known in this namespace",
                        router.unreachable,
                    )
                return ExitCode.OK
            await _follow(router, settings, shutdown)
    return ExitCode.OK


async def _follow(router: Router, settings: PeersSettings, shutdown: Shutdown) -> None:
    redraw = sys.stdout.isatty() and not settings.json
    if redraw:
        print(_CLEAR_ALL, end="")
    while not shutdown.requested.is_set():
        _show(router, settings, redraw=redraw)
        with trio.move_on_after(INTERVAL):
            await shutdown.requested.wait()


def peers(arguments: Sequence[str]) -> int:
    """Run ``punch peers``; its exit code."""
    return run_program("punch peers", ABOUT, PeersSettings, show_peers, arguments)
