"""The three standard streams, as a shell may leave them: closed, full, or read by nobody any more.

A program whose reader goes away, as ``| head`` does, ends quietly; one that cannot write what it
was asked for says so, and its exit code does.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from ..exceptions import ConfigurationError
from ._exits import ExitCode


class _OutputLost(Exception):
    """Standard output took no more."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Output:
    """Standard output, whose errors are told from those of files and connections."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _OutputLost(error.errno or errno.EIO) from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise _OutputLost(error.errno or errno.EIO) from None


class _Errors:
    """Standard error: what it cannot take any more is lost, and ends no program."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def with_streams(program: Callable[[], int]) -> int:
    """Run *program* and return its exit code, or the one that says what became of its output."""
    _open_missing()
    before, errors = sys.stdout, sys.stderr
    if isinstance(before, _Output):
        # A command of `punch`, which has seen to it.
        return program()
    if before is sys.__stdout__ and isinstance(before, io.TextIOWrapper):
        # What the terminal's or the file's encoding has no sign for is written as its number.
        before.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = _Output(before), _Errors(errors)
    try:
        try:
            return program()
        finally:
            sys.stdout.flush()
    except (_OutputLost, BaseExceptionGroup) as raised:
        lost = only(raised)
        if not isinstance(lost, _OutputLost):
            raise
        _discard(before)
        if lost.number == errno.EPIPE:
            return ExitCode.PIPE
        print(f"punch: standard output: {os.strerror(lost.number)}", file=sys.stderr)
        return ExitCode.OUTPUT
    finally:
        sys.stdout, sys.stderr = before, errors


def read_all() -> str:
    """All of standard input.

    Raises:
      ConfigurationError: if it cannot be read, or is no text.

    """
    return _read(sys.stdin.read)


def read_line() -> str:
    """The next line of standard input; empty at its end.

    Raises:
      ConfigurationError: if it cannot be read, or is no text.

    """
    return _read(sys.stdin.readline)


def _read(read: Callable[[], str]) -> str:
    try:
        return read()
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"standard input is no {error.encoding} at byte {error.start}: convert it first, "
            "with iconv for example"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"standard input cannot be read: {error.strerror}") from None


def only(error: BaseException) -> BaseException:
    """The error within *error*: a nursery wraps even a single one in a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _open_missing() -> None:
    """Put something in the place of closed streams, or the next file or socket would be one.

    What is written to a closed standard output fails, as it does in other programs.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: those below are open by now.
            os.set_inheritable(os.open(os.devnull, mode), True)
    if sys.stdin is None:
        sys.stdin = _stream(os.devnull, "r")
    if sys.stdout is None:
        sys.stdout = _stream(1, "w")
    if sys.stderr is None:
        sys.stderr = _stream(os.devnull, "w")


def _stream(file: str | int, mode: str) -> TextIO:
    return io.TextIOWrapper(io.FileIO(file, mode, closefd=file != 1), "utf-8", write_through=True)


def _discard(stream: TextIO) -> None:
    """Let Python flush *stream* at its exit without a word."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
