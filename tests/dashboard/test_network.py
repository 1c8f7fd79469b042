"""What the page shows of connections, of sizes, and of servers that were adopted."""

from __future__ import annotations

from typing import Any

import attrs
import decision_logs as made
from dashboard.test_machines import asker
from http_feeds import Peers, wall
from starlette.applications import Starlette
from trio.testing import MockClock, wait_all_tasks_blocked

from punch.adoption import AdoptedServer
from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dashboard import dashboard_routes, open_feed
from punch.dashboard._network import MAX_SHOWN, adopted_rows, sizes, topology
from punch.dialer import open_router
from punch.discovery import SourceState
from punch.events import Bus
from punch.exceptions import PeerUnreachable
from punch.routing import Startable, StartableOffer
from punch.testing import Swarm


class Connected(Peers):
    """As much of a router as these rows are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.peer_id = made.FAST
        self.peers = tuple(
            attrs.evolve(peer, path=path)
            for peer, path in zip(made.PEERS, ("process", "network", "machine"), strict=True)
        )
        self.workers: dict[PeerId, tuple[str, ...]] = {made.SLOW: (), PeerId("lender"): ()}
        self.sources: tuple[SourceState, ...] = (
            SourceState(name="bootstrap 10.0.0.1", listeners=2, is_working=True, trouble=None),
            SourceState(
                name="lan\n\x1b[31m",
                listeners=0,
                is_working=False,
                trouble=PeerUnreachable("w" * 999),
            ),
        )
        self.startable: tuple[Startable, ...] = ()


def test_the_topology_has_this_process_in_its_middle() -> None:
    """The peers around it with the path to each, who lends, and where all of them meet."""
    router = Connected()
    router.unreachable = {PeerId("attic"): "no way " * 99}
    data = topology(router, ())
    assert data["here"]["id"] == made.FAST
    assert data["here"]["listens"]
    assert [(peer["id"], peer["path"], peer["lends"]) for peer in data["peers"]] == [
        (made.SLOW, "network", True),
        (made.PEERS[2].peer_id, "machine", False),
    ]
    assert data["workers"] == [
        {"id": made.SLOW, "listens": True},
        {"id": "lender", "listens": False},
    ]
    (away,) = data["away"]
    assert (away["id"], len(away["why"])) == ("attic", 300)
    works, broken = data["meeting"]
    assert (works["works"], works["trouble"], broken["works"]) == (True, None, False)
    assert broken["name"].isprintable()
    assert len(broken["trouble"]) == 300
    assert data["more"] == 0


def test_places_that_do_not_work_for_one_reason_are_one_line() -> None:
    """As the members that nobody can be met at."""
    router = Connected()
    idle = attrs.evolve(router.sources[1], name="member 1")
    others = (attrs.evolve(idle, name="member 2"), attrs.evolve(idle, trouble=None))
    router.sources = (router.sources[0], idle, *others)
    rows = topology(router, ())["meeting"]
    assert [(row["name"], row["alike"]) for row in rows] == [
        ("bootstrap 10.0.0.1", 0),
        ("member 1", 1),
        ("member 1", 0),
    ]


def test_a_process_that_only_asks_is_in_the_middle_all_the_same() -> None:
    """It has no models, and every peer is another one."""
    router = Connected()
    router.peer_id = PeerId("gateway")
    data = topology(router, ())
    assert (data["here"]["listens"], data["here"]["name"], len(data["peers"])) == (False, None, 3)


def test_a_split_is_shown_with_the_workers_that_hold_a_part() -> None:
    """Each once, the head left out; one that is over is none."""
    parts = [{"worker": None}, {"worker": "a"}, {"worker": "a"}, {"worker": "b"}]
    rows: list[dict[str, Any]] = [
        {"id": "s", "model": "big", "state": "ready", "parts": parts},
        {"id": "t", "model": "big", "state": "over", "parts": []},
    ]
    assert topology(Connected(), rows)["splits"] == [
        {"id": "s", "model": "big", "state": "ready", "workers": ["a", "b"]}
    ]


def test_of_many_peers_some_are_shown_and_the_rest_is_counted() -> None:
    """A picture of a thousand is none."""
    router = Connected()
    router.peers = tuple(
        attrs.evolve(made.PEERS[0], peer_id=PeerId(f"peer-{number}")) for number in range(200)
    )
    data = topology(router, ())
    assert (len(data["peers"]), data["more"]) == (MAX_SHOWN, 200 - MAX_SHOWN)


def test_each_model_has_a_row_with_seconds_or_a_reason() -> None:
    """For each kind of place, and which one a usual request would take."""
    router = Connected()
    big = attrs.evolve(made.PEERS[0].capability.models[0], name="big", split=True, digest=None)
    router.startable = tuple(
        Startable(offer=offer, seconds=offer.seconds, why_not=offer.why_not)
        for offer in (
            StartableOffer(
                id="s",
                peer_id=made.FAST,
                offer=big,
                seconds=0.0,
                why_not="all devices have 4 GB, and it takes 40 GB",
            ),
        )
    )
    data = sizes(router, now=made.PEERS[0].seen_at)
    rows = {row["model"]: row for row in data["models"]}
    assert data["policy"] == "completion-time"
    assert rows["big"]["taken"] is None
    assert rows["big"]["cells"]["start"]["why_not"] == "all devices have 4 GB, and it takes 40 GB"
    small = rows["smollm2"]
    assert small["taken"] == "here"
    assert small["cells"]["here"]["kind"] == "this machine, whole"
    assert small["cells"]["peer"]["seconds"] > small["cells"]["here"]["seconds"]
    assert small["cells"]["split"] == {
        "kind": None,
        "peer": None,
        "seconds": None,
        "why_not": "no split of it runs",
    }


def test_an_adopted_server_is_shown_with_its_lane_or_with_what_hinders() -> None:
    """Words of others are cut."""
    server = AdoptedServer(
        url="http://localhost:11434",
        program="ollama",
        how="found",
        state="left alone",
        reason="r" * 999,
        models=tuple(f"m{number}" for number in range(20)),
        lane=None,
        seconds=12.6,
    )
    (row,) = adopted_rows([server])
    assert (row["url"], row["program"], row["state"], row["how"]) == (
        "http://localhost:11434",
        "ollama",
        "left alone",
        "found",
    )
    assert (len(row["reason"]), len(row["models"]), row["more_models"]) == (300, 16, 4)
    assert (row["lane"], row["seconds"]) == (None, 13)


async def test_a_router_beside_a_listener_sees_itself_on_this_machine(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Its own listener by the path within the process; and the routes are there."""
    listener = await swarm.listener("here", MockBackend(MockScript()))
    await swarm.listener("there", MockBackend(MockScript()))
    async with (
        open_router(listener=listener) as router,
        open_feed(router, events=Bus(), wall=wall) as feed,
    ):
        await router.wait_for_peers(lambda peers: len(peers) == 2)
        await wait_all_tasks_blocked()
        ask = asker(Starlette(routes=dashboard_routes(feed, router=router)))
        found = (await ask("GET", "/api/dashboard/topology")).json()
        assert (found["here"]["id"], found["here"]["listens"]) == ("here", True)
        assert [peer["id"] for peer in found["peers"]] == ["there"]
        assert found["meeting"][0]["works"]
        (row,) = (await ask("GET", "/api/dashboard/sizes")).json()["models"]
        assert row["cells"]["here"]["peer"] == "here"
        assert row["cells"]["peer"]["peer"] == "there"
        assert (await ask("GET", "/api/dashboard/adopted")).json() == {"adopted": []}
        paths = {str(peer.peer_id): peer.path for peer in router.peers}
        assert paths["here"] == "process"
        assert (await ask("POST", "/api/dashboard/invites")).status == 404
