"""Opens the listener that a program's settings describe, and the bootstrap that it may have to be.

The first listener of a namespace on a machine whose bootstrap address is free serves that address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import trio

from .._background import open_background
from .._logs import get_logger
from ..admission import Caps
from ..backends import Backend
from ..bootstrap import open_bootstrap
from ..events import Bus
from ..exceptions import AddressUnavailable, ConfigurationError, NetworkError
from ..listener import Listener, open_listener
from ..machine import Machine
from ..membership import DiskMembership
from ..network import Address, parse_address, places_here
from ..settings import ListenerSettings, NetworkSettings, data_folder
from ._backends import open_backend
from ._identity import claim_identity
from ._limits import caps_of_members, caps_of_strangers, warn_of_models, warn_of_names
from ._namespace import Place, open_membership_of, place_of
from ._shared import bootstraps, check_lend_to, known_peers, lan_of

log = get_logger("punch.listener")


@asynccontextmanager
async def open_own_bootstrap(settings: NetworkSettings, address: Address) -> AsyncIterator[bool]:
    """Serve as the bootstrap if *address* is this machine's and free; gives True if we do."""
    here = () if address.peer_id is not None else await places_here(address)
    async with AsyncExitStack() as stack:
        if not here:
            yield False
            return
        identity = stack.enter_context(claim_identity("bootstrap"))
        try:
            server = await stack.enter_async_context(
                open_bootstrap(
                    listen=[str(place) for place in here],
                    identity=identity,
                    transport=settings.transport,
                )
            )
        except AddressUnavailable:
            # Another process is there already. Whether it is a bootstrap, joining will tell.
            yield False
            return
        log.info("nobody was at the bootstrap address: serving it", addresses=server.addresses)
        # We have the port: whatever another user's program was there before, we are there now.
        # Without this it would be told that somebody is in between, for ever.
        with suppress(NetworkError):
            known_peers(settings).remember(address.place, server.peer_id)
        yield True


@asynccontextmanager
async def open_listener_of(
    settings: ListenerSettings,
    *,
    identity: Path | None = None,
    events: Bus | None = None,
    waits: bool = True,
    place: Place | None = None,
    membership: DiskMembership | None = None,
    answers: Callable[[Listener], Awaitable[None]] | None = None,
) -> AsyncIterator[Listener]:
    """Open the listener that *settings* describe.

    Args:
      settings: What it runs, as its first lane, where it is met and where it listens.
      identity: File with the key of this process; by default one that no other listener has.
      events: Where it publishes what it serves.
      waits: Enter once it can answer and has joined its namespace. Otherwise at once, and both
        come to pass meanwhile: a model may take minutes to load.
      place: The namespace; by default what *settings* mean, and its membership is opened.
      membership: Of this process in a closed *place*.
      answers: Gives the listener its lanes, in place of the backend of *settings*; it runs for as
        long as the context lasts. The context is then entered at once.

    Raises:
      ConfigurationError: if a setting makes no sense, or it is to be strict and would simulate.
      BackendError: if the backend cannot be started, or cannot answer.
      NetworkError: if the namespace does not let it in.

    """
    network = settings.network
    places = bootstraps(network)
    # Read here, where it is known which flag, variable or file said them.
    said = settings.said("listen")
    listen = [str(parse_address(text, setting=said)) for text in settings.listen]
    said = settings.said("announce")
    announce = [str(parse_address(text, setting=said)) for text in settings.announce]
    is_given = place is not None
    place = place or place_of(network)
    limits = caps_of_members(settings, place)
    if settings.lend:
        # Said before a model is loaded.
        check_lend_to(settings.lending, is_open=place.home is None)
    if settings.tunnel_ports:
        from .splits._tunnel_ports import named_ports

        named_ports(settings, place)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        waits = waits and answers is None
        backends = [await enter(open_own_backend(settings))] if waits else []
        if identity is None:
            identity = stack.enter_context(claim_identity("listener", settings.identity))
        if not is_given:
            membership = await enter(open_membership_of(place, identity, network))
        if membership is not None:
            warn_of_names(limits, membership)
        for address in places:
            await enter(open_own_bootstrap(network, address))
        listener = await enter(
            open_listener(
                backends,
                bootstrap=places,
                namespace=place.name,
                listen=listen,
                announce=announce,
                strict=settings.strict.is_on,
                queue_limit=settings.queue,
                calibrate=settings.calibrate,
                transport=network.transport,
                identity=identity,
                known=known_peers(network),
                lan=lan_of(network, is_closed=membership is not None),
                # In a closed namespace a member is called as it was let in, unless said.
                name=settings.name or (membership.name or None if membership else None),
                membership=membership,
                machine=Machine(models_folder=data_folder()),
                events=events,
                strangers=caps_of_strangers(settings),
                limits=limits,
            )
        )
        if settings.lend:
            # Here: it brings certificates with it, which few listeners need.
            from .splits._worker import open_worker_beside

            await enter(open_worker_beside(listener, settings.lending, events))
        if settings.tunnel_ports:
            from .splits._tunnel_ports import open_tunnel_ports

            await enter(open_tunnel_ports(settings, place, listener))
        if waits:
            await _join(listener, limits)
        else:
            nursery = await enter(open_background())
            if answers is None:
                nursery.start_soon(_answer_later, listener, settings, limits)
            else:
                nursery.start_soon(answers, listener)
                nursery.start_soon(_join, listener, limits)
        yield listener


@asynccontextmanager
async def open_own_backend(settings: ListenerSettings) -> AsyncIterator[Backend]:
    """The backend that *settings* name; one that simulates is told, and none of a strict listener.

    Raises:
      ConfigurationError: as `open_backend`, or if it simulates and must not.
      BackendError: if it cannot be started.

    """
    async with open_backend(settings.backend) as backend:
        if settings.strict.is_on and backend.simulated:
            raise ConfigurationError(
                f"strict mode, and backend {backend.name} simulates: choose a real backend with "
                "PUNCH_INFERENCE_BACKEND (see INFERENCE.md), or leave --strict out"
            )
        if backend.simulated:
            log.warning(
                "THIS LISTENER SIMULATES: its answers are random words, and no model makes them; "
                "choose a real backend with PUNCH_INFERENCE_BACKEND, see INFERENCE.md",
                backend=backend.name,
            )
        yield backend


async def _answer_later(
    listener: Listener, settings: ListenerSettings, limits: Mapping[str, Caps]
) -> None:
    """Give *listener* its lane once the backend can answer, for as long as the task lives."""
    async with open_own_backend(settings) as backend:
        await listener.add(backend)
        await _join(listener, limits)
        await trio.sleep_forever()


async def _join(listener: Listener, limits: Mapping[str, Caps]) -> None:
    warn_of_models(limits, listener.capability())
    # Without a limit: the bootstrap may come up later than its listeners.
    await listener.wait_until_joined()
    _announce(listener)


def _announce(listener: Listener) -> None:
    capability = listener.capability()
    waiting = [lane.reason for lane in capability.lanes if lane.reason]
    log.info(
        "listening",
        namespace=listener.namespace,
        peer=listener.peer_id,
        addresses=listener.addresses,
        backend=capability.backend,
        simulated=capability.simulated,
        models=[offer.name for offer in capability.models],
        slots=capability.load.slots,
        **({"waiting": waiting} if waiting else {}),
    )
