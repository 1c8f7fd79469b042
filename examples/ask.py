"""Ask a question over the network that the `punch` programs use.

Start `python -m punch.listener` first, then: python examples/ask.py "Why is the sky blue?"
Prints the answer as it arrives, then who gave it and whether a real model did.
"""

import sys

import trio

import punch


async def main(question: str, bootstrap: str, namespace: str) -> None:
    async with punch.open_router(bootstrap=bootstrap, namespace=namespace) as router:
        async with router.answer(punch.chat_request(question)) as answer:
            async for text in answer:
                print(text, end="", flush=True)
        provenance = answer.response.provenance
        assert provenance is not None
        print(f"\n-- {provenance.model} ({provenance.kind}), by {answer.response.executor}")


if __name__ == "__main__":
    trio.run(
        main,
        sys.argv[1] if len(sys.argv) > 1 else "Why is the sky blue?",
        sys.argv[2] if len(sys.argv) > 2 else "/ip4/127.0.0.1/tcp/51820",
        sys.argv[3] if len(sys.argv) > 3 else "simple-chat",
    )
