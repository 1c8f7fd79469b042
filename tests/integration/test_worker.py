"""Memory that is lent: a real worker in a process of its own, and borrowers over real sockets."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import psutil
import pytest
import trio
from integration.echo_lender import echoes, open_echo, tls_refused
from integration.nodes import TCP, until
from integration.programs import Program, Programs, alive, free_port, limit, off

from punch.bootstrap import open_bootstrap
from punch.capability import PeerId
from punch.cluster import Borrower, open_borrower
from punch.discovery import join_namespace, new_incarnation
from punch.exceptions import PeerRefused
from punch.libp2p import open_node
from punch.llama_cpp import RpcVersion, rpc_hello
from punch.network import Node, parse_address
from punch.tunnels import Place, places_at

GIB = 1 << 30


@attrs.frozen(kw_only=True)
class Home:
    """A worker in a process of its own, and a borrower that has found it."""

    worker: Program
    peer_id: PeerId
    addresses: tuple[str, ...]
    node: Node
    borrower: Borrower
    tunnel_port: int
    bootstrap: str

    def server(self) -> psutil.Process:
        """The RPC server of the lease that there is."""
        (found,) = [
            each
            for each in psutil.Process(self.worker.pid).children(recursive=True)
            if each.name().endswith("rpc-server")
        ]
        return found


@asynccontextmanager
async def found_worker(programs: Programs, folder: Path) -> AsyncIterator[Home]:
    """A worker that lends to one peer of an open namespace, as the directory has it."""
    tunnel_port = free_port()
    async with (
        open_node(listen=[TCP]) as meeting,
        open_bootstrap(meeting),
        open_node() as node,
        open_borrower(node, namespace="home") as borrower,
    ):
        worker = programs.start(
            "cluster.worker",
            *("--namespace", "home", "--bootstrap", meeting.addresses[0], "--listen", TCP),
            *("--memory", "1GiB", "--tunnel-port", str(tunnel_port), "--no-calibrate"),
            *("--lend-to", node.peer_id),
            LLAMA_CPP_EXE=str(folder / "llama-server"),
            LLAMA_THREADS="1",
        )
        async with join_namespace(
            node,
            parse_address(meeting.addresses[0]),
            namespace="home",
            roles={"dialer"},
            incarnation=new_incarnation(),
        ) as directory:
            await until(lambda: directory.workers, 60)
            (member,) = directory.workers.values()
            yield Home(
                worker=worker,
                peer_id=member.peer_id,
                addresses=member.addresses,
                node=node,
                borrower=borrower,
                tunnel_port=tunnel_port,
                bootstrap=meeting.addresses[0],
            )
        result = await off(worker.stop)
        assert result.code == 0, result.err


def listeners_of(process: psutil.Process) -> set[tuple[str, int]]:
    """Where a process and its children listen."""
    found = set()
    for each in (process, *process.children(recursive=True)):
        for connection in each.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                found.add((connection.laddr.ip, connection.laddr.port))
    return found


@limit(120)
async def test_each_borrower_has_a_server_of_its_own(
    programs: Programs, llama_cpp_folder: Path
) -> None:
    """Found by its role, surveyed, taken, spoken to through the tunnel, ended; and so again.

    A stranger is refused in words, and its bytes at the tunnel's port get no answer.
    """
    async with found_worker(programs, llama_cpp_folder) as home:
        facts = await home.borrower.survey(home.peer_id, home.addresses)
        assert (facts.memory, facts.rpc) == (GIB, RpcVersion(7, 0, 0))
        assert [device.name for device in facts.devices] == ["CPU"]
        assert facts.bound in ("limit", "cgroup")
        idle = listeners_of(psutil.Process(home.worker.pid))
        assert {host for host, _ in idle} == {"127.0.0.1"}

        servers = []
        for _ in range(2):
            async with home.borrower.take(home.peer_id, home.addresses, memory=GIB // 2) as lease:
                assert lease.carrier == "direct"
                server = home.server()
                servers.append(server.pid)
                host, _, port = lease.endpoint.rpartition(":")
                said = await rpc_hello(host, int(port))
                assert said.version == facts.rpc
                looked = await lease.look()
                assert looked.is_alive
                assert (await lease.measure()).rtt < 1
                # Two ports more: the server's, and the tunnel's.
                more = listeners_of(psutil.Process(home.worker.pid)) - idle
                assert len(more) == 2
                assert ("127.0.0.1", home.tunnel_port) in more

                async with (
                    open_node() as other,
                    open_borrower(other, namespace="home") as stranger,
                ):
                    with pytest.raises(PeerRefused) as raised:
                        await stranger.survey(home.peer_id, home.addresses)
                    assert raised.value.rule == "not_lent"
                assert await off(tls_refused, home.tunnel_port)
                assert not lease.lost.is_set()
            assert not alive(server.pid)
            assert listeners_of(psutil.Process(home.worker.pid)) == idle
        assert servers[0] != servers[1]


@limit(120)
async def test_a_server_that_is_killed_or_stopped_is_told_of(
    programs: Programs, llama_cpp_folder: Path
) -> None:
    """Of one that is stopped its worker says so when asked; the next lease is as the first."""
    async with found_worker(programs, llama_cpp_folder) as home:
        async with home.borrower.take(home.peer_id, home.addresses) as lease:
            server = home.server()
            os.kill(server.pid, signal.SIGSTOP)
            await trio.sleep(0.1)
            assert not (await lease.look()).is_alive
            os.kill(server.pid, signal.SIGKILL)
            with trio.fail_after(5):
                await lease.lost.wait()
            assert lease.why is not None
            assert "the server has ended by itself" in lease.why
        async with home.borrower.take(home.peer_id, home.addresses) as lease:
            # Killed in the middle of a lease, a worker takes its server with it.
            server = home.server()
            await off(home.worker.kill)
            with trio.fail_after(5):
                await lease.lost.wait()
            await until(lambda: not alive(server.pid), 10)
            home.worker.process.returncode = 0


@limit(60)
async def test_where_no_port_is_to_be_had_the_bytes_go_over_a_stream() -> None:
    """The worker's tunnel ports are all taken; the borrower is told how its bytes travel."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with (
            open_node(listen=[TCP]) as there,
            open_node() as here,
            open_echo(there, taken.getsockname()[1], lend_to=[here.peer_id]),
            open_borrower(here, namespace="home") as borrower,
            borrower.take(there.peer_id, there.addresses) as lease,
        ):
            assert lease.carrier == "stream"
            assert await echoes(lease.endpoint)
            assert (await lease.measure()).carrier == "stream"
            endpoint = lease.endpoint
        await closes(endpoint)


@limit(60)
async def test_bytes_of_a_lease_reach_its_server_and_end_with_it() -> None:
    """Directly, through two processes that carry them."""
    async with (
        open_node(listen=[TCP]) as there,
        open_node() as here,
        open_echo(there, lend_to=[here.peer_id]),
        open_borrower(here, namespace="home") as borrower,
    ):
        async with borrower.take(there.peer_id, there.addresses) as lease:
            assert lease.carrier == "direct"
            assert await echoes(lease.endpoint)
        await closes(lease.endpoint)


async def closes(endpoint: str) -> None:
    """Wait until nobody listens at an endpoint any more."""
    host, _, port = endpoint.rpartition(":")
    with trio.fail_after(5):
        while True:
            try:
                stream = await trio.open_tcp_stream(host, int(port))
            except OSError:
                return
            await stream.aclose()
            await trio.sleep(0.05)


def test_a_worker_has_nobody_knock_elsewhere() -> None:
    """A tunnel leads to where its worker is, whatever it says."""
    addresses = ("/ip4/10.0.0.7/tcp/21820", "/ip6/fd00::7/tcp/21820", "/dns4/home/tcp/1")
    said = (
        *("10.0.0.7:21840", "[fd00::7]:21840", "169.254.169.254:80", "127.0.0.1:22"),
        *("10.0.0.7:0", "10.0.0.7:65536", "10.0.0.7:٣", "10.0.0.7", "", "10.0.0.8:21840"),
    )
    assert places_at(said, addresses) == [Place("10.0.0.7", 21840), Place("fd00::7", 21840)]
