"""``punch engine``: what it shows of the programs that are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from punch.cli.splits import _engine
from punch.exceptions import ConfigurationError
from punch.llama_cpp import Engine, EngineCheck, RpcVersion, Speeds

GOOD = Engine(server=Path("/a/llama-server"), rpc_server=Path("/a/rpc-server"), origin="PATH")
BAD = Engine(server=Path("/b/llama-server"), rpc_server=None, origin="brings 1.2")
OUTCOMES = {
    GOOD: EngineCheck(
        version="b1", rpc=RpcVersion(7, 0, 0), makes_tokens=True, splits=True,
        speeds=Speeds(bandwidth=1e10, compute=1e11),
    ),
    BAD: EngineCheck(version="b2", troubles=("it makes no token: it ended with SIGILL",)),
}  # fmt: skip


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Two engines with their outcomes; whether a kept outcome would do, for each question."""
    asked: list[bool] = []

    async def check(engine: Engine, model: Path | None, *, is_kept: bool) -> EngineCheck:
        asked.append(is_kept)
        return OUTCOMES[engine]

    async def found(program: str | None) -> tuple[Engine, ...]:
        return tuple(OUTCOMES)

    monkeypatch.setattr(_engine, "_check", check)
    monkeypatch.setattr(_engine, "_found", found)
    return asked


def test_the_list_says_what_works_and_why_not(
    kept: list[bool], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is tried once; the path is shown whole, to be copied."""
    monkeypatch.setenv("COLUMNS", "60")
    assert _engine.engine(["list"]) == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["found", "by", "version", "rpc", "works", "program"],
        ["PATH", "b1", "7.0.0", "yes,", "1.3", "s,", "fastest", "/a/llama-server"],
        ["brings", "1.2", "b2", "-", "no", "/b/llama-server"],
    ]
    assert err == "/b/llama-server: it makes no token: it ended with SIGILL\n"
    assert kept == [True, True]


def test_a_check_tries_again_and_fails_where_none_works(
    kept: list[bool], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a script can ask."""
    assert _engine.engine(["check", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["makes_tokens"], one["fastest"], one["rpc"]) for one in told] == [
        (True, True, "7.0.0"),
        (False, False, None),
    ]
    assert kept == [False, False]
    monkeypatch.setitem(OUTCOMES, GOOD, OUTCOMES[BAD])
    assert _engine.engine(["check"]) == 8


def test_versions_that_do_not_split_together_are_said(
    kept: list[bool], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both work, each for itself."""
    other = attrs.evolve(OUTCOMES[GOOD], rpc=RpcVersion(5, 1, 0))
    monkeypatch.setitem(OUTCOMES, BAD, other)
    assert _engine.engine(["list"]) == 0
    assert "RPC 5.1.0 and 7.0.0: a split takes one version" in capsys.readouterr().err


def test_a_file_that_is_no_program_of_llama_cpp_is_named(
    tmp_path: Path, kept: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it must be."""
    other = tmp_path / "other"
    other.write_text("")
    assert _engine.engine(["check", str(other)]) == 2
    assert f"{other} is neither llama-server nor an RPC server" in capsys.readouterr().err


def test_an_install_prints_the_server_alone(
    tmp_path: Path,
    kept: list[bool],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For ``LLAMA_CPP_EXE=$(punch engine install)``; all else is no output."""
    server = tmp_path / "llama-server"
    server.write_text("")
    server.chmod(0o755)

    async def install(folder: Path, *, say: Callable[[str], None]) -> Path:
        say("compiling")
        return tmp_path

    monkeypatch.setattr(_engine, "install_programs", install)
    assert _engine.engine(["install", "--build"]) == 0
    assert capsys.readouterr() == (f"{server}\n", "compiling\n")
    monkeypatch.setitem(OUTCOMES, GOOD, OUTCOMES[BAD])
    assert _engine.engine(["install"]) == 0
    assert capsys.readouterr() == (f"{server}\n", "compiling\n")


def test_nothing_is_built_where_something_works(
    kept: list[bool], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own llama.cpp, or what a Python package brings."""
    monkeypatch.setattr(_engine, "install_programs", lambda *_, **__: pytest.fail("it builds"))
    assert _engine.engine(["install"]) == 0
    out, err = capsys.readouterr()
    assert (out, "works already" in err) == ("/a/llama-server\n", True)


def test_an_install_that_fails_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sentence, not a traceback."""

    async def install(folder: Path, *, say: Callable[[str], None]) -> Path:
        raise ConfigurationError("no compiler")

    monkeypatch.setattr(_engine, "install_programs", install)
    assert _engine.engine(["install", "--build"]) == 2
    assert capsys.readouterr().err == "punch: no compiler\n"
