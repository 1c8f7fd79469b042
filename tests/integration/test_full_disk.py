"""Programs whose disk takes nothing more: what can go on does and says so, the rest says why not.

The disk is full by a limit on the size of every file, which needs no right and can be lifted again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest
from integration.programs import Program, Programs, limit
from integration.test_keys import ask, within

from punch.libp2p._identity import load_or_create

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit(2) is Linux's own")

# Only the soft limit: it can be lifted from outside.
FULL = ("bash", "-c", 'ulimit -S -f 0; exec "$@"', "-")


def fill(program: Program, size: int) -> None:
    """Let *program* write no file beyond *size* bytes."""
    process = psutil.Process(program.pid)
    process.rlimit(psutil.RLIMIT_FSIZE, (size, process.rlimit(psutil.RLIMIT_FSIZE)[1]))


def files(folder: Path) -> dict[str, bytes]:
    """Everything that is not empty below *folder*."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if data}


@limit(120)
def test_what_must_be_kept_and_cannot_be_is_named(programs: Programs) -> None:
    """Settings, keys and an identity: exit code 2, the file, the remedy; the old file stays."""
    settings = programs.folder / "settings.toml"
    settings.write_text('namespace = "home"\n')
    before = files(programs.folder)
    programs.prefix = FULL
    started = {
        str(settings): programs.start_punch(
            "settings", "set", "namespace", "work", PUNCH_SETTINGS=str(settings)
        ),
        str(programs.folder / "keys"): programs.start_punch(
            "keys", "create", "ada", "--keys", str(programs.folder / "keys")
        ),
        str(programs.data / "identities"): programs.start("listener", "--backend", "mock"),
    }
    for name, program in started.items():
        ended = program.wait()
        assert ended.code == 2, ended
        assert name in ended.err
        assert "Traceback" not in ended.err
        assert ended.out == ""
    assert files(programs.folder) == before


@limit(120)
def test_what_can_go_on_goes_on_and_says_so_once(programs: Programs) -> None:
    """The decision log and the book of usage, of a gateway; known peers, of a dialer."""
    path = programs.folder / "keys"
    created = programs.start_punch("keys", "create", "ada", "--keys", str(path), "--json")
    programs.bootstrap()
    secret = json.loads(created.wait().out)["secret"]
    gateway = programs.gateway("--listen-too", "--backend", "mock", "--keys", str(path))
    assert within(30, lambda: ask(gateway, secret) == 200), gateway.err
    time.sleep(1)
    lines = programs.decisions.read_text().splitlines()

    fill(gateway, 0)
    for _ in range(3):
        assert ask(gateway, secret) == 200
        time.sleep(0.6)
    for event in ("the decision log cannot be written", "usage cannot be written"):
        assert len(gateway.events(event)) == 1, gateway.err
    assert programs.decisions.read_text().splitlines() == lines

    fill(gateway, psutil.RLIM_INFINITY)
    assert ask(gateway, secret) == 200
    gateway.wait_for("the decision log is written again", 5)
    gateway.wait_for("usage is written again", 5)
    for line in programs.decisions.read_text().splitlines():
        json.loads(line)

    known = programs.data / "known_peers"
    known.unlink()
    identity = programs.folder / "dialer.key"
    load_or_create(identity)
    programs.prefix = FULL
    asked = programs.dial("--ask", "hi", "--identity", str(identity))
    programs.prefix = ()
    assert asked.code == 0, asked
    assert asked.out.strip()
    assert asked.err.count("the known peers cannot be written") == 1
    assert asked.err.count("the decision log cannot be written") == 1
    assert "Traceback" not in gateway.err + asked.err
    assert not known.exists()
    assert [each.name for each in programs.data.glob("known_peers*")] == []

    (listed,) = programs.punch("keys", "list", "--keys", str(path), "--json").out.splitlines()
    (day,) = json.loads(listed)["usage"]
    assert day["requests"] - day["errors"] >= 5
