"""Limits that change while a listener runs: from the next request on, and told at once."""

from __future__ import annotations

import pytest
import trio
from closed_home import Home
from trio.testing import MockClock

from punch.admission import Caps
from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dialer import chat_request
from punch.exceptions import ConfigurationError, NoPeerAvailable
from punch.listener import open_listener
from punch.testing import MemoryNetwork

# A vector that nothing has changed in goes out after five seconds; a changed limit is told at once.
SOON_SECONDS = 1.0


async def test_a_changed_limit_holds_at_once_and_so_does_its_end(
    autojump_clock: MockClock,
) -> None:
    """The member is told within a second, and asks no more; then it may again."""
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            home = Home(MemoryNetwork(nursery))
            async with home.listener("limits") as listener:
                async with home.router("kid", knows=("limits",)) as router:
                    await router.wait_for_peers()
                    assert router.peers[0].capability.models
                    request = chat_request("hello", max_tokens=4)
                    assert (await router.ask(request)).status == "success"

                    listener.limit(limits={"kid": Caps(models=frozenset({"other"}))})
                    await trio.sleep(SOON_SECONDS)
                    assert not router.peers[0].capability.models
                    with pytest.raises(NoPeerAvailable):
                        await router.ask(chat_request("hello", max_tokens=4))

                    listener.limit()
                    await trio.sleep(SOON_SECONDS)
                    assert router.peers[0].capability.models
                    assert (await router.ask(chat_request("again", max_tokens=4))).text
            nursery.cancel_scope.cancel()


async def test_strangers_may_be_limited_anew_and_members_of_an_open_namespace_may_not(
    autojump_clock: MockClock,
) -> None:
    """There is nobody there who could be told from the others."""
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            async with open_listener(
                MockBackend(MockScript()),
                node=network.node("open"),
                bootstrap=None,
                namespace="open",
                calibrate=False,
            ) as listener:
                listener.limit(strangers=Caps(max_output=3))
                of = listener._executor.askers.caps.of
                assert of(PeerId("somebody"), is_own=False) == Caps(max_output=3)
                with pytest.raises(ConfigurationError, match="the namespace is open"):
                    listener.limit(limits={"kid": Caps(max_output=1)})
                assert of(PeerId("somebody"), is_own=False) == Caps(max_output=3)
            nursery.cancel_scope.cancel()
