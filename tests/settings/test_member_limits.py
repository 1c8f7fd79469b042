"""How a person writes what a member of a closed namespace may ask for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.exceptions import ConfigurationError
from punch.settings import ListenerSettings, SettingsFile, load, parse_flags
from punch.settings._member_limits import MemberLimits
from punch.settings.file._file import parse_settings

LAPTOP = "laptop, model=llama3.2, model=qwen*, tokens=500, seconds=20, priority=-5, hours=22-7"


def limits(
    *typed: str, variable: str | None = None, file: SettingsFile | None = None
) -> tuple[MemberLimits, ...]:
    """What a listener's settings make of it."""
    flags = parse_flags("listener", "", ListenerSettings, typed)
    environment = {} if variable is None else {"PUNCH_LIMIT": variable}
    return load(ListenerSettings, flags, environment, file).limit


def test_each_layer_takes_several_members() -> None:
    """A flag each; semicolons or lines in the variable; a list in the file."""
    first, second = MemberLimits.of(LAPTOP), MemberLimits.of("the old tablet,tokens=5")
    assert limits("--limit", LAPTOP, "--limit", "the old tablet,tokens=5") == (first, second)
    assert limits(variable=f"{LAPTOP}; the old tablet,tokens=5;") == (first, second)
    assert limits(variable=f"{LAPTOP}\n the old tablet,tokens=5 \n ") == (first, second)
    text = f'[listener]\nlimit = ["{LAPTOP}", "the old tablet,tokens=5"]\n'
    assert limits(file=parse_settings(Path("settings.toml"), text)) == (first, second)
    assert limits() == ()


def test_every_word_is_read() -> None:
    """With blanks around it or without."""
    found = MemberLimits.of(LAPTOP)
    assert found == MemberLimits.of(LAPTOP.replace(" ", ""))
    assert found == MemberLimits(
        member="laptop",
        models=frozenset({"llama3.2", "qwen*"}),
        tokens=500,
        seconds=20.0,
        priority=-5,
        hours=(22, 7),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "write MEMBER,WORD=VALUE"),
        ("laptop", "write MEMBER,WORD=VALUE"),
        ("tokens=5", "write MEMBER,WORD=VALUE"),
        ("tokens=5,laptop", "write MEMBER,WORD=VALUE"),
        (",tokens=5", "a name has 1 to 64"),
        (f"{'x' * 65},tokens=5", "a name has 1 to 64"),
        ("..abcd,tokens=5", "a name does not begin"),
        ("laptop,", "'' is no limit"),
        ("laptop,tokens", "'tokens' is no limit"),
        ("laptop,tokens=", "'tokens=' is no limit"),
        ("laptop,token=5", "'token=5' is no limit"),
        ("laptop,Tokens=5", "'Tokens=5' is no limit"),
        ("laptop,tokens=5,tokens=6", "tokens is there twice"),
        ("laptop,hours=1-2,hours=3-4", "hours is there twice"),
        ("laptop,tokens=0", "tokens is '0': it must be 1 or more"),
        ("laptop,tokens=many", "tokens is 'many': it must be a whole number"),
        ("laptop,seconds=0", "seconds is '0': it must be above 0"),
        ("laptop,seconds=nan", "seconds is 'nan': it must be a finite number"),
        ("laptop,priority=101", "priority is '101': it must be 100 or less"),
        ("laptop,priority=1.5", "priority is '1.5': it must be a whole number"),
        ("laptop,hours=22", "hours is '22': write two whole hours"),
        ("laptop,hours=22:30-7", "hours is '22:30-7': write two whole hours"),
        ("laptop,hours=-1-7", "hours is '-1-7': write two whole hours"),
        ("laptop,hours=22-25", "hours is '22-25': write two whole hours"),
        ("laptop,hours=7-7", "hours is '7-7': they end when they begin"),
        ("laptop,hours=0-24", "hours is '0-24': they end when they begin"),
        ("laptop,hours=24-0", "hours is '24-0': they end when they begin"),
        (f"laptop,model={'x' * 300}", "a name is"),
        (",".join(["laptop", *(f"model=m{n}" for n in range(65))]), "there are 65 models"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_rule(text: str, why: str) -> None:
    """Naming the flag, the value and the rule."""
    with pytest.raises(ConfigurationError) as caught:
        limits("--limit", text)
    assert str(caught.value).startswith("--limit is ")
    assert why in str(caught.value)


MEMBERS = st.text(
    st.characters(codec="utf-8", exclude_characters=",=", exclude_categories=("C", "Z")),
    min_size=1,
    max_size=64,
).filter(lambda name: not name.startswith(("..", "\u2026")))


@given(
    st.builds(
        MemberLimits,
        member=MEMBERS,
        models=st.none() | st.frozensets(MEMBERS, min_size=1, max_size=5),
        tokens=st.none() | st.integers(1, 1000),
        seconds=st.none() | st.floats(0.1, 1000.0),
        priority=st.integers(-100, 100),
        hours=st.none() | st.sampled_from([(22, 7), (0, 6), (6, 24), (7, 0)]),
    )
)
def test_what_is_shown_means_the_same(limits: MemberLimits) -> None:
    """In errors and lists it is written as it is read."""
    assert MemberLimits.of(str(limits)) == limits


@given(st.text(max_size=80))
def test_any_text_is_limits_or_a_rule_that_it_breaks(text: str) -> None:
    """Never another error."""
    with suppress(ValueError):
        MemberLimits.of(text)
