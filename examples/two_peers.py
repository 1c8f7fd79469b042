"""Two listeners on a network in memory; the one that was chosen dies, the other answers.

python examples/two_peers.py
Prints who was tried, why it failed, and who answered in the end.
"""

import trio
import trio.testing

import punch
from punch.backends import MockBackend, MockScript
from punch.testing import open_swarm


async def main() -> None:
    async with open_swarm() as swarm:
        # It would take an hour to begin, and is unmeasured: nobody knows that yet.
        await swarm.listener("first", MockBackend(MockScript(delay=3600)))
        async with swarm.router() as router, trio.open_nursery() as nursery:
            answer = router.answer(punch.chat_request("hello"))

            async def read() -> None:
                async with answer:
                    async for _ in answer:
                        pass

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await swarm.listener("second", MockBackend(MockScript()))
            await router.wait_for_peers(lambda peers: len(peers) == 2)
            swarm.kill("first")
        for attempt in answer.attempts:
            print(f"tried {attempt.error}")
        print(f"answered by {answer.response.executor}")


if __name__ == "__main__":
    trio.run(main)
