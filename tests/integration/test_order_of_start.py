"""The order in which things are started does not matter: an engine that comes late is taken then.

A bootstrap that comes last and a network that comes later need machines of their own: see the test
of this name in ``tests/lab``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
from integration.programs import Programs, free_port, limit
from model_servers import Ollama

# What a program is told of an engine, or of a listener, that came meanwhile.
SOON_SECONDS = 30.0


def ask(url: str, model: str = "auto") -> httpx.Response:
    """Ask a gateway once."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 5,
    }
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)


def answered(url: str, model: str = "auto") -> httpx.Response:
    """The answer, once there is one."""
    deadline = time.monotonic() + SOON_SECONDS
    while True:
        said = ask(url, model)
        if said.status_code == 200 or time.monotonic() > deadline:
            assert said.status_code == 200, said.text
            return said
        time.sleep(0.2)


@limit(90)
def test_an_engine_that_comes_after_punch_up_answers(programs: Programs, tmp_path: Path) -> None:
    """Named or found, the server is waited for; and it is taken again when it comes back."""
    port = free_port()
    program = programs.up(
        HOME=str(tmp_path),
        PUNCH_LISTEN="/ip4/127.0.0.1/tcp/0",
        PUNCH_LAN="0",
        # Nothing else that runs on this machine.
        PUNCH_ADOPT_FOUND="0",
        PUNCH_ADOPT=f"http://127.0.0.1:{port}",
    )
    assert ask(program.url).status_code in (404, 503)
    server = Ollama("llama3.2:1b")
    with server.serve(port):
        assert answered(program.url).json()["model"] == "llama3.2:1b"
    with server.serve(port):
        answered(program.url, "llama3.2:1b")
