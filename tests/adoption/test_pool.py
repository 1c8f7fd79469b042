"""Several servers of models as lanes of one listener: which of them is asked, and when."""

from __future__ import annotations

from random import Random

import pytest
import trio
from model_servers import Ollama
from played_servers import Network
from trio.testing import MockClock

from punch.adoption import Given, open_adoption
from punch.dialer import chat_request, open_router
from punch.listener import open_listener
from punch.testing import MemoryNetwork

LIMIT = 10_000


@pytest.mark.parametrize(("wait", "seed"), [(10.0, 4), (25.0, 4), (25.0, 5), (25.0, 7)])
async def test_a_model_that_one_server_loads_is_not_loaded_by_another_where_waiting_is_faster(
    wait: float, seed: int, autojump_clock: MockClock
) -> None:
    """The second question comes while the first server is at it; what is left is less than all."""
    servers = {f"10.0.0.{n}:11434": Ollama("llama3.2:latest") for n in (1, 2)}
    for server in servers.values():
        # Forty seconds to load, as it is guessed and as it is.
        server.tags["llama3.2:latest"] = {"size": 20_000_000_000}
        server.pace = 40.0
    network = Network(dict(servers))
    given = [Given(url=f"http://{place}") for place in servers]
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            node = MemoryNetwork(nursery).node("self")
            async with (
                open_listener(node=node, bootstrap=None) as listener,
                open_adoption(
                    listener, given=given, own=tuple, resolve=network.resolve,
                    reach=network.reach, transport=network,
                ),
                open_router(listener=listener, rng=Random(seed)) as router,
            ):  # fmt: skip
                await router.wait_for_peers(
                    lambda peers: any(len(each.capability.models) == 2 for each in peers)
                )

                async def ask() -> None:
                    request = chat_request("?", model="llama3.2:latest", max_tokens=4, timeout=600)
                    await router.ask(request)

                async with trio.open_nursery() as callers:
                    callers.start_soon(ask)
                    await trio.sleep(wait)
                    callers.start_soon(ask)
            nursery.cancel_scope.cancel()
    loaded = [len(server.loaded_by_asking) for server in servers.values()]
    assert sorted(loaded) == [0, 2]
