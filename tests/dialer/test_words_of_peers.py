"""A peer's own words: kept in no log, and shown as its words."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.decision_log import open_decision_log
from punch.dialer import chat_request
from punch.events import Bus
from punch.exceptions import GenerationFailed, PunchError
from punch.testing import ScriptedBackend, Swarm
from punch.wire import (
    CommandRequest,
    CommandResponse,
    Completion,
    Timings,
    Usage,
    believed,
    quoted,
)
from punch.wire._belief import most_prompt_tokens

SECRET = 'the password of the cellar is "swordfish"'

SPELLINGS = {
    "as it is": SECRET,
    "upper case": SECRET.upper(),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "escaped": json.dumps(SECRET),
    "backwards": SECRET[::-1],
    "spaced": " ".join(SECRET),
    "hexadecimal": SECRET.encode().hex(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_of_a_prompt_gets_into_the_decision_log_by_a_fault(
    autojump_clock: MockClock, swarm: Swarm, tmp_path: Path, spelling: str
) -> None:
    """The log has codes and our own words, whatever a peer says of a request."""
    words = SPELLINGS[spelling]

    async def quote(request: CommandRequest, emit: Emit) -> Generation:
        await emit("so far ", 2)
        raise GenerationFailed(f"cannot answer: {words}")

    await swarm.listener("a", ScriptedBackend(quote))
    path, events = tmp_path / "log.jsonl", Bus()
    async with open_decision_log(path, events), swarm.router(events=events) as router:
        with pytest.raises(PunchError):
            await router.ask(chat_request(SECRET))
    text = path.read_text()
    assert '"attempted"' in text
    assert '"ended"' in text
    assert "backend_failed" in text
    assert json.dumps(words)[1:-1] not in text
    assert "cannot answer" not in text


FORGED = [
    "no\nerror: your disk is on fire",
    "no\r\nwarning: forged",
    "\x1b[2J\x1b[1;1Hroot@host:~#",
    "abc\u202egnp.exe",
    "a\u2028b\u2029c\x85d\x0be",
    "\x07\x08\x00",
    "x" * 4000,
]


@pytest.mark.parametrize("words", FORGED)
async def test_a_peer_forges_no_line_and_moves_no_cursor(
    autojump_clock: MockClock, swarm: Swarm, words: str
) -> None:
    """Its words are one line behind its name, whatever they have in them."""

    async def fail(request: CommandRequest, emit: Emit) -> Generation:
        raise GenerationFailed(words)

    await swarm.listener("a", ScriptedBackend(fail))
    async with swarm.router() as router:
        with pytest.raises(PunchError) as error:
            await router.ask("hello")
    lines = str(error.value).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert len(str(error.value)) < 3000


@given(st.text())
def test_quoted_words_are_one_printable_line(words: str) -> None:
    """Whatever they were; and plain ones are as they were."""
    line = quoted(words)
    assert line.isprintable()
    assert len(line) <= 2 * 2000 + 3
    if words.isprintable() and words == words.strip() and len(words) <= 2000:
        assert line == words


async def test_numbers_that_cannot_be_true_are_unknown_in_the_library_too(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Whatever the peer counts; the answer itself is whole."""

    async def lie(request: CommandRequest, emit: Emit) -> Generation:
        await emit("fine", 1)
        return Generation(
            completion=Completion(text="fine", finish_reason="evil"),
            usage=Usage(prompt_tokens=1 << 53, completion_tokens=1 << 53, cached_tokens=1 << 53),
            timings=Timings(prefill=1e300, decode=-1.0),
        )

    await swarm.listener("a", ScriptedBackend(lie))
    async with swarm.router() as router:
        response = await router.ask("hello")
    assert response.result is not None
    assert (response.result.text, response.result.finish_reason) == ("fine", "stop")
    assert response.usage.prompt_tokens is None
    assert response.usage.cached_tokens is None
    # A model may think tokens that nobody sees.
    assert (response.usage.completion_tokens or 0) <= 1 << 20
    assert response.timings.prefill is None


@given(
    st.integers(0, 1 << 53),
    st.integers(0, 1 << 53),
    st.floats(0.0, 1e9),
    st.text(max_size=30),
    st.text(max_size=200),
)
def test_what_is_believed_could_be_true(
    prompt: int, cached: int, seconds: float, reason: str, text: str
) -> None:
    """And a count of at most a token a byte, with what a template adds, is never lost."""
    request = chat_request(text)
    told = CommandResponse(
        request_id="r",
        status="success",
        result=Completion(finish_reason=reason),
        usage=Usage(prompt_tokens=prompt, completion_tokens=1, cached_tokens=cached),
        timings=Timings(total=seconds, batch=seconds),
    )
    usage = believed(told, request).usage
    most = most_prompt_tokens(request)
    assert usage.prompt_tokens in (None, prompt)
    assert (usage.prompt_tokens or 0) <= most
    assert (usage.cached_tokens or 0) <= (usage.prompt_tokens or 0)
    honest = len(text.encode(errors="replace")) + 300
    told = attrs.evolve(told, usage=Usage(prompt_tokens=honest, cached_tokens=honest))
    assert believed(told, request).usage.prompt_tokens == honest
