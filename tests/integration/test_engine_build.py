"""Building llama.cpp's programs: what becomes of a build, by tools that do as if."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

import pytest
import trio

from punch.exceptions import ConfigurationError
from punch.llama_cpp import _build, install_programs, is_built, programs_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts with a #! line")

BUILDS = """\
case "$1" in
-S) test -f "$2/CMakeLists.txt" && mkdir -p "$4/bin"; echo configured;;
--build)
    echo '[ 0%] one'; echo '[ 9%] two'; echo '[ 55%] three'; echo '[100%] four'
    while [ "$1" != --target ]; do [ "$1" = --build ] && folder=$2; shift; done
    shift
    for program; do echo made > "$folder/bin/$program"; done;;
esac"""
FAILS = """\
case "$1" in
-S) echo configured;;
--build) echo 'ggml.c:1: error: no such thing' >&2; exit 1;;
esac"""


@pytest.fixture(autouse=True)
def archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source without its source; fetched without a network."""

    async def download(folder: Path, *, say: _build.Say) -> Path:
        path = folder / _build.ARCHIVE
        with tarfile.open(path, "w:gz") as opened:
            stem = _build.ARCHIVE.removesuffix(".tar.gz")
            info = tarfile.TarInfo(f"{stem}/vendor/llama.cpp/CMakeLists.txt")
            opened.addfile(info, io.BytesIO())
        return path

    monkeypatch.setattr(_build, "download", download)


def tools(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a cmake that is *script* on PATH, and what else is asked for."""
    folder.mkdir()
    for name, text in (("cmake", script), ("ninja", ""), ("cc", ""), ("c++", "")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


async def test_what_is_built_is_there_whole_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a build that was interrupted before."""
    tools(tmp_path / "tools", monkeypatch, BUILDS)
    cache = tmp_path / "cache"
    (cache / "llama.cpp" / ".building-old").mkdir(parents=True)
    (programs_folder(cache)).mkdir()
    said: list[str] = []
    folder = await install_programs(cache, say=said.append)
    assert folder == programs_folder(cache)
    assert is_built(cache)
    assert {file.name for file in folder.iterdir()} == {*_build.PROGRAMS, *_build.FURTHER}
    assert {file.name for file in folder.parent.iterdir()} == {
        _build.VERSION,
        f"{_build.VERSION}.lock",
    }
    assert said[1:] == ["0 %", "50 %", "100 %", f"built: {folder}"]


async def test_a_build_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the compiler's words."""
    tools(tmp_path / "tools", monkeypatch, FAILS)
    cache = tmp_path / "cache"
    with pytest.raises(ConfigurationError, match="error: no such thing"):
        await install_programs(cache, say=print)
    assert [file.name for file in (cache / "llama.cpp").iterdir()] == [f"{_build.VERSION}.lock"]


async def test_a_build_that_is_given_up_ends_its_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves nothing to be taken for a build."""
    mark = tmp_path / "compiling"
    tools(tmp_path / "tools", monkeypatch, f"echo $$ > {mark}; exec sleep 600")
    cache = tmp_path / "cache"
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: install_programs(cache, say=print))
            while not mark.exists() or not mark.read_text().strip():
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert [file.name for file in (cache / "llama.cpp").iterdir()] == [f"{_build.VERSION}.lock"]
