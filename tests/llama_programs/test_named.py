"""Which program a person has named: what is there is run, and nothing else."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from punch.exceptions import ConfigurationError
from punch.llama_cpp import Named, read_named
from punch.llama_cpp._named import what_is

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A program in a folder with a space."""
    path = tmp_path / "my models" / "llama-server"
    path.parent.mkdir()
    path.touch(mode=0o755)
    return path


def test_a_path_may_have_spaces(server: Path) -> None:
    """Bare, if nothing stands behind it; in quotes, if something does."""
    assert read_named(str(server)) == Named(server)
    assert read_named(f"'{server}' --flash-attn on") == Named(server, ("--flash-attn", "on"))
    assert read_named(f'"{server}" --x "a b"') == Named(server, ("--x", "a b"))


def test_a_home_a_relative_path_and_a_name_are_found(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a shell."""
    monkeypatch.setenv("HOME", str(server.parent))
    assert read_named("~/llama-server --x") == Named(server, ("--x",))
    monkeypatch.chdir(server.parent.parent)
    assert read_named("my\\ models/llama-server --x") == Named(server, ("--x",))
    monkeypatch.setenv("PATH", str(server.parent))
    assert read_named("llama-server --x") == Named(server, ("--x",))


@pytest.mark.parametrize("name", ["other-server", "llama-server-", "llama-serve", "llama-cli"])
def test_what_does_not_exist_is_not_replaced(server: Path, name: str) -> None:
    """By what stands beside it; with arguments neither."""
    for text in (str(server.parent / name), f"'{server.parent / name}' --flash-attn on"):
        with pytest.raises(ConfigurationError, match=r"THE_SETTING=.*does not exist"):
            read_named(text, setting="THE_SETTING")


def test_a_folder_is_no_program(server: Path) -> None:
    """The remedy names the one that is in it."""
    with pytest.raises(ConfigurationError, match=f"is a folder.*{server}"):
        read_named(str(server.parent))


@pytest.mark.parametrize(
    "argument", ["--port", "--port=99", "-m", "--model", "-c", "-np", "--api-key"]
)
def test_an_argument_of_ours_is_refused(server: Path, argument: str) -> None:
    """It would be overridden without a word."""
    with pytest.raises(ConfigurationError, match=f"{argument}.*punch sets itself"):
        read_named(shlex.join([str(server), argument, "9"]))


@pytest.mark.parametrize("text", ["", " ", "'", '"/x', "~nobody-at-all/x", "a\0b", "x" * 5000])
def test_odd_text_names_nothing(text: str) -> None:
    """And is no fault of punch."""
    with pytest.raises(ConfigurationError, match="LLAMA_CPP_EXE="):
        read_named(text)


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arguments_come_as_a_shell_would_give_them(server: Path, words: list[str]) -> None:
    """Whatever is in them."""
    kept = [word for word in words if not word.startswith("-")]
    assert read_named(shlex.join([str(server), *kept])) == Named(server, tuple(kept))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (b"GGUF\x03", "LLAMA_GGUF_PATH"),
        (b"PK\x03\x04", "unpack"),
        (b"\x7fELF\x02", "another kind of processor"),
        (b"MZ\x90", "Windows"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"#!/no/such/shell\n", "/no/such/shell"),
        (b"echo hello\n", "#!"),
    ],
)
def test_what_cannot_be_run_is_told_by_its_first_bytes(
    head: bytes, words: str, tmp_path: Path
) -> None:
    """More than the system says."""
    path = tmp_path / "program"
    path.write_bytes(head)
    found = what_is(path)
    assert found is not None
    assert words in found


def test_nothing_is_guessed_of_a_script_whose_shell_is_there(tmp_path: Path) -> None:
    """The system's own words are all there is."""
    path = tmp_path / "program"
    path.write_text(f"#!{sys.executable}\n")
    assert what_is(path) is None
    assert what_is(tmp_path / "nothing") is None
