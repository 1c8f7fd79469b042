"""Each work-around for libp2p is needed: without it, its scenario fails."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from integration.libp2p_peer import environment

from punch.exceptions import ConfigurationError
from punch.libp2p.defects import _quic as _quic_defects
from punch.libp2p.defects import _swarm as _libp2p_defects
from punch.libp2p.defects import _tcp as _tcp_defects
from punch.libp2p.defects import _yamux as _yamux_defects

SCENARIOS = Path(__file__).with_name("libp2p_scenarios.py")

CASES = [
    # Work-around, scenario, and other work-arounds that would hide the defect.
    ("noise_only", "noise_only"),
    ("passive", "passive"),
    ("quiet_logging", "quiet_logging"),
    ("connection_tasks", "connection_tasks"),
    ("inbound_limiter", "inbound_limiter"),
    ("read_exactly", "read_exactly"),
    ("negotiation", "negotiation"),
    ("tcp_ports", "tcp_ports"),
    ("tcp_keepalive", "tcp_keepalive"),
    ("tcp_reads", "tcp_reads"),
    ("tcp_ipv6", "tcp_ipv6"),
    ("tcp_zones", "tcp_zones"),
    ("yamux_write", "yamux_write"),
    ("yamux_send_window", "yamux_send_window"),
    ("yamux_read", "yamux_read"),
    ("yamux_read", "yamux_last_words"),
    ("yamux_frames", "yamux_receive_window"),
    ("yamux_open", "yamux_open"),
    ("yamux_close", "yamux_stopped"),
    ("quic_read", "quic_read"),
    ("quic_read", "quic_slow_reader", "quic_windows"),
    ("quic_windows", "quic_slow_reader"),
    ("quic_end", "quic_end"),
    ("quic_late_data", "quic_late_data"),
    ("quic_handshakes", "quic_handshakes"),
    ("quic_ipv6", "quic_ipv6"),
    ("quic_ports", "quic_ports"),
    ("quic_listening", "quic_listening"),
]


async def play(scenario: str, *without: str) -> bool:
    """Run a scenario in a process of its own; True if everything went as it should."""
    run = partial(
        trio.run_process,
        [sys.executable, str(SCENARIOS), scenario, *without],
        capture_stdout=True,
        stderr=subprocess.DEVNULL,
        env=environment(),
        check=False,
    )
    with trio.fail_after(45):
        finished = await run()
    # A scenario whose process died did not go as it should.
    return bool(json.loads(finished.stdout or "false"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
async def test_a_work_around_turns_failure_into_success(case: tuple[str, ...]) -> None:
    """The scenario goes well with all work-arounds, and not without the one in question."""
    defect, scenario, *hiding = case
    results = {}

    async def note(which: str, *without: str) -> None:
        results[which] = await play(scenario, *without)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "with")
        nursery.start_soon(partial(note, "without", defect, *hiding))
    assert results == {"with": True, "without": False}


def test_every_installed_work_around_has_a_case() -> None:
    """A work-around without a test may rot unseen."""
    installed = (
        *_libp2p_defects.PATCHES,
        *_tcp_defects.PATCHES,
        *_yamux_defects.PATCHES,
        *_quic_defects.PATCHES,
    )
    assert {patch.__name__ for patch in installed} <= {case[0] for case in CASES}


def test_another_version_of_libp2p_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private methods of another version may be different ones."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.9.0")
    with pytest.raises(ConfigurationError, match=r"libp2p 0\.9\.0 is installed.*'libp2p==0\.8\.1'"):
        _libp2p_defects.check_version()


def test_an_unknown_work_around_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt name must not make a test pass."""
    monkeypatch.setattr(_libp2p_defects, "_applied", None)
    with pytest.raises(ConfigurationError, match="no work-around is called"):
        _libp2p_defects.apply(without=["yamux_raed"])
