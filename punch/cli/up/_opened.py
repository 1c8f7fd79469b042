"""Opens all that a `punch up` is made of in one namespace: the listener, the gateway, adoption."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from ..._background import open_background
from ..._subscribers import open_bus
from ...adoption import Adoption
from ...events import Bus
from ...listener import Listener
from ...membership import DiskMembership
from .._identity import claim_identity
from .._listener import open_listener_of
from .._namespace import Place, open_membership_of
from .._shared import check_lend_to
from ..adopting._wanted import open_adoption_of
from ..serving import Serving, open_books, open_serving
from ._lending import Lending
from ._namespace_choice import in_namespace
from ._own_lane import OwnLane
from ._up_settings import UpSettings


@attrs.frozen(kw_only=True)
class Target:
    """What a `punch up` is to be."""

    settings: UpSettings
    """Its settings, as they were read."""

    place: Place
    """The namespace."""

    is_new: bool = False
    """Whether the namespace was made for it."""


@attrs.frozen(kw_only=True)
class Opened:
    """What is open."""

    target: Target
    """What it is."""

    serving: Serving
    """The gateway, and the router behind it."""

    listener: Listener
    """What answers here."""

    adoption: Adoption
    """The servers that are adopted."""

    membership: DiskMembership | None
    """In a closed namespace."""

    since: float
    """When it was opened, in seconds of trio's clock."""


@asynccontextmanager
async def open_target(target: Target, own: OwnLane, lending: Lending) -> AsyncIterator[Opened]:
    """Open all that *target* is made of, for as long as the context lasts; at the end it drains.

    Args:
      target: What it is to be.
      own: Keeps the lane of this machine's own engine.
      lending: Keeps what is lent, if something is to be.

    Raises:
      ConfigurationError: if a setting makes no sense.
      NetworkError: if a port is in use, or the namespace does not let this machine in.

    """
    settings, place = _placed(target.settings, target.place), target.place
    if settings.listener.lend:
        check_lend_to(settings.listener.lending, is_open=place.home is None)
    events = open_bus()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        books = await enter(open_books(settings, events))
        identity = stack.enter_context(claim_identity("gateway", settings.identity))
        membership = await enter(open_membership_of(place, identity, settings.network))
        own.look_anew(settings.listener)
        listener = await enter(_open_listener(settings, own, identity, events, place, membership))
        adoptions: list[Adoption] = []
        serving = await enter(
            open_serving(
                settings,
                events=events,
                books=books,
                place=place,
                membership=membership,
                identity=identity,
                listener=listener,
                # It begins after the gateway, whose own address it must not adopt.
                adopted=lambda: tuple(one for each in adoptions for one in each.adopted),
            )
        )

        def ours() -> tuple[str, ...]:
            """What is never adopted: what this process serves, and the server of its own lane."""
            gateway, server = serving.gateway, settings.listener.backend.openai_url
            return (gateway.url, gateway.ollama_url, *([] if server is None else [server]))

        adoption = await enter(
            open_adoption_of(
                settings.adopting, listener, is_closed=place.home is not None, ours=ours
            )
        )
        adoptions.append(adoption)
        if settings.listener.lend:
            nursery = await enter(open_background())
            nursery.start_soon(lending.run, listener, settings.listener.lending, events)
        yield Opened(
            target=target,
            serving=serving,
            listener=listener,
            adoption=adoption,
            membership=membership,
            since=trio.current_time(),
        )


@asynccontextmanager
async def _open_listener(
    settings: UpSettings,
    own: OwnLane,
    identity: Path,
    events: Bus,
    place: Place,
    membership: DiskMembership | None,
) -> AsyncIterator[Listener]:
    """The listener, whose lanes come and go; at the end it drains."""
    async with open_listener_of(
        # What cannot be lent now is tried again, and keeps nothing from starting.
        attrs.evolve(settings.listener, lend=False),
        identity=identity,
        events=events,
        place=place,
        membership=membership,
        answers=own.run,
    ) as listener:
        yield listener
        await listener.drain()


def _placed(settings: UpSettings, place: Place) -> UpSettings:
    """*settings* with the namespace said, so that all parts of the program mean the same one."""
    if place.home is None:
        return settings
    network = in_namespace(settings.network, place.home)
    listener = attrs.evolve(settings.listener, network=network)
    return attrs.evolve(settings, network=network, listener=listener)
