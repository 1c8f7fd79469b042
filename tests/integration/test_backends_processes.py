"""Children: watched, restarted, given up, ended. The programs are small scripts of our own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from integration.programs import alive

from punch.exceptions import BackendCrashed, ConfigurationError, PeerRefused
from punch.llama_cpp import _program, ask_program, find_completion, find_server
from punch.processes import Supervised, _restarts, open_supervised
from punch.processes._child import KEPT_LINES, MAX_LINE_BYTES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts with a #! line")

LIMIT = 60

NEW_HELP = "--model FNAME\n--ctx-size N\n-lm, --load-mode MODE\n--port PORT\n-np, --parallel N"
OLD_HELP = "--model FNAME\n--ctx-size N\n--no-mmap\n-cnv, -no-cnv, --no-conversation"


@asynccontextmanager
async def supervised(tmp_path: Path, code: str, **more: Any) -> AsyncIterator[Supervised]:
    """A Python program of *code* in care; it is ready when it has made the file ``ready``."""
    ready = tmp_path / "ready"

    async def is_ready() -> bool:
        return ready.exists()

    def command() -> list[str]:
        ready.unlink(missing_ok=True)
        return [sys.executable, "-S", "-u", "-c", code]

    async with open_supervised(
        command,
        name="program",
        ready=is_ready,
        env={"READY": str(ready)},
        **more,
    ) as child:
        yield child


READY = "import os, time, sys\nopen(os.environ['READY'], 'w').close()\n"
FOREVER = READY + "time.sleep(1000)\n"


async def until(condition: Callable[[], bool]) -> None:
    """Return when *condition* holds; other processes tell us nothing."""
    while not condition():
        await trio.sleep(0.01)


async def test_a_program_is_ended_with_its_context(tmp_path: Path) -> None:
    """It gets a signal that it can handle, and its process is gone afterwards."""
    code = (
        "import signal\nsignal.signal(signal.SIGTERM, "
        "lambda *a: (open(os.environ['READY'] + '.bye', 'w').close(), sys.exit()))\n"
    )
    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, "import os, sys\n" + code + FOREVER) as child:
            pid, before = child.pid, child.state
        after = child.state
    assert (before, after) == ("ready", "stopped")
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert (tmp_path / "ready.bye").exists()


async def test_a_program_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    """After its grace."""
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER
    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, code, grace=0.2) as child:
            pid = child.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_first_start_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    """The text says how it ended and what it said."""
    with trio.fail_after(LIMIT):
        with pytest.raises(BackendCrashed, match=r"exit code 3.*\n  no such model") as caught:
            async with supervised(tmp_path, "print('no such model'); raise SystemExit(3)"):
                pass
    assert "program" in str(caught.value)


async def test_bad_luck_at_the_first_start_is_tried_again(tmp_path: Path) -> None:
    """A port that somebody took in the meantime, for example."""
    code = (
        "import os\nflag = os.environ['READY'] + '.second'\n"
        "if not os.path.exists(flag):\n  open(flag, 'w').close(); print('taken'); exit(1)\n"
    )

    async def is_bad_luck(lines: Sequence[str]) -> bool:
        return "taken" in lines

    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, code + FOREVER, retry_start=is_bad_luck) as child:
            assert child.statistics().starts == 2


async def test_a_program_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    """Within the time that it was given."""
    with trio.fail_after(LIMIT):
        with pytest.raises(BackendCrashed, match=r"not ready within 0\.3 s"):
            async with supervised(tmp_path, "import time; time.sleep(1000)", start_timeout=0.3):
                pass


async def test_a_crashed_program_is_started_again(tmp_path: Path) -> None:
    """And says which signal it died of."""
    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, FOREVER) as child:
            first = child.pid
            assert first is not None
            os.kill(first, signal.SIGABRT)
            await until(lambda: child.state == "restarting")
            await child.wait_ready()
            assert child.pid != first
            statistics = child.statistics()
    assert (statistics.starts, statistics.crashes_in_a_row) == (2, 1)
    assert statistics.reason is not None
    assert "SIGABRT" in statistics.reason


async def test_a_crash_loop_is_reported_and_tried_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five runs of no use in a row, with the program's last words; then it may have got better."""
    monkeypatch.setattr(_restarts, "MIN_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(_restarts, "MIN_LOOP_PAUSE_SECONDS", 2.0)
    well = tmp_path / "well"
    with trio.fail_after(LIMIT):
        # Long enough to be seen ready once: a first start that fails is another matter.
        code = READY + f"while os.path.exists({str(well)!r}): time.sleep(1)\n"
        code += "time.sleep(0.5); print('out of luck'); sys.exit(7)"
        async with supervised(tmp_path, code) as child:
            await until(lambda: child.state == "failed")
            for _ in range(2):
                with pytest.raises(BackendCrashed, match=r"crash loop, 5 times.*code 7") as caught:
                    await child.wait_ready()
            assert "out of luck" in str(caught.value)
            assert child.statistics().starts == 5
            assert "out of luck" not in str(child.trouble)
            well.touch()
            await until(lambda: child.trouble is None)
            assert (child.statistics().starts, child.statistics().state) == (6, "ready")


async def test_a_program_that_serves_may_crash_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of use in between."""
    monkeypatch.setattr(_restarts, "MIN_PAUSE_SECONDS", 0.01)
    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, READY + "time.sleep(0.2); sys.exit(7)") as child:
            while child.statistics().starts < 7:
                child.note_served()
                await trio.sleep(0.02)
            assert child.state != "failed"


async def test_waiting_for_a_restart_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears in time that it should ask somebody else."""
    monkeypatch.setattr(_restarts, "MIN_PAUSE_SECONDS", 100.0)
    monkeypatch.setattr(_restarts, "MAX_PAUSE_SECONDS", 100.0)
    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, FOREVER) as child:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            await until(lambda: child.state == "restarting")
            with pytest.raises(BackendCrashed, match="restarting"):
                await child.wait_ready(0.1)


async def test_the_last_lines_are_bounded(tmp_path: Path) -> None:
    """However much a program prints, and however long its lines are."""
    code = "print('x' * 10_000_000); print('\\n'.join(map(str, range(5000))))\n"
    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, code + FOREVER) as child:
            await until(lambda: child.last_lines[-1:] == ("4999",))
            assert len(child.last_lines) == KEPT_LINES
    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, code.split(";")[0] + "\n" + FOREVER) as child:
            await until(lambda: bool(child.last_lines))
            assert len(child.last_lines[0]) == MAX_LINE_BYTES


async def test_what_a_start_needs_is_prepared_before_each(tmp_path: Path) -> None:
    """It is done when the command is asked for, at the first start and at every other."""
    done: list[str] = []

    async def prepare(child: Supervised) -> None:
        await trio.sleep(0.01)
        done.append("prepared")

    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, FOREVER, prepare=prepare) as child:
            assert done == ["prepared"]
            child.kill("a part of it is gone")
            await child.wait_ready()
            assert done == ["prepared"] * 2
            assert child.statistics().starts == 2


async def test_a_start_that_cannot_be_prepared_is_one_that_failed(tmp_path: Path) -> None:
    """With the words of what failed, and nothing was started."""

    async def prepare(child: Supervised) -> None:
        raise PeerRefused("nobody lends anything")

    with trio.fail_after(LIMIT):
        with pytest.raises(BackendCrashed, match="program could not be started: nobody lends"):
            async with supervised(tmp_path, READY + "time.sleep(1000)", prepare=prepare):
                pass
    assert not (tmp_path / "ready").exists()


async def test_preparing_has_a_limit(tmp_path: Path) -> None:
    """Whatever it waits for."""

    async def prepare(child: Supervised) -> None:
        await trio.sleep_forever()

    with trio.fail_after(LIMIT):
        with pytest.raises(BackendCrashed, match=r"what it needs was not there in 0\.2 s"):
            async with supervised(tmp_path, FOREVER, prepare=prepare, prepare_timeout=0.2):
                pass


async def test_a_program_that_cannot_be_prepared_again_is_down_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five failures it is down, and who knows that it can be started again says so."""
    monkeypatch.setattr(_restarts, "MIN_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(_restarts, "MIN_LOOP_PAUSE_SECONDS", 1000.0)
    missing = ""

    async def prepare(child: Supervised) -> None:
        if missing:
            raise PeerRefused(missing)

    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, FOREVER, prepare=prepare) as child:
            missing = "nobody is left"
            child.kill("a part of it is gone")
            await until(lambda: child.state == "failed")
            assert child.trouble is not None
            assert "5 times in a row: program could not be started: nobody is left" in child.trouble
            missing = ""
            child.start_now()
            await until(lambda: child.state == "ready")
            assert child.trouble is None


async def test_preparing_ends_with_the_context(tmp_path: Path) -> None:
    """Nobody waits for what is needed no more."""
    waiting = trio.Event()
    calls = 0

    async def prepare(child: Supervised) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            waiting.set()
            await trio.sleep_forever()

    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, FOREVER, prepare=prepare, prepare_timeout=1000) as child:
            child.kill("a part of it is gone")
            await waiting.wait()
        assert child.state == "stopped"


async def test_a_program_may_be_killed_before_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who knows that it never will be; that counts as a crash, and it is started again."""
    monkeypatch.setattr(_restarts, "MIN_PAUSE_SECONDS", 0.01)
    code = (
        "import os, time\nflag = os.environ['READY'] + '.second'\n"
        "if not os.path.exists(flag):\n  open(flag, 'w').close(); time.sleep(1000)\n"
    )

    async def kill(child: Supervised) -> None:
        while not (tmp_path / "ready.second").exists():
            await trio.sleep(0.01)
        child.kill("left to the limit of its start")
        await trio.sleep(0.1)
        assert child.pid is not None
        child.kill("a part of it is gone", loading_too=True)

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:

            async def prepare(child: Supervised) -> None:
                if child.statistics().starts == 1:
                    nursery.start_soon(kill, child)

            async with supervised(tmp_path, code + FOREVER, prepare=prepare) as child:
                statistics = child.statistics()
    assert (statistics.starts, statistics.crashes_in_a_row) == (2, 1)
    assert statistics.reason == "program was killed: a part of it is gone"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
async def test_a_program_dies_with_its_guardian(tmp_path: Path) -> None:
    """Also when the guardian is killed and can do nothing any more."""
    with trio.fail_after(LIMIT):
        async with supervised(tmp_path, FOREVER) as child:
            pid = child.pid
            assert pid is not None
            guardian = psutil.Process(pid).ppid()
            assert guardian != os.getpid()
            os.kill(guardian, signal.SIGKILL)
            await until(lambda: not alive(pid))


def script(path: Path, body: str) -> Path:
    """A program of *body* at *path*."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def llama(path: Path, help_text: str) -> Path:
    """A program that says *help_text*, and notes every call."""
    return script(
        path,
        f"echo call >> {path}.calls\n"
        f"if [ \"$1\" = --version ]; then echo 'version: 4567 (abc)' >&2; exit; fi\n"
        f"cat <<'END'\n{help_text}\nEND",
    )


async def test_a_program_is_known_by_its_own_help(tmp_path: Path) -> None:
    """Builds old and new, whatever their files are called."""
    with trio.fail_after(LIMIT):
        new = await ask_program(llama(tmp_path / "new", NEW_HELP))
        old = await ask_program(llama(tmp_path / "old", OLD_HELP))
    assert new.mmap_flags(True) == ["--load-mode", "none"]
    assert old.mmap_flags(True) == ["--no-mmap"]
    assert (new.is_server, old.is_server) == (True, False)
    assert (new.is_plain, old.is_plain) == (False, True)
    assert new.version == "4567 (abc)"


async def test_a_program_is_asked_once_as_long_as_it_stays_the_same(tmp_path: Path) -> None:
    """Help and version; then again when the file was replaced."""
    with trio.fail_after(LIMIT):
        path = llama(tmp_path / "program", NEW_HELP)
        calls = tmp_path / "program.calls"
        first = await ask_program(path)
        assert await ask_program(path) is first
        assert calls.read_text().count("call") == 2
        llama(path, OLD_HELP)
        assert (await ask_program(path)).supports("--no-mmap")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo hello", "not a program of llama.cpp"),
        ("exit 1", "not a program of llama.cpp"),
        ("sleep 1000", r"does not answer --help within 0\.5 s"),
        ("yes", "not answer|not a program"),
    ],
)
async def test_what_is_no_llama_program_is_refused(
    body: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of the setting, in bounded time and memory."""
    monkeypatch.setattr(_program, "_ASK_SECONDS", 0.5)
    with trio.fail_after(LIMIT):
        with pytest.raises(ConfigurationError, match=f"THE_SETTING=.*({words})"):
            await ask_program(script(tmp_path / "program", body), setting="THE_SETTING")


async def test_a_program_for_another_machine_cannot_be_run(tmp_path: Path) -> None:
    """The operating system says why."""
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    with trio.fail_after(LIMIT):
        with pytest.raises(ConfigurationError, match=r"cannot be run.*format"):
            await ask_program(path)


def test_a_server_beside_the_program_is_found(tmp_path: Path) -> None:
    """Whoever names llama-cli gets the better backend, if it is there."""
    cli = script(tmp_path / "llama-cli", "")
    assert find_server(cli) is None
    server = script(tmp_path / "llama-server", "")
    assert find_server(cli) == server
    assert find_server(server) == server
    assert find_server(tmp_path) == server
    assert find_completion(cli) is None
