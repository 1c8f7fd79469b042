"""The decision log: what is in it, what never is, and disks that do not behave."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import attrs
import decision_logs as made
import pytest
import strategies as some
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from punch.capability import Capability, PeerId
from punch.decision_log import (
    Attempted,
    BadLine,
    Decided,
    DecisionLogStatistics,
    Dropped,
    Ended,
    Entry,
    LineMade,
    LogLine,
    open_decision_log,
    read_line,
    read_log,
    stories,
)
from punch.decision_log._line import LinePublisher
from punch.decision_log._values import from_plain, to_plain
from punch.decision_log._writer import GATHER_SECONDS, LOOK_SECONDS
from punch.events import Bus, Subscription
from punch.exceptions import ConfigurationError
from punch.peers import PeerRecord
from punch.routing import RouteRequest
from punch.wire import ChatMessage, CommandRequest, scrubbed

SECRET = "the heron's name is Balthazar"


def through_json(value: object) -> object:
    return json.loads(json.dumps(to_plain(value), allow_nan=False))


def small(events: Bus, count: int, first: int = 0) -> None:
    """Note *count* short lines."""
    for index in range(first, first + count):
        made.note_attempted(events, f"r{index}", seconds=1.0, tokens=1, characters=1)


def lines_of(path: Path, request_id: str | None = None) -> list[LogLine]:
    """The lines of a log, none of which is bad."""
    lines = list(read_log(path, request_id=request_id))
    good = [line for line in lines if isinstance(line, LogLine)]
    assert good == lines
    return good


def id_of(entry: Entry) -> str:
    """The request that an entry is about."""
    assert not isinstance(entry, Dropped)
    return entry.request_id


def ids(path: Path) -> list[str]:
    return [id_of(line.entry) for line in lines_of(path)]


@given(peers=some.peer_tables(), request=some.route_requests)
def test_a_snapshot_comes_back_from_its_line_as_it_was(
    peers: list[PeerRecord], request: RouteRequest
) -> None:
    """Every field of every record and request, whichever there are."""
    for peer in peers:
        assert from_plain(PeerRecord, through_json(peer)) == peer
    assert from_plain(RouteRequest, through_json(request)) == request


@given(capability=some.capabilities)
def test_a_capability_comes_back_from_its_line_as_it_was(capability: Capability) -> None:
    """With models, GPUs and load."""
    assert from_plain(type(capability), through_json(capability)) == capability


def test_numbers_without_a_word_in_json_survive() -> None:
    """A rest without end, say."""
    peer = attrs.evolve(made.PEERS[0], seen_at=float("inf"), rtt=float("-inf"))

    assert from_plain(PeerRecord, through_json(peer)) == peer


def test_unknown_fields_are_ignored_and_missing_ones_have_their_default() -> None:
    """Lines of other versions can be read as far as the versions agree."""
    assert from_plain(RouteRequest, {"prompt_tokens": 3, "colour": "red"}) == RouteRequest(
        prompt_tokens=3
    )


@given(data=st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_nonsense_is_refused_with_a_value_error_and_nothing_else(data: object) -> None:
    """Anybody can edit a file."""
    for kind in (PeerRecord, RouteRequest):
        for value in (data, {"peer_id": data, "capability": data, "prompt_tokens": data}):
            try:
                from_plain(kind, value)
            except ValueError as error:
                assert str(error)  # noqa: PT017 - the text is what a person gets


async def test_what_was_noted_is_read_back_as_values(tmp_path: Path) -> None:
    """The decision with its snapshot, the attempts and the end."""
    path = tmp_path / "log" / "d.jsonl"
    await made.write(path, made.note_continued)
    (story,) = stories(read_log(path))
    first, second = story.decisions

    assert [type(line.entry) for line in story.lines] == [
        Decided,
        Attempted,
        Decided,
        Attempted,
        Ended,
    ]
    assert [w.peer for w in first.weighed] == list(made.PEERS)
    assert first.request == made.REQUEST
    assert first.chosen == made.FAST
    assert first.score_of(made.FAST) == made.decide().candidates()[0].score
    assert first.weighed[2].removed_by == "strict"
    assert second.request.tried == {made.FAST}
    assert story.end is not None
    assert [s.tokens for s in story.end.segments] == [41, 120]


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Names of peers and models are nobody else's business."""
    path = tmp_path / "d.jsonl"
    path.touch(0o644)
    await made.write(path, made.note_success)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_crowd_is_bounded_best_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    """One line stays one line, however large the namespace and the peers are."""
    path = tmp_path / "d.jsonl"
    models = ("smollm2", *(f"model-{index}" for index in range(500)))
    crowd = [made.record(PeerId(f"p{i:03}"), rate=1.0 + i, models=models) for i in range(100)]
    decision = made.decide(peers=crowd)
    events = Bus()
    async with open_decision_log(path, events):
        made.note_decided(events, "r", decision)
    (line,) = lines_of(path)

    assert isinstance(line.entry, Decided)
    assert line.entry.left_out == 36
    assert tuple(w.peer.peer_id for w in line.entry.weighed) == tuple(
        candidate.peer_id for candidate in decision.order[:64]
    )
    assert all(w.peer.capability.offer("smollm2") is not None for w in line.entry.weighed)
    assert path.stat().st_size < 100_000


@given(secret=st.text("abcdefgh XYZ.äö", min_size=16, max_size=60), tail=st.text(max_size=400))
def test_an_error_does_not_repeat_the_prompt(secret: str, tail: str) -> None:
    """Whatever a backend puts into its words, and no more than 300 characters of them."""
    request = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content=secret),))
    text = scrubbed(f"bad prompt: {secret!s} {tail}", request)

    assert secret not in text
    assert len(text) <= 310
    assert text.startswith("bad prompt: ") or secret[:1] in "bad prompt: "


async def test_no_text_of_prompt_or_answer_is_in_the_file(tmp_path: Path) -> None:
    """Not in the response, not in a stop sequence, not in the words of an error."""
    path = tmp_path / "d.jsonl"
    request = CommandRequest(request_id="r", prompt=SECRET)
    events = Bus()
    async with open_decision_log(path, events):
        made.note_decided(events, "r")
        made.note_attempted(
            events,
            "r",
            peer_id=made.FAST,
            outcome="backend_failed",
            error=scrubbed(f"cannot tokenize {SECRET!r}", request),
        )
        made.note_ended(events, "r", error=scrubbed(SECRET, request), **made.ending(made.FAST))
    text = path.read_text()

    assert "cannot tokenize" in text
    assert not any(word in text for word in ("heron", "Balthazar"))


async def test_long_errors_are_cut(tmp_path: Path) -> None:
    """They may come from anybody."""
    path = tmp_path / "d.jsonl"
    events = Bus()
    async with open_decision_log(path, events):
        made.note_ended(events, "r", status="error", error="x" * 9999)
    (line,) = lines_of(path)

    assert isinstance(line.entry, Ended)
    assert line.entry.error is not None
    assert len(line.entry.error) == 300


async def test_a_full_file_is_renamed_and_a_request_is_found_in_both(tmp_path: Path) -> None:
    """One older file is kept, the oldest lines go."""
    path = tmp_path / "d.jsonl"
    events = Bus()
    async with open_decision_log(path, events, max_bytes=2000) as log:
        small(events, 40)
    kept = ids(path)

    assert log.statistics() == DecisionLogStatistics(written=40, dropped=0)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d.jsonl", "d.jsonl.1"]
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())
    assert kept == [f"r{index}" for index in range(40 - len(kept), 40)]
    assert len(lines_of(path, kept[0])) == 1


async def test_two_writers_lose_no_line_of_each_other(tmp_path: Path) -> None:
    """Also when both find at once that the file is full."""
    path = tmp_path / "d.jsonl"
    one, two = Bus(), Bus()
    async with open_decision_log(path, one, max_bytes=30_000):
        async with open_decision_log(path, two, max_bytes=30_000):
            for index in range(100):
                small(one, 1, index)
                small(two, 1, 1000 + index)
    found = ids(path)

    assert sorted(found) == sorted(f"r{i}" for i in (*range(100), *range(1000, 1100)))
    assert len({line.run for line in lines_of(path)}) == 2
    assert (tmp_path / "d.jsonl.1").exists()


async def test_a_file_that_somebody_removes_is_made_anew(tmp_path: Path) -> None:
    """Within a moment: it is looked after a few dozen times a second, not for each line."""
    path = tmp_path / "d.jsonl"
    events = Bus()
    async with open_decision_log(path, events) as log:
        small(events, 3)
        while log.statistics().written < 3:
            await trio.sleep(0.001)
        path.unlink()
        await trio.sleep(2 * LOOK_SECONDS)
        small(events, 3, 10)

    assert ids(path) == ["r10", "r11", "r12"]
    assert log.statistics() == DecisionLogStatistics(written=6, dropped=0)


async def test_a_line_that_the_disk_cuts_costs_that_line_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line is there or is not, is counted so, and the next one begins anew."""
    path, write = tmp_path / "d.jsonl", os.write
    lines = 0

    def sometimes_full(descriptor: int, data: bytes) -> int:
        nonlocal lines
        lines += data.endswith(b"}\n")
        return write(descriptor, data[:20] if lines == 7 else data)

    monkeypatch.setattr("punch.decision_log._writer.os.write", sometimes_full)
    events = Bus()
    async with open_decision_log(path, events) as log:
        small(events, 20)

    lines_read = list(read_log(path))
    entries = [line.entry for line in lines_read if not isinstance(line, BadLine)]
    found = [entry.request_id for entry in entries if isinstance(entry, Attempted)]
    assert found == [f"r{i}" for i in range(20) if i != 6]
    assert [entry.count for entry in entries if isinstance(entry, Dropped)] == [1]
    assert len(lines_read) == 19 + 1 + 1
    assert log.statistics() == DecisionLogStatistics(written=19, dropped=1)


async def test_a_torn_last_line_is_left_out_and_nothing_sticks_to_it(tmp_path: Path) -> None:
    """A crash in the middle of a line costs that line."""
    path = tmp_path / "d.jsonl"
    events = Bus()
    async with open_decision_log(path, events):
        small(events, 2)
    os.truncate(path, path.stat().st_size - 10)
    assert ids(path) == ["r0"]
    events = Bus()
    async with open_decision_log(path, events):
        small(events, 1, 7)
    first, torn, last = read_log(path)

    assert isinstance(first, LogLine)
    assert isinstance(torn, BadLine)
    assert isinstance(last, LogLine)
    assert (id_of(first.entry), torn.number, id_of(last.entry)) == ("r0", 2, "r7")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ('{"v":2,"kind":"ended"}', "it is of version 2, not 1"),
        ('{"v":1,"kind":"else"}', "it is of the unknown kind 'else'"),
        ('{"v":1,"kind":"dropped"}', "count: missing"),
        ('{"v":1,"kind":"dropped","count":"x"}', "count: expected int, found str"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: str, problem: str, tmp_path: Path) -> None:
    """And the lines around it are read all the same."""
    path = tmp_path / "d.jsonl"
    good = '{"v":1,"kind":"dropped","count":3}'
    path.write_text(f"{good}\n{line}\n{good}\n")
    before, bad, after = read_log(path)

    assert isinstance(before, LogLine)
    assert isinstance(bad, BadLine)
    assert isinstance(after, LogLine)
    assert before.entry == after.entry == Dropped(count=3)
    assert bad.number == 2
    assert problem in bad.problem


def test_no_file_at_all_is_an_error_that_names_it(tmp_path: Path) -> None:
    """With the reason why there may be none."""
    with pytest.raises(ConfigurationError, match=r"there is no decision log .*d\.jsonl"):
        list(read_log(tmp_path / "d.jsonl"))


async def test_a_full_queue_drops_lines_counts_them_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk never holds up an answer."""
    path = tmp_path / "d.jsonl"
    goes, stuck, write = threading.Event(), threading.Event(), os.write

    def slow(descriptor: int, data: bytes) -> int:
        stuck.set()
        assert goes.wait(10)
        return write(descriptor, data)

    events = Bus()
    async with open_decision_log(path, events, queue_limit=3) as log:
        with monkeypatch.context() as patch:
            patch.setattr("punch.decision_log._writer.os.write", slow)
            small(events, 1)
            assert stuck.wait(10)
            small(events, 5, 1)
            assert log.statistics().dropped == 2
            goes.set()
            while log.statistics().written < 4:
                pass
    entries = [line.entry for line in lines_of(path)]

    assert log.statistics() == DecisionLogStatistics(written=4, dropped=2)
    assert [e.count for e in entries if isinstance(e, Dropped)] == [2]


async def test_a_disk_that_fails_is_one_warning_and_no_exception(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The answers are worth more than the notes about them."""
    (tmp_path / "file").touch()
    events = Bus()
    async with open_decision_log(tmp_path / "file" / "d.jsonl", events) as log:
        small(events, 5)

    assert log.statistics() == DecisionLogStatistics(written=0, dropped=5)
    assert len([r for r in caplog.records if "cannot be written" in r.getMessage()]) == 1


def test_a_device_is_neither_renamed_nor_given_another_mode() -> None:
    """A log that is to go nowhere goes there."""
    device = Path(os.devnull)
    before = device.stat().st_mode

    async def write() -> DecisionLogStatistics:
        events = Bus()
        async with open_decision_log(device, events, max_bytes=1) as log:
            small(events, 3)
        return log.statistics()

    assert trio.run(write).written == 3
    assert device.stat().st_mode == before


async def test_a_note_after_the_end_is_dropped(tmp_path: Path) -> None:
    """The late word of a hedge's loser brings down nobody: the log hears no more."""
    events = Bus()
    async with open_decision_log(tmp_path / "d.jsonl", events) as log:
        pass
    small(events, 1)

    assert log.statistics() == DecisionLogStatistics(written=0, dropped=0)


async def test_an_id_that_is_used_again_is_another_story(tmp_path: Path) -> None:
    """And what is said of an attempt after the end is of the same."""
    path = tmp_path / "d.jsonl"
    events = Bus()
    async with open_decision_log(path, events):
        made.note_success(events, "r0")
        small(events, 1)
        made.note_success(events, "r0")
    first, second = stories(read_log(path, request_id="r0"))

    assert (len(first.lines), len(second.lines)) == (4, 3)
    assert first.end is not None


def made_lines(subscription: Subscription) -> list[LineMade]:
    """What waits in a subscription, which is to nothing but lines."""
    events = subscription.drain().events
    lines = [event for event in events if isinstance(event, LineMade)]
    assert len(lines) == len(events)
    return lines


async def until(subscription: Subscription, count: int) -> list[LineMade]:
    """The first *count* lines of a subscription."""
    heard: list[LineMade] = []
    with trio.fail_after(30):
        while len(heard) < count:
            await trio.sleep(0.001)
            heard += made_lines(subscription)
    return heard


async def test_a_tap_hears_every_line_as_the_file_has_it(tmp_path: Path) -> None:
    """Values and bytes, in order; nothing before the subscriber came and nothing after."""
    path = tmp_path / "log.jsonl"
    events = Bus()
    async with open_decision_log(path, events) as log:
        small(events, 1)
        while not log.statistics().written:
            await trio.lowlevel.checkpoint()
        with events.subscribe(LineMade) as tap:
            small(events, 5, first=1)
            heard = await until(tap, 5)
        small(events, 1, first=6)
    assert [id_of(line.entry) for line in heard] == ["r1", "r2", "r3", "r4", "r5"]
    assert b"".join(line.line for line in heard) == b"".join(
        path.read_bytes().splitlines(keepends=True)[1:6]
    )
    assert [read_line(line.line).entry for line in heard] == [line.entry for line in heard]
    assert (tap.lost, sum(line.missed for line in heard)) == (0, 0)


async def test_a_tap_works_without_a_file(tmp_path: Path) -> None:
    """The dashboard sees decisions even if they are kept nowhere; without one nothing is made."""
    events = Bus()
    async with open_decision_log(None, events) as log:
        small(events, 3)
        await trio.sleep(3 * GATHER_SECONDS)
        with events.subscribe(LineMade) as tap:
            small(events, 2, first=3)
            heard = await until(tap, 2)
        assert [id_of(line.entry) for line in heard] == ["r3", "r4"]
        assert log.statistics() == DecisionLogStatistics(written=0, dropped=0)
    assert list(tmp_path.iterdir()) == []


async def test_a_slow_subscriber_loses_lines_and_nobody_else_does(tmp_path: Path) -> None:
    """What it does not take is counted, and bounded."""
    path = tmp_path / "log.jsonl"
    events = Bus()
    async with open_decision_log(path, events):
        with events.subscribe(LineMade, limit=3) as slow, events.subscribe(LineMade) as quick:
            small(events, 10)
            await until(quick, 10)
            batch = slow.drain()
            kept = [line for line in batch.events if isinstance(line, LineMade)]
            assert [id_of(line.entry) for line in kept] == ["r0", "r1", "r2"]
            assert batch.lost == 7
    assert len(ids(path)) == 10


async def test_lines_that_come_too_fast_for_trio_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first line after them says how many there were."""
    monkeypatch.setattr("punch.decision_log._line.WAITING_LINES", 2)
    events = Bus()
    publisher = LinePublisher(events)
    with events.subscribe(LineMade) as tap:
        for _ in range(5):
            publisher.publish(line_made())
        heard = await until(tap, 2)
        publisher.publish(line_made())
        heard += await until(tap, 1)
    assert [line.missed for line in heard] == [0, 0, 3]


def line_made() -> LineMade:
    """A line."""
    return LineMade(at=0.0, entry=Dropped(count=1), time=0.0, line=b"{}\n")


def test_a_tap_of_a_run_that_is_over_harms_nobody() -> None:
    """The log's thread may outlive the trio run for a moment."""
    events = Bus()

    async def open_and_leave() -> LinePublisher:
        return LinePublisher(events)

    publisher = trio.run(open_and_leave)
    with events.subscribe(LineMade) as tap:
        publisher.publish(line_made())
    assert tap.drain().events == ()
