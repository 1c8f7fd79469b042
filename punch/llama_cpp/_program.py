"""Asks a llama.cpp program for its flags, its version and its devices.

Flags come and go between builds: ``--no-mmap`` became ``--load-mode none``, ``llama-cli``
lost ``-no-cnv`` to ``llama-completion``. So the program is asked for its ``--help``, once. What
the programs print for people is parsed in this room, and answers of llama-cli in its backend.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import structlog
import trio

from ..capability import Gpu
from ..exceptions import ConfigurationError
from ..processes import open_child
from ._named import what_is

_log = structlog.get_logger(__name__)

# A build with CUDA takes seconds to start; one that says nothing for longer is no program.
_ASK_SECONDS = 30.0

# llama-server's help is 60 KB; anything much longer is something else.
_MAX_OUTPUT_BYTES = 1024 * 1024

_FLAG = re.compile(r"(?<![\w-])--?[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*")
_VERSION = re.compile(r"version:\s*(.+)")
_DEVICE = re.compile(r"^\s+(\w+): (.+) \((\d+) MiB, (\d+) MiB free\)\s*$", re.MULTILINE)

# By path, size and time of last change: a new build in the same place is asked anew.
_cache: dict[tuple[object, ...], Program] = {}


@attrs.frozen(kw_only=True)
class Program:
    """A llama.cpp program and what it can do, by its own account."""

    path: Path
    """The program's file."""

    version: str | None
    """Version and commit in the program's own words; `None` if it does not say."""

    flags: frozenset[str]
    """Every flag in its ``--help``, with the dashes."""

    arguments: tuple[str, ...] = ()
    """Arguments that it always gets, in front of all others."""

    @property
    def command(self) -> list[str]:
        """The program and the arguments that it always gets."""
        return [str(self.path), *self.arguments]

    def is_given(self, *flags: str) -> bool:
        """True if one of *flags* is among the arguments that it always gets."""
        return any(each.partition("=")[0] in flags for each in self.arguments)

    @property
    def name(self) -> str:
        """The file name, without ``.exe``."""
        return self.path.name.removesuffix(".exe")

    @property
    def is_server(self) -> bool:
        """True if the program serves HTTP."""
        return self.supports("--port") and self.supports("--parallel")

    @property
    def is_plain(self) -> bool:
        """True if it prints an answer and nothing else: llama-completion, or an older llama-cli."""
        return not self.is_server and self.supports("-no-cnv")

    def supports(self, flag: str) -> bool:
        """True if the program's ``--help`` names *flag*."""
        return flag in self.flags

    def known(self, *flags: str) -> list[str]:
        """Those of *flags* that the program knows: for flags that only confirm what we expect."""
        return [flag for flag in flags if flag in self.flags]

    def mmap_flags(self, no_mmap: bool) -> list[str]:
        """The arguments that keep the program from mapping the model file, if *no_mmap*.

        Empty, with a warning in the log, for a build that has no such flag.
        """
        if not no_mmap or self.is_given("--mmap", "--no-mmap", "--load-mode", "-lm"):
            return []
        if self.supports("--no-mmap"):
            return ["--no-mmap"]
        if self.supports("--load-mode"):
            return ["--load-mode", "none"]
        _log.warning("no_mmap_unsupported", program=str(self.path), version=self.version)
        return []


async def ask_program(
    path: str | Path, *, arguments: Sequence[str] = (), setting: str = "LLAMA_CPP_EXE"
) -> Program:
    """Find out what the program at *path* can do.

    The answer is remembered for as long as the file has the same size and time of last change.

    Args:
      path: The program.
      arguments: What it gets in front of all else.
      setting: Name of the setting it comes from, for the error text.

    Raises:
      ConfigurationError: if it is missing, cannot be run or is not llama.cpp's.

    """
    program = Path(path)
    command = [str(program), *arguments]
    key = (*_key(program, setting), *arguments)
    if key in _cache:
        return _cache[key]
    help_text = await _ask(command, "--help", setting)
    flags = frozenset(_FLAG.findall(help_text))
    if not {"--model", "--ctx-size"} <= flags:
        said = help_text.strip().splitlines()
        raise _wrong(
            setting, " ".join(command), "is not a program of llama.cpp",
            f"its --help does not name --model and --ctx-size; it says {said[:1]}",
        )  # fmt: skip
    version = _VERSION.search(await _ask(command, "--version", setting))
    found = Program(
        path=program,
        version=version.group(1).strip() if version else None,
        flags=flags,
        arguments=tuple(arguments),
    )
    _cache[key] = found
    return found


async def list_gpus(program: Program, *, setting: str = "LLAMA_CPP_EXE") -> tuple[Gpu, ...]:
    """The GPUs of `list_devices`."""
    return tuple((await list_devices(program, setting=setting)).values())


async def list_devices(program: Program, *, setting: str = "LLAMA_CPP_EXE") -> Mapping[str, Gpu]:
    """The GPUs on the program's own list of devices, by what ``--device`` calls them.

    In its order; none for an old build without a list.

    Raises:
      ConfigurationError: if the program cannot be run.

    """
    if not program.supports("--list-devices"):
        return {}
    return read_named_devices(await _ask(program.command, "--list-devices", setting))


def read_devices(text: str) -> tuple[Gpu, ...]:
    """The GPUs in the output of ``--list-devices``."""
    return tuple(read_named_devices(text).values())


def read_named_devices(text: str) -> dict[str, Gpu]:
    """The same by their names."""
    return {
        device: Gpu(name=name, total_bytes=int(total) << 20, free_bytes=int(free) << 20)
        for device, name, total, free in _DEVICE.findall(text)
        # Another machine's memory (RPC) is not ours to offer, and the CPU is no GPU.
        if not device.startswith(("RPC", "CPU", "BLAS"))
    }


def find_server(path: str | Path) -> Path | None:
    """The ``llama-server`` that *path* is or stands beside, or `None`."""
    return _sibling(Path(path), "llama-server")


def find_completion(path: str | Path) -> Path | None:
    """The ``llama-completion`` that *path* is or stands beside, or `None`."""
    return _sibling(Path(path), "llama-completion")


def find_rpc_server(path: str | Path) -> Path | None:
    """The RPC server that *path* is or stands beside, by its newer or its older name, or `None`."""
    found = (_sibling(Path(path), stem) for stem in ("ggml-rpc-server", "rpc-server"))
    return next(filter(None, found), None)


def _sibling(path: Path, stem: str) -> Path | None:
    name = stem + (".exe" if sys.platform == "win32" else "")
    if path.name == name:
        return path
    folder = path if path.is_dir() else path.parent
    candidate = folder / name
    return candidate if candidate.is_file() and os.access(candidate, os.X_OK) else None


def _key(program: Path, setting: str) -> tuple[str, int, int]:
    try:
        status = program.stat()
    except OSError as error:
        raise _wrong(setting, program, "does not exist", error.strerror) from None
    if not program.is_file():
        raise _wrong(setting, program, "is not a file")
    if not os.access(program, os.X_OK):
        raise _wrong(setting, program, "is not executable", f"try: chmod +x {program}")
    return str(program), status.st_size, status.st_mtime_ns


async def _ask(command: Sequence[str], question: str, setting: str) -> str:
    program = Path(command[0])
    output = bytearray()

    async def keep(stream: trio.abc.ReceiveStream) -> None:
        async for data in stream:
            if len(output) < _MAX_OUTPUT_BYTES:
                output.extend(data)

    timed_out = True
    try:
        async with open_child([*command, question], env={}, grace=0.0) as process:
            assert process.stderr is not None
            # The help is on one of the two, depending on the build.
            with trio.move_on_after(_ASK_SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(keep, process.stdout)
                    nursery.start_soon(keep, process.stderr)
                await process.wait()
                timed_out = False
    except OSError as error:
        raise _wrong(setting, program, "cannot be run", error.strerror) from None
    if timed_out:
        raise _wrong(setting, program, f"does not answer {question} within {_ASK_SECONDS:g} s")
    text = bytes(output[:_MAX_OUTPUT_BYTES]).decode("utf-8", "replace")
    if process.returncode in (126, 127) and not text.startswith("-"):
        words = text.strip()[:300]
        # The guardian says so where the system did not even start it.
        if words.startswith(f"cannot run {program}: ") and (found := what_is(program)) is not None:
            words = f"{words.rpartition(': ')[2]}: {found}"
        raise _wrong(setting, program, "cannot be run", words)
    return text


def _wrong(
    setting: str, program: Path | str, rule: str, detail: str | Sequence[str] | None = None
) -> ConfigurationError:
    more = f" ({detail})" if detail else ""
    return ConfigurationError(
        f"{setting}={program} {rule}{more}. It must be a program of llama.cpp: llama-server, "
        "or llama-completion or llama-cli. Set it to one, or unset it to use another backend."
    )
