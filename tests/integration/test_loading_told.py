"""While a model loads, a listener says for how long, and how much of it is there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio
from gguf_writer import tiny
from integration.fake_engine import fake_server, script
from integration.programs import Programs, limit

from punch.processes import open_child
from punch.processes._loading import loaded_share

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts with a #! line")


@limit(60)
def test_a_listener_tells_that_its_engine_loads(programs: Programs, tmp_path: Path) -> None:
    """Before it listens, in its log."""
    model = tmp_path / "model.gguf"
    model.write_bytes(tiny())
    listener = programs.start(
        "listener",
        PUNCH_INFERENCE_BACKEND="llama_cpp",
        LLAMA_CPP_EXE=str(fake_server(tmp_path / "llama-server", load_seconds=3.5)),
        LLAMA_GGUF_PATH=str(model),
    )
    told = listener.wait_for("an engine is loading its model", seconds=20)
    assert not listener.events("calibrated")
    assert told["engine"] == "llama-server"
    assert told["seconds"] >= 3
    assert 0 < told["percent"] <= 99
    listener.wait_for("calibrated")
    listener.stop()


READER = f"""#!{sys.executable} -S
import os, sys, time
with open(sys.argv[1], "rb") as file:
    held = file.read(int(sys.argv[2]))
os.write(1, b"read")
time.sleep(100)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not tell what a process reads")
@limit(30)
async def test_the_share_is_what_was_read_of_the_file(tmp_path: Path) -> None:
    """Behind a wrapper script, too."""
    model = tmp_path / "model"
    with model.open("wb") as file:
        file.truncate(400 << 20)
    script(tmp_path / "reader", READER)
    path = script(tmp_path / "wrapper", f'#!/bin/sh\n"{tmp_path}/reader" "$@"\nexit $?')
    argv = [str(path), str(model), str(100 << 20)]
    async with open_child(argv, env={}, grace=0.0) as child:
        assert loaded_share(None, 100) is None
        assert await child.stdout.receive_some(4) == b"read"
        share = loaded_share(child, 400 << 20)
        assert loaded_share(child, None) is None
        assert loaded_share(child, 1 << 20) == 0.99
    assert share is not None
    assert 0.25 <= share < 0.4
    await trio.lowlevel.checkpoint()
