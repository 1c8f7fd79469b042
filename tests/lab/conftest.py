"""The laboratory as a fixture, and what happens where there can be none."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.conftest import llama_cpp_folder, model_path
from lab.machines import REQUIRED, Lab, missing, open_lab, open_watch, sweep

__all__ = ["lab", "laboratory", "llama_cpp_folder", "model_path"]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def laboratory() -> Iterator[None]:
    """Be able to make machines; where that cannot be, say why, and fail where it must be."""
    why = missing()
    if why is not None and os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, and there can be no laboratory here: {why}")
    if why is not None:
        pytest.skip(f"no laboratory here: {why}")
    sweep()
    with open_watch():
        yield


@pytest.fixture
def lab(laboratory: None, tmp_path: Path) -> Iterator[Lab]:
    """Machines on a wire of their own; all gone afterwards."""
    with open_lab(tmp_path, next(_numbers)) as opened:
        yield opened
