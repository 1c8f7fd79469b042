"""What is left of an answer that outlived its peer: `punch why`, `punch replay`, `punch peers`."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import attrs
import pytest
import trio
from integration.programs import Program, Programs, limit, off
from integration.test_choosing import busy, wait_for_listeners, wait_until

from punch import Sampling, chat_request, open_router
from punch.backends import mock_words

# One screen of a terminal on any desktop.
MAX_LINES = 50
MAX_COLUMNS = 100

# Words that are nowhere else, and that no mock says.
PROMPT = "marmalade for the quokka, eleven zeppelins above Tromsoe"
SYSTEM = "answer as a lighthouse keeper"

TOKENS = 30
REQUEST_ID = "story-1"


@attrs.frozen(kw_only=True)
class Story:
    """An answer whose first peer was killed, and what there is to read of it."""

    programs: Programs
    listeners: tuple[Program, ...]
    victim: Program
    said: str
    """What the dialer printed."""


async def _ask_and_kill(programs: Programs) -> Story:
    await off(programs.bootstrap)
    start = {"environment": {"PUNCH_MOCK_DECODE_RATE": "10"}}
    listeners = await off(programs.listeners, *[start] * 3)
    async with open_router(bootstrap=programs.address) as watcher:
        await wait_for_listeners(watcher, *listeners)
        dialer = programs.start(
            *("dialer", "--ask", PROMPT, "--system", SYSTEM, "--request-id", REQUEST_ID),
            *("--max-tokens", str(TOKENS)),
        )
        await off(dialer.wait_out, " ")
        await wait_until(lambda: sum(busy(watcher, each) for each in listeners) == 1, "the request")
        (victim,) = [each for each in listeners if busy(watcher, each) == 1]
        victim.send(signal.SIGKILL)
        ended = await off(dialer.wait)
    assert ended.code == 0, ended
    return Story(programs=programs, listeners=tuple(listeners), victim=victim, said=ended.out)


@pytest.fixture
def story(programs: Programs) -> Story:
    """Three listeners, one answer, one death."""
    return trio.run(_ask_and_kill, programs)


def short(program: Program) -> str:
    """How a peer is shown where there is little room."""
    return f"..{program.peer_id[-8:]}"


@limit(90)
def test_the_whole_story_of_a_broken_answer_is_on_one_screen(story: Story) -> None:
    """Who answered, what became of him, who went on from where, and what each delivered."""
    words = mock_words(chat_request(PROMPT, system=SYSTEM, sampling=Sampling(max_tokens=TOKENS)))
    assert story.said == " ".join(words) + "\n"

    told = story.programs.punch("why", REQUEST_ID)
    assert (told.code, told.err) == (0, "")
    lines = told.out.splitlines()
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= MAX_COLUMNS

    data = json.loads(story.programs.punch("why", REQUEST_ID, "--json").out)
    (end,) = [line for line in data["lines"] if line["kind"] == "ended"]
    first, second = end["segments"]
    heirs = [each for each in story.listeners if each.peer_id == second["peer_id"]]
    assert first["peer_id"] == story.victim.peer_id
    assert len(heirs) == 1
    assert 0 < first["tokens"] < TOKENS
    assert first["tokens"] + second["tokens"] == TOKENS

    victim, heir = short(story.victim), short(heirs[0])
    seam = f"{victim} was lost after {first['tokens']} tokens; {heir} went on from character"
    begun = len(" ".join(words[: first["tokens"]]))
    for sentence in (
        "first choice",
        f"-> {victim}",
        "a peer to go on with the answer",
        f"-> {heir}",
        "the connection was lost",
        f"{seam} {begun}",
        "parts of the answer:",
        f"{TOKENS} answer",
    ):
        assert sentence in told.out
    parts = told.out.partition("parts of the answer:")[2]
    for peer, segment in ((victim, first), (heir, second)):
        assert re.search(rf"{peer} +{segment['tokens']} tokens", parts)
    check_silence(story.programs.decisions, words)


def check_silence(log: Path, words: list[str]) -> None:
    """Nothing of what was asked or answered is in the log, nor is it anybody else's to read."""
    text = log.read_text()
    for word in f"{PROMPT} {SYSTEM}".replace(",", "").split():
        # Short ones are words of ours as well.
        if len(word) > 6:
            assert word not in text
    for place in range(len(words) - 2):
        assert " ".join(words[place : place + 3]) not in text
    assert log.stat().st_mode & 0o077 == 0


@limit(90)
def test_another_policy_is_compared_on_what_was_logged(story: Story) -> None:
    """`punch replay`: a table for people, and the same numbers for programs."""
    log = str(story.programs.decisions)
    shown = story.programs.punch("replay", log, "--policy", "round-robin")
    assert (shown.code, shown.err) == (0, "")
    assert "logged" in shown.out
    (row,) = [line for line in shown.out.splitlines() if line.startswith("round-robin")]
    # The first choice, and the one after the death.
    assert row.split()[1] == "2"
    compared = story.programs.punch("replay", log, "--policy", "round-robin", "--json").json()
    assert (compared["policy"], compared["decisions"]) == ("round-robin", 2)
    assert compared["predicted"] > 0


@limit(60)
def test_everybody_in_the_namespace_is_listed(programs: Programs) -> None:
    """`punch peers --once`: rows and who has told, for people; three objects for programs."""
    programs.bootstrap()
    listeners = programs.listeners({}, {}, {})
    shown = programs.punch("peers", "--once")
    assert (shown.code, shown.err) == (0, "")
    _, *rows, source = shown.out.splitlines()
    assert {row.split()[0] for row in rows} == {short(each) for each in listeners}
    assert source.startswith("found by bootstrap /ip4/127.0.0.1/")
    assert source.endswith(": 3 listeners")
    listed = programs.punch("peers", "--once", "--json")
    found = [json.loads(line) for line in listed.out.splitlines()]
    assert {each["peer_id"] for each in found} == {each.peer_id for each in listeners}
    assert {model["name"] for each in found for model in each["models"]} == {"mock"}
