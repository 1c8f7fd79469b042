"""What every test finds as it was."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import trio
from trio.testing import MockClock

from punch.testing import Swarm, open_swarm

# Virtual seconds, which cost nothing. No swarm of ours has so much to do: a test that gets here
# waits for something that never comes.
LIMIT_SECONDS = 3600.0


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


@pytest.fixture
async def swarm(autojump_clock: MockClock) -> AsyncIterator[Swarm]:
    """A network in memory with a bootstrap, in virtual time; a test that hangs in it fails.

    A test that takes it takes `autojump_clock` too: pytest-trio runs a test on the clock that
    the test itself asks for.
    """
    del autojump_clock
    with trio.fail_after(LIMIT_SECONDS):
        async with open_swarm() as swarm:
            yield swarm
