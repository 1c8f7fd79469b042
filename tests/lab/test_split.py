"""A model over two machines that have two ports open each: the session's and the tunnel's."""

from __future__ import annotations

import json
from pathlib import Path

from integration.programs import Program, limit
from lab.machines import Lab, Machine
from lab.members import closed_namespace, done, let_in

SESSION_PORT = 21820
TUNNEL_PORT = 21840
QUESTION = "What is the capital of France? Answer in one sentence."

# What a machine can be reached at from another one: a connection to each of its ports in turn.
KNOCKS = """
import json, socket, sys
found = []
for port in map(int, sys.argv[2:]):
    with socket.socket() as knock:
        knock.settimeout(1.0)
        if knock.connect_ex((sys.argv[1], port)) == 0:
            found.append(port)
print(json.dumps(found))
"""


def lends(machine: Machine, *options: str, **environment: str) -> Program:
    """A worker on *machine* that has joined."""
    program = machine.start_punch("worker", *options, **environment)
    program.wait_for("lending")
    return program


def reached(by: Machine, target: Machine, *ports: int) -> list[int]:
    """Those of *ports* of *target* where another machine gets a connection."""
    program = by.start_script(KNOCKS, target.ip4, *map(str, ports))
    return list(json.loads(program.wait(30).out))


@limit(240)
def test_a_split_needs_two_ports_of_each_worker_and_no_other_is_open(
    lab: Lab,
    model_path: Path,
    llama_cpp_folder: Path,
) -> None:
    """The workers have no copy of the model, and no machine but the head may use what they lend."""
    programs = {"LLAMA_CPP_EXE": str(llama_cpp_folder / "llama-server")}
    first, a, b = lab.machine("first"), lab.machine("a"), lab.machine("b")
    closed_namespace(lab, first)
    host = first.listener()
    let_in(first, [a, b], "--mine")
    host.stop()
    for machine in (a, b):
        machine.firewall(allow=[SESSION_PORT, TUNNEL_PORT])
        lends(machine, "--memory", "300MB", "--no-calibrate", **programs)

    coordinator = first.start_punch(
        "coordinator", "--model", str(model_path), "--min-workers", "2", "--force",
        "--context", "512", "--slots", "1", **programs,
    )  # fmt: skip
    whole = first.start(
        "listener",
        variables=programs,
        PUNCH_INFERENCE_BACKEND="llama_cpp",
        LLAMA_GGUF_PATH=str(model_path),
    )
    split = coordinator.wait_for("listening", 120)["peer"]
    (ready,) = coordinator.events("a split is ready")
    assert len(ready["workers"]) == 2

    places = [line.split()[3].rpartition(":") for line in a.shell("ss", "-Hltn").splitlines()]
    loopback = {int(port) for host, _, port in places if host in ("127.0.0.1", "[::1]")}
    seen = {int(port) for host, _, port in places if host not in ("127.0.0.1", "[::1]")}
    assert seen == {SESSION_PORT, TUNNEL_PORT}
    others = loopback - seen
    assert others, "no RPC server was found to knock at"
    asked = (SESSION_PORT, TUNNEL_PORT, *sorted(others))
    assert reached(first, a, *asked) == [SESSION_PORT, TUNNEL_PORT]

    greedy = ("--strict", "--temperature", "0", "--max-tokens", "24", "--ask", QUESTION)
    answer = first.dial("--only", split, *greedy)
    assert answer.code == 0, answer.err
    assert "Paris" in answer.out
    alone = first.dial("--only", whole.wait_for("listening", 60)["peer"], *greedy)
    assert answer.out == alone.out
    assert done(first, "down") == ""
