"""Speeds of devices: the model that they are measured with, and how long they are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from punch.gguf import read_header, read_layout
from punch.llama_cpp import Speeds
from punch.llama_cpp._speeds import MAX_KEPT, _Kept, speeds_of
from punch.llama_cpp._trial import Made
from punch.llama_cpp._zeros import ZerosModel

ONE = Speeds(bandwidth=1e9, compute=2e9)
TWO = Speeds(bandwidth=3e9, compute=4e9)


@pytest.mark.parametrize(
    "model", [ZerosModel(), ZerosModel(layers=2, width=256, hidden=512)], ids=["usual", "small"]
)
def test_the_model_of_zeros_is_a_model(tmp_path: Path, model: ZerosModel) -> None:
    """What it says of its own size is what stands in its header."""
    path = tmp_path / "zeros.gguf"
    model.write(path)
    with path.open("rb") as file:
        header = read_header(file)
    with path.open("rb") as file:
        layout = read_layout([file])
    assert header.architecture == "llama"
    assert len(layout.layers) == model.layers
    norms = 4 * model.width * (2 * model.layers + 1)
    read = sum(layer.weights for layer in layout.layers) + layout.output
    assert read - norms == model.weight_bytes
    assert not layout.is_tied


def test_a_model_of_zeros_takes_no_space_where_files_have_holes(tmp_path: Path) -> None:
    """58 MB by its length; some kilobytes of the disk."""
    path = tmp_path / "zeros.gguf"
    ZerosModel().write(path)
    status = path.stat()
    assert status.st_size > 58_000_000
    if hasattr(status, "st_blocks"):
        assert status.st_blocks * 512 < 1_000_000


def test_the_best_round_counts() -> None:
    """The others were in the way of something else on the machine."""
    model = ZerosModel()
    made = [
        Made(tokens=8, prompt_rate=100.0, answer_rate=20.0, prompt_seconds=0.6),
        Made(tokens=8, prompt_rate=90.0, answer_rate=30.0, prompt_seconds=0.7),
    ]
    assert speeds_of(made, model) == Speeds(
        bandwidth=30.0 * model.weight_bytes, compute=100.0 * model.parameters
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A file that stands for a program."""
    file = tmp_path / "llama-server"
    file.write_text("one build")
    return file


def test_speeds_are_kept_for_the_same_program_and_question(tmp_path: Path, program: Path) -> None:
    """Other devices, other threads and another build are other questions."""
    folder = tmp_path / "cache"
    kept = _Kept(folder, [program], ["head", "CPU", 2])
    assert kept.speeds == []
    kept.keep([ONE, TWO])
    assert _Kept(folder, [program], ["head", "CPU", 2]).speeds == [ONE, TWO]
    assert _Kept(folder, [program], ["head", "CPU", 1]).speeds == []
    program.write_text("another build")
    assert _Kept(folder, [program], ["head", "CPU", 2]).speeds == []


def test_speeds_of_another_start_of_the_machine_are_forgotten(
    tmp_path: Path, program: Path
) -> None:
    """Its clock, its memory or its cooling may be others since."""
    _Kept(tmp_path, [program], ["head"]).keep([ONE])
    file = tmp_path / "speeds.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "boot": "another"}))
    assert _Kept(tmp_path, [program], ["head"]).speeds == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"boot": 1}', '{"boot": "%s", "speeds": [1]}', "\0", '"x"']
)
def test_a_damaged_file_is_measured_again(tmp_path: Path, program: Path, text: str) -> None:
    """And written anew."""
    kept = _Kept(tmp_path, [program], ["head"])
    (tmp_path / "speeds.json").write_text(text.replace("%s", kept._boot))
    assert _Kept(tmp_path, [program], ["head"]).speeds == []
    kept.keep([ONE])
    assert _Kept(tmp_path, [program], ["head"]).speeds == [ONE]


def test_kept_speeds_are_bounded(tmp_path: Path, program: Path) -> None:
    """The latest stay."""
    for number in range(MAX_KEPT + 5):
        _Kept(tmp_path, [program], [number]).keep([ONE])
    assert len(json.loads((tmp_path / "speeds.json").read_text())["speeds"]) == MAX_KEPT
    assert _Kept(tmp_path, [program], [0]).speeds == []
    assert _Kept(tmp_path, [program], [MAX_KEPT + 4]).speeds == [ONE]


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path, program: Path) -> None:
    """It is measured again the next time."""
    kept = _Kept(program / "no folder", [program], ["head"])
    kept.keep([ONE])
    assert kept.speeds == [ONE]
