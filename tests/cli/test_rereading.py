"""What of the settings of a running program has changed, by the file that is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from punch.cli.running._rereading import Change, changes, read_again, with_changed
from punch.exceptions import ConfigurationError
from punch.settings import GatewaySettings, load, open_settings, parse_flags


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def variables(file: Path, **other: str) -> dict[str, str]:
    """What a program sees."""
    return {"PUNCH_SETTINGS": str(file), **other}


def started(environment: dict[str, str], *arguments: str) -> GatewaySettings:
    """The settings of a program that begins now."""
    flags = parse_flags("punch serve", "", GatewaySettings, arguments)
    return load(GatewaySettings, flags, environment, open_settings(environment))


def test_what_stands_in_the_file_is_read_again(file: Path) -> None:
    """And what is no longer there is the default."""
    file.write_text("[gateway]\nport = 9000\n[general]\nlog_level = 'debug'\n")
    before = started(variables(file))
    file.write_text("[routing]\nalias = ['gpt-*=smollm2']\n[general]\nlog_level = 'error'\n")
    after = read_again(before, variables(file))
    assert {(each.name, each.before, each.after) for each in changes(before, after)} == {
        ("gateway.port", "9000", "11435"),
        ("routing.alias", "not set", "gpt-*=smollm2"),
        ("general.log_level", "debug", "error"),
    }
    assert changes(after, read_again(after, variables(file))) == ()


def test_flags_and_variables_of_the_program_count_more_than_the_file(file: Path) -> None:
    """In groups of settings too; what a flag said is not asked of the file."""
    file.write_text("[gateway]\nport = 9000\nhost = '127.0.0.1'\n[listener]\nslots = 2\n")
    environment = variables(file, PUNCH_HOST="127.0.0.2")
    before = started(environment, "--port", "8000", "--slots", "4")
    file.write_text("[gateway]\nport = 9001\nhost = '127.0.0.3'\n[listener]\nslots = 3\n")
    after = read_again(before, environment)
    assert changes(before, after) == ()
    assert (after.port, after.host) == (8000, "127.0.0.2")
    assert after.origin("port") == before.origin("port")
    assert after.origin("port").layer == "flag"


def test_a_file_with_a_fault_says_its_line_and_what_to_do(file: Path) -> None:
    """It is refused as at the start."""
    file.write_text("")
    before = started(variables(file))
    file.write_text("[general]\n\nlog_level = 'loud'\n")
    with pytest.raises(ConfigurationError, match=r"settings.toml:3: .*`punch settings unset"):
        read_again(before, variables(file))


def test_a_part_of_the_changes_can_be_taken(file: Path) -> None:
    """The rest is told again next time: it still needs a restart."""
    file.write_text("")
    before = started(variables(file))
    file.write_text("[gateway]\nport = 9000\n[listener]\nslots = 3\nstranger_tokens = 5\n")
    after = read_again(before, variables(file))
    part = with_changed(before, after, {"listener.stranger_tokens"})
    assert part.listener.stranger_tokens == 5
    assert changes(before, part) == (
        Change(name="listener.stranger_tokens", before="not set", after="5"),
    )
    assert {each.name for each in changes(part, after)} == {"gateway.port", "listener.slots"}


def test_no_secret_is_shown(file: Path) -> None:
    """That it has changed is enough."""
    file.write_text("")
    before = started(variables(file))
    file.write_text("[openai]\nkey = 'sk-secret'\nurl = 'http://user:pass@127.0.0.1:1/v1'\n")
    after = read_again(before, variables(file))
    said = repr(changes(before, after))
    assert "openai" in said
    assert "sk-secret" not in said
    assert "pass@" not in said
