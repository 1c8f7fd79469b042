"""Comparing an answer with the schema that it was asked to fit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.dialer import chat_request
from punch.exceptions import InvalidRequest
from punch.wire import broken_rule, check_request
from punch.wire.checks._fit import unusable
from punch.wire.checks._steps import steps

RULES = [
    ({"pattern": r"^\d{3}$"}, "123", "12a", "pattern"),
    ({"pattern": r"\d{3}"}, "a123b", "a12b", "pattern"),
    ({"pattern": r"^(?=a)[a-z]+$"}, "abc", "bcd", "pattern"),
    ({"pattern": r"^(a|b)\1$"}, "aa", "ab", "pattern"),
    ({"pattern": r"^\p{L}+$"}, "äö", "1", "pattern"),
    ({"pattern": r"\bcat\b"}, "a cat", "cats", "pattern"),
    ({"format": "email"}, "a@example.com", "nobody", "format"),
    ({"format": "ipv4"}, "127.0.0.1", "256.0.0.1", "format"),
    ({"format": "ipv6"}, "::1", "12345::", "format"),
    ({"format": "uri"}, "https://example.com/a", "example", "format"),
    ({"format": "hostname"}, "example.com", "-a-", "format"),
    ({"format": "date"}, "2024-02-29", "2023-02-29", "format"),
    ({"format": "date-time"}, "2024-02-29T10:00:00Z", "10 o'clock", "format"),
    ({"minimum": 5, "maximum": 6}, 5.5, -60, "minimum"),
    ({"exclusiveMaximum": 6}, 5.99, 6, "exclusiveMaximum"),
    ({"multipleOf": 7}, 21, 19, "multipleOf"),
    ({"multipleOf": 0.1}, 0.3, 0.35, "multipleOf"),
    ({"uniqueItems": True}, [1, 2], [1, 1.0], "uniqueItems"),
    ({"contains": {"const": 7}}, [1, 7], [], "contains"),
    ({"not": {"type": "string"}}, 1, "a", "not"),
    ({"minProperties": 1}, {"a": 1}, {}, "minProperties"),
    ({"patternProperties": {"^x": {"type": "integer"}}}, {"x": 1}, {"x": "1"}, "type"),
    ({"propertyNames": {"pattern": "^[a-z]+$"}}, {"a": 1}, {"A": 1}, "propertyNames"),
    ({"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}, "required"),
    ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, 4, 7, "oneOf"),
    (
        {"if": {"properties": {"k": {"const": 1}}}, "then": {"required": ["v"]}},
        {"k": 2},
        {"k": 1},
        "required",
    ),
    ({"properties": {"a": False}}, {"b": 1}, {"a": 1}, "falseSchema"),
    ({"prefixItems": [{"type": "integer"}], "items": False}, [1], [1, 2], "falseSchema"),
    ({"$anchor": "here", "items": {"$ref": "#here"}}, [[]], None, None),
]


@pytest.mark.parametrize(("schema", "good", "bad", "rule"), RULES)
def test_a_rule_that_no_grammar_holds_is_found_broken(
    schema: dict[str, Any], good: Any, bad: Any, rule: str | None
) -> None:
    """At the top and deep within; the answer itself is not quoted."""
    deep = {"type": "object", "properties": {"list": {"type": "array", "items": schema}}}
    check_request(asking(schema))
    check_request(asking(deep))
    assert broken_rule(json.dumps(schema), json.dumps(good)) is None
    assert broken_rule(json.dumps(deep), json.dumps({"list": [good]})) is None
    if rule is not None:
        for said, place in (
            (broken_rule(json.dumps(schema), json.dumps(bad)), "$"),
            (broken_rule(json.dumps(deep), json.dumps({"list": [good, bad]})), "$.list[1]"),
        ):
            assert said is not None
            assert said.startswith(place)
            assert said.endswith(f" breaks the rule {rule}")


def test_a_reference_is_followed_as_it_is_written() -> None:
    """With the escapes of an address and of a pointer."""
    schema = json.dumps({"$defs": {"a b/~": {"multipleOf": 7}}, "$ref": "#/$defs/a%20b~1~0"})
    assert broken_rule(schema, "7") is None
    assert broken_rule(schema, "8") == "$ breaks the rule multipleOf"


@pytest.mark.parametrize(
    "text", ["", "yes", "{", '{"a": NaN}', '{"a": 1} and more', "[" * 100_000, "1" * 5000]
)
def test_what_is_no_json_fits_nothing(text: str) -> None:
    """Also what only Python reads, and what Python will not read."""
    assert broken_rule("{}", text) == "it is not JSON"
    assert broken_rule('{"type": "object"}', text) == "it is not JSON"


def test_an_empty_schema_asks_for_an_object() -> None:
    """It stands for a client's `json_object`."""
    assert broken_rule("{}", ' {"a": [1]}\n') is None
    assert broken_rule("{}", "[1]") == "it is no JSON object"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"pattern": "(("}, 'has "((" at $.pattern'),
        ({"pattern": "[z-a]"}, 'has "[z-a]" at $.pattern'),
        ({"properties": {"a": {"type": "strin"}}}, '"strin" at $.properties.a.type'),
        ({"type": "array", "minItems": -1}, "-1 at $.minItems"),
        ({"$ref": "https://example.com/schema.json"}, "put what it refers to under $defs"),
        ({"$ref": "file:///etc/passwd"}, "put what it refers to under $defs"),
        ({"$ref": "#/$defs/missing"}, "put what it refers to under $defs"),
        ({"maxItems": "many", "pattern": 5, "properties": []}, "is no JSON Schema"),
    ],
)
def test_a_schema_that_nothing_can_be_compared_with_is_refused(
    schema: dict[str, Any], words: str
) -> None:
    """By the name of its field, with the place, before any peer is asked."""
    with pytest.raises(InvalidRequest, match=r"^response_schema ") as caught:
        check_request(asking(schema))
    assert words in str(caught.value)
    assert caught.value.param == "response_schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1},
        {"$schema": "https://example.com/no-draft", "minimum": 1},
        {"type": "array", "items": [{"type": "integer"}, {"minimum": 2}]},
        {"type": "number", "minimum": 1, "exclusiveMinimum": True},
        {"type": "string", "nullable": True, "x-order": 1, "example": "a", "discriminator": {}},
        {"definitions": {"a": {"type": "string"}}, "$ref": "#/definitions/a"},
        {"type": "string", "format": "color"},
        {"type": "string", "pattern": "^([a-z]{0,500}\\n){0,100}$"},
    ],
)
def test_schemas_of_other_drafts_and_dialects_are_taken(schema: dict[str, Any]) -> None:
    """Most that write one do not say by which rules."""
    check_request(asking(schema))


def test_older_drafts_mean_what_they_meant() -> None:
    """A list of items, and a bound that is excluded by a word of its own."""
    pair = '{"items": [{"type": "integer"}, {"type": "string"}]}'
    assert broken_rule(pair, '[1, "a"]') is None
    assert broken_rule(pair, '["a", 1]') == "$[0] breaks the rule type"
    above = '{"minimum": 1, "exclusiveMinimum": true}'
    assert broken_rule(above, "1.5") is None
    assert broken_rule(above, "1") is not None


def doubled(levels: int, wrap: Callable[[Any], Any]) -> str:
    """A schema that offers the next one twice, over and over."""
    names = [f"d{level}" for level in range(levels)]
    parts = {name: wrap({"$ref": f"#/$defs/d{i + 1}"}) for i, name in enumerate(names)}
    parts[f"d{levels}"] = {"type": "integer"}
    return json.dumps({"$defs": parts, "$ref": "#/$defs/d0"})


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
@pytest.mark.parametrize("levels", [4, 12, 18, 64, 200])
def test_alternatives_that_multiply_do_not_stop_the_clock(keyword: str, levels: int) -> None:
    """What would take years is not begun."""
    schema = doubled(levels, lambda ref: {keyword: [ref, ref]})
    began = time.perf_counter()
    said = broken_rule(schema, '"x"')
    assert time.perf_counter() - began < 2.0
    if levels <= 12:
        assert said is not None


def test_alternatives_that_refer_to_themselves_do_not_stop_the_clock() -> None:
    """Each level of the answer would double the work."""
    either = [
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a", name]}
        for name in ("b", "c")
    ]
    schema = json.dumps({"anyOf": [*either, {"type": "integer"}]})
    text = '{"a": ' * 250 + '"x"' + "}" * 250
    began = time.perf_counter()
    assert broken_rule(schema, text) is None
    assert time.perf_counter() - began < 2.0
    shallow = '{"a": ' * 3 + '"x"' + "}" * 3
    assert broken_rule(schema, shallow) == "$ breaks the rule anyOf"


def test_a_pattern_that_goes_back_for_ever_is_given_up() -> None:
    """It counts as broken: nobody can say that the text fits."""
    schema = json.dumps({"type": "string", "pattern": r"^(a|a)*\1$"})
    began = time.perf_counter()
    assert broken_rule(schema, json.dumps("a" * 5000 + "b")) is not None
    assert time.perf_counter() - began < 2.0


def asking(schema: dict[str, Any]) -> Any:
    """A request for an answer that fits *schema*."""
    return attrs.evolve(chat_request("x"), response_schema=json.dumps(schema))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab1", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@given(value=values, least=st.integers(-9, 9), step=st.integers(1, 5))
def test_numbers_anywhere_in_an_answer_are_held_to_their_rules(
    value: Any, least: int, step: int
) -> None:
    """Compared with what a few lines say of it."""

    def fits(one: Any) -> bool:
        if isinstance(one, dict):
            return all(map(fits, one.values()))
        if isinstance(one, list):
            return all(map(fits, one))
        return type(one) is not int or (one >= least and one % step == 0)

    tree: dict[str, Any] = {"minimum": least, "multipleOf": step}
    tree |= {"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}}
    assert (broken_rule(json.dumps(tree), json.dumps(value)) is None) == fits(value)


@given(value=values)
def test_steps_are_at_least_one_for_each_value_that_is_judged(value: Any) -> None:
    """The bound is no smaller than what it bounds."""

    def size(one: Any) -> int:
        inner = one if isinstance(one, list) else one.values() if isinstance(one, dict) else ()
        return 1 + sum(map(size, inner))

    tree = {"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}}
    counted = steps(tree, value)
    assert counted is not None
    assert counted >= size(value)


@pytest.mark.parametrize("pattern", [r"\Aabc\Z", "a{,3}", "(?#c)a", r"^\d{4}\Z"])
def test_a_pattern_of_another_language_is_refused(pattern: str) -> None:
    """And not left out for one that is too big: what it says would be held to nothing."""
    why = unusable(json.dumps({"properties": {"c": {"type": "string", "pattern": pattern}}}))
    assert why is not None
    assert "$.properties.c.pattern" in why


@pytest.mark.parametrize("name", ["https://example.com/a.json", "https://example.com/a.json#"])
def test_what_refers_to_the_schema_by_its_name_is_compared(name: str) -> None:
    """A schema with an ``$id`` may say it in full."""
    bare = name.rstrip("#")
    schema = json.dumps(
        {
            "$id": name,
            "properties": {"x": {"$ref": f"{bare}#/$defs/B"}, "y": {"$ref": bare}},
            "$defs": {"B": {"type": "boolean"}},
        }
    )
    assert unusable(schema) is None
    assert broken_rule(schema, '{"x": true, "y": {"x": false}}') is None
    assert broken_rule(schema, '{"x": null}') == "$.x breaks the rule type"
    assert broken_rule(schema, '{"y": {"x": 1}}') == "$.y.x breaks the rule type"
