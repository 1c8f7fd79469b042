"""A running program takes what it can of a changed settings file, and names the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from punch.cli.running._reloading import Live, Reloading
from punch.exceptions import ConfigurationError, PunchError
from punch.settings import GatewaySettings, load, open_settings


class Program:
    """A program that goes by settings."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.environment = {"PUNCH_SETTINGS": str(file)}
        self.settings = load(GatewaySettings, {}, self.environment, open_settings(self.environment))
        self.taken: list[Any] = []

    def keep(self, settings: GatewaySettings) -> None:
        """Go by *settings*."""
        self.settings = settings

    async def note(self, settings: GatewaySettings) -> None:
        """Take settings."""
        await trio.lowlevel.checkpoint()
        self.taken.append(settings)

    def reloading(self, *live: Live) -> Reloading:
        """What reloads it."""
        return Reloading(lambda: self.settings, self.keep, live, self.environment)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "settings.toml").write_text("")
    return Program(tmp_path / "settings.toml")


def names(said: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the settings."""
    return {key: sorted(each["name"] for each in values) for key, values in said.items()}


async def test_what_a_part_can_take_is_taken_and_the_rest_is_named(program: Program) -> None:
    """The rest is named each time, until the restart; what was taken is not."""
    aliases = Live(names=frozenset({"routing.alias"}), take=program.note)
    reloading = program.reloading(aliases)
    text = "[routing]\nalias = ['a=b']\n[gateway]\nport = 9000\n[listener]\nslots = 3\n"
    program.file.write_text(text)
    said = await reloading.reload()
    rest = ["gateway.port", "listener.slots"]
    assert names(said) == {"changed": ["routing.alias"], "restart": rest}
    assert said["restart"][0] == {"name": "gateway.port", "before": "11435", "after": "9000"}
    (taken,) = program.taken
    assert program.settings is taken
    assert [str(alias) for alias in taken.alias] == ["a=b"]
    assert taken.port == 11435
    assert names(await reloading.reload()) == {"changed": [], "restart": rest}
    assert len(program.taken) == 1


async def test_a_whole_section_can_be_taken(program: Program) -> None:
    """Whatever settings it has."""
    reloading = program.reloading(Live(names=frozenset({"listener."}), take=program.note))
    program.file.write_text("[listener]\nslots = 3\nqueue = 2\n")
    assert names(await reloading.reload()) == {
        "changed": ["listener.queue", "listener.slots"],
        "restart": [],
    }


async def test_a_broken_file_changes_nothing(program: Program) -> None:
    """Though another line of it could have been taken."""
    before = program.settings
    reloading = program.reloading(Live(names=frozenset({"routing.alias"}), take=program.note))
    program.file.write_text("[routing]\nalias = ['a=b']\n[gateway]\nport = 'x'\n")
    with pytest.raises(ConfigurationError, match=r"settings.toml:4: "):
        await reloading.reload()
    assert program.settings is before
    assert program.taken == []


async def test_a_part_that_cannot_take_its_settings_keeps_those_it_had(program: Program) -> None:
    """And says why; it is asked again next time."""

    async def refuse(settings: GatewaySettings) -> None:
        raise PunchError("there are too many")

    reloading = program.reloading(Live(names=frozenset({"routing.alias"}), take=refuse))
    program.file.write_text("[routing]\nalias = ['a=b']\n")
    for _ in range(2):
        with pytest.raises(PunchError, match="there are too many"):
            await reloading.reload()
    assert program.settings.alias == ()


async def test_two_at_a_time_take_each_change_once(program: Program) -> None:
    """One after the other."""
    aliases = Live(names=frozenset({"routing.alias"}), take=program.note)
    reloading = program.reloading(aliases)
    program.file.write_text("[routing]\nalias = ['a=b']\n")
    async with trio.open_nursery() as nursery:
        reload: Callable[[], Any] = reloading.reload
        nursery.start_soon(reload)
        nursery.start_soon(reload)
    assert len(program.taken) == 1
