"""Lanes whose engine is not ours: what is advertised, and what is timed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from answers import text_of
from model_servers import ANSWER, LmStudio, ModelServer, Ollama
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript, open_openai
from punch.capability import Lane, ModelOffer
from punch.cli.commands._peers import table
from punch.dashboard._rows import peer_row
from punch.dialer import Router, chat_request, open_router
from punch.events import Bus, LaneChanged
from punch.exceptions import ConfigurationError, NoPeerAvailable
from punch.listener import Listener, open_listener
from punch.testing import MemoryNetwork, ScriptedBackend

LIMIT = 10_000


@asynccontextmanager
async def listening(
    server: ModelServer, *, options: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[tuple[Listener, Router]]:
    """A listener in front of *server*, and a router that asks it, in virtual time."""
    server.pace = 0.01
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            node = MemoryNetwork(nursery).node("self")
            opened = open_openai(
                url="http://inner.example:1234", transport=server.transport(), **(options or {})
            )
            async with (
                open_listener(opened, node=node, bootstrap=None, incarnation=1, **more) as listener,
                open_router(listener=listener) as router,
            ):
                await router.wait_for_peers()
                yield listener, router
            nursery.cancel_scope.cancel()


def told(listener: Listener) -> Lane:
    (lane,) = listener.capability().lanes
    return lane


def speeds(listener: Listener) -> dict[str, bool]:
    """Whether the speed of each model is claimed."""
    return {offer.name: offer.decode_rate is not None for offer in listener.capability().models}


@pytest.mark.parametrize("kind", [Ollama, LmStudio])
async def test_only_what_is_in_memory_is_timed(
    kind: type[Ollama] | type[LmStudio], autojump_clock: MockClock
) -> None:
    """Many models, an embedder, and one that fails: it listens at once, and loads none of them."""
    names = [f"m{number}" for number in range(6)]
    server = kind(*names, "embedder", "broken")
    server.running = {"m3": 4096, "embedder": 512, "broken": 4096}
    server.cannot_chat["broken"] = 500
    began = trio.current_time()
    async with listening(server) as (listener, _):
        assert trio.current_time() - began < 1
        await trio.sleep(2)
        assert speeds(listener) == {
            **{name: name == "m3" for name in names},
            "embedder": False,
        }
        await trio.sleep(60)
    assert server.loaded_by_asking == []
    assert server.chats()[:2] in (["m3", "broken"], ["broken", "m3"])
    # It fails again each time it has rested.
    assert server.chats().count("m3") == 1
    assert 2 <= server.chats().count("broken") <= 5


async def test_a_model_is_timed_once_it_is_in_memory(autojump_clock: MockClock) -> None:
    """Whoever has asked it did that; its speed is then known, and true."""
    server = Ollama("a", "b")
    async with listening(server) as (listener, router):
        await trio.sleep(10)
        assert speeds(listener) == {"a": False, "b": False}
        server.running["b"] = 4096
        await trio.sleep(10)
        assert speeds(listener) == {"a": False, "b": True}
        await router.ask(chat_request("?", model="a"))
        await trio.sleep(1)
        assert speeds(listener) == {"a": True, "b": True}
    assert server.chats() == ["b", "a"]


async def test_models_are_timed_one_by_one_and_not_while_somebody_asks(
    autojump_clock: MockClock,
) -> None:
    """A request of a dialer's is never slowed down by two of ours."""

    class Slow(Ollama):
        most = busy = 0

    server = Slow("a", "b", "c")
    server.running = dict.fromkeys("abc", 4096)
    inner = server.transport()

    class Gate(type(inner)):  # type: ignore[misc]  # known when it runs only
        async def handle_async_request(self, request: Any) -> Any:
            if not request.url.path.endswith("/completions"):
                return await inner.handle_async_request(request)
            server.busy += 1
            server.most = max(server.most, server.busy)
            await trio.sleep(10)
            server.busy -= 1
            return await inner.handle_async_request(request)

    server.transport = lambda: Gate(server)  # type: ignore[method-assign]  # a fake
    async with listening(server) as (listener, _):
        await trio.sleep(60)
        assert speeds(listener) == dict.fromkeys("abc", True)
    assert server.most == 1


async def test_nothing_is_timed_where_that_is_not_wanted(autojump_clock: MockClock) -> None:
    """As with every other backend."""
    server = ModelServer("a")
    async with listening(server, calibrate=False) as (listener, _):
        await trio.sleep(30)
        assert speeds(listener) == {"a": False}
    assert server.chats() == []


async def test_a_server_of_many_models_that_tells_nothing_is_not_asked_anything(
    autojump_clock: MockClock,
) -> None:
    """Each would be loaded, or cost money."""
    server = ModelServer("gpt-4o", "gpt-5", "o3")
    async with listening(server) as (listener, _):
        await trio.sleep(30)
        assert len(speeds(listener)) == 3
    assert server.chats() == []


async def test_a_lane_waits_for_its_server_and_says_why(autojump_clock: MockClock) -> None:
    """In the advert, in `punch peers` and on the dashboard; nobody is told where the server is."""
    server = ModelServer("a")
    server.is_up = False
    bus = Bus()
    with bus.subscribe(LaneChanged) as events:
        await _come_and_go(server, bus)
        changes = [e for e in events.drain().events if isinstance(e, LaneChanged)]
    assert [event.state for event in changes][:4] == ["starting", "ready", "resting", "ready"]
    assert changes[2].reason == "its server cannot be reached"


async def _come_and_go(server: ModelServer, bus: Bus) -> None:
    async with listening(server, events=bus) as (listener, router):
        assert (told(listener).state, told(listener).reason) == (
            "starting",
            "its server cannot be reached",
        )
        with pytest.raises(NoPeerAvailable):
            await router.ask(chat_request("?", model="a", timeout=5))
        (peer,) = router.peers
        now = trio.current_time()
        shown = table([peer], now)
        assert "starting" in shown
        assert "its server cannot be reached" in shown
        assert peer_row(peer, now)["lanes"][0]["reason"] == "its server cannot be reached"
        server.is_up = True
        await router.wait_for_peers(lambda peers: bool(peers[0].capability.models))
        assert text_of(await router.ask("?")) == ANSWER
        server.is_up = False
        await router.wait_for_peers(lambda peers: not peers[0].capability.models)
        assert told(listener).state == "resting"
        server.is_up = True
        await router.wait_for_peers(lambda peers: bool(peers[0].capability.models))
        assert told(listener).reason is None
        assert "inner" not in f"{router.peers} {listener.capability()}"


@pytest.mark.parametrize("status", [404, 401])
async def test_a_model_that_is_refused_is_withdrawn_and_the_caller_is_not_blamed(
    status: int, autojump_clock: MockClock
) -> None:
    """The next peer is asked; here there is none."""
    server = ModelServer("a")
    server.cannot_chat["a"] = status
    async with listening(server, calibrate=False) as (listener, router):
        with pytest.raises(Exception, match=r"."):
            await router.ask(chat_request("?", model="a", timeout=3))
        assert listener.capability().models == ()
        assert told(listener).state == "resting"
        await router.wait_for_peers(lambda peers: not peers[0].capability.models)
        server.cannot_chat.clear()
        await router.wait_for_peers(lambda peers: bool(peers[0].capability.models))
        assert text_of(await router.ask("?")) == ANSWER


async def test_slots_follow_what_the_server_says(autojump_clock: MockClock) -> None:
    """It may say so late; what was set counts more."""
    from model_servers import LlamaServer

    for slots, expected in ((None, 2), (7, 7)):
        server = LlamaServer()
        server.is_up = False
        async with listening(server, options={"slots": slots}) as (listener, router):
            server.is_up = True
            await router.wait_for_peers(lambda peers: bool(peers[0].capability.models))
            await trio.sleep(1)
            assert told(listener).load.slots == expected


async def test_a_request_that_names_no_model_gets_one_that_chats(
    autojump_clock: MockClock,
) -> None:
    """Wherever it stands in the list; the embedder is asked by its name."""
    server = Ollama("nomic-embed", "llama")
    async with listening(server) as (_, router):
        chat = await router.ask("?")
        question = chat_request("?", model="nomic-embed")
        request = attrs.evolve(question, command="embed", messages=(), inputs=("a",))
        vectors = await router.ask(request)
    assert chat.provenance is not None
    assert chat.provenance.model == "llama"
    assert vectors.result is not None
    assert len(vectors.result.embeddings) == 1


async def test_ten_thousand_models_make_an_advert_that_can_be_read(
    autojump_clock: MockClock,
) -> None:
    """Of one server, and of several together."""
    server = ModelServer(*(f"m{number}" for number in range(2000)))
    async with listening(server) as (listener, router):
        for _ in range(5):
            await listener.add(
                open_openai(url="http://other.example", transport=server.transport())
            )
        await trio.sleep(5)
        (peer,) = router.peers
        assert len(peer.capability.models) == 1024
        assert len(peer.capability.lanes) == 6


@pytest.mark.parametrize("name", ["a\nb", "x" * 300, "", "a\ud800", " \x00"])
async def test_no_listener_offers_what_no_dialer_could_read(
    name: str, autojump_clock: MockClock
) -> None:
    """Whatever the backend: it is refused at the start, or left out if there are others."""
    bad = MockBackend(MockScript(model=name))
    async with trio.open_nursery() as nursery:
        node = MemoryNetwork(nursery).node("self")
        with pytest.raises(ConfigurationError, match="no peer could"):
            async with open_listener(bad, node=node, bootstrap=None):
                pass
        nursery.cancel_scope.cancel()
    offers = (ModelOffer(name=name), ModelOffer(name="good"))
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            node = MemoryNetwork(nursery).node("self")
            async with (
                open_listener(
                    ScriptedBackend(offers=offers), node=node, bootstrap=None, incarnation=1
                ) as listener,
                open_router(listener=listener) as router,
            ):
                await router.wait_for_peers()
                assert [offer.name for offer in router.peers[0].capability.models] == ["good"]
                assert text_of(await router.ask("hello")) == "hello"
            nursery.cancel_scope.cancel()
