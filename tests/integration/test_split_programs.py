"""`punch coordinator` and two workers as programs of their own, over real tunnels."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest
from integration.programs import Program, Programs, limit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def worker(programs: Programs, folder: Path, borrower: str, number: int) -> Program:
    """A worker that lends half a gigabyte to *borrower* alone."""
    return programs.start(
        "cluster.worker",
        "--lend-to", borrower, "--memory", "512MiB", "--device", "CPU",
        "--identity", str(programs.folder / f"worker{number}.key"),
        LLAMA_CPP_EXE=str(folder / "llama-server"), LLAMA_THREADS="1",
    )  # fmt: skip


def rpc_server(program: Program) -> psutil.Process:
    """The RPC server that a worker has started last."""
    children = psutil.Process(program.pid).children(recursive=True)
    return next(child for child in children if "rpc-server" in child.name())


@pytest.mark.long
@limit(240)
def test_an_answer_outlives_a_worker_of_a_split(
    programs: Programs, llama_cpp_folder: Path, model_path: Path
) -> None:
    """The plan is printed, both workers have a part, and one is killed in the middle."""
    coordinator = programs.start_punch(
        "coordinator",
        "--model", str(model_path), "--min-workers", "2", "--force", "--context", "1024",
        "--slots", "1", "--identity", str(programs.folder / "coordinator.key"),
        LLAMA_CPP_EXE=str(llama_cpp_folder / "llama-server"), LLAMA_THREADS="1",
    )  # fmt: skip
    borrower = coordinator.wait_for("waiting for workers")["peer"]
    workers = [worker(programs, llama_cpp_folder, borrower, number) for number in (1, 2)]
    for each in workers:
        each.wait_for("lending")
    coordinator.wait_for("listening")
    assert "of 12D3Koo" in coordinator.out
    ask = ["--ask", "Write a story about a dog.", "--temperature", "0", "--max-tokens", "60"]
    dialer = programs.start("dialer", *ask)
    dialer.wait_until(lambda: len(dialer.out) > 40, "a beginning")
    rpc_server(workers[0]).send_signal(signal.SIGKILL)
    begun = dialer.out
    answer = dialer.wait(120)
    assert answer.code == 0, answer
    assert answer.out.startswith(begun)
    lost = coordinator.wait_for("a worker is lost")
    assert lost["worker"] in {each.wait_for("lending")["peer"] for each in workers}
    assert len(coordinator.events("a split is planned")[0]["layers"]) == 2
    assert programs.dial("--ask", "Hello", "--max-tokens", "4").code == 0
    assert coordinator.stop(signal.SIGTERM).code == 0
    # What was borrowed was given back.
    for each in workers:
        assert each.process.poll() is None


@pytest.mark.long
@limit(120)
def test_a_gateway_says_why_it_would_split_nothing(
    programs: Programs, llama_cpp_folder: Path, model_path: Path
) -> None:
    """A model that this machine has room for is quickest there; and a split needs a listener."""
    programs.bootstrap()
    environment = {
        "LLAMA_CPP_EXE": str(llama_cpp_folder / "llama-server"),
        "PUNCH_INFERENCE_BACKEND": "mock",
    }
    split = ["--port", "0", "--split", str(model_path)]
    refused = programs.start("gateway", *split, variables=environment).wait(30)
    assert refused.code != 0
    assert "--split needs --listen-too" in refused.err + refused.out
    gateway = programs.start("gateway", *split, "--listen-too", variables=environment)
    told = gateway.wait_for("a model is not to be split", seconds=60)
    assert "alone" in told["why"]
    assert gateway.stop(signal.SIGTERM).code == 0
