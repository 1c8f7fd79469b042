"""Where servers usually are: the ports, and what the programs' own variables say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.adoption import USUAL, places_of
from punch.adoption._places import LOOPBACK, MAX_PLACES

OWN = frozenset({"192.168.1.5"})


def test_without_a_variable_the_usual_ports_of_loopback_are_looked_at() -> None:
    """Each once, and nothing but loopback."""
    places = places_of({})
    assert places == list(USUAL)
    assert {place.hosts for place in places} == {LOOPBACK}
    ports = [place.port for place in places]
    assert len(set(ports)) == len(ports)
    assert {11434, 8080, 1234, 8000, 30000, 1337, 5001, 5000} <= set(ports)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("127.0.0.1:4000", "http://127.0.0.1:4000"),
        (":4000", "http://127.0.0.1:4000"),
        ("0.0.0.0:4000", "http://127.0.0.1:4000"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("[::]:4000", "http://127.0.0.1:4000"),
        ("localhost:4000", "http://127.0.0.1:4000"),
        ("http://localhost:4000/", "http://127.0.0.1:4000"),
        ("http://localhost", "http://127.0.0.1:80"),
        ("'127.0.0.1:4000'", "http://127.0.0.1:4000"),
        ("192.168.1.5:4000", "http://192.168.1.5:4000"),
        ("http://127.0.0.1:4000/ollama", "http://127.0.0.1:4000/ollama"),
    ],
)
def test_ollamas_variable_is_read_as_ollama_reads_it(value: str, url: str) -> None:
    """Any part of the address may be missing."""
    first = places_of({"OLLAMA_HOST": value}, OWN)[0]
    assert first.url(first.hosts[0]) == url
    assert first.program == "Ollama"


@pytest.mark.parametrize(
    "value", ["http://nas:11434", "192.168.1.6:11434", "https://localhost:443", ":x", "", "[", " "]
)
def test_what_a_variable_says_of_another_machine_is_no_place_of_this_one(value: str) -> None:
    """Nor is what cannot be read: a person can name it."""
    assert places_of({"OLLAMA_HOST": value}, OWN) == list(USUAL)


def test_llama_servers_variables_give_host_and_port() -> None:
    """The port alone is of loopback."""
    first = places_of({"LLAMA_ARG_PORT": "9001"})[0]
    assert (first.port, first.hosts) == (9001, LOOPBACK)
    told = {"LLAMA_ARG_PORT": "9001", "LLAMA_ARG_HOST": "192.168.1.5"}
    assert places_of(told, OWN)[0].hosts == ("192.168.1.5",)
    assert places_of({**told, "LLAMA_ARG_HOST": "10.0.0.9"}, OWN) == list(USUAL)


def test_a_port_that_is_a_usual_one_is_looked_at_once() -> None:
    """The variable that says it is told."""
    places = places_of({"OLLAMA_HOST": "0.0.0.0"})
    assert [place.variable for place in places if place.port == 11434] == ["OLLAMA_HOST"]


def test_the_port_of_vllms_inner_use_is_not_looked_at() -> None:
    """Its documents say of the variable that no server is there."""
    assert places_of({"VLLM_PORT": "9009"}) == list(USUAL)


@given(st.dictionaries(st.sampled_from(["OLLAMA_HOST", "LLAMA_ARG_PORT"]), st.text(max_size=40)))
def test_any_text_in_a_variable_is_read_or_passed_over(environment: dict[str, str]) -> None:
    """The places are bounded, and all have a port that can be."""
    places = places_of(environment)
    assert len(places) <= MAX_PLACES
    assert all(0 < place.port < 65536 for place in places)
