"""`punch up` as people type it: what runs here becomes one address, whatever comes when."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
from integration.programs import Program, Programs, free_port, limit
from model_servers import ANSWER, Ollama

from punch.cli import ExitCode
from punch.cli.up._engine_choice import PULL

# What a program has to find what came meanwhile.
SOON_SECONDS = 30.0


def variables(folder: Path, **more: str) -> Mapping[str, str]:
    """Those of a `punch up` that meets others on loopback alone, at a port of its own."""
    return {
        "HOME": str(folder),
        "PUNCH_LISTEN": "/ip4/127.0.0.1/tcp/0",
        "PUNCH_LAN": "0",
        "PUNCH_GATEWAY_PORT": str(free_port()),
        **more,
    }


def asked(port: str, model: str = "auto") -> httpx.Response:
    """What the gateway at *port* answers."""
    return httpx.post(
        f"http://localhost:{port}/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8},
        timeout=60,
    )


def models(port: str) -> set[str]:
    """The models on offer there."""
    listed = httpx.get(f"http://localhost:{port}/v1/models", timeout=10).json()
    return {each["id"] for each in listed["data"]} - {"auto"}


def wait_for_models(port: str, wanted: Iterable[str], up: Program) -> None:
    """Wait until these are on offer, and no others."""
    deadline = time.monotonic() + SOON_SECONDS
    while (found := models(port)) != set(wanted):
        assert time.monotonic() < deadline, (found, up.out, up.err)
        time.sleep(0.1)


@limit(90)
def test_what_runs_here_becomes_one_address_in_one_command(
    programs: Programs, tmp_path: Path
) -> None:
    """The address answers with it; a second one shows the first; `punch down` ends it."""
    engine = free_port()
    settings = variables(tmp_path, OLLAMA_HOST=f"127.0.0.1:{engine}")
    port = settings["PUNCH_GATEWAY_PORT"]
    up = programs.start_punch("up", **settings)
    up.wait_out("dashboard")
    # The engine comes late, and goes: nothing else is started anew.
    with Ollama("llama3.2:1b").serve(engine):
        wait_for_models(port, {"llama3.2:1b"}, up)
        answer = asked(port).json()
        assert answer["choices"][0]["message"]["content"] == ANSWER
    up.wait_out(f"+ llama3.2:1b, here, by ollama at http://127.0.0.1:{engine}")
    # Nobody reads what it says but a log: there is no code in it.
    assert "punch1" not in up.out + up.err

    second = programs.start_punch("up", **settings).wait(30)
    assert second.code == ExitCode.OK
    assert f"(process {up.pid})" in second.out
    assert up.process.poll() is None
    down = programs.start_punch("down", **settings).wait(40)
    assert down.code == ExitCode.OK
    assert up.wait().code == ExitCode.OK


@limit(120)
def test_a_model_that_is_pulled_later_is_taken_by_itself(
    programs: Programs, tmp_path: Path, model_path: Path
) -> None:
    """Until then nothing answers, and no mock does: the command that brings one is said."""
    settings = variables(tmp_path, PUNCH_ADOPT_FOUND="0", PUNCH_CALIBRATE="0")
    port = settings["PUNCH_GATEWAY_PORT"]
    up = programs.start_punch("up", **settings)
    up.wait_out(f"`{PULL}`")
    assert models(port) == set()
    refused = asked(port)
    assert refused.status_code >= 400
    folder = programs.data / "models"
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{model_path.name}.part"
    shutil.copy(model_path, beside)
    beside.rename(folder / model_path.name)
    up.wait_out(f"+ {model_path.stem}, here", 60)
    answer: Any = asked(port).json()
    assert answer["choices"][0]["message"]["content"]
    assert up.stop().code == ExitCode.OK
