"""Addresses, ports and identities."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from integration.libp2p_peer import (
    ECHO,
    environment,
    peer,
    serve_everything,
)
from integration.nodes import LISTEN, TCP, both_transports, stranger

from punch.capability import PeerId
from punch.exceptions import AddressUnavailable, ConfigurationError, PeerUnreachable
from punch.libp2p._node import open_node
from punch.membership import MEMBER_PORTS, everywhere
from punch.network import parse_address

# Addresses, ports and identities.


async def test_who_is_at_an_address_that_is_none() -> None:
    """Nobody, somebody who is no peer, and what is not an address: each has its text."""
    with trio.fail_after(30):
        async with open_node(transport="dual") as node, trio.open_nursery() as nursery:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                closed = free.getsockname()[1]
            with pytest.raises(PeerUnreachable, match="connection refused"):
                await node.identify(f"/ip4/127.0.0.1/tcp/{closed}")
            with pytest.raises(PeerUnreachable, match="connection refused"):
                await node.open_stream(stranger(), (f"/dns4/localhost/tcp/{closed}",), ECHO)

            async def http(stream: trio.SocketStream) -> None:
                await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                await stream.aclose()

            (listener,) = await nursery.start(partial(trio.serve_tcp, http, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            with pytest.raises(PeerUnreachable, match="not a libp2p peer with Noise"):
                await node.identify(f"/ip4/127.0.0.1/tcp/{port}")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
                deaf.bind(("127.0.0.1", 0))
                with pytest.raises(PeerUnreachable, match="no answer within 5 s"):
                    await node.identify(f"/ip4/127.0.0.1/udp/{deaf.getsockname()[1]}/quic-v1")
            with pytest.raises(PeerUnreachable, match="cannot dial"):
                await node.identify("localhost:4001")
            with pytest.raises(PeerUnreachable, match="no address is known"):
                await node.open_stream(stranger(), (), ECHO)
            with pytest.raises(PeerUnreachable, match="this node itself"):
                await node.open_stream(node.peer_id, (), ECHO)
            assert node.statistics().connections == 0
            nursery.cancel_scope.cancel()


async def test_the_wildcard_becomes_real_addresses() -> None:
    """Others can dial every address that is given out; loopback comes last."""
    with trio.fail_after(15):
        async with (
            open_node(listen=["/ip4/0.0.0.0/tcp/0"]) as listener,
            open_node() as node,
        ):
            serve_everything(listener)
            assert all(each.endswith(f"/p2p/{listener.peer_id}") for each in listener.addresses)
            assert "0.0.0.0" not in "".join(listener.addresses)
            assert listener.addresses[-1].startswith("/ip4/127.0.0.1/tcp/")
            for address in listener.addresses:
                assert await node.identify(address) == listener.peer_id
        async with open_node() as node:
            assert node.addresses == ()


async def test_who_joins_can_be_dialled_back_over_ip6_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """At one port of both families; on a machine without IPv6 it is not tried."""
    with trio.fail_after(30):
        async with (
            open_node(transport="tcp") as member,
            open_node(transport="tcp", wanted=everywhere, ports=MEMBER_PORTS) as newcomer,
        ):
            (port,) = {parse_address(text).port for text in newcomer.addresses}
            for host in ("/ip4/127.0.0.1", "/ip6/::1"):
                assert await member.identify(f"{host}/tcp/{port}") == newcomer.peer_id
    monkeypatch.setattr("punch.membership._joining.own_hosts", lambda: ("127.0.0.1", "10.0.0.7"))
    assert await everywhere() == ("/ip4/0.0.0.0/tcp/0",)


@both_transports
async def test_a_taken_port_names_who_holds_it(transport: Any) -> None:
    """The text has the address, the process and what to do."""
    with trio.fail_after(15):
        async with peer(LISTEN[transport], transport=transport) as other:
            address = other.addresses[0].partition("/p2p/")[0]
            name = psutil.Process(other.pid).name()
            with pytest.raises(AddressUnavailable) as caught:
                async with open_node(listen=[address], transport=transport):
                    pass
            text = str(caught.value)
            assert f"cannot listen on {address}" in text
            assert f"process {other.pid} ({name})" in text
            assert "another port" in text


@pytest.mark.parametrize(
    ("listen", "error", "text"),
    [
        ("127.0.0.1:80", ConfigurationError, "/ip4/"),
        ("/ip4/300.1.1.1/tcp/1", ConfigurationError, "300.1.1.1"),
        ("/ip4/127.0.0.1/tcp/70000", ConfigurationError, "70000"),
        ("/dns4/localhost/tcp/0", ConfigurationError, "instead of a name"),
        ("/ip4/192.0.2.1/tcp/0", AddressUnavailable, "no address 192.0.2.1"),
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_refused(
    listen: str, error: type[Exception], text: str
) -> None:
    """The text names the value and the rule."""
    with trio.fail_after(10), pytest.raises(error, match=text):
        async with open_node(listen=[listen]):
            pass


async def test_an_identity_outlives_its_process(tmp_path: Path) -> None:
    """The file is private, stays as it is, and gives the same peer id again."""
    path = tmp_path / "new" / "folder" / "identity"
    with trio.fail_after(10):
        async with open_node(identity=path) as node:
            first, signature = node.peer_id, node.sign(b"data")
        content = path.read_bytes()
        async with open_node(identity=path) as node:
            assert node.peer_id == first
            assert node.verify(first, b"data", signature)
            assert not node.verify(first, b"other data", signature)
            assert not node.verify(stranger(), b"data", signature)
            for peer_id in ("", "x", "12D3KooW", first[:-1], f"{first}1", "é", "Qm" + "a" * 44):
                assert not node.verify(PeerId(peer_id), b"data", signature)
            for wrong in (b"", signature[:-1], bytes(64), bytes(65)):
                assert not node.verify(first, b"data", wrong)
        async with open_node() as node:
            assert node.peer_id != first
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


async def test_a_damaged_identity_file_is_refused_and_kept(tmp_path: Path) -> None:
    """Truncated, flipped, foreign, empty: the text names the file, and it stays as it is."""
    path = tmp_path / "identity"
    async with open_node(identity=path):
        pass
    good = path.read_bytes()
    flipped = good[:-10] + bytes([good[-10] ^ 1]) + good[-9:]
    for content in (good[:-8], flipped, b"", b"\x00\xff" * 30, b"ssh-ed25519 AAAA b\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"identity file .* is damaged.*backup"):
            async with open_node(identity=path):
                pass
        assert path.read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
async def test_an_identity_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """It is not repaired in silence: somebody may have read it."""
    path = tmp_path / "identity"
    async with open_node(identity=path):
        pass
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match=f"mode 0640.*chmod 600 {path}"):
        async with open_node(identity=path):
            pass
    with pytest.raises(ConfigurationError, match="cannot read the identity file"):
        async with open_node(identity=tmp_path):
            pass


# The life of a node.


async def test_an_exception_of_the_block_leaves_as_itself() -> None:
    """Not in a group, and with the node closed."""
    with trio.fail_after(10):
        with pytest.raises(KeyError, match="mine"):
            async with open_node(listen=[TCP]) as node:
                raise KeyError("mine")
        address = node.addresses[0].partition("/p2p/")[0] if node.addresses else TCP
        async with open_node(listen=[address]):
            pass


@both_transports
async def test_closing_a_node_leaves_no_task_and_no_file(transport: Any) -> None:
    """Within 3 s, also with streams open to a peer that is stopped."""
    with trio.fail_after(20):
        async with peer(LISTEN[transport], transport=transport) as other:
            before = (
                psutil.Process().num_fds(),
                trio.lowlevel.current_statistics().tasks_living,
            )
            async with open_node(listen=[LISTEN[transport]], transport=transport) as node:
                for _ in range(5):
                    await node.open_stream(other.peer_id, other.addresses, ECHO)
                os.kill(other.pid, signal.SIGSTOP)
                started = trio.current_time()
            assert trio.current_time() - started < 3.5
            await trio.testing.wait_all_tasks_blocked(0.01)
            after = (
                psutil.Process().num_fds(),
                trio.lowlevel.current_statistics().tasks_living,
            )
            assert after == before


def test_importing_punch_does_not_import_libp2p() -> None:
    """It takes a second and 84 MB, and most commands do not need it."""
    code = "import sys, punch, punch.libp2p; sys.exit('libp2p' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=20)
