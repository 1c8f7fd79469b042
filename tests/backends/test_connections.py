"""Which connection to a server of models a request gets, and when one is closed."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from punch.backends.openai._client import _Connections

ASKED: dict[str, dict[str, object]] = {"extensions": {}}


class Opened:
    """Connections that answer after a second, and are remembered."""

    def __init__(self) -> None:
        self.asked: list[httpx.AsyncBaseTransport] = []
        self.closed: list[httpx.AsyncBaseTransport] = []

    def one(self) -> httpx.AsyncBaseTransport:
        """Another connection."""
        opened = self

        class Transport(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                opened.asked.append(self)
                await trio.sleep(1)
                return httpx.Response(200)

            async def aclose(self) -> None:
                opened.closed.append(self)

        return Transport()


async def ask(connections: _Connections, times: int = 1) -> None:
    """Ask some times, side by side."""

    async def once() -> None:
        async with connections.sent("GET", "http://test/", **ASKED):
            pass

    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(once)


async def test_the_connection_that_was_used_last_is_used_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A burst opens many; those that nobody needs any more are closed one by one."""
    opened = Opened()
    connections = _Connections(opened.one, most=8, silence=60.0)
    await ask(connections, 3)
    assert len(set(opened.asked)) == 3
    opened.asked.clear()
    for _ in range(5):
        await ask(connections)
    assert len(set(opened.asked)) == 1
    assert opened.asked[0] not in opened.closed
    assert len(opened.closed) >= 1
    await connections.close()
    assert len(set(opened.closed)) == 3


async def test_a_request_waits_for_a_connection_and_not_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As many as there may be at a time; the next takes its turn, or is told that all are busy."""
    opened = Opened()
    connections = _Connections(opened.one, most=2, silence=60.0)
    await ask(connections, 6)
    assert trio.current_time() == pytest.approx(3.0, abs=0.1)
    assert len(set(opened.asked)) == 2
    async with (
        connections.sent("GET", "http://test/", **ASKED),
        connections.sent("GET", "http://test/", **ASKED),
    ):
        with pytest.raises(httpx.PoolTimeout):
            async with connections.sent("GET", "http://test/", **ASKED):
                raise AssertionError("there is no third connection")
