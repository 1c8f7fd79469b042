"""RPC servers of other machines: found in the own network alone, and used where that is allowed."""

from __future__ import annotations

import json
import time
from pathlib import Path

from integration.programs import limit
from lab.machines import Lab, Machine

from punch.cli.splits._rpc_looking import DEFAULT_RPC_PORT
from punch.llama_cpp import find_rpc_server
from punch.placement import HEAD

BECOMES = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"


def serves(machine: Machine, program: Path) -> str:
    """Start a plain RPC server on *machine*, open to its network; where it is."""
    port = str(DEFAULT_RPC_PORT)
    machine.start_script(
        BECOMES, str(program), "--host", machine.ip4, "--port", port, "--threads", "1"
    )
    deadline = time.monotonic() + 30
    while f"{machine.ip4}:{port}" not in machine.shell("ss", "-Hltn"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return f"{machine.ip4}:{port}"


@limit(120)
def test_a_server_of_the_own_network_is_found_kept_and_planned_with(
    lab: Lab, model_path: Path, llama_cpp_folder: Path
) -> None:
    """By its address there, and by no name; a network of others is not searched."""
    program = find_rpc_server(llama_cpp_folder)
    assert program is not None
    desk, gpu = lab.machine("desk"), lab.machine("gpu")
    place = serves(gpu, program)
    settings = {"PUNCH_SETTINGS": str(desk.folder / "settings.toml")}

    # Eight addresses around the server: what a whole network takes is a matter of patience.
    part = f"{gpu.ip4}/29"
    found = desk.start_punch("rpc", "discover", part, "--add", "--json", **settings).wait(60)
    assert [json.loads(line)["place"] for line in found.out.splitlines()] == [place], found
    others = desk.start_punch("rpc", "discover", "10.200.0.0/24", **settings).wait(60)
    assert (others.code, "others' are not searched" in others.err) == (2, True)

    common = ("--model", str(model_path), "--workers", ",", "--context", "512", "--json")
    more = {**settings, "LLAMA_CPP_EXE": str(llama_cpp_folder / "llama-server")}
    name = f"unauthenticated@{place}"
    plan = desk.start_punch(
        "plan", *common, "--force", "--min-workers", "1", "--allow-plain-rpc", **more
    ).wait(60)
    assert name in {share["holder"] for share in json.loads(plan.out)["shares"]}
    # One of which nobody knows how fast it is holds nothing of a model that fits here.
    plan = desk.start_punch("plan", *common, "--allow-plain-rpc", **more).wait(60)
    assert {share["holder"] for share in json.loads(plan.out)["shares"]} == {HEAD}
