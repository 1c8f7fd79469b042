"""A program of a closed namespace writes down where it is, as often as that changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from punch.exceptions import ConfigurationError
from punch.membership import _serving
from punch.membership._serving import LOOK_SECONDS, _say_where


async def test_a_change_of_addresses_is_written_down_and_ends_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that comes later, or another one: the program goes on."""
    said: list[tuple[str, ...]] = []

    @contextmanager
    def running(*_: object) -> Iterator[Any]:
        yield SimpleNamespace(say=said.append)

    monkeypatch.setattr(_serving, "running", running)
    node: Any = SimpleNamespace(peer_id="a", addresses=())
    home: Any = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_say_where, home, node)
        for addresses in (("/ip4/10.0.0.1",), ("/ip4/10.0.0.2",)):
            node.addresses = addresses
            await trio.sleep(2 * LOOK_SECONDS)
        nursery.cancel_scope.cancel()
    assert said == [(), ("/ip4/10.0.0.1",), ("/ip4/10.0.0.2",)]


async def test_a_file_that_cannot_be_written_keeps_no_program_from_starting(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only invites do not know where it is then."""

    def running(*_: object) -> Any:
        raise ConfigurationError("the disk is full")

    monkeypatch.setattr(_serving, "running", running)
    node: Any = SimpleNamespace(peer_id="a", addresses=())
    home: Any = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_say_where, home, node)
    assert "the disk is full" in caplog.text
