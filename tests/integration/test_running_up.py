"""A `punch up` without a terminal, and the commands that talk to it, as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from integration.programs import Programs, free_port, limit

from punch.cli import ExitCode


@limit(120)
def test_up_without_a_terminal_is_asked_told_and_ended(programs: Programs, tmp_path: Path) -> None:
    """Started, shown, followed, told to read its settings again, and ended; nothing is left."""
    file = tmp_path / "settings.toml"
    file.write_text("")
    variables = {
        "PUNCH_SETTINGS": str(file),
        "PUNCH_LISTEN": "/ip4/127.0.0.1/tcp/0",
        "PUNCH_LAN": "0",
        "PUNCH_GATEWAY_PORT": str(free_port()),
        "PUNCH_OLLAMA_PORT": "0",
        "PUNCH_ADOPT_FOUND": "0",
        "PUNCH_INFERENCE_BACKEND": "mock",
        # Only what the settings file says stands for the model.
        "PUNCH_ANY_NAME": "0",
        "HOME": str(tmp_path),
    }

    def punch(*arguments: str, code: int = 0) -> str:
        ended = programs.start_punch(*arguments, **variables).wait(60)
        assert ended.code == code, ended
        return ended.out

    out = punch("up", "--detach", "--called-not-by-a-flag", code=ExitCode.USAGE)
    assert out == ""

    table = punch("up", "--detach")
    url = f"http://127.0.0.1:{variables['PUNCH_GATEWAY_PORT']}"
    assert f"OpenAI     {url}/v1" in table
    said = json.loads(punch("status", "--json"))
    assert said["state"] == "serving"
    # A second one shows the first.
    assert f"(process {said['process']})" in punch("up", "--detach")

    token = json.loads((programs.data / "admin" / "admin.json").read_text())["token"]
    follower = programs.start_punch("logs", "-f", **variables)
    follower.wait_out("punch is up")
    file.write_text("[routing]\nalias = ['gpt-*=mock']\n[gateway]\nhost = '127.0.0.2'\n")
    told = punch("reload").splitlines()
    assert "changed routing.alias: not set -> gpt-*=mock" in told
    assert "needs a restart: gateway.host: 127.0.0.1 -> 127.0.0.2" in told
    file.write_text("[listener]\nstranger_tokens = -5\n")
    punch("reload", code=ExitCode.USAGE)
    answer = httpx.post(
        f"{url}/v1/chat/completions",
        json={"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3},
        timeout=30,
    )
    assert answer.status_code == 200

    punch("down")
    ended = follower.wait(30)
    assert ended.code == ExitCode.NOT_RUNNING
    assert "draining" in ended.out
    assert token not in ended.out + (programs.data / "up.log").read_text()
    assert not (programs.data / "admin" / "admin.json").exists()
    for name in ("up.log", "up.out"):
        assert (programs.data / name).stat().st_mode & 0o777 == 0o600
