"""A dialer that calls all that it asks urgent, beside an honest one at the same listener."""

from __future__ import annotations

from contextlib import suppress

import attrs
import trio
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.dialer import Router, chat_request
from punch.exceptions import PunchError
from punch.testing import Swarm
from punch.wire import Sampling

# What one of the greedy dialer's answers takes, and what an honest one may take at most: the rest
# of the answer that is being made, and its own.
ANSWER_SECONDS = 1.0
MAX_SECONDS = 1.5 * ANSWER_SECONDS


async def test_a_dialer_with_priority_100_and_302_requests_holds_nobody_up(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its requests are urgent to itself; between dialers what each was served decides."""
    script = MockScript(decode_rate=20.0 / ANSWER_SECONDS, slots=1)
    await swarm.listener("a", MockBackend(script), queue_limit=400)

    async def ask_urgently(router: Router) -> None:
        sampling = Sampling(max_tokens=20)
        request = chat_request("all that there is", sampling=sampling, timeout=300.0)
        # It may be refused, or last too long: that is its own affair.
        with suppress(PunchError):
            await router.ask(attrs.evolve(request, priority=100))

    async with swarm.router("greedy") as greedy, swarm.router("honest") as honest:
        async with trio.open_nursery() as nursery:
            for _ in range(302):
                nursery.start_soon(ask_urgently, greedy)
            await trio.sleep(2 * ANSWER_SECONDS)
            took = []
            for _ in range(5):
                began = trio.current_time()
                short = Sampling(max_tokens=2)
                await honest.ask(chat_request("hello", sampling=short, timeout=300.0))
                took.append(trio.current_time() - began)
            nursery.cancel_scope.cancel()
    assert max(took) <= MAX_SECONDS
