"""Files that are not what they seem: what is said of them, and what can be run all the same."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from gguf_writer import LLAMA, TENSORS, Tensor, gguf, tiny
from integration.fake_engine import fake_server
from integration.programs import Programs, limit

WHOLE = tiny()
OF_A_FORK = [*TENSORS, Tensor(name="x", shape=(64,), kind=137, size=64)]
ODD = {
    "empty": (b"", "it is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "git lfs pull"),
    "html": (b"<!doctype html><title>Sign in</title>", "a page of HTML"),
    "zip": (b"PK\x03\x04" + bytes(100), "a zip archive"),
    "safetensors": (struct.pack("<Q", 99) + b'{"a":{}}', "convert_hf_to_gguf.py"),
    "cut": (WHOLE[:-200], "not downloaded completely"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian order"),
    "reranker": (gguf({**LLAMA, "llama.pooling_type": 4}, TENSORS), "is a reranker"),
    "fork": (gguf(LLAMA, OF_A_FORK), "LLAMA_CPP_EXE take any"),
    "renamed": (
        gguf({**LLAMA, "split.no": 0, "split.count": 2}, TENSORS),
        "Rename it to Big-00001-of-00002.gguf",
    ),
}


@limit(60)
def test_a_list_of_models_says_what_is_wrong_with_each(programs: Programs) -> None:
    """In the words that a listener has for it, too."""
    folder = programs.data / "models"
    folder.mkdir(parents=True)
    for name, (data, _) in ODD.items():
        (folder / f"{name}.gguf").write_bytes(data)
    second = gguf({"split.no": 1, "split.count": 2}, TENSORS)
    (folder / "Big-00002-of-00002.gguf").write_bytes(second)
    result = programs.punch("models", "list")
    assert "Traceback" not in result.err
    for name, (_, words) in ODD.items():
        (line,) = (line for line in result.out.splitlines() if f"{name}.gguf" in line)
        assert words in line


@pytest.mark.skipif(sys.platform == "win32", reason="a script with a #! line")
@limit(60)
def test_weights_of_a_fork_run_on_a_program_that_may_know_them(
    programs: Programs, tmp_path: Path
) -> None:
    """With a context of 0, which says nothing; what is not known is said, and no more."""
    model = tmp_path / "fork.gguf"
    model.write_bytes(gguf({**LLAMA, "llama.context_length": 0}, OF_A_FORK))
    listener = programs.start(
        "listener",
        PUNCH_INFERENCE_BACKEND="llama_cpp",
        LLAMA_CPP_EXE=str(fake_server(tmp_path / "llama-server")),
        LLAMA_GGUF_PATH=str(model),
    )
    listener.wait_for("calibrated")
    assert listener.events("weights of a type that punch does not know")[0]["types"] == [137]
    assert listener.events("the file does not say which context")
    listener.stop()
