"""A child ends with all that it has started, however it is ended and whoever is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import trio
from gguf_writer import tiny
from integration.fake_engine import fake_server, script
from integration.programs import Program, Programs, alive, limit

from punch.processes import open_child
from punch.processes._child import MARK

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts with a #! line")

# What a program that is not what it seems does with the real one. `$0.real` is beside it.
WRAPPERS = {
    "without exec": '"$0.real" "$@"\nexit $?',
    "in the background": '"$0.real" "$@" &\nwait',
    "deep": 'sh -c \'sh -c "\\"\\$0\\" \\"\\$@\\"; exit" "$0" "$@"; exit\' "$0.real" "$@"; exit',
    "deaf": 'trap \'\' TERM INT HUP\n"$0.real" "$@"\nexit $?',
    "a session of its own": (
        f'{sys.executable} -S -c "import os, sys\n'
        "if os.fork() == 0: os.setsid(); os.execv(sys.argv[1], sys.argv[1:])\n"
        'os.wait()" "$0.real" "$@"'
    ),
    "a daemon": (
        'case "$1" in --*n | --help) exec "$0.real" "$@" ;; esac\n'
        f'{sys.executable} -S -c "import os, sys\n'
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        'os.execv(sys.argv[1], sys.argv[1:])" "$0.real" "$@"\nwhile :; do sleep 0.2; done'
    ),
}
each_wrapper = pytest.mark.parametrize("how", WRAPPERS)

# A real program for those tests that need no server: notes its pid, and stays.
SLEEPER = f"""#!{sys.executable} -S
import os, time
with open(__file__ + ".pid", "a") as file:
    print(os.getpid(), file=file)
os.write(1, b"here")
time.sleep(1000)
"""


def wrapped(folder: Path, how: str, *, name: str = "llama-server") -> Path:
    """A script called *name* that wraps the program `name`.real beside it."""
    return script(folder / name, f"#!/bin/sh\n{WRAPPERS[how]}\n")


def noted(path: Path) -> list[int]:
    """The pids that a sleeper has noted."""
    return [int(word) for word in Path(f"{path}.pid").read_text().split()]


async def gone(pids: list[int], seconds: float = 2.0) -> float:
    """Wait until none of *pids* runs; how many seconds that took."""
    began = trio.current_time()
    with trio.fail_after(seconds):
        while any(alive(pid) for pid in pids):
            await trio.sleep(0.01)
    return trio.current_time() - began


# ---- by itself ----


@each_wrapper
@limit(30)
async def test_all_of_a_child_ends_with_its_block(how: str, tmp_path: Path) -> None:
    """Whoever its parent is by then, and whether or not it listens to signals."""
    real = script(tmp_path / "program.real", SLEEPER)
    path = wrapped(tmp_path, how, name="program")
    async with open_child([str(path)], env={}, grace=0.3) as child:
        assert await child.stdout.receive_some(4) == b"here"
        pids = noted(real)
        assert alive(pids[0])
    assert not alive(pids[0])


@each_wrapper
@limit(30)
async def test_all_of_a_child_is_killed_at_once(how: str, tmp_path: Path) -> None:
    """Without a grace, within a moment."""
    real = script(tmp_path / "program.real", SLEEPER)
    async with open_child([str(wrapped(tmp_path, how, name="program"))], env={}) as child:
        await child.stdout.receive_some(4)
        child.kill()
        assert await gone(noted(real)) < 1.0
        await child.wait()


@limit(30)
async def test_what_a_program_leaves_ends_with_it(tmp_path: Path) -> None:
    """A wrapper that exits while its server goes on; and its exit code is the child's."""
    real = script(tmp_path / "program.real", SLEEPER)
    path = script(
        tmp_path / "program",
        '#!/bin/sh\n"$0.real" &\nwhile ! [ -e "$0.real.pid" ]; do :; done\nexit 5',
    )
    async with open_child([str(path)], env={}) as child:
        assert await child.wait() == 5
        assert not alive(noted(real)[0])


@limit(30)
async def test_a_child_ends_when_its_guardian_is_killed(tmp_path: Path) -> None:
    """Its orphans too: they carry a mark."""
    real = script(tmp_path / "program.real", SLEEPER)
    path = wrapped(tmp_path, "a daemon", name="program")
    async with open_child([str(path)], env={}) as child:
        await child.stdout.receive_some(4)
        pids = noted(real)
        mark = psutil.Process(pids[0]).environ()[MARK]
        assert child.pid is not None
        os.kill(psutil.Process(child.pid).ppid(), signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
    assert not alive(pids[0])
    assert mark not in os.environ.values()


@limit(30)
async def test_a_child_gets_our_streams_and_nothing_else(tmp_path: Path) -> None:
    """Its output is ours to read, its exit code its own, and no descriptor is left open in it."""
    path = script(
        tmp_path / "program",
        f"#!{sys.executable} -S\nimport os, sys\n"
        "print(sorted(os.listdir('/dev/fd'))[:-1])\n"
        "print(sys.stdin.read(), file=sys.stderr); sys.exit(7)\n",
    )
    async with open_child([str(path)], env={}, stdin=b"typed") as child:
        assert child.stdin is not None
        assert child.stderr is not None
        await child.stdin.aclose()
        out = b"".join([data async for data in child.stdout])
        err = b"".join([data async for data in child.stderr])
        assert await child.wait() == 7
    assert out.decode().strip() == "['0', '1', '2']"
    assert err == b"typed\n"


@pytest.mark.skipif(sys.platform != "linux", reason="a process without a session of ours")
@limit(30)
async def test_a_process_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """Also one that has the guardian's number as an argument, or our program's name."""
    real = script(tmp_path / "program.real", SLEEPER)
    other = await trio.lowlevel.open_process([str(real)], start_new_session=True)
    try:
        with trio.fail_after(10):
            while not Path(f"{real}.pid").exists():
                await trio.sleep(0.01)
        async with open_child([str(real)], env={}) as child:
            await child.stdout.receive_some(4)
        assert alive(other.pid)
    finally:
        other.kill()
        await other.wait()


PARENT = """
import sys, trio
from contextlib import AsyncExitStack
from punch.processes import open_child

async def main():
    async with AsyncExitStack() as stack:
        for path in sys.argv[1:]:
            child = await stack.enter_async_context(open_child([path], env={}))
            await child.stdout.receive_some(4)
        print("here", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@limit(60)
def test_every_child_ends_with_a_parent_that_is_killed(programs: Programs, tmp_path: Path) -> None:
    """Within 2 s, deaf ones and daemons too."""
    paths = []
    for number, how in enumerate(WRAPPERS):
        script(tmp_path / str(number) / "program.real", SLEEPER)
        paths.append(str(wrapped(tmp_path / str(number), how, name="program")))
    parent = programs.start_script(PARENT, *paths)
    parent.wait_out("here")
    assert len(left(programs, parent)) >= 2 * len(WRAPPERS)
    parent.kill()
    assert wait_left(programs, seconds=2.0) == []


# ---- through the programs ----


def left(programs: Programs, *known: Program) -> list[psutil.Process]:
    """What runs besides *known*."""
    pids = {program.pid for program in known}
    return [process for process in programs.descendants() if process.pid not in pids]


def wait_left(programs: Programs, *known: Program, seconds: float) -> list[psutil.Process]:
    """What still runs after *seconds*, or as soon as there is nothing."""
    until = time.monotonic() + seconds
    while (found := left(programs, *known)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def engine(folder: Path, how: str) -> dict[str, str]:
    """The variables of a listener whose llama-server is not what it seems."""
    folder.mkdir()
    fake_server(folder / "llama-server.real")
    model = folder / "model.gguf"
    model.write_bytes(tiny())
    return {
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_CPP_EXE": str(wrapped(folder, how)),
        "LLAMA_GGUF_PATH": str(model),
    }


def open_listeners(programs: Programs, folder: Path, *hows: str) -> list[Program]:
    """Listeners with an engine each that has answered."""
    started = [
        programs.start("listener", variables=engine(folder / str(number), how))
        for number, how in enumerate(hows)
    ]
    for listener in started:
        listener.wait_for("calibrated")
    return started


@limit(120)
def test_no_engine_outlives_a_listener_that_is_killed(programs: Programs, tmp_path: Path) -> None:
    """With SIGKILL, in the middle of its life; within 2 s, whatever its program has started."""
    started = open_listeners(programs, tmp_path, "without exec", "deaf", "a daemon")
    assert len(left(programs, *started)) >= 3 * 3  # The guardian, what was named, the server.
    for listener in started:
        listener.send(signal.SIGKILL)
    assert wait_left(programs, seconds=2.0) == []


@limit(120)
def test_no_engine_outlives_a_listener_that_is_told_to_end(
    programs: Programs, tmp_path: Path
) -> None:
    """With Ctrl-C, SIGTERM or SIGHUP."""
    started = open_listeners(programs, tmp_path, "without exec", "in the background", "a daemon")
    for listener, number in zip(
        started, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), strict=True
    ):
        listener.send(number)
    for listener in started:
        listener.wait()
    assert wait_left(programs, seconds=2.0) == []
