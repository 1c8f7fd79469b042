"""Which schemas repeat too much for any engine, and which honest ones do not."""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.exceptions import InvalidRequest
from punch.wire import ChatMessage, CommandRequest, Tool, check_request
from punch.wire.checks._pattern_size import pattern_size
from punch.wire.checks._repetition import MAX_SCHEMAS, RepetitionCheck

HI = (ChatMessage(role="user", content="Hi"),)

EXPLODING = [
    r"^((((a{0,99}){0,99}){0,99}){0,99}){0,99}$",
    r"^(a{0,99}){0,99}$",
    r"^(a{1,99}){1,99}$",
    r"^(a{0,99}){99,}$",
    r"^(a{,99}){,99}$",
    r"^(?:[a-z]{0,99}){0,99}$",
    r"^(?<name>\w{2,99}){2,99}$",
    r"^(a{0,99}|b{0,99}){0,99}$",
    r"^((a|ab){0,99}){0,99}$",
    r"^a{0,99}{0,99}$",
    r"^(a?){0,9999}$",
    r"^(a*){0,9999}$",
    r"^(a+){0,9999}$",
    r"^(.*){9999,}$",
    r"^(\w{1,50}\s?){1,50}$",
    r"^a{0,999}a{0,999}$",
    r"^((((a{99}){99}){99}){99}){99}$",
    r"^((((a{99,}){99,}){99,}){99,}){99,}$",
    r"^a{2000000000}$",
    r"^a{99999999999999999999999999999999}$",
    "(" * 2000 + "a" + "{2})" * 2000,
    "(a{0,99}" * 500,
]

HONEST = [
    r"^a{0,99}$",
    r"^[a-z]{0,4000}$",
    r".*foo.*",
    r"^((a*)*)*$",
    r"^(a+)+$",
    r"^[a-zA-Z0-9._%+-]{1,64}@[a-zA-Z0-9.-]{1,255}\.[a-zA-Z]{2,63}$",
    r"^([a-z0-9-]{1,63}\.){1,10}[a-z]{2,63}$",
    r"^((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)$",
    r"^([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$",
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    r"^([A-Za-z0-9+/]{4}){0,2000}={0,2}$",
    r"^(%[0-9A-F]{2}|[a-z0-9]){1,255}$",
    r"^(red|green|blue)(,(red|green|blue)){0,99}$",
    r"^(\w{1,50}\s){1,99}$",
    r"^(\+\d{1,3} ?)?(\(\d{1,4}\) ?)?[\d -]{4,20}$",
    r"^\d{4}-(0[1-9]|1[0-2])-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$",
    r"^(.{0,500}\n){0,100}$",
    "|".join(f"word{number}" for number in range(1000)),
]


def request(schema: dict[str, Any], **more: Any) -> CommandRequest:
    """A request for an answer that fits *schema*."""
    return CommandRequest(request_id="r", messages=HI, response_schema=json.dumps(schema), **more)


def array(items: Any, most: int, keyword: str = "maxItems") -> dict[str, Any]:
    """An array of *items*."""
    return {"type": "array", "items": items, keyword: most}


def chain(links: int, link: Any) -> dict[str, Any]:
    """A schema of references, each within what *link* makes of the next."""
    definitions: dict[str, Any] = {
        f"d{n}": link({"$ref": f"#/$defs/d{n + 1}"}) for n in range(links)
    }
    definitions[f"d{links}"] = {"type": "string", "maxLength": 100}
    return {"$defs": definitions, "$ref": "#/$defs/d0"}


def nested(levels: int, most: int, keyword: str = "maxItems") -> dict[str, Any]:
    """Arrays in arrays, each of *most* items."""
    found: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        found = array(found, most, keyword)
    return found


@pytest.mark.parametrize("pattern", EXPLODING)
def test_a_pattern_that_explodes_is_refused_by_name(pattern: str) -> None:
    """With the field, the value, the rule and what to do."""
    with pytest.raises(InvalidRequest, match=r"^response_schema has the pattern .*; at most") as e:
        check_request(request({"type": "string", "pattern": pattern}))
    assert e.value.param == "response_schema"
    assert re.search(r"are allowed: repeat less", str(e.value))
    assert len(str(e.value)) < 500


@pytest.mark.parametrize("pattern", HONEST)
def test_patterns_that_people_write_pass(pattern: str) -> None:
    """However much they repeat, as long as one round can be told from the next."""
    check_request(request({"type": "string", "pattern": pattern}))


@pytest.mark.parametrize(
    "place",
    [
        lambda one: {"type": "object", "properties": {"pattern": one}},
        lambda one: {"type": "array", "items": [{}, one]},
        lambda one: {"anyOf": [{"type": "null"}, {"allOf": [one]}]},
        lambda one: {"$defs": {"x": one}},
        lambda one: {"x": {"y/z": [one]}, "$ref": "#/x/y~1z/0"},
        lambda one: {"additionalProperties": one},
        lambda one: {"if": {}, "then": {"not": one}},
        lambda one: {"patternProperties": {one["pattern"]: {}}},
    ],
)
def test_a_pattern_is_found_wherever_it_is(place: Any) -> None:
    """Also behind a reference, and as the name of properties."""
    schema = place({"type": "string", "pattern": EXPLODING[0]})
    with pytest.raises(InvalidRequest, match=r"response_schema has the pattern"):
        check_request(request(schema))
    tool = Tool(name="t", parameters=json.dumps(schema))
    with pytest.raises(InvalidRequest, match=r"tools\[0\]\.parameters has the pattern"):
        check_request(CommandRequest(request_id="r", messages=HI, tools=(tool,)))


def test_the_name_of_a_property_is_no_keyword() -> None:
    """Things may be called `pattern` or `maxItems`."""
    check_request(
        request({"properties": {"pattern": {"type": "string"}, "maxItems": {"type": "number"}},
                 "enum": [{"pattern": EXPLODING[0]}], "default": {"pattern": EXPLODING[0]}})
    )  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        nested(5, 99),
        nested(3, 1000),
        array(array({"type": "string", "maxLength": 10_000}, 1000), 1000),
        array(array({"type": "string", "pattern": "^a{0,9999}$"}, 1000), 1000),
        chain(64, lambda ref: array(ref, 9)),
        {"additionalProperties": nested(3, 99), "maxProperties": 10**12},
        nested(4, 99, "minItems"),
        {"type": "string", "minLength": 10**9},
    ],
)
def test_nested_repetition_that_multiplies_is_refused(schema: dict[str, Any]) -> None:
    """The text has the keyword, the product and the bound."""
    with pytest.raises(InvalidRequest, match=r"^response_schema has (min|max)\w+ \d+") as caught:
        check_request(request(schema))
    assert "at most" in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        array({"type": "object", "properties": {"a": {"type": "string", "maxLength": 2000}}}, 1000),
        array({"type": "string"}, 1000, "minItems"),
        {"enum": [f"value {number}" for number in range(200)]},
        {"properties": {f"p{n}": {"type": "string", "maxLength": 4096} for n in range(300)}},
        chain(64, lambda ref: ref),
        chain(
            64, lambda ref: {"type": "object", "properties": {"next": ref}, "required": ["next"]}
        ),
        chain(64, lambda ref: {"anyOf": [ref, {"type": "null"}]}),
        {"$defs": {"tree": array({"$ref": "#/$defs/tree"}, 50)}, "$ref": "#/$defs/tree"},
        {"$ref": "#"},
        array({"type": "string", "maxLength": 2**31 - 1}, 2**31 - 1),
    ],
)
def test_heavy_schemas_pass(schema: dict[str, Any]) -> None:
    """A thousand items, hundreds of values, long chains and trees of references."""
    check_request(request(schema))


def test_a_chain_of_references_without_end_is_refused() -> None:
    """Counting follows it, and a stack is finite."""
    with pytest.raises(InvalidRequest, match=r"response_schema is nested deeper than 400 levels"):
        check_request(request(chain(3000, lambda ref: ref)))


def test_what_is_to_be_counted_is_bounded_for_all_tools_together() -> None:
    """Counting must not take what the engine is spared."""
    tools = tuple(
        Tool(name=f"t{n}", parameters=json.dumps({"allOf": [{"not": {}}] * (MAX_SCHEMAS // 64)}))
        for n in range(128)
    )
    with pytest.raises(InvalidRequest, match=r"tools\[\d+\]\.parameters brings this request"):
        check_request(CommandRequest(request_id="r", messages=HI, tools=tools))
    check = RepetitionCheck()
    found = [check.fault({"pattern": "ab" * 15_000}) for _ in range(5)]
    assert found[0] is None
    assert "shorten" in str(found[-1])


@given(st.text(alphabet="ab{}()[]0123,|*+?\\-^$.:<=!d", max_size=60))
def test_every_text_has_a_size(pattern: str) -> None:
    """What is no expression is for the engine to refuse."""
    size = pattern_size(pattern)
    assert size.places >= 0
    assert size.ways >= 1


@given(
    st.recursive(
        st.sampled_from(["a", "b", "[ab]", "."]),
        lambda inner: (
            st.lists(inner, min_size=2, max_size=3).map("".join)
            | st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({'|'.join(some)})")
            | st.tuples(inner, st.integers(0, 3), st.integers(1, 3)).map(
                lambda some: f"({some[0]}){{{some[1]},{max(some[1:])}}}"
            )
        ),
        max_leaves=6,
    ),
    st.text(alphabet="ab", min_size=1, max_size=12),
)
def test_the_ways_of_a_pattern_are_no_fewer_than_a_machine_has(pattern: str, text: str) -> None:
    """Beside a machine that follows all of them, with a place for each round of each repetition."""
    size = pattern_size(pattern)
    most = most_ways(pattern, text)
    assert most <= size.places
    if size.ways == 1 and "|" not in pattern:
        # Optional parts that are skipped stand for no more than one place each.
        assert most <= len(re.findall(r"[ab.]", pattern))


def most_ways(pattern: str, text: str) -> int:
    """In how many places a machine for *pattern* is at once, at most, while it reads *text*."""
    places = machine(pattern)
    now = follow(places, {0})
    most = 0
    for letter in text:
        read = {n + 1 for n in now if places[n][0] != "jump" and letter in places[n][1]}
        most = max(most, len(read))
        now = follow(places, read)
    return most


def follow(places: list[tuple[str, Any]], start: set[int]) -> set[int]:
    """Where one gets to from *start* without reading anything."""
    todo, seen = list(start), set(start)
    while todo:
        kind, value = places[todo.pop()]
        for target in value if kind == "jump" else ():
            if target not in seen:
                seen.add(target)
                todo.append(target)
    return {n for n in seen if places[n][0] == "read"}


def machine(pattern: str) -> list[tuple[str, Any]]:
    """Every repetition written out: what to read, and where to jump to."""
    _parser = import_module("re._parser")

    places: list[tuple[str, Any]] = []

    def add(items: Any) -> None:
        for kind, value in items:
            match str(kind):
                case "LITERAL":
                    places.append(("read", chr(value)))
                case "ANY" | "IN":
                    places.append(("read", "ab"))
                case "SUBPATTERN":
                    add(value[3])
                case "BRANCH":
                    ends = []
                    for branch in value[1]:
                        at = len(places)
                        places.append(("jump", ()))
                        add(branch)
                        ends.append(len(places))
                        places.append(("jump", ()))
                        places[at] = ("jump", (at + 1, len(places)))
                    places.append(("read", ""))
                    for end in ends:
                        places[end] = ("jump", (len(places),))
                case "MAX_REPEAT":
                    low, high, inner = value
                    skips = []
                    for round_ in range(high):
                        if round_ >= low:
                            skips.append(len(places))
                            places.append(("jump", ()))
                        add(inner)
                    for at in skips:
                        places[at] = ("jump", (at + 1, len(places)))

    add(_parser.parse(pattern))
    places.append(("read", ""))
    return places


def loose(count: int) -> dict[str, Any]:
    """An object with *count* properties, none of which is needed."""
    return {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(count)}}


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(a?){100}$",
        r"^([a-z]*){17}$",
        r"^([a-z]{0,20}){0,20}$",
        r"^(a?b?c?d?){20}$",
        "^" + "a?" * 30 + "$",
        "^(" + "|".join("a" * 20) + ")*$",
    ],
)
def test_many_repetitions_in_a_row_that_may_match_nothing_are_refused(pattern: str) -> None:
    """An engine tries each of them for each character of a token: measured, for minutes."""
    why = RepetitionCheck().fault({"type": "string", "pattern": pattern})
    assert "may match nothing follow each other; at most 16 are allowed" in str(why)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^([a-z]*){16}$",
        r"^(\w+\s?){1,50}$",
        r"^(\w{1,20} ){0,50}\w{1,20}$",
        r"^[a-z0-9._%+-]+@[a-z0-9.-]+\.[a-z]{2,}$",
        r"^\+?\d{0,3}[ -]?\(?\d{0,4}\)?[ -]?\d{0,4}[ -]?\d{0,4}$",
        "^(" + "|".join(f"word{n}" for n in range(1500)) + ")$",
        "^(" + "|".join("äöüßéèàùçñîô" * 2) + "|[a-z])+$",
        r"^(([0-9a-f]{1,4}:){7,7}[0-9a-f]{1,4}|([0-9a-f]{1,4}:){1,7}:|([0-9a-f]{1,4}:){1,6}:[0-9a-f])$",
    ],
)
def test_patterns_with_many_choices_and_options_pass(pattern: str) -> None:
    """However many alternatives or optional parts they have."""
    assert RepetitionCheck().fault({"type": "string", "pattern": pattern}) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": list(range(2001))},
        {"anyOf": [{"enum": list(range(1500))}, {"enum": list(range(1500))}]},
        {"type": "array", "items": {"$ref": "#/$defs/e"}, "$defs": {"e": {"enum": ["a"] * 3000}}},
        {"type": "string", "pattern": "^(" + "|".join(["ab"] * 2500) + ")$"},
        {"oneOf": [{"const": n} for n in range(2500)]},
        # Measured: an engine follows all of its 2**64 ways.
        chain(64, lambda ref: {"anyOf": [ref, ref]}),
    ],
)
def test_thousands_of_alternatives_at_one_place_are_refused(schema: dict[str, Any]) -> None:
    """An engine compares each with each token that there is: measured, for seconds a token."""
    assert "at most 2000 are allowed" in str(RepetitionCheck().fault(schema))


def test_thousands_of_properties_that_may_be_left_out_are_refused() -> None:
    """Measured, an engine takes their number to the third power, and hears no cancel meanwhile."""
    assert RepetitionCheck().fault(loose(1000)) is None
    assert "at most 1000 are allowed" in str(RepetitionCheck().fault(loose(1001)))
    several = {"type": "object", "properties": {k: loose(1000) for k in "abcde"}}
    assert "fewer in each of several objects" in str(RepetitionCheck().fault(several))
    needed = loose(5000)
    needed["required"] = list(needed["properties"])
    assert RepetitionCheck().fault(needed) is None


def test_heavy_honest_schemas_pass() -> None:
    """Long enums, a thousand items, deep references, a recursion, many properties."""
    deep: dict[str, Any] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(64)}
    deep["d64"] = {"type": "string"}
    honest: list[dict[str, Any]] = [
        {"enum": [f"value {n}" for n in range(2000)]},
        {"type": "array", "items": loose(10), "minItems": 1000, "maxItems": 1000},
        {"$defs": deep, "$ref": "#/$defs/d0"},
        {"$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}, loose(3)]}}, "$ref": "#/$defs/n"},
        {"anyOf": [loose(20) for _ in range(90)]},
        {"type": "string", "maxLength": 100_000},
        {"type": "string", "pattern": "^[a-z]{1,100000}$"},
    ]
    assert [RepetitionCheck().fault(schema) for schema in honest] == [None] * len(honest)
