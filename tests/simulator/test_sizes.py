"""docs/routing.md, *Sizes*: each row of its table is run on machines that have what it says.

Bytes and memory decide who has a model whole, by the planner's own formulas; the planner says of
the machines that lend what a split would be worth; and a real router asks real listeners.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio
from layouts import make_layout
from trio.testing import MockClock

from punch.capability import PeerId
from punch.dialer import Router, chat_request, open_router
from punch.exceptions import NoPeerAvailable, PunchError
from punch.gguf import LayerSize, Layout
from punch.listener import Listener
from punch.placement import HEAD, HEAD_CPU, Device, Link, Mix, Plan, Refused, Solo, Wants, plan
from punch.routing import StartableOffer
from punch.routing.kinds import KINDS
from punch.simulator import PoolPeer, SimulatedBackend, World
from punch.simulator._machine import MODEL, offer_of
from punch.testing import Swarm
from punch.wire import CommandRequest, Hints

DOCUMENT = (Path(__file__).parents[2] / "docs" / "routing.md").read_text(encoding="utf-8")

HEADING = "| situation | model | this machine | others | split | answer | goes to |"

GB = 10**9

# Seconds to load a model: bytes of a disk, a second.
DISK = 0.5 * GB

# Multiply-adds for a byte of bandwidth: of a processor, and of a small GPU.
COMPUTE = 20

LAN = Link(rtt=0.0003, rate=110e6)
LAYERS = 64
PROMPT_TOKENS = 512

# Tokens of the answer that keeps a machine busy.
BUSY_TOKENS = 4000

# Longer than any start, in seconds.
TIMEOUT = 3600.0


@attrs.frozen(kw_only=True)
class Place:
    """A machine of a row."""

    name: str
    memory: int
    bandwidth: float
    words: frozenset[str]

    @property
    def device(self) -> Device:
        """As it sees itself."""
        return Device(
            id=HEAD_CPU,
            holder=HEAD,
            memory=self.memory,
            bandwidth=self.bandwidth,
            compute=self.bandwidth * COMPUTE,
        )

    @property
    def lent(self) -> Device:
        """As this machine sees what it lends."""
        return attrs.evolve(self.device, id=f"{self.name}/GPU", holder=self.name, link=LAN)


@attrs.frozen(kw_only=True)
class Row:
    """A row of the table."""

    situation: str
    model: int
    here: Place
    others: tuple[Place, ...]
    split: str
    answer: int
    taken: str


def _place(name: str, text: str) -> Place:
    found = re.fullmatch(r"(\d+) GB at (\d+)((?:, [a-z]+)*)", text.strip())
    assert found, f"{text!r} is no machine: write 16 GB at 50, busy"
    words = frozenset(filter(None, found[3].split(", ")))
    assert words <= {"busy", "cold", "empty", "lends"}, words
    return Place(name=name, memory=int(found[1]) * GB, bandwidth=float(found[2]) * GB, words=words)


def rows() -> Sequence[Row]:
    """All of them, as the document has them."""
    _, _, rest = DOCUMENT.partition(HEADING)
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    found = []
    for line in lines:
        situation, model, here, others, split, answer, taken = (
            cell.strip() for cell in line.strip("|").split("|")
        )
        found.append(
            Row(
                situation=situation,
                model=round(float(model.removesuffix(" GB")) * GB),
                here=_place("here", here),
                others=tuple(
                    _place(f"peer-{number}", one)
                    for number, one in enumerate(others.split(";"), 1)
                    if one.strip() != "-"
                ),
                split=split,
                answer=int(answer),
                taken=taken,
            )
        )
    return found


def layout_of(size: int) -> Layout:
    """A model of so many bytes, a fortieth of it at each end."""
    end = size // 40
    weights = (size - 2 * end) // LAYERS
    return make_layout(
        [LayerSize(weights=weights, kv_per_token=4096, values_per_token=2048)] * LAYERS,
        embeddings=end,
        output=end,
        largest_tensor=end,
        embedding=8192,
        vocabulary=128_256,
    )


class Machines:
    """The machines of one row, and what each of them can do with its model."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.layout = layout_of(row.model)
        self.world = World()
        self.wants = Wants(mix=Mix(prompt_tokens=PROMPT_TOKENS, answer_tokens=row.answer), slots=1)

    def whole(self, place: Place) -> PoolPeer | None:
        """The model on that machine alone; `None` if it does not fit, or is not there."""
        if "empty" in place.words:
            return None
        found = plan(self.layout, [place.device], self.wants)
        if isinstance(found, Refused):
            return None
        return PoolPeer(
            name=place.name,
            prefill_rate=found.prediction.prompt_rate,
            decode_rate=found.prediction.decode_rate,
            slots=1,
            load_seconds=self.row.model / DISK if "cold" in place.words else 0.0,
        )

    def split(self) -> Plan | Refused:
        """The best split over the machines that lend, with this one as its head."""
        row = self.row
        lenders = [each.lent for each in row.others if "lends" in each.words]
        solos = [
            Solo(peer=each.name, decode_rate=found.decode_rate, prefill_rate=found.prefill_rate)
            for each in (row.here, *row.others)
            if (found := self.whole(each)) is not None and "busy" not in each.words
        ]
        return plan(self.layout, [row.here.device, *lenders], self.wants, solos)

    def as_split(self, found: Plan) -> PoolPeer:
        """The machine that a split is, seen from outside."""
        return PoolPeer(
            name="split",
            prefill_rate=found.prediction.prompt_rate,
            decode_rate=found.prediction.decode_rate,
            slots=1,
            workers=len(found.workers),
        )

    def backend(self, machine: PoolPeer) -> SimulatedBackend:
        """A backend that is as fast as that machine."""
        return SimulatedBackend(machine, self.world, Random(machine.name))


def startable(machines: Machines, listener: Listener) -> StartableOffer | None:
    """What the row lets be started, or why it cannot be."""
    if machines.row.split != "could start":
        return None
    found = machines.split()
    fields: dict[str, Any] = {"id": "cold split", "peer_id": listener.peer_id}
    if isinstance(found, Refused) or not found.is_split:
        why = found.reason if isinstance(found, Refused) else "it is quickest here"
        offer = offer_of(PoolPeer(name="split", workers=1))
        return StartableOffer(**fields, offer=offer, seconds=0.0, why_not=why)
    return StartableOffer(
        **fields,
        offer=offer_of(machines.as_split(found)),
        seconds=found.prediction.load,
        backend="simulated",
        simulated=True,
        slots=1,
        workers=len(found.workers),
    )


def request(answer: int, **hints: Any) -> CommandRequest:
    """A request with a prompt of the usual length, for an answer of so many tokens."""
    return chat_request(
        "word" * (PROMPT_TOKENS * 7 // 8),
        model=MODEL,
        max_tokens=answer,
        timeout=TIMEOUT,
        hints=Hints(**hints),
    )


@pytest.mark.parametrize("row", rows(), ids=lambda row: re.sub(r"\W+", "-", row.situation))
async def test_a_request_goes_where_the_table_says(
    row: Row, swarm: Swarm, autojump_clock: MockClock
) -> None:
    """In each situation, for models of each size."""
    machines = Machines(row)
    lanes = []
    if (whole := machines.whole(row.here)) is not None:
        lanes.append(machines.backend(whole))
    if row.split == "runs":
        found = machines.split()
        assert isinstance(found, Plan), found
        assert found.is_split
        lanes.append(machines.backend(machines.as_split(found)))
    here = await swarm.listener("here", lanes)
    for place in row.others:
        if (whole := machines.whole(place)) is not None:
            await swarm.listener(place.name, [machines.backend(whole)])
    offer = startable(machines, here)

    async def start(chosen: StartableOffer) -> None:
        await trio.sleep(chosen.seconds)
        found = machines.split()
        assert isinstance(found, Plan)
        await here.add(machines.backend(machines.as_split(found)))

    async with (
        open_router(
            listener=here,
            startable=() if offer is None else (offer,),
            start=start,
            rng=Random(1),
        ) as router,
        trio.open_nursery() as nursery,
    ):
        await router.wait_for_peers(lambda peers: len(peers) >= len(swarm.listeners))
        for place in (row.here, *row.others):
            if "busy" in place.words:
                nursery.start_soon(occupy, router, place)
        await trio.sleep(10.0)
        if row.taken.startswith("refused"):
            await refused(router, row)
        else:
            await taken(router, row)
        nursery.cancel_scope.cancel()


async def occupy(router: Router, place: Place) -> None:
    """Keep a machine busy for a long answer."""
    async with router.answer(request(BUSY_TOKENS, only=(place.name,))) as answer:
        while await answer.receive() is not None:
            pass


async def taken(router: Router, row: Row) -> None:
    """One request goes where the row says, and is answered there."""
    async with router.answer(request(row.answer)) as answer:
        while await answer.receive() is not None:
            pass
        (chosen, *_) = answer.decisions[0].candidates()
        assert chosen.kind is not None
        kinds = {
            one.kind.word: str(one.kind) for one in answer.decisions[0].candidates() if one.kind
        }
        assert f"`{chosen.kind.word}`" == row.taken, (row.situation, kinds, answer.decisions[0])
        expected = PeerId("here") if chosen.kind.word != "peer" else chosen.peer_id
        assert answer.response.executor == expected
        assert not answer.attempts


async def refused(router: Router, row: Row) -> None:
    """No machine can, and the error has the numbers of the row."""
    said = re.search(r"`([^`]+)`", row.taken)
    assert said
    with pytest.raises(PunchError) as caught:
        await router.ask(request(row.answer))
    assert isinstance(caught.value, NoPeerAvailable)
    assert said[1] in str(caught.value), str(caught.value)


def test_the_table_has_every_kind_and_every_size() -> None:
    """Models from below 5 GB to beyond all machines together."""
    found = rows()
    assert {each.taken.strip("`") for each in found if "refused" not in each.taken} == set(KINDS)
    assert any("refused" in each.taken for each in found)
    assert min(each.model for each in found) <= 5 * GB
    assert max(each.model for each in found) >= 200 * GB
