"""A punch listener over libp2p that misbehaves in one of the simulator's ways until it is mended.

Its engine is a mock of set rates. The hostile kinds are a `punch.testing.Rogue` in front of an
honest listener, as in the simulator; the broken ones a mock that does not do what it should.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import attrs
import trio
from _processes import options, serve

from punch.backends import Emit, Generation, Loading, MockBackend, MockScript
from punch.bootstrap import open_bootstrap
from punch.capability import Gpu, ModelOffer
from punch.exceptions import BackendCrashed
from punch.libp2p import open_node
from punch.listener import open_listener
from punch.network import parse_address
from punch.simulator import RESTART_SECONDS, manner_of
from punch.testing import Rogue
from punch.wire import CommandRequest, Provenance

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


class Engine:
    """A mock of set rates that may be stuck, fragile, or slower than it says.

    Args:
      kind: What is wrong with it, one of `punch.simulator.KINDS`, or nothing.
      claims: What it multiplies its rates by when it speaks of them.
      dies_of_words: Words of the shortest prompt that kills a fragile one.

    """

    name = "mock"
    simulated = True
    threads: int | None = None
    gpus: tuple[Gpu, ...] = ()

    def __init__(self, script: MockScript, *, kind: str, claims: float, dies_of_words: int) -> None:
        self._mock = MockBackend(script)
        self._script = script
        self._kind = kind
        self._claims = claims
        self._dies_of_words = dies_of_words
        self._back_at = 0.0
        self._running: set[trio.CancelScope] = set()
        self.slots = script.slots

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The mock's, with the rates that it claims."""
        script, claims = self._script, self._claims
        assert script.prefill_rate is not None
        assert script.decode_rate is not None
        left = max(0.0, self._back_at - trio.current_time())
        return tuple(
            attrs.evolve(
                offer,
                prefill_rate=claims * script.prefill_rate,
                decode_rate=claims * script.decode_rate,
                slowdown=0.0,
                load_seconds=left,
            )
            for offer in self._mock.offers
        )

    def mend(self) -> None:
        """Be as it should from now on, and as fast as it claims."""
        script, claims = self._script, self._claims
        assert script.prefill_rate is not None
        assert script.decode_rate is not None
        self._script = attrs.evolve(
            script,
            prefill_rate=claims * script.prefill_rate,
            decode_rate=claims * script.decode_rate,
        )
        self._mock = MockBackend(self._script)
        self._kind, self._claims = "", 1.0

    async def ready(self, loading: Loading) -> None:
        """Return once an engine that died is there again."""
        while (left := self._back_at - trio.current_time()) > 0:
            loading(left)
            await trio.sleep(min(left, 5.0))

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer as the mock does, or not."""
        if self._kind == "stuck":
            await trio.sleep_forever()
        if self._kind == "fragile":
            return await self._generate_if_it_lives(request, emit)
        claims = self._claims
        generation = await self._mock.generate(request, emit)
        timings = generation.timings
        return attrs.evolve(
            generation,
            timings=attrs.evolve(
                timings,
                prefill=None if timings.prefill is None else timings.prefill / claims,
                decode=None if timings.decode is None else timings.decode / claims,
            ),
        )

    async def _generate_if_it_lives(self, request: CommandRequest, emit: Emit) -> Generation:
        words = sum(len(message.content.split()) for message in request.messages)
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                if words < self._dies_of_words:
                    return await self._mock.generate(request, emit)
                assert self._script.prefill_rate is not None
                await trio.sleep(words / self._script.prefill_rate)
                self._back_at = trio.current_time() + RESTART_SECONDS
                for other in self._running:
                    other.cancel()
            finally:
                self._running.discard(scope)
        raise BackendCrashed("the engine died", engine_died=True)


async def main() -> None:
    """Listen as the parent says, until it closes standard input."""
    given = options()
    kind = str(given.get("kind", ""))
    script = MockScript(
        decode_rate=float(given["decode_rate"]),
        prefill_rate=float(given["prefill_rate"]),
        slots=int(given["slots"]),
    )
    engine = Engine(
        script,
        kind=kind,
        claims=float(given.get("claims", 1.0)),
        dies_of_words=int(given.get("dies_of_words", 1 << 30)),
    )
    (offer,) = engine.offers
    provenance = Provenance(
        kind="simulated", backend=engine.name, model=offer.name, model_digest=offer.digest
    )
    rogue = Rogue(manner_of(kind, provenance))
    async with AsyncExitStack() as stack:
        meeting = given.get("bootstrap")
        if meeting is None:
            first = await stack.enter_async_context(open_node(listen=[LOOPBACK]))
            await stack.enter_async_context(open_bootstrap(first))
            meeting = first.addresses[0]
        node = await stack.enter_async_context(open_node(listen=[LOOPBACK]))
        listener = await stack.enter_async_context(
            open_listener(
                engine,
                node=rogue.node(node),
                bootstrap=parse_address(meeting),
                namespace=str(given["namespace"]),
                calibrate=False,
                queue_limit=256,
            )
        )
        await listener.wait_until_joined()

        async def mend() -> bool:
            rogue.manner = None
            engine.mend()
            return True

        greeting = {"bootstrap": meeting, "peer_id": str(node.peer_id)}
        await serve({"mend": mend}, greeting=greeting)


if __name__ == "__main__":
    trio.run(main)
