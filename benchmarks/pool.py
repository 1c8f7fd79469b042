"""A pool of two Ollamas, one five times as fast as the other, and twelve callers without a pause.

Both have the same model in memory and make four answers at a time, or one, as one computation; a
caller asks again as soon as it has its answer. What counts is the tokens of whole answers, each by
the share of its time that lies within the measured one. All policies choose among the same two
servers, which are adopted, one policy after the other. The speeds are set and nothing is computed,
so that the machine's own speed matters little.

Together the two make six times what the slow one makes alone. In turns they make about twice that,
since of every two answers one is the slow one's: the best that any rule can do is about 3 times.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from itertools import count

import httpx
import trio
from _processes import Child
from _results import Report, Row, Section

from punch.adoption import Given, open_adoption
from punch.dialer import chat_request, open_router
from punch.listener import open_listener
from punch.network import Node
from punch.testing import MemoryNetwork

# Of RESULTS.md, which `run.py` keeps.
SECTION = Section("pool")

TITLE = "A pool of two Ollamas of 1:5 speed, twelve callers"

MODEL = "llama3.2:latest"
SLOW, RATIO = 24.0, 5.0
CALLERS = 12
TOKENS = 24

# The best there can be, as the head of this file says, is about 3.
MIN_RATIO = 2.5

OURS = "completion-time"
BARE = "in turns"
POLICIES = ("round-robin", "pending-and-pressure", "least-requests", OURS)

Ask = Callable[[str], Awaitable[int]]
"""``await ask(question)`` gives the tokens of a whole answer."""


class Window:
    """The time that counts, and the tokens that were made within it."""

    def __init__(self, *, warm: float, seconds: float) -> None:
        self.begin = trio.current_time() + warm
        self.end = self.begin + seconds
        self.tokens = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the time has passed."""
        return trio.current_time() >= self.end

    def add(self, tokens: int, began: float, ended: float) -> None:
        """Count the share of an answer that lies within."""
        within = max(0.0, min(ended, self.end) - max(began, self.begin))
        self.tokens += tokens * within / (ended - began)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / (self.end - self.begin)


async def _call(ask: Ask, window: Window, numbers: count[int]) -> None:
    while not window.is_over:
        began = trio.current_time()
        # No two questions begin alike: what is measured is no cache.
        tokens = await ask(f"{next(numbers)}: what is next?")
        if tokens != TOKENS:
            raise RuntimeError(f"an answer has {tokens} tokens of {TOKENS}")
        window.add(tokens, began, trio.current_time())


async def _rate(ask: Ask, *, warm: float, seconds: float) -> float:
    """Tokens a second of twelve callers."""
    window, numbers = Window(warm=warm, seconds=seconds), count()
    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(_call, ask, window, numbers)
    return window.rate


@asynccontextmanager
async def _in_turns(urls: list[str]) -> AsyncIterator[Ask]:
    """Ask the servers themselves, one after the other, as nginx does."""
    turns = count()
    async with httpx.AsyncClient(timeout=600.0, trust_env=False) as client:

        async def ask(question: str) -> int:
            url = urls[next(turns) % len(urls)]
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": TOKENS,
                "stream": True,
            }
            async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
                lines = [line async for line in reply.aiter_lines() if line.startswith("data: ")]
            return sum('"content"' in line for line in lines)

        yield ask


@asynccontextmanager
async def _adopted(urls: list[str], policy: str) -> AsyncIterator[Ask]:
    """Ask a router of this process, whose listener has adopted the servers."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        node: Node = MemoryNetwork(nursery).node("self")
        enter = stack.enter_async_context
        listener = await enter(open_listener(node=node, bootstrap=None, queue_limit=CALLERS))
        await enter(open_adoption(listener, given=[Given(url=url) for url in urls]))
        router = await enter(open_router(listener=listener, policy=policy))

        def is_measured() -> bool:
            offers = listener.capability().models
            return len(offers) == len(urls) and all(offer.decode_rate for offer in offers)

        with trio.fail_after(60):
            while not is_measured():  # noqa: ASYNC110 - a lane tells nobody that it was timed
                await trio.sleep(0.1)

        async def ask(question: str) -> int:
            request = chat_request(question, model=MODEL, max_tokens=TOKENS, timeout=600.0)
            response = await router.ask(request)
            return response.usage.completion_tokens or 0

        yield ask
        nursery.cancel_scope.cancel()


async def _measured(urls: list[str], *, warm: float, seconds: float) -> dict[str, float]:
    rates = {}
    async with _in_turns(urls) as ask:
        rates[BARE] = await _rate(ask, warm=warm, seconds=seconds)
    for policy in POLICIES:
        async with _adopted(urls, policy) as ask:
            rates[policy] = await _rate(ask, warm=warm, seconds=seconds)
    return rates


def _rates(parallel: int, *, warm: float, seconds: float) -> dict[str, float]:
    with ExitStack() as stack:
        urls = []
        for rate in (SLOW, SLOW * RATIO):
            options = {"model": MODEL, "rate": rate, "parallel": parallel}
            child = stack.enter_context(Child("_paced_ollama.py", **options))
            urls.append(f"http://127.0.0.1:{child.greeting}")
        return trio.run(partial(_measured, urls, warm=warm, seconds=seconds))


def measure(*, quick: bool) -> Report:
    """The throughput of each policy, beside servers that are asked in turns."""
    warm, seconds = (6.0, 12.0) if quick else (10.0, 30.0)
    rows = []
    for parallel in (4, 1):
        rates = _rates(parallel, warm=warm, seconds=seconds)
        each = "one answer" if parallel == 1 else f"{parallel} answers"
        for policy in POLICIES:
            ratio = rates[policy] / rates[BARE]
            is_ours = policy == OURS
            rows.append(
                Row(
                    what=f"{each} at a time: {policy}",
                    ours=f"{rates[policy]:.0f} tokens/s",
                    other=f"{rates[BARE]:.0f} tokens/s in turns, without punch",
                    ratio=f"{ratio:.2f}",
                    target=f"at least {MIN_RATIO} times" if is_ours else "",
                    met=ratio >= MIN_RATIO if is_ours else None,
                    why="The slow server keeps more callers than its share.",
                )
            )
    notes = (" ".join(__doc__.split()),)
    return Report(title=TITLE, rows=tuple(rows), notes=notes)
