"""A listener with a backend of your own: it answers in capitals.

Start `python -m punch.bootstrap` first, then: python examples/listener.py
Prints its peer id once it can be asked, and answers until it is interrupted.
"""

import sys

import trio

from punch.backends import Emit, Generation, Loading
from punch.capability import Gpu, ModelOffer
from punch.discovery import KnownPeers, join_namespace, new_incarnation
from punch.libp2p import open_node
from punch.listener import open_executor
from punch.network import parse_address
from punch.wire import CommandRequest, Completion, Timings, Usage


class Shout:
    """A backend is anything with these attributes, `ready` and `generate`."""

    name = "shout"
    simulated = True  # No model is involved, so strict dialers will not ask it.
    slots = 4
    threads: int | None = None
    gpus: tuple[Gpu, ...] = ()
    offers = (ModelOffer(name="shout", features=frozenset({"chat"})),)

    async def ready(self, loading: Loading) -> None:
        """At once: there is no model to load."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        words = request.messages[-1].content.upper().split()
        for index, word in enumerate(words):
            await emit(word if index == 0 else f" {word}", 1)
        return Generation(
            completion=Completion(text=" ".join(words)),
            usage=Usage(prompt_tokens=len(words), completion_tokens=len(words)),
            timings=Timings(),
        )


async def main(bootstrap: str, namespace: str) -> None:
    incarnation = new_incarnation()
    async with (
        open_node(listen=["/ip4/127.0.0.1/tcp/0"]) as node,
        open_executor(node, Shout(), namespace=namespace, incarnation=incarnation),
        join_namespace(
            node,
            parse_address(bootstrap),
            known=KnownPeers(None),
            namespace=namespace,
            roles={"listener"},
            incarnation=incarnation,
        ) as membership,
    ):
        await membership.joined.wait()
        print(node.peer_id, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    try:
        trio.run(
            main,
            sys.argv[1] if len(sys.argv) > 1 else "/ip4/127.0.0.1/tcp/51820",
            sys.argv[2] if len(sys.argv) > 2 else "simple-chat",
        )
    except* KeyboardInterrupt:
        pass
