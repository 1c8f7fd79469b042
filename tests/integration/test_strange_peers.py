"""Peers with another clock, a copied identity, many of one host, a lie to tell: as programs."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from gguf_writer import tiny
from integration.programs import ROOT, Programs, limit
from integration.test_stuck_engines import SERVER, program

ASK = ("--ask", "hello", "--no-stream", "--json")

HOUR_BACK = """
import time
now, now_ns = time.time, time.time_ns
time.time = lambda: now() - 3600
time.time_ns = lambda: now_ns() - 3600 * 10**9
"""


@limit(60)
def test_a_listener_that_comes_back_with_its_clock_an_hour_behind_is_found(
    programs: Programs, tmp_path: Path
) -> None:
    """Though nobody was told that it went: the machine stopped from one moment to the next."""
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "sitecustomize.py").write_text(HOUR_BACK)
    programs.bootstrap()
    key = str(tmp_path / "key")
    before = programs.listener("--identity", key)
    before.send(signal.SIGSTOP)
    again = programs.listener("--identity", key, PYTHONPATH=f"{tmp_path / 'back'}:{ROOT}")
    assert again.peer_id == before.peer_id
    began = time.monotonic()
    assert programs.dial(*ASK, "--timeout", "10").json()["executor"] == again.peer_id
    assert time.monotonic() - began < 10.0


@limit(60)
def test_two_listeners_with_a_copied_identity_hear_of_each_other(
    programs: Programs, tmp_path: Path
) -> None:
    """And so do the bootstrap and whoever looks at the peers; with what to do."""
    bootstrap = programs.bootstrap()
    one = programs.listener("--identity", str(tmp_path / "key"))
    shutil.copy(tmp_path / "key", tmp_path / "copy")
    two = programs.listener("--identity", str(tmp_path / "copy"))
    assert one.peer_id == two.peer_id
    watch = programs.start_punch("peers")
    for listener in (one, two):
        said = listener.wait_for("another process has the same identity", seconds=20)
        assert "--identity" in said["event"]
    bootstrap.wait_for("two processes have the same identity", seconds=20)
    watch.wait_out(f"warning: {one.peer_id}: two processes have this identity", seconds=20)


@limit(60)
def test_one_host_has_so_many_peers_and_no_more(programs: Programs) -> None:
    """The one that is too many hears how many there may be, and which option says so."""
    programs.bootstrap("--per-host", "2")
    programs.listeners({}, {})
    third = programs.start("listener")
    third.wait_until(lambda: "--per-host" in third.err, "a word of the limit", seconds=20)
    assert "has 2 peers in namespace" in third.err
    assert not third.events("listening")


LIAR = """
import sys, trio
from punch import open_listener
from punch.backends import Generation
from punch.exceptions import GenerationFailed
from punch.testing import ScriptedBackend
from punch.wire import Completion, Timings, Usage


async def lie(request, emit):
    if request.messages[-1].content == "fail":
        raise GenerationFailed("no\\nwarning: your disk is on fire\\x1b[2J")
    await emit("fine", 1)
    return Generation(
        completion=Completion(text="fine", finish_reason="evil"),
        usage=Usage(prompt_tokens=1 << 53, completion_tokens=1, cached_tokens=1 << 53),
        timings=Timings(prefill=1e300, decode=1.0),
    )


async def main():
    async with open_listener(
        ScriptedBackend(lie), bootstrap=sys.argv[1], listen=[sys.argv[2]], calibrate=False
    ):
        print("there", flush=True)
        await trio.sleep_forever()


trio.run(main)
"""


@limit(60)
def test_a_liar_puts_no_number_no_word_and_no_line_into_what_a_dialer_prints(
    programs: Programs,
) -> None:
    """2^53 tokens of a prompt, an end that there is not, and a warning in another's name."""
    programs.bootstrap()
    programs.start_script(LIAR, programs.address, "/ip4/127.0.0.1/tcp/0").wait_out("there")
    said = programs.dial(*ASK).json()
    assert said["result"]["text"] == "fine"
    assert said["result"]["finish_reason"] == "stop"
    assert said["usage"]["prompt_tokens"] is None
    assert said["usage"]["cached_tokens"] is None
    assert said["timings"]["prefill"] is None
    failed = programs.dial("--ask", "fail")
    assert failed.code != 0
    forged = [line for line in failed.err.splitlines() if line.startswith("warning: your disk")]
    assert forged == []
    assert "your disk is on fire" in failed.err
    assert "\x1b" not in failed.err


# The program itself, with less patience than one has outside of tests.
HURRIED = """
import sys
from punch.backends.llama import _vigil
from punch.processes import _restarts
_vigil.CHECK_SECONDS, _vigil.QUIET_SECONDS = 0.1, 0.2
_vigil.PATIENCE_SECONDS, _vigil.UNKNOWN_BATCH_SECONDS = 1.0, 0.0
_restarts.MIN_PAUSE_SECONDS = 4.0
from punch.listener.__main__ import main
sys.exit(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="scripts with a #! line")
@limit(60)
def test_why_an_engine_was_killed_is_told_to_whoever_looks_at_the_peers(
    programs: Programs, tmp_path: Path
) -> None:
    """By the program, which is what found it."""
    programs.bootstrap()
    (tmp_path / "m.gguf").write_bytes(tiny())
    listener = programs.start_script(
        HURRIED,
        PUNCH_INFERENCE_BACKEND="llama_cpp",
        LLAMA_CPP_EXE=str(program(tmp_path, "llama-server", SERVER)),
        LLAMA_GGUF_PATH=str(tmp_path / "m.gguf"),
        PUNCH_CALIBRATE="off",
    )
    programs.ready(listener)
    watch = programs.start_punch("peers")
    assert programs.dial("--ask", "mute", "--timeout", "5").code != 0
    why = "says: llama-server was killed: it answered, and made nothing for 1 s"
    watch.wait_out(why, seconds=20)
