"""The bootstrap that a listener is by itself, where its address is free."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from integration.programs import free_port

from punch import PeerId
from punch.cli._listener import open_own_bootstrap
from punch.discovery import KnownPeers
from punch.network import parse_address
from punch.settings import NetworkSettings


async def test_what_another_user_served_there_before_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the port is the bootstrap: it does not take itself for somebody in between."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    address = parse_address(f"/ip4/127.0.0.1/tcp/{free_port()}")
    known = KnownPeers(tmp_path / "known")
    before = PeerId("12D3KooWPnzyP1m2hUFpy1DAJwCrU5d1VFobf1Mp6KdeJ97uimh3")
    known.remember(address.place, before)
    settings = attrs.evolve(NetworkSettings(), known_peers=known.path)
    async with open_own_bootstrap(settings, address) as is_ours:
        assert is_ours
        now = known.get(address.place)
    assert now not in (None, before)
