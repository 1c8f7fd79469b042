"""Secrets in texts: hidden in every form, and names that peers accept."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.wire import HIDDEN, LIMITS, Secrets, clean_name, without_secrets

NAME = LIMITS["model"]

SECRETS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=8, max_size=40
).filter(lambda text: text not in HIDDEN and HIDDEN not in text)


@given(SECRETS, st.text(max_size=20), st.text(max_size=20))
def test_no_form_of_a_secret_is_left(secret: str, before: str, after: str) -> None:
    """As it is, quoted as URLs, JSON and Python have it, and in base64 at any place."""
    hide = Secrets([secret]).hide
    data = (before + "|" + secret + "|" + after).encode("utf-8", "replace")
    forms = [
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        quote(secret, safe="").lower() if secret.islower() else secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        secret.encode().hex(),
    ]
    for form in forms:
        assert form not in hide(f"{before}|{form}|{after}")
    whole = base64.b64encode(data).decode()
    assert base64.b64encode(secret.encode()).decode() not in hide(
        base64.b64encode(secret.encode()).decode()
    )
    assert HIDDEN in hide(whole)


def test_a_short_secret_does_not_eat_the_words_around_it() -> None:
    """A key of one letter would be shown by the letters that are missing."""
    assert Secrets(["k", None, ""]).hide("the key is not known") == "the key is not known"


def test_whatever_is_an_address_can_be_a_secret() -> None:
    """A server may name those that stand behind it."""
    hide = Secrets([], addresses=True).hide
    text = 'dial tcp 10.0.0.7:11434: refused; see http://inner:8080/x?k=1, "https://b/c" and 1.2.3'
    assert hide(text) == (f'dial tcp {HIDDEN}: refused; see {HIDDEN} "{HIDDEN}" and 1.2.3')


def test_secrets_are_not_in_their_own_representation() -> None:
    """It stands in tracebacks."""
    assert "hunter22" not in repr(Secrets(["hunter22"]))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:1/v1", "http://h:1/v1"),
        ("http://user:secret@h:1/v1", f"http://{HIDDEN}@h:1/v1"),
        ("http://secret@h", f"http://{HIDDEN}@h"),
        ("http://user:p@ss/wo@rd@h/v1", f"http://{HIDDEN}@h/v1"),
        ("http://h/v1?api_key=secret", f"http://h/v1?{HIDDEN}"),
        ("http://h/v1#secret", f"http://h/v1#{HIDDEN}"),
        ("http://u:s@h/v1?a=secret&b=x#y", f"http://{HIDDEN}@h/v1?{HIDDEN}"),
        ("user:secret@h", f"{HIDDEN}@h"),
        ("http://u:s?cret@h/v1", f"http://{HIDDEN}"),
        ("http://h/v1?k=s@cret", f"http://{HIDDEN}"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    """Also where it is no address at all."""
    assert without_secrets(url) == shown


@given(SECRETS, st.sampled_from(["http://u:{}@h/v1", "http://{}@h", "h?k={}", "http://h/#{}"]))
def test_no_part_of_a_secret_is_in_a_shown_address(secret: str, form: str) -> None:
    """Whatever characters it has, quoted or not."""
    shown = without_secrets(form.format(secret))
    rest = form.format("")
    assert shown in (without_secrets(form.format("x")), f"http://{HIDDEN}", HIDDEN), rest


@given(st.text(max_size=400))
def test_a_cleaned_name_is_one_that_peers_accept(text: str) -> None:
    """And cleaning it again changes nothing."""
    name = clean_name(text)
    if name is None:
        assert not any(c.isprintable() and not c.isspace() for c in text)
        return
    assert NAME.least <= len(name) <= NAME.most
    assert name.isprintable()
    name.encode()
    assert name == name.strip()
    assert clean_name(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("llama3.2:latest", "llama3.2:latest"),
        ("  llama\n", "llama"),
        ("lla\r\nma", "lla_ma"),
        ("a\x1b[31mb", "a_[31mb"),
        ("a\ud800b", "a_b"),
        ("Qwen 3", "Qwen 3"),
        ("", None),
        (" \n\t", None),
        ("\x00\u202e", None),
    ],
)
def test_what_no_terminal_should_print_goes_out_of_a_name(text: str, name: str | None) -> None:
    """Everything else stays: a person has seen it."""
    assert clean_name(text) == name


def test_two_long_names_with_the_same_beginning_stay_two() -> None:
    """The end of a name often says the quantisation."""
    long = "x" * 300
    first, second = clean_name(f"{long}a"), clean_name(f"{long}b")
    assert first is not None
    assert second is not None
    assert first != second
    assert len(first) == NAME.most
