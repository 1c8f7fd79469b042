"""Speeds of devices: the model that they are measured with, and how long they are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from punch.gguf import read_header, read_layout
from punch.llama_cpp import Speeds, rescaled
from punch.llama_cpp._kept import MAX_KEPT, Kept
from punch.llama_cpp._speeds import _read, _write, speeds_of
from punch.llama_cpp._trial import Made
from punch.llama_cpp._zeros import ZerosModel, kind_of

ONE = Speeds(bandwidth=1e9, compute=2e9)
TWO = Speeds(bandwidth=3e9, compute=4e9)


@pytest.mark.parametrize(
    "model",
    [
        ZerosModel(),
        ZerosModel(layers=2, width=256, hidden=512),
        *(ZerosModel(kind=kind) for kind in ("Q4_1", "Q8_0", "F16", "IQ4_XS", "MXFP4")),
    ],
    ids=str,
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


@pytest.mark.parametrize(
    ("quantization", "kind"),
    [
        ("Q4_1", "Q4_1"), ("Q4_K_M", "Q4_K"), ("q4_k_s", "Q4_K"), ("Q3_K_L", "Q3_K"),
        ("F16", "F16"), ("IQ4_XS", "IQ4_XS"), ("IQ3_M", "Q4_K"), (None, "Q4_K"), ("", "Q4_K"),
        ("I32", "Q4_K"), ("something", "Q4_K"),
    ],
)  # fmt: skip
def test_a_model_is_measured_by_the_type_of_most_of_its_weights(
    quantization: str | None, kind: str
) -> None:
    """By the usual one where a mixture has no type of its name."""
    assert kind_of(quantization) == kind


def test_a_worker_is_taken_to_suffer_from_a_kind_of_weights_as_this_machine_does() -> None:
    """Q4_1 makes a third of the speed of prompts of Q4_K here, so there too."""
    usual = Speeds(bandwidth=6e9, compute=6e10)
    kind = Speeds(bandwidth=5e9, compute=2e10)
    told = Speeds(bandwidth=12e9, compute=9e10)
    found = rescaled(told, usual=usual, kind=kind)
    assert (round(found.bandwidth), round(found.compute)) == (10_000_000_000, 30_000_000_000)
    assert rescaled(told, usual=usual, kind=usual) == told


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


def test_what_is_kept_belongs_to_the_program_and_the_question(
    tmp_path: Path, program: Path
) -> None:
    """Other devices, other threads and another build are other questions."""
    file = tmp_path / "cache" / "kept.json"
    kept = Kept(file, [program], ["head", "CPU", 2])
    assert kept.value is None
    kept.keep([1, 2])
    assert Kept(file, [program], ["head", "CPU", 2]).value == [1, 2]
    assert Kept(file, [program], ["head", "CPU", 1]).value is None
    program.write_text("another build")
    assert Kept(file, [program], ["head", "CPU", 2]).value is None


def test_what_was_kept_in_another_start_of_the_machine_is_forgotten(
    tmp_path: Path, program: Path
) -> None:
    """Its clock, its memory or its cooling may be others since."""
    file = tmp_path / "kept.json"
    Kept(file, [program], ["head"]).keep(1)
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "boot": "another"}))
    assert Kept(file, [program], ["head"]).value is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"boot": 1}', '{"boot": "%s", "kept": [1]}', "\0", '"x"']
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, program: Path, text: str) -> None:
    """Nothing of it is believed."""
    file = tmp_path / "kept.json"
    kept = Kept(file, [program], ["head"])
    file.write_text(text.replace("%s", kept._boot))
    assert Kept(file, [program], ["head"]).value is None
    kept.keep(1)
    assert Kept(file, [program], ["head"]).value == 1


@pytest.mark.parametrize(
    "value",
    [
        1, "x", [1], {}, {"was_busy": False, "speeds": [{}]},
        {"was_busy": False, "speeds": [{"bandwidth": "x", "compute": 1}]},
    ],
)  # fmt: skip
def test_damaged_speeds_are_measured_again(tmp_path: Path, program: Path, value: object) -> None:
    """What is no speed is none."""
    kept = Kept(tmp_path / "kept.json", [program], ["head"])
    kept.keep(value)
    assert _read(kept, is_busy=False) == ()
    kept.keep(_write([ONE, TWO], was_busy=False))
    assert _read(kept, is_busy=False) == (ONE, TWO)


def test_speeds_of_a_busy_machine_are_measured_again_when_it_is_not(
    tmp_path: Path, program: Path
) -> None:
    """While it still is, another measurement would tell no more."""
    kept = Kept(tmp_path / "kept.json", [program], ["head"])
    kept.keep(_write([ONE], was_busy=True))
    assert _read(kept, is_busy=True) == (ONE,)
    assert _read(kept, is_busy=False) == ()


def test_what_is_kept_is_bounded(tmp_path: Path, program: Path) -> None:
    """The latest stay."""
    file = tmp_path / "kept.json"
    for number in range(MAX_KEPT + 5):
        Kept(file, [program], [number]).keep(number)
    assert len(json.loads(file.read_text())["kept"]) == MAX_KEPT
    assert Kept(file, [program], [0]).value is None
    assert Kept(file, [program], [MAX_KEPT + 4]).value == MAX_KEPT + 4


def test_a_folder_that_cannot_be_written_is_no_failure(program: Path) -> None:
    """It is found out again the next time."""
    kept = Kept(program / "no folder" / "kept.json", [program], ["head"])
    kept.keep(1)
    assert kept.value == 1
