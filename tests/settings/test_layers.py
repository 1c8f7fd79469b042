"""Who says what a setting is: flag, variable, file, default, in this order."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.exceptions import ConfigurationError
from punch.gateway import DEFAULT_PORT
from punch.settings import (
    SETTINGS,
    SWITCH,
    TEXT,
    AdoptingSettings,
    BackendSettings,
    BootstrapSettings,
    DialerSettings,
    GatewaySettings,
    ListenerSettings,
    Setting,
    Settings,
    SettingsFile,
    SplitOptions,
    WorkerSettings,
    count,
    explain,
    find_setting,
    group,
    load,
    of,
    parse_flags,
    refuse_unknown,
    setting,
    settings_of,
    several,
)
from punch.settings.file._file import parse_settings

PATH = Path("/etc/punch/settings.toml")
PROGRAMS = (
    ListenerSettings,
    DialerSettings,
    GatewaySettings,
    BootstrapSettings,
    WorkerSettings,
    # Of `punch up`.
    AdoptingSettings,
)

SLOTS = setting("slots", count(1), 4, section="listener")
LISTEN = several("listen", TEXT, section="listener")
STRICT = setting("strict", SWITCH, False, section="general", variable="PUNCH_STRICT")


@attrs.frozen(kw_only=True)
class Inner(Settings):
    listen: tuple[str, ...] = of(LISTEN)


@attrs.frozen(kw_only=True)
class Few(Settings):
    slots: int = of(SLOTS)
    inner: Inner = group(Inner)
    strict: bool = of(STRICT)


def toml(text: str) -> SettingsFile:
    return parse_settings(PATH, text)


def few(*arguments: str, variables: dict[str, str] | None = None, file: str = "") -> Few:
    return load(Few, parse_flags("few", "", Few, arguments), variables or {}, toml(file))


LAYERS = st.fixed_dictionaries(
    {}, optional={name: st.integers(1, 10**6) for name in ("flag", "variable", "file")}
)


@given(said=LAYERS)
def test_the_strongest_layer_that_says_something_wins_and_is_named(said: dict[str, int]) -> None:
    """Flag, then variable, then file, then default; the value knows which."""
    flags = {"--slots": (str(said["flag"]),)} if "flag" in said else {}
    variables = {"PUNCH_SLOTS": str(said["variable"])} if "variable" in said else {}
    file = toml(f"[listener]\nslots = {said['file']}\n" if "file" in said else "")
    winner = next((layer for layer in ("flag", "variable", "file") if layer in said), "default")

    settings = load(Few, flags, variables, file)
    explained = explain(SLOTS, flags, variables, file)

    assert settings.slots == said.get(winner, 4) == explained.value
    assert settings.origin("slots") == explained.origin
    assert explained.origin.layer == winner
    assert str(explained.origin) == {
        "flag": "--slots", "variable": "PUNCH_SLOTS", "file": f"{PATH}:2", "default": "default",
    }[winner]  # fmt: skip


@given(items=st.lists(st.from_regex(r"[a-z/:*.]{1,8}", fullmatch=True), min_size=1, max_size=4))
def test_several_values_are_the_same_in_every_layer(items: list[str]) -> None:
    """The flag repeated, the variable with commas or blanks, the file's list."""
    array = ", ".join(f'"{item}"' for item in items)
    said = [
        few(*(word for item in items for word in ("--listen", item))),
        few(variables={"PUNCH_LISTEN": ",".join(items)}),
        few(variables={"PUNCH_LISTEN": "  ".join(items)}),
        few(file=f"[listener]\nlisten = [{array}]"),
    ]

    assert [settings.inner.listen for settings in said] == [tuple(items)] * 4


def test_flags_can_be_turned_off_again() -> None:
    """`--no-strict` beats a variable, and an empty variable beats a file: it is no."""
    on = "[general]\nstrict = true"

    assert few(file=on).strict is True
    assert few("--no-strict", variables={"PUNCH_STRICT": "1"}).strict is False
    assert few(variables={"PUNCH_STRICT": ""}, file=on).strict is False


def test_an_empty_variable_says_nothing_but_that_a_switch_is_off() -> None:
    """As shells have it: `PUNCH_SLOTS= punch ...`."""
    assert few(variables={"PUNCH_SLOTS": "", "PUNCH_LISTEN": " , "}) == few()
    backend = load(BackendSettings, {}, {"LLAMA_NO_MMAP": "", "PUNCH_OPENAI_URL": "  "})
    assert (backend.no_mmap, backend.openai_url) == (True, None)


@pytest.mark.parametrize(
    ("arguments", "variables", "file", "text"),
    [
        (["--slots", "0"], {}, "", "--slots is '0': it must be 1 or more"),
        (["--slots", "many"], {}, "", "--slots is 'many': it must be a whole number"),
        # More than a number of a program holds.
        (["--slots", "1" + "0" * 400], {}, "", "it must be 9223372036854775807 or less"),
        ([], {"PUNCH_SLOTS": "-1"}, "", "PUNCH_SLOTS is '-1': it must be 1 or more; unset the "
         "variable for the default"),
        ([], {"PUNCH_STRICT": "maybe"}, "", "PUNCH_STRICT is 'maybe': write 1 or 0; unset"),
        ([], {}, "[listener]\n# few\nslots = 0", f"{PATH}:3: listener.slots is '0': it must be 1 "
         "or more; `punch settings unset listener.slots` takes it out of the file"),
        ([], {}, "listener.slots = '4'", f"{PATH}:1: listener.slots is '4': write a number"),
        ([], {}, "listener = {slots = true}", "listener.slots is True: write a number"),
        ([], {}, "[listener]\nslots = 1.5", "listener.slots is '1.5': it must be a whole number"),
        ([], {}, "[listener]\nslots = [1]", "listener.slots is [1]: write a number"),
        ([], {}, "[listener]\nslots = 0x" + "f" * 9000, "it must be shorter"),
        ([], {}, "[general]\nstrict = 1", "general.strict is 1: write true or false"),
        ([], {}, "[listener]\nlisten = 5", "listener.listen is 5: write a list of texts"),
        ([], {}, "[listener]\nlisten = ['a', 5]", "listener.listen is 5: write a list of texts"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_by_the_name_it_came_under(
    arguments: list[str], variables: dict[str, str], file: str, text: str
) -> None:
    """Who said it, the value, the rule, and what to do."""
    with pytest.raises(ConfigurationError) as caught:
        few(*arguments, variables=variables, file=file)

    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("[listener]\nslotz = 4", f"{PATH}:2: there is no setting 'listener.slotz'; "
         "the nearest is listener.slots; `punch settings unset listener.slotz`"),
        ("namespace = 'home'", f"{PATH}:1: there is no setting 'namespace'; "
         "the nearest is network.namespace"),
        ("[dialer]\nnamespace = 'home'", "the nearest is network.namespace"),
        ("[gateway]\nslotz = 1", "the nearest is listener.slots"),
        ("[gateway]\ntimeouts = 1", "the nearest is gateway.timeout"),
        ("[dialer]\nqqqqqqqq = 1", "`punch settings list` has all"),
        ("\n[lisener]\nslots = 1", f"{PATH}:2: lisener is no section: there are general, network"),
        ("[gateway]\nallow-origin = []", "the nearest is gateway.allow_origin"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_the_nearest_known_one(file: str, words: str) -> None:
    """A slip in the file is not passed over: it would look as if it counted."""
    with pytest.raises(ConfigurationError) as caught:
        refuse_unknown(toml(file))

    assert words in str(caught.value)


def test_a_bad_value_of_another_program_stops_nobody() -> None:
    """The dialer does not read the gateway's section, but for names."""
    file = toml("[gateway]\nport = -1")

    assert load(DialerSettings, {}, {}, file) == load(DialerSettings, {}, {})
    with pytest.raises(ConfigurationError, match=r"gateway\.port"):
        load(GatewaySettings, {}, {}, file)


def test_a_secret_is_in_no_error_list_or_repr() -> None:
    """The key of an upstream."""
    variables = {"PUNCH_OPENAI_KEY": "sk-hidden"}
    settings = load(BackendSettings, {}, variables)

    assert settings.openai_key == "sk-hidden"
    assert "hidden" not in repr(settings)
    explained = explain(find_setting("openai.key"), {}, variables)
    assert explained.text == "(secret)"
    assert "hidden" not in repr(explained)
    with pytest.raises(ConfigurationError) as caught:
        load(BackendSettings, {}, {}, toml("[openai]\nkey = 12345"))
    assert "12345" not in str(caught.value)


def test_a_path_in_the_file_is_relative_to_the_file() -> None:
    """Where a program is started does not matter; `none` stays what it is."""
    file = toml("[gateway]\nkeys = 'k.sqlite3'\n[routing]\ndecision_log = 'none'")
    settings = load(GatewaySettings, {}, {}, file)

    assert settings.keys == PATH.parent / "k.sqlite3"
    assert settings.decision_log == "none"
    settings = load(GatewaySettings, {}, {}, toml("[gateway]\nkeys = '/k.sqlite3'"))
    assert settings.keys == Path("/k.sqlite3")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("smollm2", "smollm2"),
        ("qwen2.5-0.5b:latest", "qwen2.5-0.5b:latest"),
        ("models/x.gguf", str(PATH.parent / "models/x.gguf")),
        ("./x.gguf", str(PATH.parent / "x.gguf")),
        ("/x.gguf", "/x.gguf"),
        ("~/x.gguf", str(Path.home() / "x.gguf")),
    ],
)
def test_a_model_is_a_name_or_a_path_that_is_relative_to_the_file(said: str, found: str) -> None:
    """What was pulled has a name, and a name has no slash in it."""
    file = toml(f'[listener]\nmodel = "{said}"')

    assert load(ListenerSettings, {}, {}, file).backend.model == found


def test_the_identity_that_a_listener_has_in_the_file_is_its_own_inside_a_gateway_too() -> None:
    """Two programs with one identity would be one peer, so each section has its own."""
    file = toml("[listener]\nidentity = '/l.key'\n[gateway]\nidentity = '/g.key'")
    settings = load(GatewaySettings, {}, {}, file)

    assert (settings.identity, settings.listener.identity) == ("/g.key", "/l.key")
    assert settings.listener.origin("identity").layer == "file"
    flags = parse_flags("gateway", "", GatewaySettings, ["--identity", "k"])
    assert load(GatewaySettings, flags, {}).listener.origin("identity").layer == "flag"


def test_an_error_found_later_can_name_who_said_the_value() -> None:
    """The flag, the variable, the line of the file; of a default, what would say it."""
    file = toml("[listener]\nslots = 3")
    flags = parse_flags("listener", "", ListenerSettings, ["--context", "9"])
    backend = load(ListenerSettings, flags, {"PUNCH_INFERENCE_BACKEND": "mock"}, file).backend

    assert backend.said("context") == "--context"
    assert backend.said("slots") == f"{PATH}:2"
    assert backend.said("name") == "PUNCH_INFERENCE_BACKEND"
    assert backend.said("openai_url") == "PUNCH_OPENAI_URL"
    assert backend.said("model") == "--model"


def test_either_switch_of_strict_mode_is_enough() -> None:
    """`--no-strict` does not undo `PUNCH_DISABLE_SIMULATION=1`."""
    flags = parse_flags("dialer", "", DialerSettings, ["--no-strict"])

    assert load(DialerSettings, flags, {"PUNCH_DISABLE_SIMULATION": "1"}).strict.is_on
    assert load(DialerSettings, {}, {"PUNCH_STRICT_DISTRIBUTED": "1"}).strict.is_on
    assert not load(DialerSettings, flags, {"PUNCH_STRICT_DISTRIBUTED": "1"}).strict.is_on


def test_programs_have_defaults_of_their_own() -> None:
    """Those that answer a person say less; a bootstrap listens on everything."""
    assert load(ListenerSettings, {}, {}).log_level == "info"
    assert load(DialerSettings, {}, {}).log_level == "warning"
    assert load(BootstrapSettings, {}, {}).transport == "dual"
    assert load(DialerSettings, {}, {}, toml("[general]\nlog_level = 'debug'")).log_level == "debug"
    assert load(GatewaySettings, {}, {}).port == DEFAULT_PORT


@pytest.mark.parametrize("kind", PROGRAMS)
def test_every_setting_has_a_working_default(kind: type[Settings]) -> None:
    """Nothing must be given, and no two options of a program listen to the same variable."""
    assert load(kind, {}, {}) == kind()
    variables = [each.variable for each in settings_of(kind)]
    assert len(variables) == len(set(variables))


def test_the_table_has_every_setting_that_the_file_may_say() -> None:
    """None is forgotten, none is in it twice, and each belongs to a program."""
    names = [each.name for each in SETTINGS]
    used = {each.name for kind in PROGRAMS for each in settings_of(kind) if each.section}
    # The listener's key inside a gateway's settings hides behind the gateway's own.
    assert sorted(set(names)) == sorted(names) == sorted(used | {"listener.identity"})


@pytest.mark.parametrize("each", SETTINGS, ids=lambda each: each.name)
def test_a_default_keeps_its_own_rule_and_every_setting_says_what_it_does(
    each: Setting[object],
) -> None:
    """What a default is, somebody may write."""
    assert each.help
    assert each.variable
    if isinstance(each.default, str | int | float) and each.key != "body_limit":
        assert each.rule.convert(str(each.default)) == each.default


@pytest.mark.parametrize("name", ["listener.slots", "slots", "--slots", "general.log-level"])
def test_a_setting_is_found_by_the_names_that_people_try(name: str) -> None:
    """With its section, or without where that is enough; as the flag is written."""
    assert find_setting(name).key in {"slots", "log_level"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timeout", "there are several settings 'timeout': say dialer.timeout or gateway.timeout"),
        ("slotz", "the nearest is listener.slots"),
        ("", "there is no setting ''"),
        ("x" * 100_000, "there is no setting"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(name: str, words: str) -> None:
    """Or is asked which of several it means."""
    with pytest.raises(ConfigurationError) as caught:
        find_setting(name)

    assert words in str(caught.value)


def test_a_gateway_splits_with_the_options_of_a_coordinator() -> None:
    """All of them, by one definition: under names of their own, and in the file as well."""
    alone = {each.flag for each in settings_of(SplitOptions) if each.section is None}
    gateway = {each.flag for each in settings_of(GatewaySettings)}
    assert alone >= {"--workers", "--slots", "--force"}
    assert {f"--split-{(flag or '').removeprefix('--')}" for flag in alone} <= gateway
    typed = parse_flags("serve", "", GatewaySettings, ["--split-workers", "a,b", "--split-force"])
    variables = {"PUNCH_SPLIT_SLOTS": "2", "PUNCH_SLOTS": "7"}
    found = load(GatewaySettings, typed, variables, toml("[gateway]\nsplit_context = 512\n"))
    splits = found.splits
    assert (splits.workers, splits.slots, splits.force) == (("a", "b"), 2, True)
    assert (splits.context, splits.said("context")[-1:]) == (512, "2")
    # The listener of the same process has others, and what all programs have is the same one.
    assert (found.listener.backend.slots, found.listener.backend.context) == (7, None)
    assert find_setting("gateway.split_slots").variable == "PUNCH_SPLIT_SLOTS"
    assert sum(each.flag == "--log-level" for each in settings_of(GatewaySettings)) == 1
