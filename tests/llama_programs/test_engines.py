"""Which programs of llama.cpp are found, which of them is the fastest, and what is kept of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from punch.exceptions import ConfigurationError
from punch.llama_cpp import (
    Engine,
    EngineCheck,
    RpcVersion,
    Speeds,
    _build,
    _engines,
    choose_engine,
    fastest,
    find_engines,
    find_rpc_server,
    install_programs,
    is_built,
    programs_folder,
)

FAST = Speeds(bandwidth=8e9, compute=8e10)
SLOW = Speeds(bandwidth=4e9, compute=2e10)
VERSION = RpcVersion(7, 0, 0)


def program(path: Path, text: str = "\x7fELF") -> Path:
    """A file that can be run, as far as the system says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No programs of the machine that runs the tests."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(_engines, "distributions", lambda: iter(()))


# ---- finding ----


def test_an_engine_is_found_in_each_place_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person named comes first; a second way to the same programs is not another engine."""
    named = program(tmp_path / "named" / "llama-server")
    on_path = program(tmp_path / "bin" / "ggml-rpc-server")
    built = program(tmp_path / "cache" / "llama.cpp" / "0.3.36" / "llama-server")
    lends = program(built.with_name("ggml-rpc-server"))
    program(tmp_path / "cache" / "llama.cpp" / ".building-x" / "llama-server")
    (tmp_path / "bin" / "llama-server").symlink_to(named)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = find_engines(cache_folder=tmp_path / "cache", named=named)
    assert found == (
        Engine(server=named, rpc_server=None, origin="LLAMA_CPP_EXE"),
        Engine(server=on_path.with_name("llama-server"), rpc_server=on_path, origin="PATH"),
        Engine(server=built, rpc_server=lends, origin="built by punch"),
    )


def test_a_program_that_is_named_is_not_found_again(tmp_path: Path) -> None:
    """Whatever the order of the places."""
    built = program(tmp_path / "llama.cpp" / "1" / "llama-server")
    (one,) = find_engines(cache_folder=tmp_path, named=built.with_name("llama-cli"))
    assert (one.server, one.origin) == (built, "LLAMA_CPP_EXE")


def test_a_package_that_brings_programs_is_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not the script of that name which a package puts beside Python."""
    brought = program(tmp_path / "site" / "brings" / "bin" / "llama-server")
    program(tmp_path / "site" / "bin" / "llama-server", "#!/bin/python\n")
    info = tmp_path / "site" / "brings-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brings\nVersion: 1.2\n")
    files = ["bin/llama-server", "brings/bin/llama-server", "brings/llama-server.txt", "gone/x"]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))

    def here() -> Iterator[importlib.metadata.Distribution]:
        yield from importlib.metadata.distributions(path=[str(tmp_path / "site")])

    monkeypatch.setattr(_engines, "distributions", here)
    found = find_engines(cache_folder=tmp_path)
    assert found == (Engine(server=brought, rpc_server=None, origin="brings 1.2"),)


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    """That is no error: the command says what gets one."""
    assert find_engines(cache_folder=tmp_path / "none") == ()
    assert find_engines(cache_folder=tmp_path, named=program(tmp_path / "other")) == ()


@pytest.mark.parametrize("name", ["ggml-rpc-server", "rpc-server"])
def test_an_rpc_server_is_found_by_both_of_its_names(tmp_path: Path, name: str) -> None:
    """Beside the server, in a folder, or as itself."""
    server = program(tmp_path / "llama-server")
    lends = program(tmp_path / name)
    assert {find_rpc_server(path) for path in (server, tmp_path, lends)} == {lends}


# ---- choosing ----


def engine(name: str) -> Engine:
    return Engine(server=Path(f"/{name}/llama-server"), rpc_server=None, origin="PATH")


def test_the_fastest_that_splits_is_taken() -> None:
    """One that makes no token is none, however fast it was told to be."""
    good = EngineCheck(makes_tokens=True, splits=True, rpc=VERSION, speeds=SLOW)
    checks = {
        engine("slow"): good,
        engine("fast"): attrs.evolve(good, speeds=FAST),
        engine("alone"): attrs.evolve(good, speeds=FAST, splits=False),
        engine("dies"): EngineCheck(rpc=VERSION, troubles=("it makes no token: SIGILL",)),
    }
    assert fastest(checks) == engine("fast")
    del checks[engine("fast")]
    assert fastest(checks) == engine("slow")
    del checks[engine("slow")]
    assert fastest(checks) == engine("alone")
    del checks[engine("alone")]
    assert fastest(checks) is None


def outcomes(monkeypatch: pytest.MonkeyPatch, checks: dict[Engine, EngineCheck]) -> None:
    """Have these engines found, with these outcomes kept."""

    async def check(engine: Engine, *, cache_folder: Path, is_kept: bool) -> EngineCheck:
        assert is_kept
        return checks[engine]

    monkeypatch.setattr(_engines, "find_engines", lambda cache_folder: tuple(checks))
    monkeypatch.setattr(_engines, "check_engine", check)


async def test_a_program_that_names_no_engine_gets_the_fastest_that_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that works alone is none for a split."""
    good = EngineCheck(makes_tokens=True, splits=True, rpc=VERSION, speeds=SLOW)
    alone = attrs.evolve(good, splits=False, rpc=None, speeds=FAST)
    outcomes(monkeypatch, {engine("alone"): alone, engine("slow"): good})
    assert await choose_engine(cache_folder=tmp_path) == engine("slow")


async def test_a_machine_that_lends_needs_its_rpc_server_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other does with that."""
    only = Engine(server=None, rpc_server=Path("/a/rpc-server"), origin="PATH")
    outcomes(monkeypatch, {only: EngineCheck(rpc=VERSION, troubles=("there is no llama-server",))})
    assert await choose_engine(cache_folder=tmp_path, lends=True) == only
    with pytest.raises(ConfigurationError) as caught:
        await choose_engine(cache_folder=tmp_path)
    assert "(/a/rpc-server: there is no llama-server)" in str(caught.value)
    assert "punch engine install" in str(caught.value)


# ---- keeping ----


@pytest.mark.parametrize(
    "check",
    [
        EngineCheck(),
        EngineCheck(
            version="b1", rpc=VERSION, makes_tokens=True, splits=True, speeds=FAST,
            troubles=("one", "two"),
        ),
    ],
)  # fmt: skip
def test_a_check_is_kept_whole(check: EngineCheck) -> None:
    """So that a list need not try again what was tried."""
    assert _engines._read(_engines._write(check)) == check


@pytest.mark.parametrize(
    "told", [None, 1, [], {}, {"version": None, "rpc": [1]}, {"version": None, "rpc": "x"}]
)
def test_a_damaged_check_is_made_again(told: object) -> None:
    """Nothing of it is believed."""
    assert _engines._read(told) is None


# ---- building ----


async def test_what_is_built_is_not_built_again(tmp_path: Path) -> None:
    """A folder from before a further program was among them is whole."""
    for name in _build.PROGRAMS:
        assert not is_built(tmp_path)
        program(programs_folder(tmp_path) / name)
    assert is_built(tmp_path)
    said: list[str] = []
    assert await install_programs(tmp_path, say=said.append) == programs_folder(tmp_path)
    assert said == [f"already built: {programs_folder(tmp_path)}"]


async def test_a_machine_without_a_compiler_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is fetched, or made."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(_build, "download", lambda *_, **__: pytest.fail("it fetched"))
    with pytest.raises(ConfigurationError, match="no compiler: CC is not set and none of cc, gcc"):
        await install_programs(tmp_path / "cache", say=pytest.fail)
    assert not (tmp_path / "cache").exists()


async def test_a_machine_without_the_tools_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the one command that gets them."""
    for name in ("cc", "c++"):
        program(tmp_path / "bin" / name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "env" / "python")))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "pip" or None)
    with pytest.raises(ConfigurationError) as caught:
        await install_programs(tmp_path / "cache", say=pytest.fail)
    assert "python -m pip install cmake ninja scikit-build-core" in str(caught.value)
