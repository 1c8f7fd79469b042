"""How often it is told that a model loads."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from punch.processes import tell_loading


async def test_a_load_is_told_after_three_seconds_and_every_ten(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Most models are there before; a big one must not look like a fault."""
    caplog.set_level("INFO")
    with trio.move_on_after(25):
        await tell_loading("engine", lambda: None, None)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    for line, seconds in zip(lines, (3, 13, 23), strict=True):
        assert f"'seconds': {seconds}," in line
        assert "percent" not in line
