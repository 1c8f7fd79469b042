"""Two real listeners on a core each, one of them slowed by a neighbour, and how fast they are."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import IO, Any

import attrs
import psutil
import trio
from _alternatives import ended
from _results import UnavailableError
from inference import find_model, find_server

from punch.bootstrap import open_bootstrap
from punch.capability import PeerId
from punch.dialer import Router, chat_request, open_router
from punch.libp2p import open_node
from punch.peers import Candidate, PeerRecord
from punch.routing import Policy, RouteRequest
from punch.simulator import Trace
from punch.wire import CommandRequest, CommandResponse, Sampling

SLOTS = 2
CONTEXT_TOKENS = 2048
QUEUE_LIMIT = 1000
TIMEOUT_SECONDS = 600.0
START_SECONDS = 60.0

# The chat template with the first words of a prompt, and what it asks for.
MIN_PROMPT_TOKENS = 30

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ROOT = Path(__file__).parent.parent

# One token each, and with the space before them 3.5 bytes on the average, which is what the
# simulator's prompts have.
WORDS = ("to", "of", "in", "we", "so", "up", "it", "he", "all", "day", "one", "now", "way", "man")

PINNED = (
    "import os, sys, psutil; psutil.Process().cpu_affinity([int(sys.argv[1])]); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


# ---- the two machines ----


def _pinned(core: int, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Python on one core only, with everything that it starts."""
    command = [sys.executable, "-c", PINNED, str(core), *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)


def _cores() -> tuple[int, int]:
    try:
        allowed = psutil.Process().cpu_affinity()
    except AttributeError:
        raise UnavailableError("this system has no cpu affinity: run it on Linux") from None
    if len(allowed) < 2:
        raise UnavailableError("each listener needs a core: run it on two or more")
    return allowed[0], allowed[1]


def _listener(core: int, bootstrap: str, folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PUNCH_", "LLAMA_"))}
    environment = {
        **inherited,
        "PUNCH_BOOTSTRAP": bootstrap,
        "PUNCH_SETTINGS": "none",
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_CPP_EXE": str(find_server()),
        "LLAMA_GGUF_PATH": str(find_model()),
        "LLAMA_THREADS": "1",
        # No prompt is asked twice: what is kept of one only takes time.
        "LLAMA_ARG_CACHE_PROMPT": "0",
        "LLAMA_ARG_CACHE_RAM": "0",
        "PYTHONPATH": str(ROOT),
        "XDG_DATA_HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
    }
    sizes = {"slots": SLOTS, "context": CONTEXT_TOKENS, "queue": QUEUE_LIMIT}
    options = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    options += ["--identity", str(folder / f"identity-{core}")]
    return _pinned(core, "-m", "punch.listener", *options, env=environment, stdout=log, stderr=log)


@attrs.frozen
class Town:
    """Where they meet, and who they are."""

    bootstrap: str
    fast: PeerId
    slow: PeerId


def _anybody_new(known: frozenset[PeerId], peers: Sequence[PeerRecord]) -> bool:
    return any(peer.peer_id not in known for peer in peers)


@asynccontextmanager
async def open_town() -> AsyncIterator[Town]:
    cores = _cores()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "log").open("w+b"))
        meeting = await stack.enter_async_context(open_node(listen=[LOOPBACK]))
        await stack.enter_async_context(open_bootstrap(meeting))
        bootstrap = str(meeting.addresses[0])
        found: list[PeerId] = []
        async with open_router(bootstrap=bootstrap) as router:
            for core in cores:
                stack.enter_context(ended(_listener(core, bootstrap, folder, log)))
                with trio.move_on_after(START_SECONDS):
                    known = frozenset(found)
                    there = await router.wait_for_peers(partial(_anybody_new, known))
                    found += [peer.peer_id for peer in there if peer.peer_id not in known]
                    continue
                log.seek(0)
                raise RuntimeError(f"a listener did not join: {log.read().decode()[-4000:]}")
        stack.enter_context(ended(_pinned(cores[1], "-c", "while True: pass")))
        yield Town(bootstrap, *found)


# ---- asking ----


@attrs.frozen
class Only:
    """Scores so that one peer is always the first."""

    peer_id: PeerId
    term_names: tuple[str, ...] = ("other",)
    unit: str = ""
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """See the class."""
        return [(float(peer.peer_id != self.peer_id),) for peer in candidates]


class Prompts:
    """Prompts of any length, no two alike."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def request(self, prompt_tokens: int, output_tokens: int) -> CommandRequest:
        """One of about so many tokens, and exactly so many at most of the answer."""
        words = self._rng.choices(WORDS, k=max(1, prompt_tokens - MIN_PROMPT_TOKENS))
        # It differs from its first word on, so that no cache holds any of it.
        return chat_request(
            f"{' '.join(words)}. Tell a long story with these words.",
            system=f"{self._rng.randrange(1000, 10000)}",
            sampling=Sampling(max_tokens=output_tokens, temperature=0.0),
            timeout=TIMEOUT_SECONDS,
        )


@attrs.frozen(kw_only=True)
class Heard:
    """One answer, as its reader saw it, at moments of trio's clock."""

    asked: float
    texts: tuple[float, ...]
    ended: float
    response: CommandResponse

    @property
    def first(self) -> float:
        """When the first text came."""
        return self.texts[0] if self.texts else self.ended


async def ask(router: Router, request: CommandRequest) -> Heard:
    asked = trio.current_time()
    async with router.answer(request) as answer:
        texts = [trio.current_time() async for _ in answer]
        response = answer.response
    return Heard(asked=asked, texts=tuple(texts), ended=trio.current_time(), response=response)


# ---- how fast they are ----


@attrs.define(kw_only=True)
class Speed:
    """What was found of one listener. Sums, so that long requests count for more."""

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    tokens: int = 0
    token_seconds: float = 0.0
    paired_tokens: int = 0
    paired_seconds: float = 0.0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens read per second: all that happens before the first text."""
        return self.prompt_tokens / self.prompt_seconds

    @property
    def decode_rate(self) -> float:
        """Answer tokens per second of one request alone."""
        return self.tokens / self.token_seconds

    @property
    def slowdown(self) -> float:
        """How much longer a token takes beside another request, as a share."""
        paired = self.paired_tokens / self.paired_seconds / 2
        return max(0.0, self.decode_rate / paired - 1)

    def alone(self, heard: Heard) -> None:
        """Learn from a request that had the machine to itself."""
        usage = heard.response.usage
        assert usage.prompt_tokens is not None
        self.prompt_tokens += usage.prompt_tokens - (usage.cached_tokens or 0)
        self.prompt_seconds += heard.first - heard.asked
        self.tokens += len(heard.texts) - 1
        self.token_seconds += heard.texts[-1] - heard.first

    def pair(self, one: Heard, other: Heard) -> None:
        """Learn from two that it worked on at a time: from when both had begun to the first end."""
        begin, end = max(one.first, other.first), min(one.texts[-1], other.texts[-1])
        if end > begin:
            both = (*one.texts, *other.texts)
            self.paired_tokens += sum(begin < moment <= end for moment in both)
            self.paired_seconds += end - begin

    def spec(self, name: str) -> str:
        """As `punch simulate --peers` takes it."""
        return (
            f"{name}=1,prefill={self.prefill_rate:.1f},decode={self.decode_rate:.2f},"
            f"slowdown={self.slowdown:.3f},slots={SLOTS},cache=0"
        )


async def _time(town: Town, peer_id: PeerId, trace: Trace, seconds: float) -> Speed:
    """Ask one listener for a while, with prompts of the trace's lengths."""
    speed, rng = Speed(), Random(f"calibration {peer_id}")
    prompts = Prompts(rng)
    until = trio.current_time() + seconds
    only = Policy(name="only", scorer=Only(peer_id), near=0.0)
    async with open_router(bootstrap=town.bootstrap, policy=only) as router:
        await router.wait_for_peers(lambda peers: len(peers) == 2)
        await ask(router, prompts.request(50, 8))
        while trio.current_time() < until:
            for each in rng.sample(trace.requests, 3):
                speed.alone(await ask(router, prompts.request(each.input_tokens, 32)))
            pair: list[Heard] = []

            async def one(into: list[Heard]) -> None:
                into.append(await ask(router, prompts.request(40, 48)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, pair)
                nursery.start_soon(one, pair)
            speed.pair(*pair)
    return speed


async def time_both(town: Town, trace: Trace, seconds: float) -> tuple[Speed, Speed]:
    """Both at the same time, as they will work: cores of one machine share its memory."""
    found: dict[PeerId, Speed] = {}

    async def one(peer_id: PeerId) -> None:
        found[peer_id] = await _time(town, peer_id, trace, seconds)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, town.fast)
        nursery.start_soon(one, town.slow)
    return found[town.fast], found[town.slow]
