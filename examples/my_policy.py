"""A policy of your own: prefer the listener with the most free memory.

python examples/my_policy.py
Prints the decision that it makes between two listeners on a network in memory: the roomy one.
"""

from collections.abc import Sequence
from random import Random

import attrs
import trio

import punch
from punch.backends import MockBackend, MockScript
from punch.machine import Machine, MachineSample
from punch.testing import open_swarm


@attrs.frozen
class FreeMemory:
    """A scorer: names its terms, and gives every candidate one value for each."""

    term_names: tuple[str, ...] = ("free",)
    unit: str = "GB"
    lowest_is_best: bool = False

    def terms(
        self,
        request: punch.RouteRequest,
        candidates: Sequence[punch.Candidate],
        rng: Random,
    ) -> Sequence[tuple[float, ...]]:
        return [
            ((candidate.peer.capability.memory_available_bytes or 0) / 1e9,)
            for candidate in candidates
        ]


class Pretend(Machine):
    """A machine of a given size, so that the example prints the same everywhere."""

    def __init__(self, free_bytes: int) -> None:
        self._free_bytes = free_bytes

    def sample(self) -> MachineSample:
        return MachineSample(memory_available_bytes=self._free_bytes)


async def main() -> None:
    policy = punch.Policy(name="free-memory", scorer=FreeMemory())
    async with open_swarm() as swarm:
        for name, size in (("cramped", 2_000_000_000), ("roomy", 64_000_000_000)):
            await swarm.listener(name, MockBackend(MockScript()), machine=Pretend(size))
        async with swarm.router(policy=policy) as router:
            async with router.answer(punch.chat_request("hello")) as answer:
                async for _ in answer:
                    pass
            for candidate in answer.decisions[0].candidates():
                print(f"{candidate.peer_id}: {candidate.score:.0f} GB free")
            print(f"answered by {answer.response.executor}")


if __name__ == "__main__":
    trio.run(main)
