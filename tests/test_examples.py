"""The examples that need no network do what their heads promise."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from trio.testing import MockClock

EXAMPLES = Path(__file__).parent.parent / "examples"


async def output_of(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    await module.main()
    return capsys.readouterr().out.splitlines()


async def test_my_policy_prefers_the_roomy_listener(
    capsys: pytest.CaptureFixture[str], autojump_clock: MockClock
) -> None:
    """The scorer of the example decides, and the decision shows what it saw."""
    printed = await output_of("my_policy", capsys)

    assert printed == ["roomy: 64 GB free", "cramped: 2 GB free", "answered by roomy"]


async def test_two_peers_survives_the_death_of_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second listener answers what the first one was asked."""
    printed = await output_of("two_peers", capsys)

    assert printed == ["tried first: the connection was lost", "answered by second"]


async def test_second_turn_asks_its_own_backend_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """The second time with what was said before; who answered is this process."""
    printed = await output_of("second_turn", capsys)

    first, second = (line.split(" - by ") for line in printed)
    assert (first[0], second[0]) == ("1 messages, and: Hello!", "3 messages, and: And now?")
    assert first[1] == second[1]
    assert "kind='simulated'" in first[1]
