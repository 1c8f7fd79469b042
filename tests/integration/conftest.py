"""What the integration tests need from outside: a model, llama.cpp's programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
from integration.model_kinds import Q4_0, quantize, untie
from integration.programs import ROOT, Programs, open_programs

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def model_path() -> Path:
    """A small real model. It is never skipped: an untested backend is a broken one."""
    given = os.environ.get("PUNCH_TEST_MODEL")
    pulled = platformdirs.user_data_path("punch", appauthor=False) / "models" / MODEL
    path = Path(given) if given else pulled
    if not path.is_file():
        pytest.fail(
            f"no model at {path}: fetch it with `punch models pull smollm2`, "
            "or set PUNCH_TEST_MODEL to its path"
        )
    return path


@pytest.fixture(scope="session")
def llama_cpp_folder() -> Path:
    """The folder of llama.cpp's own programs."""
    given = os.environ.get("PUNCH_TEST_LLAMA_CPP")
    if not given:
        try:
            said = subprocess.run(
                [ROOT / "bins" / "llama-cpp", "--path"], capture_output=True, text=True, timeout=60
            )
            given = said.stdout.strip()
        except OSError:
            given = ""
    folder = Path(given) if given else None
    if folder is None or not (folder / "llama-server").is_file():
        pytest.fail(
            "no llama.cpp programs: build them with `bins/llama-cpp`, or set "
            "PUNCH_TEST_LLAMA_CPP to the folder that holds llama-server, llama-cli and "
            "llama-completion"
        )
    return folder


@pytest.fixture(scope="session")
def untied_model_path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small real model with an output matrix of its own; it answers the same."""
    return untie(model_path, tmp_path_factory.mktemp("untied") / "SmolLM2-untied.Q4_1.gguf")


@pytest.fixture(scope="session")
def smaller_model_path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small real model, stored in fewer bytes."""
    return quantize(model_path, tmp_path_factory.mktemp("smaller") / "SmolLM2.Q4_0.gguf", Q4_0)


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Punch's programs, with files and a bootstrap port of their own; all gone afterwards."""
    with open_programs(tmp_path) as opened:
        yield opened
