"""Which ports each program opens, and to whom: loopback, unless more was asked for."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil
import pytest
from integration.programs import Program, Programs, limit

LOOPBACK = "127.0.0.1"


def listening(program: Program) -> list[tuple[str, str]]:
    """Protocol and interface of every port that the program or a child of it has open, sorted.

    A TCP socket counts if it listens. A UDP socket counts wherever it is bound: whoever knows its
    port may send to it.
    """
    own = psutil.Process(program.pid)
    found = []
    for process in (own, *own.children(recursive=True)):
        for one in process.net_connections(kind="inet"):
            if one.type == socket.SOCK_DGRAM or one.status == psutil.CONN_LISTEN:
                kind = "udp" if one.type == socket.SOCK_DGRAM else "tcp"
                found.append((kind, one.laddr.ip))
    return sorted(found)


def settled(program: Program, count: int) -> list[tuple[str, str]]:
    """What it has open once there are so many, and still half a second later."""
    deadline = time.monotonic() + 30
    while len(listening(program)) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    return listening(program)


@pytest.mark.parametrize(
    ("transport", "kinds"), [("tcp", ["tcp"]), ("quic", ["udp"]), ("dual", ["tcp", "udp"])]
)
@limit(60)
def test_a_bootstrap_is_where_it_was_put(
    programs: Programs, transport: str, kinds: Sequence[str]
) -> None:
    """At one port of loopback by each transport, and nowhere else."""
    bootstrap = programs.bootstrap("--transport", transport)
    assert settled(bootstrap, len(kinds)) == [(kind, LOOPBACK) for kind in kinds]


@limit(60)
def test_a_listener_is_on_loopback_where_its_bootstrap_is(programs: Programs) -> None:
    """One port to be dialled at: by the way that leads to the bootstrap, and by no other."""
    programs.bootstrap()
    listener = programs.listener()
    assert settled(listener, 1) == [("tcp", LOOPBACK)]


@limit(60)
def test_a_listener_that_serves_as_bootstrap_opens_that_port_too(programs: Programs) -> None:
    """Nobody is at the bootstrap address of this machine: it is there itself."""
    listener = programs.listener()
    assert settled(listener, 2) == [("tcp", LOOPBACK)] * 2


@limit(60)
def test_a_listener_opens_what_it_is_told_to(programs: Programs) -> None:
    """A wildcard is asked for, never assumed."""
    programs.bootstrap()
    listener = programs.listener("--listen", "/ip4/0.0.0.0/tcp/0")
    assert settled(listener, 1) == [("tcp", "0.0.0.0")]


@limit(60)
def test_a_listener_that_opens_ports_by_tunnels_listens_for_none_until_one_is_there(
    programs: Programs,
) -> None:
    """The port that its settings name is its program's; punch opens nothing for it."""
    programs.bootstrap()
    listener = programs.listener(PUNCH_TUNNEL_PORTS=f"ssh=22@{'1' * 46}")
    assert settled(listener, 1) == [("tcp", LOOPBACK)]


@limit(120)
def test_an_engine_is_on_loopback(
    programs: Programs, model_path: Path, llama_cpp_folder: Path
) -> None:
    """Beside the listener's own ports, llama-server's."""
    programs.bootstrap()
    listener = programs.listener(
        PUNCH_INFERENCE_BACKEND="llama_cpp",
        LLAMA_CPP_EXE=str(llama_cpp_folder / "llama-server"),
        LLAMA_GGUF_PATH=str(model_path),
    )
    assert settled(listener, 2) == [("tcp", LOOPBACK)] * 2


@limit(120)
def test_a_worker_that_nobody_borrows_of_has_one_port(
    programs: Programs, llama_cpp_folder: Path
) -> None:
    """To be asked at, as a listener: no server runs, and no tunnel waits for anybody."""
    bootstrap = programs.bootstrap()
    worker = programs.start(
        "cluster.worker",
        *("--lend-to", bootstrap.peer_id, "--memory", "64MiB", "--no-calibrate"),
        LLAMA_CPP_EXE=str(llama_cpp_folder / "llama-server"),
    )
    worker.wait_for("lending")
    assert settled(worker, 1) == [("tcp", LOOPBACK)]


@limit(60)
def test_a_dialer_opens_nothing(programs: Programs) -> None:
    """It waits for a question, is connected to a listener, and nobody can connect to it."""
    listener = programs.listener()
    dialer = programs.start("dialer")
    dialer.write("hello\n")
    dialer.wait_out()
    assert settled(dialer, 0) == []
    assert settled(listener, 2) == [("tcp", LOOPBACK)] * 2


@limit(60)
def test_a_gateway_is_on_loopback(programs: Programs) -> None:
    """One port for HTTP; as a dialer it opens none."""
    programs.listener()
    gateway = programs.gateway()
    assert settled(gateway, 1) == [("tcp", LOOPBACK)]


@limit(60)
def test_a_gateway_that_listens_too_is_on_loopback_altogether(programs: Programs) -> None:
    """HTTP, the listener's port, and the bootstrap's where nobody else is."""
    gateway = programs.gateway("--listen-too")
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "hi"}]},
        timeout=30,
    )
    assert answer.status_code == 200
    assert settled(gateway, 3) == [("tcp", LOOPBACK)] * 3


@limit(60)
def test_a_gateway_for_all_is_asked_for_twice(programs: Programs) -> None:
    """An interface alone is refused; with the word that it is meant, it is that interface."""
    programs.listener()
    refused = programs.run("gateway", "--port", "0", "--host", "0.0.0.0")
    assert refused.code == 2
    gateway = programs.gateway("--host", "0.0.0.0", "--open-to-all")
    assert settled(gateway, 1) == [("tcp", "0.0.0.0")]


@limit(60)
def test_punch_up_is_on_loopback_where_its_namespace_is(programs: Programs) -> None:
    """HTTP, the commands', the listener's port, and the bootstrap's where nobody else is.

    In an open namespace that meets on this machine, and so before any is joined or made.
    """
    up = programs.up("--namespace", "N", PUNCH_LAN="0")
    assert settled(up, 4) == [("tcp", LOOPBACK)] * 4


@limit(60)
def test_punch_up_that_waits_for_a_code_has_nothing_open(programs: Programs) -> None:
    """It is in no namespace yet: nobody is served, and nobody is asked."""
    up = programs.start_typing("up", "--join", "-")
    up.wait_until(lambda: waits_for_input(up), "its waiting")
    assert settled(up, 0) == []
    assert up.stop(signal.SIGINT).code in (130, -signal.SIGINT)
    assert not list(programs.data.rglob("namespace.json"))


def waits_for_input(program: Program) -> bool:
    """Whether a thread of the program reads what nobody has typed yet."""
    return any(
        "pipe" in task.read_text() for task in Path(f"/proc/{program.pid}/task").glob("*/wchan")
    )
