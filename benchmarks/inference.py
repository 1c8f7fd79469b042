"""SmolLM2 through punch, and the same llama-server asked directly.

The listener runs llama-server with one thread and one slot. The direct client is as bare as
can be: one HTTP request on a fresh connection, made before the clock starts, its events read as
they come. Both ask for as many tokens with prompts of the same length that share no beginning,
so that neither finds the other's work in the cache, and take turns in changing order.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import platformdirs
from _processes import Child
from _results import Report, Row, UnavailableError, milliseconds

from punch.backends import KNOWN_MODELS

TITLE = "SmolLM2, streamed"

LEAST_SHARE = 0.97
MOST_DELAY_SECONDS = 5e-3

# The model computes on one core, so that punch's processes have another.
THREADS = 1
TOKENS = 128

ROOT = Path(__file__).resolve().parent.parent


@attrs.frozen(kw_only=True)
class Answer:
    """One answer, as its reader saw it."""

    first: float
    """Seconds to the first text."""

    total: float
    """Seconds to the end."""

    tokens: int
    """Tokens, as the server counted them."""

    @property
    def rate(self) -> float:
        """Tokens per second, from asking to the end."""
        return self.tokens / self.total


def find_server() -> Path:
    """llama-server: in the folder PUNCH_TEST_LLAMA_CPP, or as `bins/llama-cpp` built it."""
    folder = os.environ.get("PUNCH_TEST_LLAMA_CPP")
    if folder is None:
        asked = [sys.executable, str(ROOT / "bins" / "llama-cpp"), "--path"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        if found.returncode != 0:
            raise UnavailableError(found.stderr.strip())
        folder = found.stdout.strip()
    program = Path(folder) / ("llama-server.exe" if sys.platform == "win32" else "llama-server")
    if not program.is_file():
        raise UnavailableError(f"PUNCH_TEST_LLAMA_CPP={folder} has no {program.name}")
    return program


def find_model() -> Path:
    """SmolLM2: the file PUNCH_TEST_MODEL, or as `punch models pull smollm2` fetched it."""
    models = platformdirs.user_data_path("punch", appauthor=False) / "models"
    path = Path(os.environ.get("PUNCH_TEST_MODEL") or models / KNOWN_MODELS["smollm2"].file_name)
    if not path.is_file():
        raise UnavailableError(
            "SmolLM2 is not there; run: .venv/bin/python -m punch models pull smollm2"
        )
    return path


def ask_directly(url: str, key: str, prompt: str) -> Answer:
    """Ask the server itself."""
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": TOKENS,
        "temperature": 0.0,
        "seed": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.connect()
    try:
        first = tokens = None
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            choices = event.get("choices")
            if first is None and choices and choices[0]["delta"].get("content"):
                first = time.perf_counter() - began
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
        total = time.perf_counter() - began
    finally:
        connection.close()
    assert first is not None and tokens is not None
    return Answer(first=first, total=total, tokens=tokens)


def measure(*, quick: bool) -> Report:
    """Tokens per second and time to the first token, both ways."""
    rounds = 4 if quick else 16
    program, model = find_server(), find_model()
    pairs: list[tuple[Answer, Answer]] = []
    with (
        Child(
            "_punch_peers.py",
            "listener",
            backend="llama_cpp",
            program=str(program),
            model=str(model),
            threads=THREADS,
        ) as listener,
        Child(
            "_punch_peers.py",
            "dialer",
            bootstrap=listener.greeting["bootstrap"],
            address=listener.greeting["address"],
        ) as dialer,
    ):
        about = listener.greeting["about"]

        def through_punch(prompt: str) -> Answer:
            return Answer(**dialer.ask("generate", prompt=prompt, tokens=TOKENS))

        def directly(prompt: str) -> Answer:
            return ask_directly(about["url"], about["key"], prompt)

        for index in range(-1, rounds):
            # Four digits are four tokens; what follows is the same for all.
            prompts = [f"{1000 + 2 * (index + 1) + side}: write a long story." for side in (0, 1)]
            if index % 2:
                ours = through_punch(prompts[0])
                pair = (ours, directly(prompts[1]))
            else:
                bare = directly(prompts[0])
                pair = (through_punch(prompts[1]), bare)
            if index >= 0:
                pairs.append(pair)
    return _report(pairs)


def _report(pairs: list[tuple[Answer, Answer]]) -> Report:
    share = statistics.median(ours.rate / bare.rate for ours, bare in pairs)
    delay = statistics.median(ours.first - bare.first for ours, bare in pairs)
    rates = [statistics.median(pair[side].rate for pair in pairs) for side in (0, 1)]
    firsts = [statistics.median(pair[side].first for pair in pairs) for side in (0, 1)]
    rows = (
        Row(
            what="tokens per second, from asking to the end",
            ours=f"{rates[0]:.1f}/s",
            other=f"{rates[1]:.1f}/s, llama-server asked directly",
            ratio=f"{share:.1%}",
            target=f"at least {LEAST_SHARE:.0%}",
            met=share >= LEAST_SHARE,
            why="The model computes on one core and punch on the other.",
        ),
        Row(
            what="time to the first token",
            ours=milliseconds(firsts[0]),
            other=f"{milliseconds(firsts[1])}, llama-server asked directly",
            ratio=f"{delay * 1e3:+.2f} ms",
            target=f"at most {MOST_DELAY_SECONDS * 1e3:+.0f} ms",
            met=delay <= MOST_DELAY_SECONDS,
            why="Two hops and a fresh HTTP request are part of it.",
        ),
    )
    notes = (
        f"{len(pairs)} pairs of {TOKENS} tokens. {' '.join(__doc__.partition('.')[2].split())}",
    )
    return Report(title=TITLE, rows=rows, notes=notes)
