"""Options, exit codes, and what programs print."""

from __future__ import annotations

import json

import pytest

from punch import exceptions
from punch.bootstrap import __main__ as bootstrap
from punch.cli import (
    EXITS,
    BackendSettings,
    ExitCode,
    Option,
    boolean,
    count,
    exit_code,
    explain,
    open_backend,
    parse,
    print_json,
)
from punch.dialer import __main__ as dialer
from punch.exceptions import ConfigurationError, NoRealPeer, PunchError
from punch.listener import __main__ as listener
from punch.routing import POLICIES
from punch.wire import CommandResponse, Completion, Provenance

OPTIONS = (
    Option(name="--slots", convert=count(1), default=4, help="slots"),
    Option(name="--strict", convert=boolean, default=False, help="strict"),
    Option(name="--listen", many=True, default=(), help="addresses"),
)


def parsed(arguments=(), environment=None):
    return parse("test", "A test.", OPTIONS, list(arguments), environment or {})


def test_an_argument_beats_its_variable_and_that_the_default():
    """The nearer to the person, the stronger."""
    assert parsed().slots == 4
    assert parsed((), {"PUNCH_SLOTS": "2"}).slots == 2
    assert parsed(("--slots", "3"), {"PUNCH_SLOTS": "2"}).slots == 3


def test_flags_can_be_turned_off_again():
    """`--no-strict` beats a variable that turns it on; an empty variable is no."""
    assert parsed((), {"PUNCH_STRICT": "1"}).strict is True
    assert parsed(("--no-strict",), {"PUNCH_STRICT": "1"}).strict is False
    assert parsed((), {"PUNCH_STRICT": ""}).strict is False


def test_several_values_come_from_several_options_or_one_variable():
    """In the variable they are separated by spaces."""
    assert parsed(("--listen", "a", "--listen", "b")).listen == ("a", "b")
    assert parsed((), {"PUNCH_LISTEN": "a b"}).listen == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (("--slots", "0"), {}, "--slots is '0': it must be 1 or more"),
        (("--slots", "many"), {}, "--slots is 'many': it must be a number"),
        ((), {"PUNCH_SLOTS": "-1"}, "PUNCH_SLOTS is '-1': it must be 1 or more"),
        ((), {"PUNCH_STRICT": "maybe"}, "PUNCH_STRICT is 'maybe': write 1 or 0"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_it_came_under(arguments, environment, text):
    """The option or the variable, the value, and the rule."""
    with pytest.raises(ConfigurationError) as caught:
        parsed(arguments, environment)

    assert str(caught.value) == text


@pytest.mark.parametrize("program", [listener, dialer, bootstrap])
def test_every_option_has_a_working_default_and_a_variable_of_its_own(program):
    """Nothing must be given, and no two options listen to the same variable."""
    settings = parse("test", program.ABOUT, program.OPTIONS, [], {})
    variables = [option.environment for option in program.OPTIONS]

    assert all(hasattr(settings, option.key) for option in program.OPTIONS)
    assert len(variables) == len(set(variables))


def test_every_error_of_punch_has_an_exit_code_and_only_bugs_have_one():
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


def test_json_is_one_object_on_one_line(capsys):
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


def test_an_explanation_of_nothing_is_empty():
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
    name, environment, text
):
    """No backend starts half configured, and none falls back to the mock."""
    with pytest.raises(ConfigurationError) as caught:
        async with open_backend(name, BackendSettings(environment=environment)):
            pass

    assert text in str(caught.value)


def test_the_policies_in_the_help_are_the_policies_there_are():
    """The help is made from the table."""
    (option,) = (option for option in dialer.OPTIONS if option.name == "--policy")

    assert option.default == next(iter(POLICIES))
    assert all(name in option.help for name in POLICIES)
