"""One decision among 1,000 peers, by every policy.

All peers are there and pass every filter, which is the most work: fresh, with the model, with
a free slot, each with its own numbers; half of them have measured speeds. One process, no network.
"""

from __future__ import annotations

import statistics
import time
from random import Random

import attrs
from _results import Report, Row, milliseconds

from punch.capability import Capability, Gpu, Load, ModelOffer, PeerId
from punch.peers import PeerTable, Sample
from punch.routing import POLICIES, RouteRequest

TITLE = "One decision among 1,000 peers"

PEERS = 1000
MAX_SECONDS = 8e-4

# What the target is about; a policy that nobody chose is only told.
DEMANDED = "completion-time"


def full_table(rng: Random, *, now: float) -> PeerTable:
    """A table with `PEERS` peers that may all be asked."""
    table = PeerTable()
    for number in range(PEERS):
        peer_id = PeerId(f"12D3KooW{number:044d}")
        offer = ModelOffer(
            name="model",
            context_tokens=4096,
            prefill_rate=rng.uniform(50, 5000),
            decode_rate=rng.uniform(5, 200),
        )
        capability = Capability.of_one_lane(
            backend="llama_cpp",
            simulated=False,
            models=(offer,),
            load=Load(slots=8, busy=rng.randrange(6), queue_limit=16),
            threads=8,
            cpu_count=8,
            cpu_usage=rng.random(),
            memory_total_bytes=32 << 30,
            memory_available_bytes=rng.randrange(32 << 30),
            disk_total_bytes=1 << 40,
            disk_available_bytes=rng.randrange(1 << 40),
            gpus=(Gpu(name="gpu", total_bytes=24 << 30, usage=rng.random(), compute_units=10000),),
        )
        table.advertised(peer_id, capability, incarnation=1, sequence=1, seen_at=now)
        table.round_trip(peer_id, rng.uniform(0.001, 0.2))
        for _ in range(4 * (number % 2)):
            table.succeeded(
                peer_id,
                "model",
                Sample(
                    prefill_tokens=100,
                    prefill_seconds=rng.uniform(0.1, 1),
                    decode_tokens=100,
                    decode_seconds=rng.uniform(1, 10),
                ),
            )
    return table


def measure(*, quick: bool) -> Report:
    """Seconds of one decision of each policy."""
    rounds = 30 if quick else 200
    rng = Random(1)
    table = full_table(rng, now=0.0)
    request = RouteRequest(model="model", prompt_tokens=500)
    seconds: dict[str, list[float]] = {name: [] for name in POLICIES}
    snapshots = []
    some_peer = table.snapshot()[0].peer_id
    for serial in range(rounds):
        # As in life: something has changed since the last decision.
        table.round_trip(some_peer, rng.random())
        began = time.thread_time()
        peers = table.snapshot()
        snapshots.append(time.thread_time() - began)
        turn = attrs.evolve(request, serial=serial)
        for name, policy in POLICIES.items():
            began = time.thread_time()
            decision = policy.decide(turn, peers, now=0.0, rng=rng)
            seconds[name].append(time.thread_time() - began)
            assert len(decision.order) == PEERS
    rows = []
    for name, found in seconds.items():
        middle = statistics.median(found)
        row = Row(
            what=f"`{name}`",
            ours=milliseconds(middle),
            why="It is one pass over the peers for each filter, for the terms and for the sum.",
        )
        if name == DEMANDED:
            row = row.at_most(middle, MAX_SECONDS, milliseconds, firm=True)
        rows.append(row)
    rows.append(
        Row(what="a snapshot of the table", ours=milliseconds(statistics.median(snapshots)))
    )
    notes = (f"Median of {rounds}. {' '.join(__doc__.partition('.')[2].split())}",)
    return Report(title=TITLE, rows=tuple(rows), notes=notes)
