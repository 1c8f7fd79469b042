"""``punch alias``: further names of models, kept in the settings file and followed from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from punch.__main__ import _run
from punch.cli import ExitCode, aliases_of, open_alias_following
from punch.exceptions import ConfigurationError
from punch.routing.names import MAX_ALIASES, Alias
from punch.settings import DialerSettings, GatewaySettings, Origin, load, read_settings_file
from punch.testing import Swarm


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file that is not there yet."""
    found = tmp_path / "settings.toml"
    found.touch()
    monkeypatch.setenv("PUNCH_SETTINGS", str(found))
    monkeypatch.delenv("PUNCH_ALIAS", raising=False)
    return found


def test_aliases_are_made_listed_and_removed(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one name the last word counts; what else is in the file stays."""
    before = "# mine\nversion = 2\n[routing]\nhedge = true # yes\n"
    path.write_text(before)
    for typed in (["gpt-4o-mini", "x"], ["gpt-*", "llama3.2"], ["gpt-4o-mini", "llama3.2:3b"]):
        assert _run(["alias", *typed]) == ExitCode.OK
    assert _run(["alias"]) == ExitCode.OK
    listed = capsys.readouterr()
    assert listed.out == "gpt-*        llama3.2\ngpt-4o-mini  llama3.2:3b\n"
    assert str(path) in listed.err
    assert _run(["alias", "--json"]) == ExitCode.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"name": "gpt-*", "model": "llama3.2"}
    assert _run(["alias", "--remove", "gpt-*"]) == ExitCode.OK
    assert 'alias = ["gpt-4o-mini=llama3.2:3b"]' in path.read_text()
    assert _run(["alias", "--remove", "gpt-4o-mini"]) == ExitCode.OK
    assert path.read_text() == before
    assert _run(["alias"]) == ExitCode.OK
    assert "no alias" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["a"], "'a' needs a model"),
        (["a", "b*"], "no * is in its name"),
        (["a=b", "c"], "no = is in one"),
        (["a", "a.gguf"], "has its own name"),
        (["c", "a"], "'a' is an alias itself"),
        (["--remove", "x"], "there is no alias 'x'"),
        (["--remove"], "needs the name"),
        (["--remove", "a", "b"], "takes one name"),
    ],
)
def test_what_is_no_alias_is_refused_in_words(
    typed: list[str], words: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the file stays as it was."""
    assert _run(["alias", "a", "b"]) == ExitCode.OK
    before = path.read_text()
    assert _run(["alias", *typed]) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert path.read_text() == before


def test_aliases_are_bounded(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the file, which is refused with more, and so when one is added."""
    many = [f'"n{number}=m"' for number in range(MAX_ALIASES)]
    path.write_text(f"[routing]\nalias = [{','.join(many)}]\n")
    assert _run(["alias", "one", "more"]) == ExitCode.USAGE
    assert f"{MAX_ALIASES} are the most" in capsys.readouterr().err
    path.write_text(f"[routing]\nalias = [{','.join([*many, chr(34) + 'x=y' + chr(34)])}]\n")
    settings = load(DialerSettings, {}, {}, read_settings_file(path))
    with pytest.raises(ConfigurationError, match=f"{MAX_ALIASES} are the most"):
        aliases_of(settings)


def test_every_layer_may_set_them(path: Path) -> None:
    """As every setting; the variable's are apart by commas."""
    assert _run(["alias", "a", "b"]) == ExitCode.OK
    file = read_settings_file(path)
    of_file = load(DialerSettings, {}, {}, file)
    of_variable = load(DialerSettings, {}, {"PUNCH_ALIAS": "x=y, two words=z"}, file)
    of_flag = load(DialerSettings, {"--alias": ("p=q",)}, {"PUNCH_ALIAS": "x=y"}, file)
    found = [[str(alias) for alias in aliases_of(each).all] for each in (of_file, of_variable)]
    assert found == [["a=b"], ["x=y", "two words=z"]]
    assert of_flag.alias == (Alias("p", "q"),)


async def test_a_running_gateway_follows_the_file(
    path: Path, swarm: Swarm, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is half an edit, or has a fault, changes nothing; a file that is gone has none."""

    async def at_once(function: Callable[[], Any]) -> Any:
        """A thread has no virtual time: minutes would pass while it looks into the file."""
        await trio.lowlevel.checkpoint()
        return function()

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    settings = GatewaySettings()
    async with swarm.router() as router, open_alias_following(router, settings):

        async def becomes(*aliases: str) -> bool:
            for _ in range(30):
                await trio.sleep(1)
                if tuple(map(str, router.aliases.all)) == aliases:
                    return True
            return False

        path.write_text('[routing]\nalias = ["a=b"]\n')
        assert await becomes("a=b")
        path.write_text("[routing]\nalias = [")
        assert not await becomes()
        # A fault in another line, or a key that is no setting: no program would start with it.
        for fault in ("[gateway]\nport = -1\n", "[gateway]\nprot = 1\n"):
            path.write_text(f'[routing]\nalias = ["x=y"]\n{fault}')
            assert not await becomes("x=y")
        path.write_text('[routing]\nalias = ["a=b", "c=d=e"]\n')
        assert await becomes("a=b", "c=d=e")
        path.unlink()
        assert await becomes()


async def test_a_flag_counts_more_than_the_file_also_later(
    path: Path, swarm: Swarm, autojump_clock: MockClock
) -> None:
    """So the file is not looked at."""
    settings = attrs.evolve(
        GatewaySettings(), origins={"alias": Origin(layer="flag", name="--alias")}
    )
    async with swarm.router() as router, open_alias_following(router, settings):
        path.write_text('[routing]\nalias = ["a=b"]\n')
        await trio.sleep(30)
        assert router.aliases.all == ()


def test_a_key_for_an_alias_is_told_that_it_is_for_models(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else whoever made it would wonder why it may not be used."""
    keys = ["--keys", str(tmp_path / "keys.sqlite3")]
    assert _run(["alias", "gpt-4o", "llama3.2"]) == ExitCode.OK
    assert _run(["keys", "create", "k", "--models", "gpt-4o,b", *keys]) == ExitCode.OK
    assert "make the key for llama3.2" in capsys.readouterr().err
    assert _run(["keys", "create", "k", "--models", "b", *keys]) == ExitCode.OK
    assert "alias" not in capsys.readouterr().err
