"""The laboratory itself: machines that see each other, rules that hold, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from integration.programs import limit
from lab import machines
from lab.machines import CommandFailedError, Lab

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"

# Makes a machine with a program that runs for ever, says so, and waits.
HELD = """
import sys, time
from pathlib import Path
from lab.machines import open_lab, open_watch
with open_watch(), open_lab(Path(sys.argv[1]), 99) as lab:
    lab.machine("held").start_script("import time; time.sleep(600)")
    print(lab.prefix, flush=True)
    time.sleep(600)
"""


@limit(60)
def test_machines_see_each_other_through_their_firewalls_only(lab: Lab) -> None:
    """A rule on one machine holds there, and neither on another nor on ours."""
    a, b = lab.machine("a"), lab.machine("b")
    server = a.start_script("import http.server as h; h.test(port=8000, bind='0.0.0.0')")
    server.wait_out("Serving")
    b.shell(sys.executable, "-c", CONNECT, a.ip4, "8000")
    a.firewall("drop")
    with pytest.raises(CommandFailedError, match="imed out"):
        b.shell(sys.executable, "-c", CONNECT, a.ip4, "8000")
    a.firewall("reject", allow=[8000])
    b.shell(sys.executable, "-c", CONNECT, a.ip4, "8000")
    with pytest.raises(CommandFailedError):
        b.shell(sys.executable, "-c", CONNECT, a.ip4, "8001")
    old = a.ip4
    assert a.readdress() != old
    a.open()
    b.shell(sys.executable, "-c", CONNECT, a.ip4, "8000")
    b.hosts({"shed.test": a.ip4})
    b.shell(sys.executable, "-c", CONNECT, "shed.test", "8000")
    # The machine that runs the tests has neither the network nor the rules.
    assert "10.77." not in machines.command("ip", "addr") + machines.command("ip", "route")
    assert "table inet lab" not in machines.command("nft", "list", "ruleset")


@limit(60)
def test_a_killed_run_leaves_nothing_behind(laboratory: None, tmp_path: Path) -> None:
    """Killed without a word, with a machine up: its watcher removes network and processes."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", HELD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as run:
        assert run.stdout is not None
        prefix = run.stdout.readline().strip()
        (name,) = [n for n in machines._namespaces(prefix) if n.endswith("held")]
        deadline = time.monotonic() + 5
        while not (pids := machines.command("ip", "netns", "pids", name).split()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    while machines._namespaces(prefix) or any(machines.NAMES.glob(f"{prefix}-*")):
        assert time.monotonic() < deadline + 10, prefix
        time.sleep(0.05)
    for pid in map(int, pids):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


@limit(30)
def test_the_sweep_takes_what_is_ours_and_left_and_nothing_else(laboratory: None) -> None:
    """A namespace of a process that is no more goes; one of a process that lives stays."""
    gone, alive = f"{machines.PREFIX}-1-1-0-a", f"{machines._own_prefix()}-98-a"
    other = "punch-lab"
    try:
        for name in (gone, alive, other):
            machines.command("ip", "netns", "add", name)
        assert machines.sweep() == [gone]
        left = machines.command("ip", "netns", "list")
        assert alive in left
        assert f"\n{other}\n" in f"\n{left}"
    finally:
        for name in (alive, other):
            machines.command("ip", "netns", "delete", name)
