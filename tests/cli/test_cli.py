"""Options, exit codes, and what programs print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import pytest

from punch import exceptions
from punch.cli import (
    EXITS,
    OPENERS,
    ExitCode,
    exit_code,
    explain,
    load_settings,
    open_backend,
    print_json,
)
from punch.exceptions import ConfigurationError, NoRealPeer, PunchError
from punch.routing import POLICIES
from punch.settings import (
    BACKENDS,
    SWITCH,
    TEXT,
    BackendSettings,
    BootstrapSettings,
    DialerSettings,
    ListenerSettings,
    Settings,
    count,
    find_setting,
    load,
    of,
    setting,
    settings_of,
    several,
)
from punch.wire import CommandResponse, Completion, Provenance

SLOTS = setting("slots", count(1), 4)
STRICT = setting("strict", SWITCH, False)
LISTEN = several("listen", TEXT)


@attrs.frozen(kw_only=True)
class Few(Settings):
    slots: int = of(SLOTS)
    strict: bool = of(STRICT)
    listen: tuple[str, ...] = of(LISTEN)


def parsed(arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Few:
    environment = {"PUNCH_SETTINGS": "none", **(environment or {})}
    return load_settings("test", "A test.", Few, list(arguments), environment)


def test_an_argument_beats_its_variable_and_that_the_default() -> None:
    """The nearer to the person, the stronger."""
    assert parsed().slots == 4
    assert parsed((), {"PUNCH_SLOTS": "2"}).slots == 2
    assert parsed(("--slots", "3"), {"PUNCH_SLOTS": "2"}).slots == 3


def test_flags_can_be_turned_off_again() -> None:
    """`--no-strict` beats a variable that turns it on; an empty variable is no."""
    assert parsed((), {"PUNCH_STRICT": "1"}).strict is True
    assert parsed(("--no-strict",), {"PUNCH_STRICT": "1"}).strict is False
    assert parsed((), {"PUNCH_STRICT": ""}).strict is False


def test_several_values_come_from_several_options_or_one_variable() -> None:
    """In the variable they are separated by commas or spaces."""
    assert parsed(("--listen", "a", "--listen", "b")).listen == ("a", "b")
    assert parsed((), {"PUNCH_LISTEN": "a b"}).listen == ("a", "b")
    assert parsed((), {"PUNCH_LISTEN": "a,b"}).listen == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (("--slots", "0"), {}, "--slots is '0': it must be 1 or more"),
        (("--slots", "many"), {}, "--slots is 'many': it must be a whole number"),
        ((), {"PUNCH_SLOTS": "-1"}, "PUNCH_SLOTS is '-1': it must be 1 or more"),
        ((), {"PUNCH_STRICT": "maybe"}, "PUNCH_STRICT is 'maybe': write 1 or 0"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_it_came_under(
    arguments: tuple[str, ...], environment: dict[str, str], text: str
) -> None:
    """The option or the variable, the value, and the rule."""
    with pytest.raises(ConfigurationError) as caught:
        parsed(arguments, environment)

    assert str(caught.value).removesuffix("; unset the variable for the default") == text


@pytest.mark.parametrize("kind", [ListenerSettings, DialerSettings, BootstrapSettings])
def test_every_option_has_a_working_default_and_a_variable_of_its_own(
    kind: type[Settings],
) -> None:
    """Nothing must be given, and no two options listen to the same variable."""
    variables = [each.variable for each in settings_of(kind)]

    assert load(kind, {}, {}) == kind()
    assert len(variables) == len(set(variables))


def test_every_error_of_punch_has_an_exit_code_and_only_bugs_have_one() -> None:
    """A test walks the tree, so that no class is forgotten."""
    kinds = [
        kind
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and issubclass(kind, PunchError)
    ]
    codes = {kind.__name__: exit_code(kind("x")) for kind in kinds}

    bugs = {name for name, code in codes.items() if code is ExitCode.BUG}
    assert bugs == {"PunchError", "ProtocolError", "LocalProtocolError", "RemoteProtocolError"}
    assert codes["NoRealPeer"] is ExitCode.NO_REAL_PEER
    assert codes["UnknownModel"] is ExitCode.NO_PEER
    assert EXITS[0][0] is NoRealPeer


def test_json_is_one_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the text holds."""
    print_json(
        CommandResponse(
            request_id="r",
            status="success",
            result=Completion(text="one\ntwo \u2028 three"),
            provenance=Provenance(kind="real", backend="x"),
        )
    )
    out = capsys.readouterr().out

    assert out.count("\n") == 1
    assert json.loads(out)["result"]["text"] == "one\ntwo \u2028 three"


def test_an_explanation_of_nothing_is_empty() -> None:
    """Without a decision there is nothing to say."""
    assert explain([], []) == ""


@pytest.mark.parametrize(
    ("name", "environment", "text"),
    [
        ("gpt", {}, "PUNCH_INFERENCE_BACKEND is 'gpt': it must be one of mock"),
        ("llama_cpp", {}, "LLAMA_CPP_EXE is not set"),
        ("llama_cpp", {"LLAMA_CPP_EXE": "/x"}, "LLAMA_GGUF_PATH is not set"),
        ("embedded", {}, "punch models pull smollm2"),
        ("llama_cpp_python", {}, "LLAMA_GGUF_PATH is not set"),
        ("openai", {}, "PUNCH_OPENAI_URL is not set"),
        ("mock", {"PUNCH_MOCK_DECODE_RATE": "fast"}, "PUNCH_MOCK_DECODE_RATE is 'fast'"),
    ],
)
async def test_a_missing_setting_is_refused_with_the_variable_and_the_remedy(
    name: str, environment: dict[str, str], text: str
) -> None:
    """No backend starts half configured, and none falls back to the mock."""
    with pytest.raises(ConfigurationError) as caught:
        variables = {"PUNCH_INFERENCE_BACKEND": name, **environment}
        async with open_backend(load(BackendSettings, {}, variables)):
            pass

    assert text in str(caught.value)


def test_the_policies_in_the_help_are_the_policies_there_are() -> None:
    """The help is made from the table."""
    option = find_setting("routing.policy")

    assert option.default == next(iter(POLICIES))
    assert all(name in option.help for name in POLICIES)


def test_a_program_reads_the_settings_file_that_the_environment_names(tmp_path: Path) -> None:
    """And `--help` and commands that keep nothing there do not stumble over a bad one."""
    path = tmp_path / "settings.toml"
    path.write_text("[network]\nnamespace = 'home'\n", encoding="utf-8")
    environment = {"PUNCH_SETTINGS": str(path)}
    settings = load_settings("punch dialer", "", DialerSettings, [], environment)

    assert settings.network.namespace == "home"
    assert str(settings.network.origin("namespace")) == f"{path}:2"
    path.write_text("[network", encoding="utf-8")
    assert load_settings("test", "", Few, [], environment) == Few()
    with pytest.raises(SystemExit):
        load_settings("punch dialer", "", DialerSettings, ["--help"], environment)
    with pytest.raises(ConfigurationError, match="is no TOML"):
        load_settings("punch dialer", "", DialerSettings, [], environment)


def test_the_backends_that_can_be_named_can_be_opened() -> None:
    """The settings know names, the command line opens them."""
    assert tuple(OPENERS) == BACKENDS


async def test_an_error_after_loading_names_who_said_it_too() -> None:
    """A value keeps where it came from."""
    flags = {"--model": ("/nowhere/x.gguf",), "--backend": ("embedded",)}
    with pytest.raises(PunchError) as caught:
        async with open_backend(load(BackendSettings, flags, {})):
            pass

    assert "--model" in str(caught.value)
