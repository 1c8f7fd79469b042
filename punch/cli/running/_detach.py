"""Starts `punch up` without a terminal, in a session of its own, and waits until it is up.

What the program prints goes to a file beside its log, which is begun anew each time.
"""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import trio

from ...admin import call
from ...exceptions import ConfigurationError, NotRunning
from .._exits import ExitCode
from .._output import plain
from ._asking import admin_folder, log_path
from ._log_file import last_lines
from ._table import table_of

FLAG = "--detach"

# An engine that is built or a model that is loaded does not hold it up; joining far away may.
START_SECONDS = 120.0

# How often it is asked whether it is up.
LOOK_SECONDS = 0.1

# Of what it has printed, shown where it ended before it was up.
SHOWN_LINES = 20

# How long it may take to end, where whoever waits gives up.
END_SECONDS = 15.0


def is_up(said: Mapping[str, Any], pid: int) -> bool:
    """Whether *said* is of the process *pid*, and all is open that it serves with."""
    return said.get("process") == pid and bool(said.get("addresses"))


def runs_already() -> bool:
    """Whether a `punch up` of this user runs."""
    try:
        trio.run(call, admin_folder(), "status")
    except NotRunning:
        return False
    return True


def detach(
    arguments: Sequence[str], *, log_file: Path | None, asks_code: bool, code: str | None = None
) -> ExitCode:
    """Start `punch up` with *arguments*, less the flag for this, and wait until it is up.

    Args:
      arguments: What was typed after the command.
      log_file: Where its log goes; `None` for the usual file.
      asks_code: Whether it joins with a code from standard input.
      code: The code, where it is among *arguments*.

    Raises:
      ConfigurationError: if its files cannot be written.

    """
    # What the program's command line says, all of this machine may read for as long as it runs.
    arguments = ["-" if code is not None and each == code else each for each in arguments]
    if asks_code and sys.stdin.isatty():
        # It has no terminal to ask at.
        code = getpass.getpass("code: ")
    typed = code is not None
    printed = printed_beside(log_file or log_path())
    with _private(printed) as output:
        process = subprocess.Popen(  # noqa: S603 - this very program, with what was typed for it
            command_of(arguments, log_file or log_path()),
            stdin=subprocess.PIPE if typed else None if asks_code else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **_own_session(),
        )
    if code is not None and process.stdin is not None:
        with suppress(OSError), process.stdin:
            process.stdin.write(code.encode() + b"\n")
    try:
        said = trio.run(_until_up, process)
    except KeyboardInterrupt:
        _end(process)
        raise
    if said is not None:
        print(*table_of(said), sep="\n")
        print("punch: `punch down` ends it, `punch logs` shows its log", file=sys.stderr)
        return ExitCode.OK
    if process.returncode is None:
        print(
            f"punch: `punch up` (process {process.pid}) is not up after {START_SECONDS:.0f} s, and "
            "goes on: `punch status` and `punch logs` show what it does, `punch down` ends it",
            file=sys.stderr,
        )
        return ExitCode.DEADLINE
    for line in last_lines(printed, SHOWN_LINES):
        print(plain(line), file=sys.stderr)
    if process.returncode < 0:
        print(
            f"punch: `punch up` was ended by signal {-process.returncode}; its log is "
            f"{log_file or log_path()}",
            file=sys.stderr,
        )
        return ExitCode.BACKEND
    return ExitCode(process.returncode) if process.returncode in set(ExitCode) else ExitCode.BUG


def printed_beside(log_file: Path) -> Path:
    """The file of what the program prints, which is never its log."""
    path = log_file.with_suffix(".out")
    return path if path != log_file else log_file.with_suffix(".printed")


def command_of(arguments: Sequence[str], log_file: Path) -> list[str]:
    """The command line of the program."""
    kept = [each for each in arguments if each != FLAG]
    return [sys.executable, "-m", "punch", "up", "--log-file", str(log_file), *kept]


def _own_session() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _private(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; name another log with --log-file"
        ) from None


async def _until_up(process: subprocess.Popen[bytes]) -> Mapping[str, Any] | None:
    """What *process* says once it is up; `None` if it ended, or took too long."""
    with trio.move_on_after(START_SECONDS):
        while process.poll() is None:
            with suppress(NotRunning):
                said: Mapping[str, Any] = await call(admin_folder(), "status")
                if is_up(said, process.pid):
                    return said
            await trio.sleep(LOOK_SECONDS)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
