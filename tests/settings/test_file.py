"""The settings file: what is read, what is refused, and how it is changed."""

from __future__ import annotations

import stat
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from punch._locks import try_lock
from punch.exceptions import ConfigurationError
from punch.settings import (
    MAX_FILE_BYTES,
    SETTINGS,
    Setting,
    find_setting,
    read_settings_file,
    refuse_unknown,
    set_value,
    settings_path,
    unset_value,
)
from punch.settings.file import _edit as edit
from punch.settings.file import _forms as forms
from punch.settings.file._file import parse_settings
from punch.settings.file._forms import FORM

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")

COMMENTED = """\
# Ours. Ask Ada before you change it.
version = 2

[network]
namespace = "home"  # the house

[listener]
# A small machine:
slots = 2   # not more
queue = 4
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "punch" / "settings.toml"


def put(path: Path, name: str, *texts: str) -> None:
    set_value(path, find_setting(name), texts)


def data(path: Path) -> dict[str, object]:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    assert tables.pop("version") == FORM
    return tables


# ---- reading ----


def test_no_file_is_an_empty_one(path: Path) -> None:
    """Nothing is made by looking."""
    assert read_settings_file(path).tables == {}
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[listener\nslots = 1", "is no TOML: "),
        (b"[listener]\nslots = 1\nslots = 2", "is no TOML: "),
        (b"\xff\xfe[\x00", "is not UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), f"more than {MAX_FILE_BYTES} bytes"),
        (b"a = " + b"[" * (MAX_FILE_BYTES - 10), "nested too deep"),
        (b"a = " + b"{a=" * (MAX_FILE_BYTES // 4), "nested too deep"),
        (b"a = " + b"9" * 9000, "a value is too long"),
    ],
)
def test_a_hostile_or_broken_file_is_refused_in_a_sentence(
    path: Path, content: bytes, words: str
) -> None:
    """Whatever is in it, nothing but `ConfigurationError` comes out, and soon."""
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(ConfigurationError) as caught:
        read_settings_file(path)

    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """And what is read can be looked up."""
    try:
        text = content.decode()
        file = parse_settings(Path("x"), text)
        refuse_unknown(file)
    except (ConfigurationError, UnicodeDecodeError):
        pass


def test_a_file_made_to_take_long_does_not(path: Path) -> None:
    """Dotted keys cost tomllib the square of their length, which is bounded."""
    path.parent.mkdir()
    path.write_text("a" + ".a" * (MAX_FILE_BYTES // 2 - 10) + " = 1", encoding="utf-8")
    began = time.process_time()

    with pytest.raises(ConfigurationError):
        refuse_unknown(read_settings_file(path))

    assert time.process_time() - began < 10


@posix
def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe would hang, a folder cannot be read."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigurationError, match="is not a file"):
            read_settings_file(place)


def test_an_editor_of_another_system_is_no_trouble(path: Path) -> None:
    """A byte order mark, and CR LF."""
    path.parent.mkdir()
    path.write_bytes(b"\xef\xbb\xbf[listener]\r\nslots = 2 # few\r\n")

    assert read_settings_file(path).get("listener", "slots") == 2
    put(path, "slots", "3")
    assert path.read_bytes().endswith(b"[listener]\r\nslots = 3 # few\r\n")
    assert path.read_bytes().replace(b"\r\n", b"").count(b"\n") <= 1


def test_the_place_is_the_platforms_or_the_variables() -> None:
    """`none` is no file at all."""
    usual = settings_path({})
    assert usual is not None
    assert usual.name == "settings.toml"
    assert settings_path({"PUNCH_SETTINGS": "/x/y.toml"}) == Path("/x/y.toml")
    assert settings_path({"PUNCH_SETTINGS": "none"}) is None


# ---- changing ----


def test_comments_and_order_survive(path: Path) -> None:
    """One value is another, and no other byte is."""
    path.parent.mkdir()
    path.write_text(COMMENTED, encoding="utf-8")

    put(path, "listener.slots", "3")
    assert path.read_text(encoding="utf-8") == COMMENTED.replace("slots = 2", "slots = 3")
    assert unset_value(path, "listener.queue")
    assert path.read_text(encoding="utf-8") == COMMENTED.replace("slots = 2", "slots = 3").replace(
        "queue = 4\n", ""
    )


def test_what_was_set_is_taken_out_again_with_its_section(path: Path) -> None:
    """Nothing is left of it; what is not there cannot be taken out."""
    put(path, "listener.slots", "3")
    put(path, "network.namespace", "home")

    assert unset_value(path, "listener.slots")
    assert not unset_value(path, "listener.slots")
    assert data(path) == {"network": {"namespace": "home"}}
    assert not unset_value(path.with_name("other.toml"), "listener.slots")
    assert not path.with_name("other.toml").exists()


def test_what_is_no_setting_can_be_taken_out_and_no_whole_section_else(path: Path) -> None:
    """The error about it says how."""
    path.parent.mkdir()
    path.write_text("x = 1\n[listener]\nslotz = 1\n[y]\nz = 1\n", encoding="utf-8")

    assert not unset_value(path, "listener")
    assert unset_value(path, "listener.slotz")
    assert unset_value(path, "x")
    assert unset_value(path, "y")
    assert not unset_value(path, "version")
    assert data(path) == {}


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("listener.slots", ["3"], 3),
        ("dialer.temperature", ["0.5"], 0.5),
        ("gateway.body_limit", ["64"], 64),
        ("general.strict", ["on"], True),
        ("network.namespace", ['"quoted" \\ ä\n'], '"quoted" \\ ä\n'),
        ("listener.listen", ["a", "b"], ["a", "b"]),
        ("listener.listen", ["a"], ["a"]),
        ("routing.decision_log", ["none"], "none"),
        ("gateway.keys", ["/k"], str(Path("/k").absolute())),
        ("gateway.keys", ["k"], str(Path("k").absolute())),
    ],
)
def test_the_file_has_values_of_the_right_sort(
    path: Path, name: str, texts: list[str], value: object
) -> None:
    """Numbers without quotes, switches as true and false, lists as lists."""
    put(path, name, *texts)
    section, _, key = name.partition(".")

    assert data(path) == {section: {key: value}}


def test_a_value_that_breaks_the_rule_changes_nothing(path: Path) -> None:
    """The converter is the one that reads it later."""
    put(path, "listener.slots", "3")
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match=r"listener.slots '0' is not set: it must be 1"):
        put(path, "listener.slots", "0")

    assert path.read_bytes() == before


def test_a_broken_file_is_not_written_over(path: Path) -> None:
    """Somebody's typing is worth more than our tidiness."""
    path.parent.mkdir()
    path.write_text("[listener\nslots = 1", encoding="utf-8")

    with pytest.raises(ConfigurationError, match="is no TOML"):
        put(path, "listener.slots", "3")
    with pytest.raises(ConfigurationError, match="is no TOML"):
        unset_value(path, "listener.slots")

    assert path.read_text(encoding="utf-8") == "[listener\nslots = 1"


@posix
def test_the_file_belongs_to_its_owner_and_keeps_its_mode(path: Path) -> None:
    """Unless a secret comes in: then nobody else may read it."""
    put(path, "listener.slots", "3")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    path.chmod(0o644)
    put(path, "listener.slots", "4")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    put(path, "openai.key", "sk-1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix
def test_a_link_stays_one(tmp_path: Path) -> None:
    """People keep their settings in a repository of their own."""
    real, link = tmp_path / "real.toml", tmp_path / "settings.toml"
    real.write_text("# mine\n", encoding="utf-8")
    link.symlink_to(real)

    put(link, "listener.slots", "3")

    assert link.is_symlink()
    assert real.read_text(encoding="utf-8").startswith("# mine\n")
    assert data(real) == {"listener": {"slots": 3}}


def test_edits_at_the_same_time_all_count(path: Path) -> None:
    """Each reads the file again once it has the lock, and no temporary file is left."""
    names = [each.name for each in SETTINGS if each.rule.kind == "number"]
    threads = [threading.Thread(target=put, args=(path, name, "1")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    file = read_settings_file(path)
    refuse_unknown(file)
    assert sorted(
        f"{table}.{key}" for table, keys in file.tables.items() for key in keys
    ) == sorted(names)
    assert sorted(each.name for each in path.parent.iterdir()) == [
        ".settings.toml.lock",
        "settings.toml",
    ]


def test_who_waits_too_long_for_the_lock_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs does not hang the next one."""
    monkeypatch.setattr(edit, "LOCK_SECONDS", 0.0)
    path.parent.mkdir()
    with path.with_name(".settings.toml.lock").open("ab") as file:
        assert try_lock(file)
        with pytest.raises(ConfigurationError, match="being changed by another process"):
            put(path, "listener.slots", "3")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say."""
    put(path, "listener.slots", "3")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        ConfigurationError, match=r"cannot be changed: No space left.*make it writable"
    ):
        put(path, "listener.slots", "4")

    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2


# ---- older forms ----

OLD = COMMENTED.replace("version = 2\n", "")


def test_an_old_file_is_read_as_it_is_and_kept_when_it_is_changed(path: Path) -> None:
    """Nothing of it is lost: not a comment, and not the file that was there before."""
    path.parent.mkdir()
    path.write_text(OLD, encoding="utf-8")
    path.chmod(0o644)

    assert read_settings_file(path).get("listener", "slots") == 2
    assert not unset_value(path, "dialer.seed")
    assert path.read_text(encoding="utf-8") == OLD

    put(path, "listener.slots", "3")
    copy = path.with_name("settings.form-1.toml")
    assert copy.read_text(encoding="utf-8") == OLD
    assert f"version = {FORM} # as it was before: {copy.name}\n" in path.read_text()
    assert data(path) == {"network": {"namespace": "home"}, "listener": {"slots": 3, "queue": 4}}
    for comment in ("# Ours. Ask Ada before you change it.", "# the house", "# A small machine:"):
        assert comment in path.read_text(encoding="utf-8")
    if sys.platform != "win32":
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    put(path, "listener.slots", "4")
    assert sorted(each.name for each in path.parent.glob("settings*")) == [
        "settings.form-1.toml",
        "settings.toml",
    ]


def test_an_old_file_that_was_put_back_overwrites_no_copy(path: Path) -> None:
    """A second old file is another file."""
    path.parent.mkdir()
    for text in (OLD, "[listener]\nqueue = 9\n", OLD):
        path.write_text(text, encoding="utf-8")
        put(path, "listener.slots", "3")

    assert path.with_name("settings.form-1.toml").read_text(encoding="utf-8") == OLD
    assert "queue = 9" in path.with_name("settings.form-1-1.toml").read_text(encoding="utf-8")
    assert not path.with_name("settings.form-1-2.toml").exists()


def test_a_key_that_got_another_name_is_read_by_it_and_moved(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its value and its comment; an error names the line where it stands."""
    monkeypatch.setattr(forms, "MOVED", {1: {"listener.places": "listener.slots"}})
    path.parent.mkdir()
    path.write_text("[listener]\nqueue = 4\nplaces = 2  # not more\n", encoding="utf-8")

    file = read_settings_file(path)
    refuse_unknown(file)
    assert file.get("listener", "slots") == 2
    assert str(file.origin("listener", "slots")) == f"{path}:3"
    put(path, "listener.queue", "5")
    assert data(path) == {"listener": {"queue": 5, "slots": 2}}
    assert "# not more" in path.read_text(encoding="utf-8")

    path.write_text("[listener]\nplaces = 2\nslots = 3\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"take listener\.places out of it"):
        read_settings_file(path)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("3", "a newer punch has written it; run that one, or name another file"),
        ("0", "must be a whole number from 1 to 2"),
        ("true", "must be a whole number"),
        ('"two"', "must be a whole number"),
        ("9" * 400, "a newer punch has written it"),
    ],
)
def test_a_file_of_a_form_that_is_not_known_is_refused_and_left_alone(
    path: Path, version: str, words: str
) -> None:
    """Whoever knows half of a file would break the other half."""
    path.parent.mkdir()
    text = f"version = {version}\n[listener]\nslots = 2\n"
    path.write_text(text, encoding="utf-8")

    for attempt in (
        lambda: read_settings_file(path),
        lambda: put(path, "listener.slots", "3"),
        lambda: unset_value(path, "listener.slots"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            attempt()
        assert words in str(caught.value)
        assert len(str(caught.value)) < 400
    assert path.read_text(encoding="utf-8") == text
    assert len(list(path.parent.glob("settings*"))) == 1


NUMBERS = [each for each in SETTINGS if each.rule.kind == "number"]


# An edit waits for the disk.
@settings(deadline=None, max_examples=40)
@given(
    edits=st.lists(st.tuples(st.sampled_from(NUMBERS), st.sampled_from(["1", None])), max_size=12)
)
def test_any_edits_leave_what_they_say_and_every_comment(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[Setting[object], str | None]]
) -> None:
    """Against a plain dictionary."""
    path = tmp_path_factory.mktemp("edits") / "settings.toml"
    path.write_text(COMMENTED, encoding="utf-8")
    expected: dict[str, object] = {
        "network.namespace": "home", "listener.slots": 2, "listener.queue": 4,
    }  # fmt: skip
    for each, text in edits:
        if text is None:
            assert unset_value(path, each.name) == (each.name in expected)
            expected.pop(each.name, None)
        else:
            set_value(path, each, [text])
            expected[each.name] = 1
    file = read_settings_file(path)

    assert expected == {
        f"{table}.{key}": value
        for table, keys in file.tables.items()
        for key, value in keys.items()
    }
    assert "# Ours. Ask Ada before you change it." in file.text
    assert "# A small machine:" in file.text
    assert tomlkit.parse(file.text).unwrap() == tomllib.loads(file.text)
