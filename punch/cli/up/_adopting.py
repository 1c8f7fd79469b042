"""Adopts the servers of models that run on this machine, for `punch up`.

In an open namespace nothing is looked for: whoever reaches it would be answered by what somebody
runs for this machine alone.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...adoption import Adoption, open_adoption, places_of
from ...gateway import Gateway
from ...listener import Listener
from ...network import own_hosts
from .._namespace import Place
from ._up_settings import UpSettings


@asynccontextmanager
async def open_adoption_here(
    listener: Listener, settings: UpSettings, place: Place, gateway: Gateway
) -> AsyncIterator[Adoption]:
    """Adopt what is here, for as long as the context lasts.

    Args:
      listener: Gets the lanes.
      settings: What is said of it.
      place: The namespace.
      gateway: The one of this process, which is never adopted.

    """

    def ours() -> tuple[str, ...]:
        backend = settings.listener.backend
        own = () if backend.openai_url is None else (backend.openai_url,)
        return (gateway.url, gateway.ollama_url, *own)

    places = [] if place.home is None else places_of(os.environ, frozenset(own_hosts()))
    async with open_adoption(listener, places=places, ours=ours) as adoption:
        yield adoption
