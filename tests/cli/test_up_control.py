"""What a running `punch up` takes of its settings without a restart; its parts are stand-ins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from punch.admin import Call
from punch.admission import Caps
from punch.cli._namespace import Place
from punch.cli.running._log_kept import open_kept_log
from punch.cli.up._control import handlers_of
from punch.cli.up._running import RunningUp
from punch.cli.up._up_settings import UpSettings
from punch.exceptions import ConfigurationError, NetworkError
from punch.settings import load, open_settings


class StandIn:
    """A `punch up` of which only the settings are real."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.settings = load(UpSettings, {}, environment, open_settings(environment))
        self.limited: list[dict[str, Any]] = []
        self.reloaded: list[UpSettings] = []
        self.router = SimpleNamespace(aliases=None)
        self.opened: Any = SimpleNamespace(
            serving=SimpleNamespace(router=self.router),
            listener=SimpleNamespace(limit=lambda **caps: self.limited.append(caps)),
            membership=None,
            target=SimpleNamespace(place=Place(name="open", home=None)),
        )

    def keep(self, settings: UpSettings) -> None:
        """Go by *settings*."""
        self.settings = settings

    async def reload(self, settings: UpSettings) -> None:
        """Change the engine, or the adopted servers."""
        await trio.lowlevel.checkpoint()
        self.reloaded.append(settings)

    def status(self) -> Any:
        """What it is."""
        return SimpleNamespace(state="moving", as_data=lambda: {"state": "moving"})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file of the program."""
    path = tmp_path / "settings.toml"
    path.write_text("")
    monkeypatch.setenv("PUNCH_SETTINGS", str(path))
    return path


async def asked(stand_in: StandIn, command: str, **arguments: Any) -> Any:
    """What the handler of *command* comes to."""

    async def tell(value: Any) -> None:
        raise AssertionError

    with open_kept_log("warning") as log:
        handlers = handlers_of(cast("RunningUp", stand_in), log)
        return await handlers[command](Call(arguments=arguments, tell=tell))


async def test_what_its_parts_can_take_is_taken_at_once(file: Path) -> None:
    """Aliases, limits, the engine and adopted servers; a port needs a restart."""
    stand_in = StandIn({"PUNCH_SETTINGS": str(file)})
    file.write_text(
        "[routing]\nalias = ['gpt-*=smollm2']\n"
        "[listener]\nstranger_tokens = 50\ncontext = 1024\n"
        "[adopt]\nservers = ['http://127.0.0.1:4999']\n"
        "[gateway]\nport = 9000\n"
    )
    said = await asked(stand_in, "reload")
    assert {each["name"] for each in said["changed"]} == {
        "routing.alias",
        "listener.stranger_tokens",
        "listener.context",
        "adopt.servers",
    }
    assert [each["name"] for each in said["restart"]] == ["gateway.port"]
    assert [str(alias) for alias in stand_in.router.aliases.all] == ["gpt-*=smollm2"]
    assert stand_in.limited == [{"strangers": Caps(max_output=50), "limits": {}}]
    (settings,) = stand_in.reloaded
    assert settings.listener.backend.context == 1024
    assert [each.url for each in settings.adopting.servers] == ["http://127.0.0.1:4999"]


async def test_limits_of_members_are_refused_in_an_open_namespace_as_at_the_start(
    file: Path,
) -> None:
    """And those of strangers stay as they were."""
    stand_in = StandIn({"PUNCH_SETTINGS": str(file)})
    file.write_text("[listener]\nlimit = ['kid,tokens=5']\nstranger_tokens = 50\n")
    with pytest.raises(ConfigurationError, match="the namespace open is open"):
        await asked(stand_in, "reload")
    assert stand_in.limited == []
    assert stand_in.settings.listener.stranger_tokens is None


async def test_while_nothing_is_open_nothing_is_taken(file: Path) -> None:
    """It starts, or moves; whoever asks is told to ask again."""
    stand_in = StandIn({"PUNCH_SETTINGS": str(file)})
    stand_in.opened = None
    file.write_text("[routing]\nalias = ['a=b']\n")
    with pytest.raises(NetworkError, match="is moving: say it again once"):
        await asked(stand_in, "reload")


async def test_a_move_names_its_namespace(file: Path) -> None:
    """As a text; the status is plain data."""
    stand_in = StandIn({"PUNCH_SETTINGS": str(file)})
    with pytest.raises(ConfigurationError, match="say which namespace"):
        await asked(stand_in, "join", namespace=5)
    assert await asked(stand_in, "status") == {"state": "moving"}
