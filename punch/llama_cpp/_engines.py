"""Finds the programs of llama.cpp on this machine, and tries which of them work and how fast.

Nothing is fetched, and nothing is run but programs of these names. Which one is used is a setting's
matter; here is only said what there is.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from ..exceptions import BackendError, ConfigurationError
from ._kept import Kept
from ._program import Program, ask_program, find_rpc_server, find_server
from ._rpc_protocol import RpcVersion
from ._rpc_server import open_rpc_server
from ._speeds import ANSWER_TOKENS, PROMPT_TOKENS, Speeds, speeds_of
from ._trial import open_head, open_tap
from ._zeros import ZerosModel

_NAMES: Final = ("llama-server", "ggml-rpc-server", "rpc-server")
_FILE: Final = "engines.json"

# Whether a program works does not depend on it, and threads that wait for each other are slow by
# orders of magnitude while the machine does other things.
_THREADS: Final = 1

# What one engine is compared with another by: an ordinary question of an ordinary length.
_MIX_PROMPT: Final = 512
_MIX_ANSWER: Final = 128


@attrs.frozen(kw_only=True)
class Engine:
    """Programs of llama.cpp that belong together. At least one of the two is there."""

    server: Path | None
    """``llama-server``, which runs a model and is the head of a split."""

    rpc_server: Path | None
    """The RPC server, which lends memory to a head."""

    origin: str
    """How it was found, in words."""

    @property
    def programs(self) -> tuple[Path, ...]:
        """Those of its programs that are there."""
        return tuple(one for one in (self.server, self.rpc_server) if one is not None)


@attrs.frozen(kw_only=True)
class EngineCheck:
    """What came of trying an engine."""

    version: str | None = None
    """Version and commit, in the program's own words."""

    rpc: RpcVersion | None = None
    """The protocol that its RPC server speaks; `None` if there is none, or it does not answer."""

    makes_tokens: bool = False
    """Whether its server has made a token here."""

    splits: bool = False
    """Whether it has made one with all layers on its RPC server."""

    speeds: Speeds | None = None
    """How fast its server is by itself, on a model of zeros and the devices that it chooses, with
    one thread."""

    troubles: tuple[str, ...] = ()
    """What does not work, a sentence each."""

    @property
    def seconds(self) -> float | None:
        """Seconds for an ordinary question to a small model, to compare engines by."""
        if self.speeds is None:
            return None
        model = ZerosModel()
        return (
            _MIX_PROMPT * model.parameters / self.speeds.compute
            + _MIX_ANSWER * model.weight_bytes / self.speeds.bandwidth
        )


def fastest(checks: dict[Engine, EngineCheck]) -> Engine | None:
    """The fastest of the engines that make tokens; of those that also split, if there are any."""
    working = [
        (not check.splits, seconds, str(engine.server), engine)
        for engine, check in checks.items()
        if check.makes_tokens and (seconds := check.seconds) is not None
    ]
    return min(working, key=lambda one: one[:3])[3] if working else None


async def choose_engine(*, cache_folder: Path, lends: bool = False) -> Engine:
    """The fastest engine of this machine that splits a model, by a check that was kept or is made.

    For a program whose user has named none.

    Args:
      cache_folder: The user's cache.
      lends: Whether an RPC server alone will do, where there is no more: a machine that lends.

    Raises:
      ConfigurationError: if there is none. The text says what each one lacks, and which command
        gets one that works.

    """
    engines = await trio.to_thread.run_sync(partial(find_engines, cache_folder=cache_folder))
    checks = {
        one: await check_engine(one, cache_folder=cache_folder, is_kept=True) for one in engines
    }
    best = fastest({one: check for one, check in checks.items() if check.splits})
    if best is None and lends:
        best = next((one for one, check in checks.items() if check.rpc is not None), None)
    if best is not None:
        return best
    found = "; ".join(
        f"{one.programs[0]}: {', '.join(check.troubles)}" for one, check in checks.items()
    )
    raise ConfigurationError(
        "no programs of llama.cpp that run a model over several machines are on PATH, among what "
        f"punch has built or in Python packages{f' ({found})' if found else ''}; get some with "
        "`punch engine install`, or name them"
    )


def find_engines(*, cache_folder: Path, named: Path | None = None) -> tuple[Engine, ...]:
    """The engines that can be found, each once, under the first of its origins.

    Args:
      cache_folder: The user's cache, where `install_programs` puts what it has built.
      named: The program that the user has named.

    """
    found: dict[tuple[Path, ...], Engine] = {}
    for path, origin in _places(cache_folder, named):
        engine = Engine(server=find_server(path), rpc_server=find_rpc_server(path), origin=origin)
        if engine.programs:
            found.setdefault(tuple(one.resolve() for one in engine.programs), engine)
    return tuple(found.values())


def _places(cache_folder: Path, named: Path | None) -> Iterator[tuple[Path, str]]:
    if named is not None:
        yield named, "LLAMA_CPP_EXE"
    for name in _NAMES:
        if (on_path := shutil.which(name)) is not None:
            yield Path(on_path).absolute(), "PATH"
    for folder in sorted((cache_folder / "llama.cpp").glob("[!.]*"), reverse=True):
        if folder.is_dir():
            yield folder, "built by punch"
    files = {name + (".exe" if sys.platform == "win32" else "") for name in _NAMES}
    for package in distributions():
        with suppress(OSError, ValueError):
            for file in package.files or ():
                path = Path(str(package.locate_file(file)))
                # A script of that name starts the program that the package has elsewhere.
                if file.name in files and os.access(path, os.X_OK) and not _is_script(path):
                    yield path.resolve(), f"{package.metadata['Name']} {package.version}"


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


async def check_engine(
    engine: Engine,
    *,
    model: Path | None = None,
    cache_folder: Path | None = None,
    is_kept: bool = False,
) -> EngineCheck:
    """Try what an engine can do: whether it makes a token alone, and over its RPC server.

    Args:
      engine: The programs.
      model: A model to try with; by default one of zeros, which needs no file.
      cache_folder: Where the outcome is kept until the machine starts anew; `None` for nowhere.
      is_kept: Whether an outcome that was kept will do.

    Raises nothing that is the engine's: what does not work is in the outcome.

    """
    kept = Kept(
        None if cache_folder is None else cache_folder / _FILE,
        engine.programs,
        ["check", None if model is None else str(model)],
    )
    if is_kept and (known := _read(kept.value)) is not None:
        return known
    with tempfile.TemporaryDirectory(prefix="punch-check-") as folder:
        zeros = ZerosModel()
        path = Path(folder) / "zeros.gguf"
        await trio.to_thread.run_sync(zeros.write, path)
        check = await _check(engine, model or path, zeros if model is None else None)
    kept.keep(_write(check))
    return check


async def _check(engine: Engine, model: Path, zeros: ZerosModel | None) -> EngineCheck:
    troubles: list[str] = []
    program: Program | None = None
    check = EngineCheck()
    if engine.server is None:
        troubles.append("there is no llama-server beside it, so no token can be made")
    else:
        try:
            program = await ask_program(engine.server)
            check = attrs.evolve(check, version=program.version)
        except ConfigurationError as error:
            troubles.append(str(error))
    if program is not None:
        try:
            check = attrs.evolve(check, **await _try_alone(program, model, zeros))
        except BackendError as error:
            troubles.append(f"it makes no token: {error}")
    if engine.rpc_server is None:
        troubles.append("there is no RPC server beside it, so it cannot lend memory")
    else:
        try:
            async with open_rpc_server(engine.rpc_server, threads=_THREADS) as server:
                check = attrs.evolve(check, rpc=server.version)
                if check.makes_tokens and program is not None:
                    await _try_split(program, model, server.port, len(server.devices()))
                    check = attrs.evolve(check, splits=True)
        except BackendError as error:
            troubles.append(f"it does not split: {error}")
    return attrs.evolve(check, troubles=tuple(troubles))


async def _try_alone(program: Program, model: Path, zeros: ZerosModel | None) -> dict[str, Any]:
    async with open_head(program, model, (), threads=_THREADS) as head:
        made = [await head.make(prompt=PROMPT_TOKENS, answer=ANSWER_TOKENS) for _ in range(2)]
    speeds = None if zeros is None else speeds_of(made, zeros)
    return {"makes_tokens": True, "speeds": speeds}


async def _try_split(program: Program, model: Path, port: int, devices: int) -> None:
    """Make a token with all layers on the RPC server at *port*.

    Raises:
      BackendError: if none is made, or it was made without the RPC server.

    """
    if not program.supports("--rpc"):
        raise BackendError(
            f"{program.path} was built without RPC: it has no --rpc; `punch engine install` "
            "builds one that has it"
        )
    async with open_tap(port) as tap:
        names = ",".join(f"RPC{number}" for number in range(devices))
        arguments = ["--rpc", f"127.0.0.1:{tap.port}", "--device", names, "-ngl", "99"]
        async with open_head(program, model, arguments, threads=_THREADS) as head:
            await head.make(prompt=4, answer=1)
        # A head of another version leaves the worker out, says so in its log, and goes on alone.
        size = (await trio.Path(model).stat()).st_size
        if tap.bytes_up < size // 2:
            raise BackendError(
                f"it made a token without its RPC server, which got {tap.bytes_up} bytes of the "
                f"model's {size}"
            )


def _write(check: EngineCheck) -> dict[str, Any]:
    return {
        "version": check.version,
        "rpc": None if check.rpc is None else [*attrs.astuple(check.rpc)],
        "makes_tokens": check.makes_tokens,
        "splits": check.splits,
        "speeds": None if check.speeds is None else attrs.asdict(check.speeds),
        "troubles": [*check.troubles],
    }


def _read(told: Any) -> EngineCheck | None:
    """A check as it was kept; `None` if it was not, or is damaged."""
    try:
        return EngineCheck(
            version=None if told["version"] is None else str(told["version"]),
            rpc=None if told["rpc"] is None else RpcVersion(*map(int, told["rpc"])),
            makes_tokens=bool(told["makes_tokens"]),
            splits=bool(told["splits"]),
            speeds=None
            if told["speeds"] is None
            else Speeds(**{name: float(value) for name, value in told["speeds"].items()}),
            troubles=tuple(map(str, told["troubles"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
