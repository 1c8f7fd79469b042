"""Makes the plain data of who is connected to whom, and of where models could run. No I/O.

What this process knows is all there is: it sees its own sessions, the sources of its directory and
its own splits, and nothing of how others are connected with each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from ..adoption import AdoptedServer
from ..capability import PeerId
from ..discovery import SourceState
from ..peers import PeerRecord
from ..routing import Policy, Startable
from ..routing.matrix import Cell, SizeRow, size_rows
from ..wire import short_word
from ._rows import Row

# Of each kind: more fill no picture, and the tables behind it have them.
MAX_SHOWN = 64

# Characters of a reason in somebody's words.
MAX_WHY = 300

# Models of one adopted server.
MAX_MODELS = 16


class Charted(Protocol):
    """The part of a `Router` that these rows are made of."""

    @property
    def peer_id(self) -> PeerId:
        """Our own identity."""

    @property
    def peers(self) -> tuple[PeerRecord, ...]:
        """A snapshot of the listeners that are connected."""

    @property
    def unreachable(self) -> Mapping[PeerId, str]:
        """The listeners that there is no session with, each with the reason."""

    @property
    def sources(self) -> tuple[SourceState, ...]:
        """How the members of the namespace are found, and how well that works."""

    @property
    def workers(self) -> Mapping[PeerId, tuple[str, ...]]:
        """The workers of the namespace, and where each of them is."""

    @property
    def startable(self) -> tuple[Startable, ...]:
        """What nobody runs and could be started."""

    @property
    def policy(self) -> Policy:
        """How a peer is chosen."""

    @property
    def strict(self) -> bool:
        """Whether only real inference will do."""


# ---- who is connected ----


def topology(router: Charted, splits: Iterable[Row]) -> dict[str, Any]:
    """What this process is connected to, how, and what it has heard of beside that.

    Args:
      router: Whose sessions they are.
      splits: The rows of this process's splits; see `_splits`.

    """
    peers, away, workers = router.peers, router.unreachable, router.workers
    own = router.peer_id
    mine = next((peer for peer in peers if peer.peer_id == own), None)
    others = [peer for peer in peers if peer is not mine]
    named = {peer.peer_id: peer for peer in peers}
    return {
        "here": {
            "id": own,
            "name": None if mine is None else short_word(mine.capability.machine_name),
            "listens": mine is not None,
            "models": 0 if mine is None else len(mine.capability.models),
        },
        "peers": [_peer(peer, peer.peer_id in workers) for peer in others[:MAX_SHOWN]],
        "away": [
            {"id": peer_id, "why": why[:MAX_WHY]}
            for peer_id, why in islice(away.items(), MAX_SHOWN)
        ],
        "workers": [
            {"id": peer_id, "listens": peer_id in named} for peer_id in islice(workers, MAX_SHOWN)
        ],
        "meeting": _meeting_rows(router.sources[:MAX_SHOWN]),
        "splits": [_split(split) for split in splits if split["state"] != "over"],
        "more": sum(
            max(0, len(found) - MAX_SHOWN) for found in (others, away, workers, router.sources)
        ),
    }


def _peer(peer: PeerRecord, lends: bool) -> Row:
    claim = peer.capability
    return {
        "id": peer.peer_id,
        "name": short_word(claim.machine_name),
        "path": peer.path,
        "rtt": None if peer.rtt is None else round(peer.rtt, 5),
        "models": len(claim.models),
        "lanes": len(claim.lanes),
        "lends": lends,
        "reachable": peer.reachable,
        "leaves": claim.load.draining,
    }


def _meeting_rows(sources: Iterable[SourceState]) -> list[Row]:
    """Where others are met; of those that do not work for one reason, the first and how many."""
    rows: list[Row] = []
    idle: dict[str | None, Row] = {}
    for source in sources:
        trouble = None if source.trouble is None else str(source.trouble)[:MAX_WHY]
        if not source.is_working and trouble in idle:
            idle[trouble]["alike"] += 1
            continue
        row = {
            "name": short_word(source.name),
            "works": source.is_working,
            "listeners": source.listeners,
            "trouble": trouble,
            "alike": 0,
        }
        if not source.is_working:
            idle[trouble] = row
        rows.append(row)
    return rows


def _split(split: Row) -> Row:
    workers = dict.fromkeys(part["worker"] for part in split["parts"] if part["worker"])
    return {
        "id": split["id"],
        "model": split["model"],
        "state": split["state"],
        "workers": list(workers),
    }


# ---- where models run, and could ----


def sizes(router: Charted, *, now: float) -> dict[str, Any]:
    """Each model on offer beside the kinds of places where it could run; see `size_rows`."""
    rows, more = size_rows(
        router.policy, router.peers, router.startable, now=now, strict=router.strict
    )
    return {
        "policy": router.policy.name,
        "models": [_size_row(row) for row in rows],
        "more_models": more,
    }


def _size_row(row: SizeRow) -> Row:
    return {
        "model": short_word(row.model),
        "size": row.size_bytes,
        "taken": row.taken,
        "why": row.why,
        "cells": {word: _cell(cell) for word, cell in row.cells.items()},
    }


def _cell(cell: Cell) -> Row:
    return {
        "kind": None if cell.kind is None else str(cell.kind),
        "peer": cell.peer_id,
        "seconds": None if cell.seconds is None else round(cell.seconds, 3),
        "why_not": None if cell.why_not is None else cell.why_not[:MAX_WHY],
    }


# ---- servers that were adopted ----


def adopted_rows(servers: Sequence[AdoptedServer]) -> list[Row]:
    """The servers of others that this process has lanes of, or has found and left alone."""
    return [
        {
            "url": server.url[:MAX_WHY],
            "program": short_word(server.program),
            "how": server.how,
            "state": server.state,
            "reason": None if server.reason is None else server.reason[:MAX_WHY],
            "models": [short_word(name) for name in server.models[:MAX_MODELS]],
            "more_models": max(0, len(server.models) - MAX_MODELS),
            "lane": short_word(server.lane),
            "seconds": max(0, round(server.seconds)),
        }
        for server in servers[:MAX_SHOWN]
    ]
