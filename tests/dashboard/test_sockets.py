"""The live feeds over WebSockets: who may watch, what is told, and what a slow reader misses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from gateway_client import open_client
from http_feeds import Peers, wall
from trio.testing import MockClock
from websocket_client import Connect, WebSocketClient, closing, handshake, open_websockets

from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dashboard import Feed, live_routes
from punch.dashboard._sockets import KEY_SECONDS, MAX_SOCKETS, MAX_WAITING_EVENTS
from punch.events import Bus, Event, LaneChanged, Lifecycle, Logged, PeerJoined
from punch.gateway import GatewaySettings, KeyStore


@attrs.frozen(kw_only=True)
class CoordinatorStarted(Lifecycle):
    """What a room that is not written yet may tell."""

    coordinator: str
    workers: tuple[str, ...] = ()
    share: float | None = None


@attrs.frozen(kw_only=True)
class Secret(Event):
    """What a room keeps to itself."""

    text: str


@attrs.define
class Live:
    """A gateway with its feeds, and its bus."""

    connect: Connect
    events: Bus
    feed: Feed

    async def at(self, path: str, **headers: str | None) -> WebSocketClient:
        """A client that has asked for a feed."""
        client = self.connect()
        await client.begin(handshake(path, **headers))
        return client


@asynccontextmanager
async def open_live(
    keys: KeyStore | None = None, settings: GatewaySettings | None = None
) -> AsyncIterator[Live]:
    """The real application with the feeds of one bus."""
    async with AsyncExitStack() as stack:
        events, feed = Bus(), Feed(Peers(), wall=wall)
        client = await stack.enter_async_context(
            open_client(
                {"a": MockBackend(MockScript())},
                settings=settings,
                keys=keys,
                routes=tuple(live_routes(feed, events, wall=wall)),
            )
        )
        connect = await stack.enter_async_context(open_websockets(client.app))
        yield Live(connect, events, feed)


@pytest.mark.parametrize("path", ["/ws/backends", "/ws/ollama_logs", "/ws/llama_cpp_logs"])
async def test_events_of_a_kind_that_nobody_knew_appear_by_themselves(
    path: str, autojump_clock: MockClock
) -> None:
    """With every key that the programs of the other system read, and all fields."""
    async with open_live() as live:
        client = await live.at(path)
        hello = await client.message()
        assert {"timestamp", "node", "component", "type", "level", "message"} <= hello.keys()
        live.events.publish(
            CoordinatorStarted(at=0.0, coordinator="c", workers=("a", "b"), share=float("inf"))
        )
        live.events.publish(Secret(at=0.0, text="not for the feeds"))
        live.events.publish(LaneChanged(at=1.0, lane="l", backend="mock", state="failed"))
        first, second = await client.message(), await client.message()
    assert first["type"] == "coordinator_started"
    assert first["event"] == {"coordinator": "c", "workers": ["a", "b"], "share": None}
    assert first["message"] == "coordinator started: coordinator c"
    assert first["timestamp"] == pytest.approx(1_700_000_000.0)
    assert second["type"] == "lane_changed"
    assert (second["component"], second["level"]) == ("l", "warning")


async def test_the_log_is_told_line_by_line(autojump_clock: MockClock) -> None:
    """And nothing else."""
    line = {"level": "warning", "logger": "punch.x", "event": "it rains", "fields": {"cm": "3"}}
    async with open_live() as live:
        client = await live.at("/ws/logs")
        await client.message()
        live.events.publish(PeerJoined(at=0.0, peer_id=PeerId("a")))
        live.events.publish(Logged(at=0.0, line=line))
        message = await client.message()
    assert message["type"] == "log"
    assert (message["level"], message["message"]) == ("warning", "it rains")
    assert message["event"] == {"logger": "punch.x", "cm": "3"}


async def test_the_dashboards_feed_is_what_the_page_gets(autojump_clock: MockClock) -> None:
    """Everything first; from an id on, what has changed since."""
    async with open_live() as live:
        live.feed.look()
        client = await live.at("/ws/dashboard")
        whole = await client.message()
        assert whole["type"] == "snapshot"
        assert whole["data"]["members"]
        again = await live.at(f"/ws/dashboard?last_event_id={whole['id']}")
        assert (await again.message())["type"] == "update"
        live.feed.close()
        assert (await client.end() or (0,))[0] == 1001


async def test_a_slow_reader_is_told_how_many_events_it_missed(autojump_clock: MockClock) -> None:
    """The oldest come; none is kept beyond the bound, and the others are held up by nothing."""
    count = 3 * MAX_WAITING_EVENTS
    async with open_live() as live:
        client = await live.at("/ws/backends")
        await client.message()
        for number in range(count):
            live.events.publish(PeerJoined(at=0.0, peer_id=PeerId(f"p{number}")))
        told = [await client.message() for _ in range(MAX_WAITING_EVENTS + 1)]
        assert [each["node"] for each in told[:2]] == ["p0", "p1"]
        assert told[-1]["type"] == "lost"
        assert told[-1]["count"] == count - MAX_WAITING_EVENTS
        live.events.publish(PeerJoined(at=0.0, peer_id=PeerId("later")))
        assert (await client.message())["node"] == "later"


async def test_there_are_so_many_places_and_a_client_that_leaves_frees_its_own(
    autojump_clock: MockClock,
) -> None:
    """503 with the time to ask again."""
    async with open_live() as live:
        clients = [await live.at("/ws/logs") for _ in range(MAX_SOCKETS)]
        assert {client.status for client in clients} == {101}
        refused = await live.at("/ws/backends")
        assert (refused.status, refused.headers["retry-after"]) == (503, "10")
        assert refused.headers["x-content-type-options"] == "nosniff"
        await clients[0].send(closing(1000))
        await clients[0].end()
        await trio.sleep(1)
        assert (await live.at("/ws/backends")).status == 101
    assert live.events.statistics().subscriptions == 0


# ---- who may watch ----


async def test_what_asks_for_no_websocket_is_told_to(autojump_clock: MockClock) -> None:
    """426, in the words and the form of every other refusal."""
    async with open_live() as live:
        client = live.connect()
        await client.begin(b"GET /ws/logs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert (client.status, client.headers["upgrade"]) == (426, "websocket")
        assert (await client.body())["error"]["code"] == "upgrade_required"
        posted = live.connect()
        await posted.begin(
            b"POST /ws/logs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
        )
        assert posted.status == 405
        assert (await live.at("/ws/nowhere")).status == 404
        # What answers plain requests answers them, whatever they wish (RFC 9110, section 7.8).
        assert (await live.at("/health")).status == 200


async def test_scripts_of_other_pages_may_not_watch(autojump_clock: MockClock) -> None:
    """No browser keeps them from a WebSocket: the server has to."""
    settings = GatewaySettings(origins=("https://friend.example",))
    async with open_live(settings=settings) as live:
        statuses = {
            origin: (await live.at("/ws/logs", origin=origin)).status
            for origin in (
                "http://localhost",
                "https://friend.example",
                "https://evil.example",
                "http://localhost.evil.example",
                "null",
                "",
            )
        }
        rebound = await live.at("/ws/logs", host="evil.example")
    assert statuses == {
        "http://localhost": 101,
        "https://friend.example": 101,
        "https://evil.example": 403,
        "http://localhost.evil.example": 403,
        "null": 403,
        "": 403,
    }
    assert rebound.status == 403


async def test_with_keys_each_way_to_say_one_is_taken_but_the_address(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A browser offers its key as a subprotocol, and is answered without it."""
    with KeyStore(tmp_path / "keys") as keys:
        _, secret = keys.create("me")
        async with open_live(keys) as live:

            async def status(path: str = "/ws/logs", **headers: str) -> Any:
                client = await live.at(path, **headers)
                return client.status, client.headers.get("sec-websocket-protocol")

            offered = f"punch, punch.key.{secret}"
            assert await status() == (401, None)
            assert await status(authorization="Bearer pk-x-y") == (401, None)
            assert await status(sec_websocket_protocol="punch, punch.key.pk-x-y") == (401, None)
            assert await status(sec_websocket_protocol="punch.key.") == (401, None)
            assert await status(authorization=f"Bearer {secret}") == (101, None)
            assert await status(x_api_key=secret) == (101, None)
            assert await status(sec_websocket_protocol=offered) == (101, "punch")
            assert await status(sec_websocket_protocol=f"punch.key.{secret}") == (101, None)
            assert (await live.at(f"/ws/logs?token={secret}")).status == 400
            refused = await live.at(f"/ws/logs?api_key={secret}")
            assert (await refused.body())["error"]["message"].startswith(
                "api_key is in the address"
            )


async def test_a_key_that_is_revoked_ends_what_it_had_opened(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The code 1008, within seconds."""
    with KeyStore(tmp_path / "keys") as keys:
        key, secret = keys.create("me")
        async with open_live(keys) as live:
            client = await live.at("/ws/logs", authorization=f"Bearer {secret}")
            await client.message()
            keys.revoke(key.key_id)
            # The look at the key is a thread's, for which this clock waits only if it is told to:
            # meanwhile it would have all the time-outs of a connection go by.
            autojump_clock.autojump_threshold = 0.05
            with trio.fail_after(50 * KEY_SECONDS):
                assert (await client.end() or (0,))[0] == 1008
