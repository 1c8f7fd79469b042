"""How a person writes which servers are adopted."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.exceptions import ConfigurationError
from punch.settings import Adoptee, AdoptingSettings, help_text, load, parse_flags
from punch.settings.file._file import parse_settings

WORDS = "http://nas:11434 model=llama3.2 features=chat,tools context=8192 slots=2 key=@NAS_KEY"


def settings(*typed: str, text: str = "", **environment: str) -> AdoptingSettings:
    flags = parse_flags("up", "", AdoptingSettings, typed)
    return load(AdoptingSettings, flags, environment, parse_settings(Path("settings.toml"), text))


def test_each_layer_takes_several_servers() -> None:
    """A flag each; semicolons or lines in the variable; a list in the file."""
    both = (Adoptee.of(WORDS), Adoptee.of("nas:8000"))
    assert settings("--adopt", WORDS, "--adopt", "nas:8000").servers == both
    assert settings(PUNCH_ADOPT=f"{WORDS}; nas:8000").servers == both
    assert settings(PUNCH_ADOPT=f"{WORDS}\nnas:8000\n").servers == both
    assert settings(text=f'[adopt]\nservers = ["{WORDS}", "nas:8000"]').servers == both
    assert settings().servers == ()


def test_every_word_is_read_and_written_as_it_was() -> None:
    """What is kept in the file is what was said."""
    adoptee = Adoptee.of(WORDS)
    assert adoptee == Adoptee(
        url="http://nas:11434", model="llama3.2", features=("chat", "tools"), context=8192,
        slots=2, key="@NAS_KEY",
    )  # fmt: skip
    assert str(adoptee) == WORDS
    assert str(Adoptee.of("nas:8000/v1/")) == "http://nas:8000/v1"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "it must look like"),
        ("ftp://nas", "it must look like"),
        ("http://", "it must look like"),
        ("nas:0", "it must look like"),
        ("nas:99999", "it must look like"),
        ("http://me:hunter2@nas", "no key, user or password"),
        ("http://nas?key=hunter2", "no key, user or password"),
        ("nas model", "is none of the words"),
        ("nas colour=red", "is none of the words"),
        ("nas model=a model=b", "is there twice"),
        ("nas features=fly", "it must be one of chat"),
        ("nas context=much", "whole number"),
        ("nas slots=0", "1 or more"),
        ("nas key=hunter2", "does not take the key itself"),
        ("nas key=@a-b", "does not take the key itself"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_rule(text: str, rule: str) -> None:
    """And no password is repeated."""
    with pytest.raises(ConfigurationError, match=rule) as refused:
        settings("--adopt", text)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "in_closed", "in_open"),
    [
        ([], True, False),
        (["--adopt-found"], True, True),
        (["--no-adopt-found"], False, False),
        (["--no-adopt"], False, False),
        (["--no-adopt", "--adopt-found"], False, False),
    ],
)
def test_servers_are_found_in_a_closed_namespace_and_in_an_open_one_when_asked(
    typed: list[str], in_closed: bool, in_open: bool
) -> None:
    """What is adopted in an open namespace answers everybody who knows its name."""
    made = settings(*typed)
    assert (made.finds(is_closed=True), made.finds(is_closed=False)) == (in_closed, in_open)


def test_a_flag_that_says_no_has_no_flag_that_says_no_no() -> None:
    """Its variable can take it back."""
    text = help_text("up", "", AdoptingSettings)
    assert "--no-adopt " in text
    assert "--no-no-adopt" not in text
    assert settings(PUNCH_NO_ADOPT="1").off
    assert not settings(PUNCH_NO_ADOPT="0").off


@given(st.text(max_size=80))
def test_any_text_is_a_server_or_is_refused(text: str) -> None:
    """What is read is written and read again as the same."""
    with suppress(ValueError):
        adoptee = Adoptee.of(text)
        assert Adoptee.of(str(adoptee)) == adoptee
