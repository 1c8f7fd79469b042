"""A peer's own words: kept in no log, and shown as its words."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.decision_log import open_decision_log
from punch.dialer import chat_request
from punch.events import Bus
from punch.exceptions import GenerationFailed, PunchError
from punch.testing import ScriptedBackend, Swarm
from punch.wire import CommandRequest

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
