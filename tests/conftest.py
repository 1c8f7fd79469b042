"""What every test finds as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_settings_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody has set for their own punch says nothing in a test."""
    monkeypatch.setenv("PUNCH_SETTINGS", "none")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a program's start sets up for its whole process: see `punch.cli`."""
    root, ours = logging.getLogger(), logging.getLogger("punch")
    handlers, root_level, our_level = root.handlers[:], root.level, ours.level
    yield
    # In place, as pytest's own capturing has it; that puts its handlers there for each phase.
    root.handlers[:] = handlers
    root.setLevel(root_level)
    ours.setLevel(our_level)
