"""``punch tunnel`` between real programs: a port of a peer that its settings name, and no other."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
from integration.programs import Programs, limit
from integration.tunnel_targets import echoed, open_echo, port_of

from punch.cli import ExitCode
from punch.libp2p import load_key


@pytest.fixture
def peer(tmp_path: Path) -> str:
    """The identity of whom the port is for; its key is in ``mine.key``."""
    return load_key(tmp_path / "mine.key").peer_id


@limit(90)
def test_a_port_that_the_settings_name_is_carried_and_no_other(
    programs: Programs, tmp_path: Path, peer: str
) -> None:
    """For the peer that they name, by the end of the listener's identity; for others it is not."""
    with open_echo() as port:
        listener = programs.listener(PUNCH_TUNNEL_PORTS=f"echo={port}@{peer}")
        mine = ("--identity", str(tmp_path / "mine.key"))
        tunnel = programs.start_punch(
            *("tunnel", "--to", listener.peer_id[-8:], "--port", "echo", *mine)
        )
        at = port_of(tunnel)
        assert echoed(at) == b"hello"
        assert "over a connection of its own" in tunnel.out
        # Beside its own ports the listener has one for this tunnel, on loopback as they are.
        own = psutil.Process(listener.pid)
        open_at = {
            each.laddr.ip
            for process in (own, *own.children(recursive=True))
            for each in process.net_connections(kind="tcp")
            if each.status == psutil.CONN_LISTEN
        }
        assert open_at == {"127.0.0.1"}

        refused = {}
        for name, whose in (("ssh", mine), ("echo", ("--identity", str(tmp_path / "other.key")))):
            ended = programs.start_punch(
                *("tunnel", "--to", listener.peer_id, "--port", name, *whose)
            ).wait()
            assert ended.code == ExitCode.NETWORK, ended
            refused[name] = ended.err
        # Whoever may not have it hears the same as of one that is not there; the log knows better.
        for name, said in refused.items():
            assert f"no port '{name}' is open to this peer" in said
        rules = [line["rule"] for line in listener.events("a tunnel was refused")]
        assert rules == ["unknown", "not_allowed"]
        assert tunnel.stop(signal.SIGINT).code == ExitCode.OK


@limit(60)
def test_an_open_namespace_opens_no_port_to_everybody(programs: Programs) -> None:
    """Whoever reaches its bootstrap is a member of it: the listener says how to put it."""
    ended = programs.run("listener", PUNCH_TUNNEL_PORTS="ssh=22")
    assert ended.code == ExitCode.USAGE
    assert "ssh=22@PEER_ID" in ended.err
