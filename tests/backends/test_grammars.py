"""What a schema becomes before llama.cpp makes a grammar of it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from punch.backends.openai._grammars import for_grammar, simpler
from punch.wire import broken_rule

SAID = [
    r"^\d{3}-\d{4}$",
    r"^\w+$",
    r"^[\w.-]{2,5}$",
    r"\d{3}",
    r"^[0-9]{3}",
    r"[a-z]\.json$",
    r"cat|dog",
    r"^(cat|dog)$",
    r"^(?:ab|cd)+$",
    r"^(?P<year>\d{4})-(?<month>0[1-9]|1[0-2])$",
    r"^[a-z]+?x$",
    r"^\S+ \D\W$",
    r"^[^@\s]{1,9}@[^@\s]{1,9}\.[a-z]{2,3}$",
    r"^[^\d\-_]{3}$",
    r"^\$\d+\.\d{2}$",
    r"^\(\d\)\[a\]\{2\}$",
    r"^https?:\/\/\w+\.com$",
    r"^.{1,5}\?$",
    r"^\x41é\u0042*$",
    r"^a\$",
    r"",
]


@pytest.mark.parametrize("pattern", SAID)
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_fits_the_simpler_pattern_fits_the_pattern(pattern: str, data: st.DataObject) -> None:
    """And can be written in JSON as it is."""
    simple = simpler(pattern)
    assert simple is not None
    assert re.search(r"\\[dwsDWSbB1-9p]|\(\?", simple) is None
    text = data.draw(st.from_regex(simple, fullmatch=True).map(lambda found: found.rstrip("\n")))
    written = f'"{text}"'
    assert json.loads(written) == text
    assert broken_rule(json.dumps({"type": "string", "pattern": pattern}), written) is None


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?=a)[a-z]+$",
        r"^(?!a)b$",
        r"(?<=a)b",
        r"^(a|b)\1$",
        r"^\p{L}+$",
        r"\bcat\b",
        r"^a|b$",
        r"a^b",
        r"a$b",
        r'^"$',
        r"^\\$",
        r"^\n$",
        "^\n$",
        r"^[\b]$",
        r"[",
        r"^*$",
        "^a\\",
    ],
)
def test_what_cannot_be_said_more_simply_stays_as_it_is(pattern: str) -> None:
    """Nothing that is not understood is changed."""
    assert simpler(pattern) is None
    assert for_grammar({"pattern": pattern}) == {"pattern": pattern}


@pytest.mark.parametrize(
    ("form", "good"),
    [
        ("email", "a.b@example.com"),
        ("ipv4", "192.0.2.255"),
        ("hostname", "www.example.com"),
        ("uri", "https://example.com/a/b.html"),
    ],
)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_a_format_becomes_a_pattern_of_such_texts(
    form: str, good: str, data: st.DataObject
) -> None:
    """Each of which is one."""
    pattern = for_grammar({"type": "string", "format": form})["pattern"]
    assert re.fullmatch(pattern[1:-1], good)
    text = data.draw(
        st.from_regex(pattern[1:-1], fullmatch=True, alphabet=st.characters(codec="ascii"))
    )
    schema = json.dumps({"type": "string", "format": form})
    assert broken_rule(schema, json.dumps(text)) is None


def test_the_rest_of_a_schema_stays_as_it_is() -> None:
    """Only rules are said anew, not values that look like them."""
    schema: dict[str, Any] = {
        "$defs": {"a": {"items": False, "prefixItems": [{"pattern": r"^\d$"}]}},
        "properties": {"pattern": {"type": "string"}, "gone": False, "any": True},
        "enum": [{"pattern": r"^\d$"}],
        "const": {"items": True},
        "allOf": [{"format": "date"}, {"pattern": 5, "format": "email"}],
    }
    assert for_grammar(schema) == {
        "$defs": {"a": {"prefixItems": [{"pattern": "^[0-9]$"}]}},
        "properties": {"pattern": {"type": "string"}, "any": True},
        "enum": [{"pattern": r"^\d$"}],
        "const": {"items": True},
        "allOf": [{"format": "date"}, {"pattern": 5, "format": "email"}],
    }
