"""A split on the page: its plan, how far it is loaded, who was lost; and what happened to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decision_logs as made
import trio
from http_feeds import Peers, wall
from trio.testing import MockClock

from punch import dashboard
from punch.cluster.coordinator import UNAUTHENTICATED
from punch.dashboard import Feed, open_feed
from punch.dashboard._rows import event_row
from punch.dashboard._splits import MAX_PARTS, MAX_SPLITS, ShownSplits
from punch.decision_log._entries import decided
from punch.events import (
    Bus,
    CoordinatorStarted,
    HeldLayers,
    LeaseEnded,
    LeaseTaken,
    PlanChanged,
    SplitLoading,
    SplitReady,
    WorkerConnected,
    WorkerLost,
)
from punch.routing import Starts

ANN, BOB = "12D3KooWann", "12D3KooWbob"


def plan(*workers: str, **changes: Any) -> PlanChanged:
    """Each holds ten layers, the head the first two."""
    head = HeldLayers(worker="", device="CPU", first=0, layers=2, bytes=1 << 20)
    held = [
        HeldLayers(
            worker=worker,
            device="RPC0",
            first=2 + 10 * number,
            layers=10,
            bytes=5 << 20,
            token_bytes=7000,
        )
        for number, worker in enumerate(workers)
    ]
    fields: dict[str, Any] = {"decode_rate": 12.3456, "first_token": 0.5, "output_on_head": True}
    return PlanChanged(at=0.0, split="s", model="big", layers=(head, *held), **(fields | changes))


def shown() -> ShownSplits:
    """With a count of its own for versions."""
    version = 0

    def bump() -> int:
        nonlocal version
        version += 1
        return version

    return ShownSplits(bump)


def test_a_split_is_told_from_its_plan_to_its_answers() -> None:
    """Each step is a state; loading has its true share, and who holds what is in its place."""
    splits = shown()
    splits.hear(CoordinatorStarted(at=0.0, split="s", model="big", workers=(ANN, BOB)))
    splits.hear(plan(ANN, BOB, left_out=("cid: it lends nothing now",)))
    (row,) = splits.since(0)
    assert (row["model"], row["state"], row["decode"], row["output_on_head"]) == (
        "big",
        "planning",
        12.346,
        True,
    )
    assert [(p["worker"], p["first"], p["layers"], p["token_bytes"]) for p in row["parts"]] == [
        (None, 0, 2, 0),
        (ANN, 2, 10, 7000),
        (BOB, 12, 10, 7000),
    ]
    assert [part["state"] for part in row["parts"]] == [None, "lent", "lent"]
    assert row["left_out"] == ["cid: it lends nothing now"]

    assert splits.hear(SplitLoading(at=0.0, split="s", model="big", progress=0.43219)) is None
    (row,) = splits.since(0)
    assert (row["state"], row["progress"]) == ("loading", 0.432)

    splits.hear(WorkerConnected(at=0.0, split="s", worker=ANN, bytes=5 << 20))
    splits.hear(SplitReady(at=0.0, split="s", model="big", seconds=4.0, starts=1))
    (row,) = splits.since(0)
    assert (row["state"], row["progress"], row["seconds"], row["starts"]) == ("ready", None, 4.0, 1)
    assert [part["state"] for part in row["parts"]] == [None, "holds", "lent"]


def test_a_server_that_nobody_vouches_for_is_shown_with_the_word_that_says_so() -> None:
    """Whole: the page cuts names of peers to their ends, and would cut that word off."""
    server = f"{UNAUTHENTICATED}192.168.1.20:50052"
    splits = shown()
    splits.hear(plan(server))
    (row,) = splits.since(0)
    assert [part["worker"] for part in row["parts"]] == [None, server]
    page = (Path(dashboard.__file__).parent / "static" / "format.js").read_text(encoding="utf-8")
    assert f'if (id.startsWith("{UNAUTHENTICATED}")) return id;' in page


def test_a_lost_worker_stays_to_be_seen_until_there_is_another_plan() -> None:
    """With its reason among what happened."""
    splits = shown()
    splits.hear(plan(ANN, BOB))
    splits.hear(SplitReady(at=0.0, split="s", model="big", seconds=4.0))
    told = splits.hear(WorkerLost(at=0.0, split="s", worker=BOB, why="its tunnel ended"))
    assert told == {
        "kind": "split",
        "split": "s",
        "model": "big",
        "what": "lost",
        "worker": BOB,
        "why": "its tunnel ended",
    }
    splits.hear(LeaseEnded(at=0.0, split="s", worker=BOB, why="it was lost"))
    (row,) = splits.since(0)
    assert (row["state"], row["parts"][2]["state"]) == ("lost", "lost")

    told = splits.hear(plan(ANN))
    assert told is not None
    assert (told["what"], told["workers"]) == ("replanned", 1)
    (row,) = splits.since(0)
    assert [part["worker"] for part in row["parts"]] == [None, ANN]


def test_a_split_that_gave_everything_back_is_over() -> None:
    """It holds nothing any more."""
    splits = shown()
    splits.hear(plan(ANN))
    splits.hear(LeaseTaken(at=0.0, split="s", worker=ANN, bytes=6 << 20))
    splits.hear(SplitReady(at=0.0, split="s", model="big", seconds=4.0))
    splits.hear(LeaseEnded(at=0.0, split="s", worker=ANN, why="the head has ended"))
    (row,) = splits.since(0)
    assert (row["state"], row["parts"]) == ("over", [])


def test_splits_are_bounded_in_number_and_in_parts() -> None:
    """The oldest goes; of many parts the rest is a number."""
    splits = shown()
    for number in range(MAX_SPLITS + 3):
        splits.hear(CoordinatorStarted(at=0.0, split=f"s{number}", model="big"))
    rows = splits.since(0)
    assert (len(rows), rows[0]["id"]) == (MAX_SPLITS, "s3")
    splits.hear(plan(*[f"w{number}" for number in range(MAX_PARTS + 4)]))
    row = splits.since(0)[-1]
    assert (len(row["parts"]), row["more_parts"]) == (MAX_PARTS, 5)
    assert splits.since(10**6) == []


async def test_the_feed_tells_of_splits_and_of_what_happened_to_them(
    autojump_clock: MockClock,
) -> None:
    """Whoever looks later gets them with the snapshot; progress is no happening."""
    events = Bus()
    async with open_feed(Peers(), events=events, wall=wall) as feed:
        seen = version_of(feed)
        events.publish(plan(ANN, BOB))
        events.publish(SplitLoading(at=0.0, split="s", model="big", progress=0.5))
        events.publish(WorkerLost(at=0.0, split="s", worker=BOB, why="cut"))
        await trio.sleep(1.0)
        data = feed.since(seen)
        assert [row["id"] for row in data["splits"]] == ["s"]
        told = [row["what"] for row in data["events"] if row["kind"] == "split"]
        assert told == ["planned", "lost"]
        assert "splits" not in feed.since(version_of(feed))
        assert [row["id"] for row in feed.since(0)["splits"]] == ["s"]


def version_of(feed: Feed) -> int:
    """What somebody who looks now has seen."""
    feed.since(0)
    return feed._version


def test_a_decision_to_start_something_says_so() -> None:
    """Its line among what happened is not that of a peer that was asked."""
    startable = Starts().look([made.SPLIT], now=100.0)
    told = event_row(decided("r", made.decide(startable=startable), reason="first"))
    assert (told["peer"], told["starts"]) == (made.HEAD, True)
    assert event_row(decided("r", made.decide(), reason="first"))["starts"] is False
