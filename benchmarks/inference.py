"""SmolLM2 through punch, and the same llama-server asked directly.

The listener runs llama-server with one thread and one slot. The direct client is as bare as
can be: one HTTP request on a fresh connection, made before the clock starts, its events read as
they come. Both ask for as many tokens, with prompts of the same length that differ from their
first word on, so that neither finds more in the server's cache than the other (the beginning of
the template), and take turns in changing order.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import platformdirs
from _processes import punch_pair
from _results import Report, Row, UnavailableError, milliseconds

from punch.model_store import KNOWN_MODELS

TITLE = "SmolLM2, streamed"

MIN_SHARE = 0.97
MAX_DELAY_SECONDS = 5e-3

# The model computes on one core, so that punch's processes have another.
THREADS = 1
TOKENS = 128
SHORT = 8

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

    on_listener: float = 0.0
    """Of `first`, the seconds on the listener; 0 if there was none."""

    @property
    def rate(self) -> float:
        """Tokens per second, from asking to the end."""
        return self.tokens / self.total


Pair = tuple[Answer, Answer]
"""Through punch, and directly; one right after the other."""


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


def ask_directly(url: str, key: str, prompt: str, limit: int) -> Answer:
    """Ask the server itself."""
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": limit,
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
    assert first is not None
    assert tokens is not None
    return Answer(first=first, total=total, tokens=tokens)


def measure(*, quick: bool) -> Report:
    """Tokens per second and time to the first token, both ways."""
    # A long answer tells the rate; a short one tells the first token as well, in a tenth of it.
    rounds = {TOKENS: 3, SHORT: 10} if quick else {TOKENS: 16, SHORT: 60}
    program, model = find_server(), find_model()
    pairs: dict[int, list[Pair]] = {}
    with ExitStack() as stack:
        listener, dialer = punch_pair(
            stack, backend="llama_cpp", program=str(program), model=str(model), threads=THREADS
        )
        server = listener.greeting["server"]
        # Four digits are four tokens; what follows is the same for all.
        prompts = (f"{number}: write a long story." for number in itertools.count(1000))

        def one_pair(tokens: int, *, punch_first: bool) -> Pair:
            sides = [
                lambda: Answer(**dialer.ask("generate", prompt=next(prompts), tokens=tokens)),
                lambda: ask_directly(server["url"], server["key"], next(prompts), tokens),
            ]
            if punch_first:
                return sides[0](), sides[1]()
            bare = sides[1]()
            return sides[0](), bare

        one_pair(TOKENS, punch_first=True)
        for tokens, count in rounds.items():
            pairs[tokens] = [one_pair(tokens, punch_first=bool(n % 2)) for n in range(count)]
    return _report(pairs)


def _report(pairs: dict[int, list[Pair]]) -> Report:
    long, short = pairs[TOKENS], pairs[SHORT]
    share = statistics.median(ours.rate / bare.rate for ours, bare in long)
    rates = [statistics.median(pair[side].rate for pair in long) for side in (0, 1)]
    delay = statistics.median(ours.first - bare.first for ours, bare in long + short)
    firsts = [statistics.median(pair[side].first for pair in long + short) for side in (0, 1)]
    path = statistics.median(ours.first - ours.on_listener for ours, _ in long + short)
    rows = (
        Row(
            what="tokens per second, from asking to the end",
            ours=f"{rates[0]:.1f}/s",
            other=f"{rates[1]:.1f}/s, llama-server asked directly",
            ratio=f"{share:.1%}",
            target=f"at least {MIN_SHARE:.0%}",
            met=share >= MIN_SHARE,
            why="The model has one core; listener, dialer and the server's HTTP share the other.",
        ),
        Row(
            what="time to the first token",
            ours=milliseconds(firsts[0]),
            other=f"{milliseconds(firsts[1])}, llama-server asked directly",
            ratio=f"{delay * 1e3:+.2f} ms",
            target=f"at most {MAX_DELAY_SECONDS * 1e3:+.0f} ms",
            met=delay <= MAX_DELAY_SECONDS,
            why=f"Of it, {milliseconds(path)} are the way to the listener and back.",
        ),
    )
    notes = (
        f"{len(long)} pairs of {TOKENS} tokens for the rate, these and {len(short)} pairs of "
        f"{SHORT} for the first token. {' '.join(__doc__.partition('.')[2].split())}",
        f"The way from the dialer to the listener and back, routing included: {milliseconds(path)} "
        "of the time to the first token.",
    )
    return Report(title=TITLE, rows=rows, notes=notes)
