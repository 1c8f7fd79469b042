"""`LLAMA_CPP_EXE`, as people write it: what is named runs, or the listener says why it does not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from gguf_writer import tiny
from integration.fake_engine import fake_server, script
from integration.programs import Programs, limit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts with a #! line")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a server and a model in it."""
    folder = tmp_path / "llama cpp"
    fake_server(folder / "llama-server")
    (folder / "model.gguf").write_bytes(tiny())
    return folder


def variables(folder: Path, text: str) -> dict[str, str]:
    """What a listener is given."""
    return {
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_CPP_EXE": text,
        "LLAMA_GGUF_PATH": str(folder / "model.gguf"),
    }


def started_as(folder: Path) -> list[list[str]]:
    """The command lines of servers that were started."""
    lines = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    return [line for line in lines if "--port" in line]


@limit(60)
def test_what_is_named_runs_with_its_arguments(programs: Programs, folder: Path) -> None:
    """Under any name, from any folder, with spaces; and its own arguments count more than ours."""
    (folder / "bin").mkdir()
    (folder / "bin" / "renamed").symlink_to(folder / "llama-server")
    shutil.copy2(folder / "llama-server", folder / "bin" / "llama-completion")
    texts = [
        str(folder / "bin" / "renamed"),
        f"'{folder / 'llama-server'}' --flash-attn on --threads 3",
        f'"{folder / "bin" / "llama-completion"}" --x',
        "llama\\ cpp/llama-server --relative",
    ]
    started = [programs.start("listener", variables=variables(folder, text)) for text in texts]
    for listener in started:
        listener.wait_for("calibrated")
        listener.stop()
    found = sorted(started_as(folder), key=lambda line: line[1])
    plain, flash, relative, x = (
        next(line for line in found if line[1] == first)
        for first in ("--model", "--flash-attn", "--relative", "--x")
    )
    assert flash[1:5] == ["--flash-attn", "on", "--threads", "3"]
    assert flash.count("--threads") == 1
    assert plain[0] == str(folder / "bin" / "renamed")
    assert x[0] == str(folder / "bin" / "llama-completion")
    assert relative[0] == str(folder / "llama-server")


@limit(60)
def test_what_cannot_run_is_refused_and_nothing_runs(programs: Programs, folder: Path) -> None:
    """With the setting, what was found, what to do, and exit code 2."""
    script(folder / "no-shell", "#!/no/such/shell\n")
    script(folder / "picky", "#!/bin/sh\necho 'error: invalid argument: '$1; exit 1\n")
    server = folder / "llama-server"
    cases = {
        str(folder / "does-not-exist"): "does not exist",
        f"'{folder / 'does-not-exist'}' --flash-attn on": "does not exist",
        str(folder): f"is a folder; name the program in it, such as {server}",
        str(folder / "no-shell"): "its first line names /no/such/shell",
        f"'{folder / 'picky'}' --wrong": "invalid argument: --wrong",
        f"'{server}' --port 80": "--port, which punch sets itself",
    }
    started = [programs.start("listener", variables=variables(folder, text)) for text in cases]
    for listener, (text, words) in zip(started, cases.items(), strict=True):
        result = listener.wait()
        assert result.code == 2, (text, result)
        assert words in result.err, text
        assert "LLAMA_CPP_EXE=" in result.err, text
        assert "Traceback" not in result.err, text
    assert not (folder / "pids").exists()
