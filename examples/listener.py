"""A listener with a backend of your own: it answers in capitals.

Start `python -m punch.bootstrap` first, then: python examples/listener.py
Prints its peer id once it can be asked, and answers until it is interrupted.
"""

import sys

import trio

import punch


class Shout:
    """A backend is anything with these attributes, `ready` and `generate`."""

    name = "shout"
    simulated = True  # No model is involved, so strict dialers will not ask it.
    slots = 4
    threads: int | None = None
    gpus: tuple[punch.Gpu, ...] = ()
    offers = (punch.ModelOffer(name="shout", features=frozenset({"chat"})),)

    async def ready(self, loading: punch.Loading) -> None:
        """At once: there is no model to load."""

    async def generate(self, request: punch.CommandRequest, emit: punch.Emit) -> punch.Generation:
        words = request.messages[-1].content.upper().split()
        for index, word in enumerate(words):
            await emit(word if index == 0 else f" {word}", 1)
        return punch.Generation(
            completion=punch.Completion(text=" ".join(words)),
            usage=punch.Usage(prompt_tokens=len(words), completion_tokens=len(words)),
            timings=punch.Timings(),
        )


async def main(bootstrap: str, namespace: str) -> None:
    async with punch.open_listener(Shout(), bootstrap=bootstrap, namespace=namespace) as listener:
        await listener.wait_until_joined()
        print(listener.peer_id, flush=True)
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
