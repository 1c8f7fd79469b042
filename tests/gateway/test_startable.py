"""A model that nobody runs yet is in the lists, and is asked for as any other."""

from __future__ import annotations

import attrs
import trio
from gateway_client import BY_NAME, Client, Seen
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.capability import ModelOffer, PeerId
from punch.gateway import GatewayParts, build_application
from punch.routing import StartableOffer
from punch.testing import open_swarm

HEAD = PeerId("head")
SPLIT = StartableOffer(
    id="big/2",
    peer_id=HEAD,
    offer=ModelOffer(name="big", context_tokens=4096, decode_rate=20.0, split=True),
    seconds=5.0,
    workers=2,
)


class Real(MockBackend):
    """Says that it is no mock."""

    def __init__(self, model: str, *, split: bool = False) -> None:
        super().__init__(MockScript(decode_rate=20.0, prefill_rate=100.0))
        self.simulated, self.name = False, "engine"
        self.offers = tuple(attrs.evolve(one, name=model, split=split) for one in self.offers)


async def test_what_could_be_started_is_listed_and_started_when_it_is_asked(
    autojump_clock: MockClock,
) -> None:
    """By OpenAI's clients, Ollama's and Anthropic's; none lists it as loaded before."""
    async with open_swarm() as swarm:
        await swarm.listener("a", Real("small"))

        async def start(offer: StartableOffer) -> None:
            await trio.sleep(offer.seconds)
            await swarm.listener(HEAD, Real("big", split=True))

        async with swarm.router(startable=(SPLIT,), start=start) as router:
            app = build_application(router, GatewayParts(settings=BY_NAME))
            client = Client(app, Seen(), router, swarm)
            listed = (await client.get("/v1/models")).json()["data"]
            assert {"big", "small"} <= {model["id"] for model in listed}
            assert (await client.get("/v1/models/big")).json()["punch"]["context_tokens"] == 4096
            anthropic = await client.get("/v1/models", **{"anthropic-version": "2023-06-01"})
            assert "big" in str(anthropic.json())
            tags = (await client.get("/api/tags")).json()["models"]
            assert {"big", "small"} <= {model["name"].split(":")[0] for model in tags}
            assert "big" not in str((await client.get("/api/ps")).json())
            assert (await client.post("/api/show", {"model": "big"})).status == 200
            reply = await client.chat(model="big", max_tokens=4)
            assert (reply.status, reply.headers["x-punch-peer"]) == (200, HEAD)
            assert router.startable == ()
