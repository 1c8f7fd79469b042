"""Programs in a real shell: streams that are closed, full or unread, signals, and what is typed."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from integration.programs import Program, Programs, limit

PUNCH = f"{shlex.quote(sys.executable)} -m punch"

# Long enough that its reader has gone before it ends.
LONG = 'dialer --ask "tell me" --max-tokens 3000'


def shell(programs: Programs, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of *line*; its last words say the exit code of `punch` itself."""
    return subprocess.run(
        ["bash", "-c", line.replace("punch ", f"{PUNCH} ")],
        env=programs.environment(environment),
        cwd=programs.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


CODE = '; echo "code ${PIPESTATUS[0]}" >&2'


LINES = [
    ("punch help | head -c 5", "usage", ""),
    ("punch listener --help | head -1", "usage: punch listener [-h]", ""),
    ("punch help > /dev/full", "", "punch: standard output: No space left on device\ncode 9\n"),
    ("punch version >&-", "", "punch: standard output: Bad file descriptor\ncode 9\n"),
    ("punch serve --help >&-", "", "punch: standard output: Bad file descriptor\ncode 9\n"),
    ("punch version 2>&-", "punch ", "code 0\n"),
    ("punch version <&-", "punch ", "code 0\n"),
    ("punch nothing 2>&- >&- <&-", "", "code 2\n"),
    ("punch dialer --ask - <&-", "", "punch: --ask is empty: give it a question\ncode 2\n"),
    (
        r"printf 'caf\xe9' | PYTHONUTF8=1 punch dialer --ask -; echo code $? >&2; true",
        "",
        "lone surrogate",
    ),
    ("punch keys list --keys '~nouser/k'", "", "punch: --keys is '~nouser/k': ~nouser is"),
    (
        "PUNCH_OPENAI_URL=http://127.0.0.1:abc punch listener --backend openai",
        "",
        "punch: PUNCH_OPENAI_URL='http://127.0.0.1:abc' is not the address of a server",
    ),
    ("punch models list --nothing", "", "usage: punch models list"),
]


@limit(120)
def test_commands_do_as_other_programs_do(programs: Programs) -> None:
    """Quiet where a reader has gone, and a sentence where it could not say what it should."""
    for line, out, err in LINES:
        said = shell(programs, line + CODE)
        assert said.stdout.startswith(out), line
        assert err in said.stderr, line
        assert "Traceback" not in said.stderr, line
        assert "Exception ignored" not in said.stderr, line


@limit(60)
def test_an_answer_whose_reader_has_gone_ends_quietly(programs: Programs) -> None:
    """Also in the middle of a stream; a full disk is named, and closed errors hide nothing."""
    programs.listener(PUNCH_MOCK_DECODE_RATE="3000")
    for line, code, words in (
        (f"punch {LONG} | head -c 5", 141, ""),
        (f"punch {LONG} > /dev/full", 9, "punch: standard output: No space left on device\n"),
        (f"punch {LONG} >&-", 9, "punch: standard output: Bad file descriptor\n"),
        (f"punch {LONG} 2>&- | wc -c", 0, ""),
        (f"punch {LONG} 2>/dev/full | wc -c", 0, ""),
    ):
        said = shell(programs, f"({line}{'; exit ${PIPESTATUS[0]}'})")
        assert (said.returncode, said.stderr) == (code, words), line


@limit(60)
def test_a_home_that_nobody_has_is_an_error_of_its_setting(programs: Programs) -> None:
    """By flag, by variable and in the file of settings."""
    for flag, name in (("--identity", None), ("--known-peers", "PUNCH_KNOWN_PEERS")):
        said = programs.punch("dialer", "--ask", "x", flag, "~nouser/x")
        assert said.code == 2
        assert said.err.startswith(f"punch: {flag} is '~nouser/x': ~nouser is nobody's home")
        if name is not None:
            said = programs.run("dialer", "--ask", "x", variables={name: "~nouser/x"})
            assert (said.code, said.err.split(" is ")[0]) == (2, f"punch: {name}")
    kept = programs.folder / "settings.toml"
    kept.write_text('[routing]\ndecision_log = "~nouser/x"\n')
    said = programs.run("dialer", "--ask", "x", PUNCH_SETTINGS=str(kept), PUNCH_DECISION_LOG="")
    assert said.code == 2
    assert "~nouser is nobody's home folder here" in said.err


def silent_port() -> socket.socket:
    """A server that takes connections and never says a word: a bootstrap that is stuck."""
    server = socket.create_server(("127.0.0.1", 0))
    server.listen(64)
    return server


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
@limit(30)
def test_a_signal_before_anything_is_done_has_its_code(
    number: signal.Signals, code: int, programs: Programs
) -> None:
    """Here a question that waits for a bootstrap which says nothing."""
    with silent_port() as server:
        place = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"
        dialer = programs.start("dialer", "--ask", "hi", "--bootstrap", place)
        caller, _ = server.accept()
        began = time.monotonic()
        ended = dialer.stop(number)
        caller.close()
    assert ended.code == code
    assert time.monotonic() - began < 5
    assert "Traceback" not in ended.err


@limit(60)
def test_whoever_serves_drains_when_its_terminal_goes(programs: Programs) -> None:
    """SIGHUP is as SIGTERM, and 0 says that it was done; under `nohup` it is not heard at all."""
    listener = programs.listener(PUNCH_MOCK_DECODE_RATE="10")
    dialer = programs.start("dialer", "--ask", "hi", "--max-tokens", "10")
    dialer.wait_out()
    ended = listener.stop(signal.SIGHUP)
    assert ended.code == 0
    assert "draining" in ended.err
    assert dialer.wait().code == 0
    programs.prefix = ("nohup",)
    stubborn = programs.listener()
    programs.prefix = ()
    stubborn.send(signal.SIGHUP)
    assert programs.dial("--ask", "hi").code == 0
    assert stubborn.stop().code == 0


CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


def status(gateway: Program, secret: str | None = None) -> int:
    """What a chat is answered with."""
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    url = f"{gateway.url}/v1/chat/completions"
    return httpx.post(url, json=CHAT, headers=headers, timeout=30).status_code


@limit(60)
def test_a_key_that_is_made_while_a_gateway_runs_locks_it(programs: Programs) -> None:
    """Within two seconds, and the log says so; what a page may read stays open."""
    gateway = programs.gateway("--listen-too", "--backend", "mock")
    assert status(gateway) == 200
    made = programs.punch("keys", "create", "first", "--json")
    secret = json.loads(made.out)["secret"]
    gateway.wait_for("an API key was made: every request needs one from now on")
    assert status(gateway) == 401
    assert status(gateway, "pk-wrong") == 401
    assert status(gateway, secret) == 200
    assert httpx.get(f"{gateway.url}/health").status_code == 200
