"""`punch worker`: what it needs before it lends, and what it says where that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from punch.capability import PeerId
from punch.cli._shared import check_lend_to
from punch.cli.splits._worker import rpc_program
from punch.exceptions import ConfigurationError
from punch.settings import LendingSettings

PEER = PeerId("12D3KooWBYjqFD5NxrcJqJSArCr3cMR1qH4D6wt6P6s9AWzdt5x2")


def program(path: Path, name: str = "ggml-rpc-server") -> Path:
    """A program that could be run."""
    found = path / name
    found.write_text("#!/bin/sh\n", encoding="utf-8")
    found.chmod(0o755)
    return found


def test_an_open_namespace_needs_names() -> None:
    """A closed one does not; and the error says both ways out."""
    with pytest.raises(ConfigurationError, match="--lend-to PEER_ID") as raised:
        check_lend_to(LendingSettings(), is_open=True)
    assert "punch namespace create" in str(raised.value)
    check_lend_to(LendingSettings(), is_open=False)
    check_lend_to(LendingSettings(lend_to=(PEER,)), is_open=True)


@pytest.mark.parametrize("name", ["ggml-rpc-server", "rpc-server"])
async def test_the_program_is_the_one_that_is_named(tmp_path: Path, name: str) -> None:
    """Itself, or a folder with it, or one that stands beside the engine."""
    found = program(tmp_path, name)
    server = program(tmp_path, "llama-server")
    for settings in (
        LendingSettings(program=str(found)),
        LendingSettings(program=str(tmp_path)),
        LendingSettings(engine=str(server)),
    ):
        assert await rpc_program(settings) == found


@pytest.mark.parametrize("said", ["nothing", "a-text"])
async def test_a_program_that_cannot_be_run_is_refused_by_its_name(
    tmp_path: Path, said: str
) -> None:
    """Whether there is no such file, or one that nobody may run."""
    (tmp_path / "a-text").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said):
        await rpc_program(LendingSettings(program=str(tmp_path / said)))


async def test_an_engine_without_an_rpc_server_says_which_command_gets_one(
    tmp_path: Path,
) -> None:
    """Another one is not taken in its place: a head and its workers are of one build."""
    server = program(tmp_path, "llama-server")
    with pytest.raises(ConfigurationError, match="punch engine install"):
        await rpc_program(LendingSettings(engine=str(server)))


async def test_no_program_at_all_says_which_command_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """On a machine that has none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with trio.fail_after(60), pytest.raises(ConfigurationError, match="punch engine install"):
        await rpc_program(LendingSettings())
