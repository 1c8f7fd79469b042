"""Fields of bodies: honoured, taken or refused, and how all that is said."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from gateway_client import open_client
from pydantic import ConfigDict
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.gateway import Refusal
from punch.gateway._headers import MAX_HEADER_CHARACTERS, as_many_as_fit
from punch.gateway.bodies import Body, Reading, Refused, Taken, parse, read, rules_of


class Inner(Body):
    """An object inside another."""

    count: int = 1
    hint: Annotated[Any, Taken("a hint")] = None


class Echo(Body):
    """An object of which unknown fields are taken."""

    model_config = ConfigDict(extra="ignore")

    text: str


class Outer(Body):
    """A body with a field of each kind."""

    name: str = "usual"
    size: float = 1.0
    limit: int | None = None
    kind: Literal["a", "b"] | None = None
    inner: Inner = Inner()
    inners: list[Inner] | None = None
    echoes: list[Echo] | None = None
    billing: Annotated[Any, Taken("billing is not done here")] = None
    label: Annotated[Any, Taken("it is said back", kept=True)] = None
    stored: Annotated[Any, Refused("nothing is stored; leave it out", nothing=(False, 0))] = None
    sort: Annotated[Any, Refused(lambda value: f"no {value} is sorted")] = None


def reading(**fields: Any) -> Reading[Outer]:
    return read(Outer, json.dumps(fields).encode())


def refused(**fields: Any) -> Refusal:
    with pytest.raises(Refusal) as raised:
        reading(**fields)
    return raised.value


# ---- what is taken ----


def test_null_is_as_good_as_left_out_however_deep() -> None:
    """Also where the field has a default, is refused or is unknown."""
    nothing = {"count": None, "hint": None, "nobody knows it": None}
    fields = dict.fromkeys(["name", "size", "limit", "kind", "billing", "stored", "what is it"])
    found = reading(**fields, inner=nothing, inners=[nothing], echoes=[{"text": "x", "id": None}])

    assert found.body == Outer(inners=[Inner()], echoes=[Echo(text="x")])
    assert found.taken == ()


def test_null_is_no_value_of_a_required_field() -> None:
    """It is missing."""
    assert refused(echoes=[{"text": None}]).message == "echoes[0].text is missing"


@pytest.mark.parametrize("value", [False, 0, 0.0, "", [], {}])
def test_what_asks_for_nothing_is_taken_where_it_could_not_be_honoured(value: Any) -> None:
    """Whatever is empty, and what the field says itself; it is named."""
    assert reading(stored=value).taken == ("stored",)


@pytest.mark.parametrize("value", [True, 1, "x", [0], {"a": None}])
def test_to_json_true_is_no_number(value: Any) -> None:
    """So it asks for something."""
    refusal = refused(stored=value)

    assert refusal.message == "stored cannot be honoured: nothing is stored; leave it out"
    assert (refusal.status, refusal.code) == (400, "unsupported_parameter")


@pytest.mark.parametrize("value", [1, "x", [{"a": [1]}], {"any": {"thing": None}}])
def test_what_is_taken_may_have_any_value_and_is_named(value: Any) -> None:
    """Once for all objects of a list."""
    found = reading(billing=value, inners=[{"hint": value}, {"hint": value}], label=value)

    assert found.taken == ("billing", "label", "inners[].hint")


def test_what_is_taken_is_kept_only_where_it_is_said_back() -> None:
    """All else of it is dropped before anything can read it."""
    found = reading(billing=1, label=[1])

    assert (found.body.billing, found.body.label) == (None, [1])


def test_unknown_fields_are_taken_where_a_body_says_so() -> None:
    """And named."""
    assert reading(echoes=[{"text": "x", "made by": "us"}]).taken == ("echoes[].made by",)


@pytest.mark.parametrize(("given", "read_as"), [(42.0, 42), (-0.0, 0), (7, 7), (2.0**53, 2**53)])
def test_a_whole_number_may_be_written_with_a_point(given: float, read_as: int) -> None:
    """Some clients have one kind of number."""
    found = reading(limit=given, inner={"count": given}).body

    assert (found.limit, found.inner.count) == (read_as, read_as)
    assert type(found.limit) is int


@pytest.mark.parametrize("value", [1.5, 1e300, 2.0**54, "42", True])
def test_no_other_value_is_taken_for_a_whole_number(value: Any) -> None:
    """A float beyond 2**53 is not sure which one it is."""
    assert "it must be a whole number" in refused(limit=value).message


# ---- what is refused ----


def test_all_that_is_refused_is_said_at_once() -> None:
    """By name, with the reason, and with what else is wrong."""
    refusal = refused(
        foo=1, stored=True, inners=[{}, {"bar": 2}, {"baz": 3}], sort="sock", size="big"
    )

    assert refusal.message.splitlines() == [
        "foo is not a parameter that can be honoured here; leave it out",
        "stored cannot be honoured: nothing is stored; leave it out",
        "sort cannot be honoured: no sock is sorted",
        "inners[1].bar is not a parameter that can be honoured here; leave it out",
        "inners[2].baz is not a parameter that can be honoured here; leave it out",
        'size is "big"; it must be a number',
    ]
    assert (refusal.param, refusal.code) == ("foo", "unknown_parameter")


def test_what_is_refused_is_not_missing_too() -> None:
    """A field that must be there, and that no value of can be honoured."""

    class Elsewhere(Body):
        """A body with such a field."""

        kind: Annotated[Any, Refused("nobody runs it", empty=False)]
        name: str

    with pytest.raises(Refusal) as raised:
        parse(Elsewhere, b'{"kind": "search", "name": "x"}')
    assert raised.value.message == "kind cannot be honoured: nobody runs it"
    with pytest.raises(Refusal) as raised:
        parse(Elsewhere, b'{"kind": "search"}')
    assert raised.value.message.splitlines()[1:] == ["name is missing"]


def test_many_refused_fields_are_counted_and_not_told() -> None:
    """As many faults are."""
    refusal = refused(**{f"k{number}": 1 for number in range(1000)})

    assert refusal.message == "1000 values in the body break rules; /openapi.json has them"


def test_the_name_of_a_field_is_not_repeated_whole() -> None:
    """However deep it stands."""
    name = "n" * 10_000
    assert len(refused(**{name: 1}).message) < 200
    assert len(refused(inner={name: 1}).message) < 200


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": True}, "name is true; it must be text"),
        ({"name": 1}, "name is 1; it must be text"),
        ({"size": False}, "size is false; it must be a number"),
        ({"inner": [None]}, "inner is [null]; it must be an object"),
        ({"inners": {"a": 1.0}}, 'inners is {"a": 1.0}; it must be a list'),
        ({"kind": "é"}, 'kind is "é"; it must be "a" or "b"'),
    ],
)
def test_values_are_said_in_jsons_words(fields: dict[str, Any], words: str) -> None:
    """A client has never heard of Python."""
    assert refused(**fields).message == words


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_json_does_not_have_is_no_json(number: str) -> None:
    """Though Python writes it."""
    with pytest.raises(Refusal, match="the body is not valid JSON") as raised:
        parse(Outer, f'{{"size": {number}}}'.encode())
    assert raised.value.code == "invalid_json"


# ---- what is said of it ----


def test_a_body_lists_what_becomes_of_its_fields() -> None:
    """With the reason."""
    rules = {rule.name: (rule.verdict, rule.why) for rule in rules_of(Outer)}

    assert rules["name"] == ("honoured", "")
    assert rules["billing"] == ("taken", "billing is not done here")
    assert rules["stored"] == ("refused", "nothing is stored; leave it out")
    assert {rule.nothing for rule in rules_of(Outer) if rule.name == "stored"} == {(False, 0)}


def test_the_schema_says_the_same() -> None:
    """For `/openapi.json`."""
    schema = Outer.model_json_schema()
    fields = schema["properties"]

    assert schema["additionalProperties"] == {"type": "null"}
    assert {"type": "null"} in fields["name"]["anyOf"]
    assert fields["stored"]["enum"] == [None, "", [], {}, False, 0]
    assert "billing is not done here" in fields["billing"]["description"]
    assert "additionalProperties" not in schema["$defs"]["Echo"]


@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_taken_is_in_a_header(stream: bool, autojump_clock: MockClock) -> None:
    """Of streams too."""
    async with open_client({"a": MockBackend(MockScript())}) as client:
        plain = await client.chat(stream=stream, store=None)
        told = await client.chat(stream=stream, store=False, user="ada", metadata={"a": 1})
    assert (plain.status, told.status) == (200, 200)
    assert "x-punch-taken" not in plain.headers
    assert told.headers["x-punch-taken"] == "store, user, metadata"


def test_a_header_of_many_fields_says_how_many_more_there_are() -> None:
    """Rather than to be cut within a name."""
    text = as_many_as_fit([f"messages[].field_{number}" for number in range(60)])

    assert len(text) <= MAX_HEADER_CHARACTERS
    assert text.endswith(" more")
    assert as_many_as_fit(["a", "b"]) == "a, b"
