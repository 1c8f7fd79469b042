"""RPC servers that run already: found, kept, asked without harm, and split over; real programs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from integration.programs import Programs, free_port, limit
from integration.test_rpc_server import borrower

from punch.llama_cpp import find_rpc_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGPIPE")


@pytest.fixture
def place(llama_cpp_folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server as people start one, which SIGPIPE ends; where it is, and its process."""
    program = find_rpc_server(llama_cpp_folder)
    assert program is not None
    port = free_port()
    server = subprocess.Popen(
        [program, "--host", "127.0.0.1", "--port", str(port), "--threads", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not any(
            one.status == "LISTEN" for one in psutil.Process(server.pid).net_connections()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"127.0.0.1:{port}", server
    finally:
        server.kill()
        server.wait()


def waiting(programs: Programs) -> list[psutil.Process]:
    """The processes that wait for a server's answer after the command that asked has ended."""
    return [each for each in programs.descendants() if "waiting.recv(" in " ".join(each.cmdline())]


@limit(90)
def test_a_server_is_found_and_kept_and_asking_a_busy_one_does_it_no_harm(
    programs: Programs, place: tuple[str, subprocess.Popen[bytes]]
) -> None:
    """A busy server that answers a client which has left dies of it, with its borrower's work."""
    where, server = place
    port = where.rpartition(":")[2]
    file = {"PUNCH_SETTINGS": str(programs.folder / "settings.toml")}
    said = programs.start_punch(
        "rpc", "discover", "127.0.0.1/32", "--port", port, "--add", "--json", **file
    ).wait()
    found = said.json()
    assert (found["place"], found["answers"], found["authenticated"]) == (where, True, False)
    assert len(found["devices"]) == 1

    with borrower(int(port)) as one:
        said = programs.start_punch("rpc", "list", **file).wait()
        assert said.code == 0, said
        assert f"{where}  does not count:  the RPC server at {where} takes the conn" in said.out
        # The command has ended, and its question has not.
        assert len(waiting(programs)) == 1
        assert one.allocate(1 << 20)

    for _ in range(100):
        if not waiting(programs):
            break
        time.sleep(0.05)
    assert waiting(programs) == []
    assert server.poll() is None
    said = programs.start_punch("rpc", "list", **file).wait()
    assert f"{where}  RPC " in said.out
    assert "unauthenticated" in said.out


@limit(180)
def test_a_model_is_split_over_a_server_that_runs_already_and_says_so(
    programs: Programs,
    place: tuple[str, subprocess.Popen[bytes]],
    llama_cpp_folder: Path,
    model_path: Path,
) -> None:
    """Its name says that it is not authenticated; who wants no split, or the own, gets none."""
    where, _ = place
    engine = {
        "LLAMA_CPP_EXE": str(llama_cpp_folder / "llama-server"),
        "LLAMA_THREADS": "1",
        "LLAMA_RPC_BACKENDS": where,
    }
    common = ("--model", str(model_path), "--workers", ",", "--force", "--context", "512")
    coordinator = programs.start_punch(
        "coordinator", *common, "--allow-plain-rpc", "--min-workers", "1", "--no-calibrate",
        **engine,
    )  # fmt: skip
    coordinator.wait_for("listening", 90)
    assert f"unauthenticated@{where}" in coordinator.out
    ask = ("--ask", "Say one word.", "--max-tokens", "4", "--json")
    answer = programs.dial(*ask).json()
    assert answer["provenance"]["kind"] == "real"
    for privacy in ("whole", "own"):
        assert programs.dial(*ask, "--privacy", privacy).code == 3
    assert coordinator.stop(signal.SIGTERM).code == 0
