"""A backend of your own and a router in one process: a first question, and a second turn.

python examples/second_turn.py
Prints the two answers, who gave them, and that they were simulated.
"""

import trio

import punch


class Parrot:
    """A backend that says how much it was told, and the last of it."""

    name, simulated, slots, threads, gpus = "parrot", True, 4, None, ()
    offers = (punch.ModelOffer(name="parrot"),)

    async def ready(self, loading: punch.Loading) -> None:
        """At once: there is no model to load."""

    async def generate(self, request: punch.CommandRequest, emit: punch.Emit) -> punch.Generation:
        text = f"{len(request.messages)} messages, and: {request.messages[-1].content}"
        await emit(text, len(text.split()))
        return punch.Generation(completion=punch.Completion(text=text))


async def main() -> None:
    async with (
        punch.open_listener(Parrot(), bootstrap=None) as listener,
        punch.open_router(listener=listener) as router,
    ):
        first = await router.ask("Hello!")
        second = await router.ask("And now?", history=["Hello!", first])
        for response in (first, second):
            print(response.text, "- by", response.executor, response.provenance)


if __name__ == "__main__":
    trio.run(main)
