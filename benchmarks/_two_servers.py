"""Two real listeners behind the gateway, and the same two llama-servers asked directly.

For each server there is one client, which asks again as soon as it has its answer; in turns both
ask the gateway, or each its server. The servers have one thread and one slot each, so that they
fill two cores, of which gateway, listeners and client need some as well.
"""

from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from _http_client import Address, one_after_another, question
from _programs import Programs
from _results import Row, median_ratio
from inference import find_model, find_server

MIN_SHARE = 0.95

SERVERS = 2
TOKENS = 128
SLOTS = 1
CONTEXT = 1024


def _server_of(listener: psutil.Process) -> Address:
    """The llama-server that a listener has started."""
    for child in listener.children(recursive=True):
        command = child.cmdline()
        if "--port" in command:
            # Every process of this user may read it there.
            key = child.environ()["LLAMA_API_KEY"]
            return Address(port=int(command[command.index("--port") + 1]), key=key)
    raise RuntimeError("the listener has no llama-server")


def _tokens_per_second(addresses: Sequence[Address], prompts: Iterator[str], answers: int) -> float:
    """Of one client for each address, all at the same time; the sum."""
    rates: list[float] = []

    def client(address: Address) -> None:
        settings = {"temperature": 0.0, "seed": 1, "stream_options": {"include_usage": True}}
        asked = [
            question(address, next(prompts), TOKENS, model="auto", stream=True, **settings)
            for _ in range(answers)
        ]
        # A connection for each: llama-server ends it behind a stream.
        came = [answer for data in asked for answer in one_after_another(address, [data])]
        usages = [event["usage"] for one in came for event in one.events if event.get("usage")]
        if len(usages) != answers:
            raise RuntimeError(f"an answer has no end: {came[-1].raw[:500]!r}")
        tokens = sum(usage["completion_tokens"] for usage in usages)
        rates.append(tokens / (came[-1].ended - came[0].due))

    threads = [threading.Thread(target=client, args=(address,)) for address in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(rates) != len(addresses):
        raise RuntimeError("a client of the real listeners failed; its last words are above")
    return sum(rates)


def measure(folder: Path, *, rounds: int, answers: int) -> Row:
    """Both llama-servers through the gateway and directly, in turns."""
    folder.mkdir()
    programs = Programs(folder)
    environment = {
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_CPP_EXE": str(find_server()),
        "LLAMA_GGUF_PATH": str(find_model()),
        "LLAMA_THREADS": "1",
    }
    options = ("--slots", str(SLOTS), "--context", str(CONTEXT))
    through: list[float] = []
    directly: list[float] = []
    # Four digits are four tokens; what follows is the same for all.
    prompts = (f"{number}: write a long story." for number in itertools.count(1000))
    with ExitStack() as stack:
        listeners = [
            stack.enter_context(programs.listener(number, *options, environment=environment))[0]
            for number in range(SERVERS)
        ]
        gateway = stack.enter_context(programs.gateway()).address
        ways = ((through, [gateway] * SERVERS), (directly, list(map(_server_of, listeners))))
        for _, addresses in ways:
            _tokens_per_second(addresses, prompts, 1)
        for number in range(rounds):
            for into, addresses in ways if number % 2 else reversed(ways):
                into.append(_tokens_per_second(addresses, prompts, answers))
    share = median_ratio(through, directly)
    return Row(
        what="tokens per second of two real listeners",
        ours=f"{statistics.median(through):.1f}/s",
        other=f"{statistics.median(directly):.1f}/s, both llama-servers asked directly",
        ratio=f"{share:.1%}",
        why="The models have both cores; gateway, listeners and client take theirs from them.",
    ).at_least(share, MIN_SHARE, "{:.0%}".format)
