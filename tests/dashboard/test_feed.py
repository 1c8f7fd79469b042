"""The dashboard's feed: one state, told as everything since; bounded, whoever watches."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import attrs
import decision_logs as made
import pytest
import request_records as records
import trio
from http_feeds import Peers, wall
from trio.testing import MockClock

from punch._log_events import line_of
from punch._logs import get_logger
from punch.capability import Capability, Lane, Load, ModelOffer
from punch.dashboard import Feed, open_feed
from punch.dashboard._feed import (
    FRAME_SECONDS,
    MAX_EVENTS,
    MAX_LOGS,
    MAX_WATCHERS,
    Frame,
    Watcher,
)
from punch.dashboard._requests import MAX_REQUESTS
from punch.dashboard._rows import peer_row
from punch.dashboard._series import (
    DAY_SECONDS,
    MAX_FIRSTS,
    MAX_IDS,
    MINUTE_SECONDS,
    SERIES_SECONDS,
    Series,
)
from punch.dashboard._stories import Stories, story_body
from punch.decision_log import LineMade, open_decision_log
from punch.decision_log._entries import Ended
from punch.events import Bus, Logged, PromptRead
from punch.peers import Breaker, Rates
from punch.wire import Provenance, Segment, Usage

REAL = Provenance(kind="real", backend="llama_cpp", model="smollm2", model_digest=made.DIGEST)


def feed_of(router: Peers | None = None, **given: Any) -> Feed:
    return Feed(router or Peers(), wall=wall, **given)


@asynccontextmanager
async def opened(router: Peers | None = None, **given: Any) -> AsyncIterator[Feed]:
    async with open_feed(router or Peers(), wall=wall, **{"events": Bus()} | given) as feed:
        yield feed


async def frame_of(watcher: Watcher) -> Frame:
    """The next frame of a feed that is open."""
    frame = await watcher.receive()
    assert frame is not None
    return frame


def version_of(feed: Feed) -> int:
    """What somebody who looks now has seen."""
    feed.since(0)
    return feed._version


async def test_a_request_is_a_row_from_its_beginning_to_its_end(autojump_clock: MockClock) -> None:
    """Who answers, how many tokens so far, and at the end what was counted."""
    feed = feed_of()
    record = records.new("r1", endpoint="/v1/chat/completions", stream=True)
    feed.hear(records.started(record))
    (row,) = feed.since(0)["requests"]
    assert (row["id"], row["seconds"], row["tokens"], row["peer"]) == ("r1", None, 0, None)

    await trio.sleep(0.5)
    record.peer_id, record.tokens = made.FAST, 1
    record.first_text_at = trio.current_time()
    feed.hear(records.changed(record))
    # Of each further part nobody is told: the feed looks.
    seen = version_of(feed)
    record.tokens = 7
    (row,) = feed.since(seen)["requests"]
    assert (row["peer"], row["first"], row["tokens"], row["counted"]) == (made.FAST, 0.5, 7, False)

    await trio.sleep(1.5)
    record.usage, record.status = Usage(prompt_tokens=4, completion_tokens=9), 200
    record.provenance, record.ended_at = REAL, trio.current_time()
    feed.hear(records.ended(record))
    data = feed.since(seen)
    (row,) = data["requests"]
    assert (row["seconds"], row["tokens"], row["counted"]) == (2.0, 9, True)
    assert row["made_by"]["kind"] == "real"
    assert data["live"] == []
    assert data["totals"] == {
        "requests": 1, "failed": 0, "tokens": 9, "continued": 0, "under_way": 0,
    }  # fmt: skip


async def test_every_number_over_time_names_its_requests(autojump_clock: MockClock) -> None:
    """Tokens are counted in the second in which they were delivered, once."""
    feed = feed_of()
    long, short = (records.new(name) for name in ("long", "short"))
    feed.hear(records.started(long))
    feed.hear(records.started(short))
    long.first_text_at = trio.current_time()
    long.tokens = 10
    feed.hear(records.changed(long))
    feed.look()
    await trio.sleep(1)
    long.tokens = 25
    feed.look()
    short.ended_at, short.error_code, short.status = trio.current_time(), "no_peer", 503
    feed.hear(records.ended(short))
    await trio.sleep(1)
    long.usage, long.ended_at = Usage(completion_tokens=30), trio.current_time()
    feed.hear(records.ended(long))
    points = feed.since(0)["points"]
    assert [(p["tokens"], p["requests"], p["failed"], p["ids"]) for p in points] == [
        (10, 0, 0, ["long"]),
        (15, 1, 1, ["long", "short"]),
        (5, 1, 0, ["long"]),
    ]
    assert (points[0]["p50"], points[0]["p95"], points[0]["firsts"]) == (0.0, 0.0, 1)
    assert feed.since(0)["totals"]["tokens"] == 30


async def test_a_continuation_is_told_apart_from_several_answers(autojump_clock: MockClock) -> None:
    """Both have several parts; only in one of them did somebody go on for somebody else."""
    feed = feed_of()

    def part(reason: str) -> Segment:
        return Segment(peer_id=made.FAST, tokens=3, characters=9, seconds=1.0, reason=reason)

    for reasons in (["the connection was lost", "stop"], ["stop", "length"]):
        record = records.new(reasons[0])
        feed.hear(records.started(record))
        record.segments = tuple(map(part, reasons))
        record.ended_at = trio.current_time()
        feed.hear(records.ended(record))
    assert [row["continued"] for row in feed.since(0)["requests"]] == [1, 0]
    assert feed.since(0)["totals"]["continued"] == 1


async def test_nothing_grows_with_the_number_of_requests(autojump_clock: MockClock) -> None:
    """Thousands of them leave a few screens of each sort."""
    feed = feed_of()
    slow = records.new("slow")
    feed.hear(records.started(slow))
    for number in range(5 * MAX_REQUESTS):
        record = records.new(f"r{number}")
        feed.hear(records.started(record))
        record.ended_at = trio.current_time()
        feed.hear(records.ended(record))
        entry = Ended(request_id=f"r{number}", status="success")
        line = b'{"v":1,"kind":"ended","request_id":"r%d","status":"success"}\n' % number
        feed.hear(LineMade(at=0.0, entry=entry, time=wall(), line=line))
        feed.hear(Logged(at=0.0, line={"event": "x"}))
    data = feed.since(0)
    assert len(data["requests"]) <= 2 * MAX_REQUESTS
    assert len(data["events"]) == MAX_EVENTS
    assert len(data["logs"]) == MAX_LOGS
    assert feed.statistics().stories <= MAX_REQUESTS
    assert len(data["points"][0]["ids"]) == MAX_IDS
    # Who takes long is not forgotten for those that came after.
    assert data["live"] == [1]
    assert "slow" in [row["id"] for row in data["requests"]]
    # Numbers of events have no gap, unless some were too many to be told.
    numbers = [event["n"] for event in data["events"]]
    assert numbers == list(range(numbers[0], numbers[0] + MAX_EVENTS))


async def test_peers_that_come_and_go_are_told_and_quiet_ones_are_not(
    autojump_clock: MockClock,
) -> None:
    """A row is sent when it changed, and the whole list of peers when that did."""
    router = Peers()
    feed = feed_of(router)
    router.peers = made.PEERS[:2]
    feed.look()
    data = feed.since(0)
    assert data["members"] == [made.FAST, made.SLOW]
    assert [event["kind"] for event in data["events"]] == ["joined", "joined"]
    seen = version_of(feed)
    feed.look()
    assert "peers" not in feed.since(seen)
    assert "members" not in feed.since(seen)
    router.peers = (attrs.evolve(made.PEERS[1], in_flight=2),)
    feed.look()
    data = feed.since(seen)
    assert data["members"] == [made.SLOW]
    assert [(row["id"], row["ours"]) for row in data["peers"]] == [(made.SLOW, 2)]
    assert [(e["kind"], e["peer"]) for e in data["events"]] == [("left", made.FAST)]


def test_a_peer_is_told_with_claims_and_measurements_apart() -> None:
    """And what is not known is not there, not zero."""
    peer = attrs.evolve(
        made.PEERS[0],
        rates={"smollm2": Rates(decode=21.04, decode_samples=5)},
        breakers={None: Breaker(failures=1, until=101.4)},
        resting_until=float("inf"),
    )
    row = peer_row(peer, 100.0)
    json.dumps(row, allow_nan=False)
    (model,) = row["models"]
    assert model["decode"] == {"measured": 21.0, "samples": 5, "believed": True, "claimed": 25.0}
    assert model["prefill"]["measured"] is None
    assert row["state"] == {"breaker": "open", "failures": 1, "cools": 2.0}
    assert row["resting"] is None
    assert row["machine"]["memory"] is None


def test_a_peer_is_told_with_its_lanes() -> None:
    """Each backend with its own load and state, and the model with the lane that has it."""
    lanes = (
        Lane(id="gpu", backend="embedded", simulated=False, load=Load(slots=4, busy=3, queued=1)),
        Lane(id="cpu", backend="mock", simulated=True, state="starting"),
    )
    models = (ModelOffer(name="smollm2", lane="gpu"),)
    capability = Capability(lanes=lanes, models=models)
    row = peer_row(attrs.evolve(made.PEERS[0], capability=capability), 100.0)
    json.dumps(row, allow_nan=False)
    told_lanes = [(lane["id"], lane["backend"], lane["simulated"]) for lane in row["lanes"]]
    assert told_lanes == [("gpu", "embedded", False), ("cpu", "mock", True)]
    assert [lane["state"] for lane in row["lanes"]] == ["ready", "starting"]
    assert row["lanes"][0]["load"]["busy"] == 3
    assert row["load"]["queued"] == 1
    assert row["more_lanes"] == 0
    assert row["models"][0]["lane"] == "gpu"


async def test_a_watcher_gets_everything_and_then_what_is_new(autojump_clock: MockClock) -> None:
    """At most four frames a second, and none while nothing happens."""
    async with opened() as feed:
        await trio.testing.wait_all_tasks_blocked()
        with feed.watch() as watcher:
            first = await frame_of(watcher)
            assert (first.event, len(first.data["peers"])) == ("snapshot", 3)
            with trio.move_on_after(30) as nothing:
                await watcher.receive()
            assert nothing.cancelled_caught

            began = trio.current_time()
            feed.hear(Logged(at=0.0, line={"event": "one"}))
            assert [line["event"] for line in (await frame_of(watcher)).data["logs"]] == ["one"]
            assert trio.current_time() == began
            feed.hear(Logged(at=0.0, line={"event": "two"}))
            feed.hear(Logged(at=0.0, line={"event": "three"}))
            both = await frame_of(watcher)
            assert (both.event, len(both.data["logs"])) == ("update", 2)
            assert trio.current_time() == began + FRAME_SECONDS


async def test_who_comes_back_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    """With the id of its last frame; with any other it gets everything."""
    async with opened() as feed:
        await trio.testing.wait_all_tasks_blocked()
        with feed.watch() as watcher:
            last = (await frame_of(watcher)).id
        feed.hear(Logged(at=0.0, line={"event": "missed"}))
        with feed.watch(last) as watcher:
            frame = await frame_of(watcher)
        assert frame.event == "update"
        assert [line["event"] for line in frame.data["logs"]] == ["missed"]
        assert "peers" not in frame.data
        for strange in (None, "", "x", "-", "0-0", last + "9", "other-1", f"{last[:9]}\u0661"):
            with feed.watch(strange) as watcher:
                assert (await frame_of(watcher)).event == "snapshot"


async def test_a_slow_watcher_starts_over_and_costs_nothing_meanwhile(
    autojump_clock: MockClock,
) -> None:
    """There is no queue that could grow; it is told anew what is there now."""
    async with opened() as feed:
        with feed.watch() as watcher:
            await watcher.receive()
            for number in range(10_000):
                feed.hear(Logged(at=0.0, line={"event": str(number)}))
            watcher.start_over()
            frame = await frame_of(watcher)
    assert frame.event == "snapshot"
    assert [line["event"] for line in frame.data["logs"]] == [
        str(number) for number in range(10_000 - MAX_LOGS, 10_000)
    ]


async def test_watchers_are_counted_and_bounded(autojump_clock: MockClock) -> None:
    """One too many is told so, and the end of the feed is the end of all."""
    async with opened() as feed:
        with ExitStack() as stack:
            watchers = [stack.enter_context(feed.watch()) for _ in range(MAX_WATCHERS)]
            with pytest.raises(BlockingIOError, match="32 watch already"):
                stack.enter_context(feed.watch())
            await watchers[0].receive()
            feed.close()
            assert await watchers[0].receive() is None
        assert feed.watching == 0


async def test_decisions_come_from_the_log_and_keep_their_story(autojump_clock: MockClock) -> None:
    """Even from a log that is written nowhere; the story is all lines of the request."""
    events = Bus()
    async with open_decision_log(None, events), opened(events=events) as feed:
        made.note_continued(events, "r1")
        made.note_success(events, "r1#1")
        while len(feed.since(0).get("events", ())) < 3 + 5 + 3:
            await trio.lowlevel.checkpoint()
        kinds = [event["kind"] for event in feed.since(0)["events"] if event.get("id") == "r1"]
        story = story_body("r1", feed.lines_of("r1"))
        assert [choice for choice, _ in feed.choices_of("r1")] == ["r1#1"]
    assert kinds == [line["kind"] for line in story]
    assert kinds[0] == "decided"
    assert kinds[-1] == "ended"
    assert story[0]["weighed"][0]["peer"]["peer_id"] == made.FAST


async def test_where_a_request_runs_is_shown_before_its_first_text(
    autojump_clock: MockClock,
) -> None:
    """From the decision; with its text the record knows better."""
    events = Bus()
    async with open_decision_log(None, events), opened(events=events) as feed:
        record = records.new("r1")
        feed.hear(records.started(record))
        made.note_decided(events, "r1")
        while "decided" not in [event["kind"] for event in feed.since(0).get("events", ())]:
            await trio.lowlevel.checkpoint()
        assert [row["peer"] for row in feed.since(0)["requests"]] == [made.FAST]
        record.peer_id, record.first_text_at = made.SLOW, trio.current_time()
        feed.hear(records.changed(record))
        assert [row["peer"] for row in feed.since(0)["requests"]] == [made.SLOW]


async def test_a_peer_that_is_to_continue_is_shown_before_its_first_text(
    autojump_clock: MockClock,
) -> None:
    """Until the record names another than it did when that one was chosen."""
    feed = feed_of()
    record = records.new("r1")
    feed.hear(records.started(record))
    record.peer_id, record.first_text_at = made.FAST, trio.current_time()
    shown = []
    for chosen, says in ((None, made.FAST), (made.SLOW, made.FAST), (None, made.SLOW)):
        if chosen is not None:
            feed._requests.chose("r1", chosen)
        record.peer_id = says
        shown += [row["peer"] for row in feed.since(0)["requests"]]
    assert shown == [made.FAST, made.SLOW, made.SLOW]


async def test_questions_are_kept_only_if_that_was_asked_for(autojump_clock: MockClock) -> None:
    """By default there is nothing to show."""
    for shown in (False, True):
        feed = feed_of(show_prompts=shown)
        record = records.new("r1")
        feed.hear(records.started(record))
        feed.hear(PromptRead(at=0.0, request=record, text="a secret"))
        assert feed.row_of("r1")[1] == ("a secret" if shown else None)
        assert ("a secret" in json.dumps(feed.since(0))) is False


async def test_the_log_of_the_process_is_heard_from_any_thread(autojump_clock: MockClock) -> None:
    """With its fields; of an exception only the kind, since its text may quote a prompt."""
    log = get_logger("punch.test")
    async with opened() as feed:
        log.warning("a session was lost", peer="12D3", why="silence")

        def fail() -> None:
            try:
                raise ValueError("what was asked")
            except ValueError:
                logging.getLogger("punch.test").exception("it broke")

        await trio.to_thread.run_sync(fail)
        await trio.testing.wait_all_tasks_blocked()
        lines = feed.since(0)["logs"]
    assert [(line["level"], line["event"], line["fields"]) for line in lines] == [
        ("warning", "a session was lost", {"peer": "12D3", "why": "silence"}),
        ("error", "it broke", {"exception": "ValueError"}),
    ]
    assert "what was asked" not in json.dumps(lines)
    log.warning("nobody hears this")
    assert len(feed.since(0)["logs"]) == 2


def test_a_log_line_is_bounded_whatever_is_in_it() -> None:
    """Fields and lengths both."""
    many = {f"field{number}": "x" * 1000 for number in range(50)}
    record = logging.LogRecord("a", logging.INFO, "", 1, {"event": "e" * 9999, **many}, (), None)
    assert len(json.dumps(line_of(record))) < 9000


def test_stories_make_room_by_number_and_by_size() -> None:
    """The oldest go first."""

    def made(name: str, size: int) -> LineMade:
        entry = Ended(request_id=name, status="x")
        return LineMade(at=0.0, entry=entry, time=0.0, line=b"x" * size)

    by_number = Stories(most=2)
    for name in "abc":
        by_number.add(name, made(name, 10))
    assert (len(by_number), by_number.size) == (2, 20)
    by_size = Stories(most_bytes=100)
    for name in "abc":
        by_size.add(name, made(name, 60))
    assert (len(by_size), by_size.size) == (1, 60)


def test_a_series_forgets_what_is_older_than_its_charts() -> None:
    """And a clock that was set back counts into the newest second."""
    series = Series()
    for second in range(0, 2 * SERIES_SECONDS, 10):
        series.delivered("r", tokens=1, now=float(second), version=second)
    assert len(series.since(-1)) == SERIES_SECONDS // 10
    series.delivered("r", tokens=5, now=3.0, version=5000)
    (newest,) = series.since(4999)
    assert newest.tokens == 6


def test_a_day_is_kept_by_the_minute_and_no_longer() -> None:
    """A point for each minute in which something happened, whatever its number of requests."""
    series = Series()
    for second in range(0, 2 * DAY_SECONDS, 30):
        series.delivered("r", tokens=2, now=float(second), version=second)
        series.ended("r", failed=second % 60 == 30, tokens=1, now=float(second), version=second)
    end = 2.0 * DAY_SECONDS
    minutes = series.minutes(end - 1)
    assert len(minutes) == DAY_SECONDS // MINUTE_SECONDS
    assert minutes[0].as_data() == {
        "t": DAY_SECONDS, "requests": 2, "failed": 1, "tokens": 6,
        "firsts": 0, "p50": None, "p95": None,
    }  # fmt: skip
    # A gateway that nobody asked since shows no day before the last.
    assert series.minutes(end + DAY_SECONDS) == []
    series.delivered("r", tokens=5, now=3.0, version=1)
    assert series.minutes(end)[-1].tokens == 11


def test_a_minute_has_the_percentiles_of_all_that_it_saw() -> None:
    """Of ten thousand it keeps some, from its beginning to its end; and none when it is over."""
    series = Series()
    for number in range(10_000):
        series.first_text("r", seconds=float(number), now=number / 200, version=1)
    (minute,) = series.minutes(60.0)
    data = minute.as_data()
    assert data["firsts"] == 10_000
    assert data["p50"] == pytest.approx(5000, rel=0.02)
    assert data["p95"] == pytest.approx(9500, rel=0.02)
    assert minute._sample is not None
    assert len(minute._sample.values) <= MAX_FIRSTS
    series.first_text("r", seconds=1.0, now=61.0, version=1)
    assert minute.as_data() == data
    assert minute._sample is None


def test_percentiles_are_of_the_values_themselves() -> None:
    """The nearest rank: no number on the page that no request had."""
    series = Series()
    for number in range(1, 21):
        series.first_text(f"r{number}", seconds=float(number), now=1.0, version=1)
    data = series.since(0)[0].as_data()
    assert (data["p50"], data["p95"], data["firsts"]) == (10.0, 19.0, 20)
    assert data["more"] == 20 - MAX_IDS


async def test_a_request_whose_end_was_lost_has_ended_all_the_same(
    autojump_clock: MockClock,
) -> None:
    """A feed that is too slow says how much it missed, and shows no request for ever."""
    feed = feed_of()
    slow, gone = records.new("slow"), records.new("gone")
    for record in (slow, gone):
        feed.hear(records.started(record))
    gone.ended_at = trio.current_time()
    feed.lose(7)
    data = feed.since(0)
    assert feed.statistics().missed == 7
    assert data["totals"]["requests"] == 1
    assert [data["requests"][number - 1]["id"] for number in data["live"]] == ["slow"]


async def test_the_page_is_told_what_starts_a_listener_here_and_elsewhere() -> None:
    """Once, with all else that does not change."""
    lines = {"here": "punch listener --namespace home", "elsewhere": None}
    feed = Feed(Peers(), join=lines)
    assert feed.since(0)["about"]["join"] == lines
