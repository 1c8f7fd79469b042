"""Programs with few descriptors and many idle connections: they serve, and say it once."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import httpx
import psutil
import pytest
from integration.programs import Program, Programs, limit

FEW = ("bash", "-c", 'ulimit -n 128; exec "$@"', "-")

WATCHED_SECONDS = 2.0
# Of one core, while nothing happens but that connections are refused.
BUSY_SHARE = 0.25


def idle(stack: ExitStack, address: tuple[str, int], count: int) -> None:
    """Open *count* connections and send nothing."""
    for _ in range(count):
        stack.enter_context(socket.create_connection(address, timeout=5))


def share(program: Program) -> float:
    """The share of a core that *program* takes for a while."""
    before = psutil.Process(program.pid).cpu_times()
    time.sleep(WATCHED_SECONDS)
    after = psutil.Process(program.pid).cpu_times()
    return float(after.user + after.system - before.user - before.system) / WATCHED_SECONDS


def assert_calm(program: Program) -> None:
    """No traceback, at most one line about descriptors, and no spinning."""
    assert "Traceback" not in program.err, program.err[-3000:]
    said = [line for line in program.log if "ulimit" in line["event"] + line.get("hint", "")]
    assert len(said) <= 1, said
    assert share(program) < BUSY_SHARE


@limit(120)
def test_a_gateway_answers_beside_three_hundred_idle_connections(programs: Programs) -> None:
    """Its health, and a chat."""
    programs.bootstrap()
    programs.prefix = FEW
    gateway = programs.gateway("--listen-too", "--backend", "mock")
    url = httpx.URL(gateway.url)
    with ExitStack() as stack:
        idle(stack, (url.host, url.port or 80), 300)
        assert httpx.get(gateway.url + "/health", timeout=10).status_code == 200
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
        said = httpx.post(gateway.url + "/v1/chat/completions", json=body, timeout=20)
        assert said.status_code == 200, said.text
        assert_calm(gateway)


@pytest.mark.parametrize("program", ["bootstrap", "listener"])
@limit(120)
def test_a_node_survives_idle_connections(programs: Programs, program: str) -> None:
    """It neither ends nor spins, and is there for others afterwards."""
    if program == "listener":
        programs.bootstrap()
    programs.prefix = FEW
    node = programs.bootstrap() if program == "bootstrap" else programs.listener()
    programs.prefix = ()
    port = next(
        one.laddr.port
        for one in psutil.Process(node.pid).net_connections(kind="tcp")
        if one.status == psutil.CONN_LISTEN
    )
    with ExitStack() as stack:
        idle(stack, ("127.0.0.1", port), 150)
        time.sleep(1)
        assert_calm(node)
    if program == "bootstrap":
        programs.listener()
    asked = programs.dial("--ask", "hi")
    assert asked.code == 0, asked
