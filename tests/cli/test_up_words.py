"""What `punch up` prints: what it is, what comes and goes, and what the next machine types."""

from __future__ import annotations

import io

import attrs

from punch.cli.up import LaneRow, MemberRow, Status
from punch.cli.up._engine_choice import PULL, NoEngine
from punch.cli.up._next_machine import terminal_of
from punch.cli.up._status import Addresses
from punch.cli.up._status_of import local_address
from punch.cli.up._words import missing_here, news, next_lines, opening_lines

URL = "http://127.0.0.1:11435"
EMPTY = Status(state="serving", process=1, version="0")
DESK = attrs.evolve(
    EMPTY,
    namespace="home@abcdefgh",
    is_new=True,
    is_admin=True,
    name="desk",
    addresses=Addresses(gateway=URL, ollama=URL),
)
OLLAMA = LaneRow(name="Ollama", backend="openai", state="ready", models=("llama3.2:1b",))
OLLAMA = attrs.evolve(OLLAMA, server="http://127.0.0.1:11434")
SHED = MemberRow(name="shed", machine="12D3", is_here=False, is_connected=True, models=("smollm2",))


def test_the_address_of_each_kind_of_program_is_said() -> None:
    """As the programs take it."""
    lines = opening_lines(DESK)
    assert lines[0] == (
        "punch is up: desk is in the closed namespace home@abcdefgh, which was made now"
    )
    assert [line.split() for line in lines[1:]] == [
        ["OpenAI", f"{URL}/v1"],
        ["Ollama", URL],
        ["Anthropic", URL],
        ["dashboard", f"{URL}/"],
    ]


def test_a_code_is_alone_on_its_line() -> None:
    """It is copied with a double click."""
    lines = next_lines(DESK, code="punch1abc", elsewhere=None)
    assert lines[-1] == "punch1abc"
    assert "punch up --join" in lines[0]
    assert "10 machines" in lines[0]


def test_without_a_terminal_the_command_that_makes_a_code_is_said() -> None:
    """A log has no code in it."""
    (line,) = next_lines(DESK, code=None, elsewhere=None)
    assert "punch invite" in line
    (other,) = next_lines(attrs.evolve(DESK, is_admin=False), code=None, elsewhere=None)
    assert "admin" in other
    member = attrs.evolve(DESK, is_admin=False, members=(attrs.evolve(SHED, is_admin=True),))
    (named,) = next_lines(member, code=None, elsewhere=None)
    assert "`punch invite` on shed" in named


def test_an_open_namespace_has_no_code() -> None:
    """Its name and an address are enough, if another machine reaches it."""
    status = attrs.evolve(DESK, is_closed=False)
    (line,) = next_lines(status, code=None, elsewhere="punch listener --namespace lab")
    assert line.endswith("punch listener --namespace lab")
    (alone,) = next_lines(status, code=None, elsewhere=None)
    assert "no other machine" in alone


def test_what_comes_and_goes_is_said_once() -> None:
    """Models here with what has them, machines with theirs."""
    after = attrs.evolve(EMPTY, lanes=(OLLAMA,), members=(SHED,))
    assert news(EMPTY, after) == (
        "+ llama3.2:1b, here, by Ollama at http://127.0.0.1:11434",
        "+ shed is there",
        "+ smollm2, on shed",
    )
    assert news(after, after) == ()
    away = attrs.evolve(after, lanes=(), members=(attrs.evolve(SHED, is_connected=False),))
    assert news(after, away) == (
        "- llama3.2:1b, here, by Ollama",
        "- shed is not there any more",
    )


def test_a_gateway_for_all_is_shown_as_programs_here_ask_it() -> None:
    """Nobody can ask an address that stands for all."""
    assert local_address("http://0.0.0.0:11435") == "http://127.0.0.1:11435"
    assert local_address("http://[::]:11435") == "http://[::1]:11435"
    assert local_address("http://192.168.1.10:11435") == "http://192.168.1.10:11435"


def test_a_simulation_is_said_loudly() -> None:
    """Though it was asked for."""
    mock = LaneRow(name="mock", backend="mock", state="ready", models=("mock",), simulated=True)
    lines = news(EMPTY, attrs.evolve(EMPTY, lanes=(mock,)))
    assert any("SIMULATION" in line for line in lines)


def test_what_is_missing_is_said_with_the_command_that_brings_it() -> None:
    """And that nothing else is to be done."""
    line = missing_here(NoEngine(what="a model", remedy=PULL))
    assert line == (
        "a model to answer with here, too: `punch models pull smollm2` brings a small one, and "
        "this `punch up` takes it by itself"
    )
    after = attrs.evolve(EMPTY, waits_for=(line,), wrong=("nothing is lent: no engine",))
    assert news(EMPTY, after) == (f"waits for {line}", "! nothing is lent: no engine")


def test_a_code_goes_to_a_terminal_only() -> None:
    """Standard output first; where neither is one, nowhere."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    log, screen = io.StringIO(), Terminal()
    assert terminal_of(log, screen) is screen
    assert terminal_of(screen, log) is screen
    assert terminal_of(log, log) is None


def test_the_status_is_plain_data() -> None:
    """Commands get it as JSON."""
    data = attrs.evolve(DESK, lanes=(OLLAMA,), members=(SHED,)).as_data()
    assert data["models"] == ["llama3.2:1b", "smollm2"]
    assert data["addresses"]["openai"] == f"{URL}/v1"
    assert data["lanes"][0]["name"] == "Ollama"
