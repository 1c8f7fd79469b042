"""What a dialer knows of its peers, from claims that arrive in any order and from its own clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.capability import Capability, Lane, Load, ModelOffer, PeerId
from punch.peers import (
    Breaker,
    Candidate,
    LaneRecord,
    PeerRecord,
    PeerTable,
    Rates,
    Sample,
    _faults,
    _known,
)
from punch.peers import _table as limits

A, B = PeerId("a"), PeerId("b")
CLAIM = Capability.of_one_lane(backend="mock", simulated=True)


def claim(stamp: Any = 0) -> Capability:
    """A claim that says which one it is."""
    return Capability.of_one_lane(backend=f"backend {stamp}", simulated=True)


def advertise(
    table: PeerTable,
    peer: str = A,
    incarnation: int = 1,
    sequence: int = 1,
    *,
    seen_at: float = 0.0,
    load: Load | None = None,
) -> bool:
    """A claim of *peer* arrives."""
    return table.advertised(
        PeerId(peer),
        claim((incarnation, sequence)).with_loads({"": load or Load()}),
        incarnation=incarnation,
        sequence=sequence,
        seen_at=seen_at,
    )


def table_of(*peers: str) -> PeerTable:
    """A table where these have advertised once."""
    table = PeerTable()
    for peer in peers or (A,):
        advertise(table, peer)
    return table


def record(table: PeerTable, peer: str = A) -> PeerRecord:
    """The record of a peer that must be there."""
    found = table.get(PeerId(peer))
    assert found is not None
    return found


def answer(table: PeerTable, *, decode: float = 10.0, prefill: float = 100.0) -> None:
    """One answer at these rates, of 100 tokens each."""
    table.succeeded(
        A,
        "m",
        Sample(
            prefill_tokens=100,
            prefill_seconds=100 / prefill,
            decode_tokens=100,
            decode_seconds=100 / decode,
        ),
    )


# ---- claims ----


def test_an_unknown_peer_is_unknown() -> None:
    """And whatever is said of it changes nothing."""
    table = PeerTable()
    table.reported(A, Load(busy=1))
    table.round_trip(A, 0.1)
    table.sent(A, prompt_tokens=1)
    table.ended(A)
    table.succeeded(A, "m", Sample())
    table.failed(A, now=0.0)
    table.lost(A, now=0.0)
    assert (table.get(A), table.snapshot(), len(table)) == (None, (), 0)


def test_a_first_claim_is_news() -> None:
    """The record has the claim and nothing that was not measured."""
    table = PeerTable()
    assert advertise(table, incarnation=3, sequence=4, seen_at=5.0) is True
    assert record(table) == PeerRecord(
        peer_id=A, capability=claim((3, 4)), incarnation=3, sequence=4, seen_at=5.0
    )


@given(
    stamps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=10),
    data=st.data(),
)
def test_the_newest_claim_wins_in_any_order_of_arrival(
    stamps: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Newest by incarnation, then by sequence; when it came and what the clock said is nothing."""
    table = PeerTable()
    best = (-1, -1)
    for arrival, (incarnation, sequence) in enumerate(data.draw(st.permutations(stamps))):
        news = advertise(table, A, incarnation, sequence, seen_at=float(-arrival))
        assert news == ((incarnation, sequence) > best)
        best = max(best, (incarnation, sequence))
    assert record(table).capability == claim(max(stamps))
    assert (record(table).incarnation, record(table).sequence) == max(stamps)


def test_a_restart_forgives_and_keeps_what_we_measured() -> None:
    """Faults were those of the process that is gone; the machine is as fast as before."""
    table = table_of()
    answer(table)
    table.round_trip(A, 0.2)
    table.failed(A, now=100.0)
    advertise(table, incarnation=2, sequence=0)
    after = record(table)
    assert (after.failures, after.breakers) == (0, {})
    assert (after.rates_of("m").decode, after.rtt) == (10.0, 0.2)
    assert after.reputation == pytest.approx(0.95)


def test_a_further_claim_does_not_forgive() -> None:
    """The process that failed is still the same."""
    table = table_of()
    table.failed(A, now=100.0)
    advertise(table, sequence=2)
    assert record(table).breaker(None) == Breaker(failures=1, until=101.0)


# ---- peers that left ----


def test_a_peer_that_left_is_gone() -> None:
    """From the table and from the snapshot."""
    table = table_of("a", "b")
    table.lost(A, now=0.0)
    assert [peer.peer_id for peer in table.snapshot()] == [B]
    assert (table.get(A), len(table)) == (None, 1)


@pytest.mark.parametrize("stamp", [(1, 1), (1, 0), (0, 9)])
def test_an_old_claim_does_not_bring_a_peer_back(stamp: tuple[int, int]) -> None:
    """It was on its way when the peer left."""
    table = table_of()
    table.lost(A, now=0.0)
    assert advertise(table, A, *stamp, seen_at=1.0) is False
    assert table.get(A) is None


def test_a_peer_that_comes_back_is_known() -> None:
    """Its speed, reputation and faults, that is; not what it claimed, nor what was in flight."""
    table = table_of()
    answer(table)
    table.failed(A, now=0.0)
    table.sent(A, prompt_tokens=5)
    table.lost(A, now=0.0)
    assert advertise(table, sequence=2, seen_at=1.0) is True
    back = record(table)
    assert back.rates_of("m").decode == 10.0
    assert back.reputation == pytest.approx(0.95)
    assert (back.in_flight, back.failures, back.rtt) == (0, 1, None)
    assert back.breaker(None).until == 1.0
    assert back.capability == claim((1, 2))


def test_a_peer_is_forgotten_after_five_minutes() -> None:
    """From then on it is a stranger, whose clock may have been set back in the meantime."""
    table = table_of()
    answer(table)
    table.lost(A, now=0.0)
    assert advertise(table, A, 1, 0, seen_at=299.0) is False
    assert advertise(table, A, 1, 0, seen_at=301.0) is True
    assert record(table).rates == {}


def test_old_tombstones_make_room_when_the_next_peer_leaves() -> None:
    """So that the dead are as bounded as the living."""
    table = table_of("a", "b")
    table.lost(A, now=0.0)
    table.lost(B, now=301.0)
    assert advertise(table, A, 1, 0, seen_at=302.0) is True
    assert advertise(table, B, 1, 0, seen_at=302.0) is False


# ---- bounds ----


def test_a_full_table_takes_nobody_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who are in it may still advertise; who leaves makes room."""
    monkeypatch.setattr(limits, "MAX_PEERS", 2)
    table = table_of("a", "b")
    assert advertise(table, "c") is False
    assert advertise(table, "a", sequence=2) is True
    table.lost(B, now=0.0)
    assert advertise(table, "c") is True
    assert [peer.peer_id for peer in table.snapshot()] == ["a", "c"]


def test_the_speed_of_so_many_models_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further one is not; the ones that are go on being measured."""
    monkeypatch.setattr(_known, "MAX_OFFERS", 2)
    table = table_of()
    for model in ("m1", "m2", "m3", "m1"):
        table.succeeded(A, model, Sample(decode_tokens=10, decode_seconds=1.0))
    assert {m: r.decode_samples for m, r in record(table).rates.items()} == {"m1": 2, "m2": 1}


# ---- measured speed ----


def test_a_model_nobody_measured_has_no_rates() -> None:
    """And asking for it does not make any."""
    table = table_of()
    assert record(table).rates_of("m") == Rates()
    assert record(table).rates == {}


def test_the_round_trip_is_smoothed() -> None:
    """The first one is taken as it is, each further one by an eighth."""
    table = table_of()
    table.round_trip(A, 0.100)
    assert record(table).rtt == 0.100
    table.round_trip(A, 0.180)
    assert record(table).rtt == pytest.approx(0.110)


# ---- faults ----


def test_cooling_doubles_to_its_cap() -> None:
    """A second, then two, up to half a minute."""
    table, found = table_of(), []
    for now in range(100, 900, 100):
        table.failed(A, now=now)
        found.append(record(table).breaker(None).until - now)
    assert found == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_faults_without_end_stay_at_the_cap() -> None:
    """No number grows without bound."""
    table = table_of()
    for now in range(0, 200_000, 100):
        table.failed(A, now=now)
    last = record(table)
    assert (last.breaker(None).until - now, last.failures, last.reputation) == (30.0, 30, 0.0)


def test_a_peer_that_says_when_to_come_back_is_taken_at_its_word() -> None:
    """It knows its queue."""
    table = table_of()
    table.failed(A, now=100.0, retry_after=7.0)
    assert record(table).breaker(None).until == 107.0


def test_an_answer_ends_the_cooling() -> None:
    """And the next fault starts again at one second."""
    table = table_of()
    for _ in range(3):
        table.failed(A, now=0.0)
    answer(table)
    assert (record(table).failures, record(table).breaker(None).state) == (0, "closed")
    table.failed(A, now=10.0)
    assert record(table).breaker(None).until == 11.0


def test_reputation_is_that_of_the_original() -> None:
    """0.05 down for a fault, 0.03 up for an answer."""
    table = table_of()
    for now in range(0, 400, 100):
        table.failed(A, now=now)
    answer(table)
    assert record(table).reputation == pytest.approx(0.83)


@given(outcomes=st.lists(st.booleans(), max_size=60))
def test_reputation_stays_between_nothing_and_one(outcomes: list[bool]) -> None:
    """However good or bad a peer is."""
    table = table_of()
    for good in outcomes:
        answer(table) if good else table.failed(A, now=0.0)
        assert 0.0 <= record(table).reputation <= 1.0


# ---- what is in flight ----


def test_what_we_sent_counts_until_the_peer_reports() -> None:
    """Its report cannot have counted it, and many dialers would herd onto it."""
    table = table_of()
    table.sent(A, prompt_tokens=10)
    table.sent(A, prompt_tokens=20)
    sent = record(table)
    assert (
        sent.sent_since_report,
        sent.prompt_tokens_since_report,
        sent.candidates()[0].present,
    ) == (2, 30, 2)
    advertise(table, sequence=2, load=Load(slots=4, busy=2))
    after = record(table)
    assert (
        after.sent_since_report,
        after.prompt_tokens_since_report,
        after.candidates()[0].present,
    ) == (0, 0, 2)


def test_the_load_on_a_response_is_a_report_too() -> None:
    """It replaces the load of the claim and nothing else of it."""
    table = table_of()
    table.sent(A, prompt_tokens=10)
    table.reported(A, Load(slots=4, busy=3, queued=1))
    after = record(table)
    assert after.capability == claim((1, 1)).with_loads({"": Load(slots=4, busy=3, queued=1)})
    assert (after.sent_since_report, after.prompt_tokens_since_report) == (0, 0)
    assert (after.candidates()[0].present, after.sequence) == (4, 1)


def test_a_load_report_is_a_sign_of_life_and_a_report() -> None:
    """Until the next advert; what it does not name is as it was."""
    table = PeerTable()
    advertise(table)
    table.sent(A, prompt_tokens=5)
    assert table.load_reported(A, {"": Load(slots=4, busy=1), "x": Load()}, sequence=2, seen_at=9.0)
    after = table.get(A)
    assert after is not None
    assert after.capability.load == Load(slots=4, busy=1)
    assert (after.sequence, after.seen_at, after.sent_since_report) == (2, 9.0, 0)


@pytest.mark.parametrize("sequence", [0, 1])
def test_an_older_load_report_is_not_believed(sequence: int) -> None:
    """By its sequence, as an advert; nor is one of a peer that nobody knows."""
    table = PeerTable()
    advertise(table)
    before = table.get(A)
    assert not table.load_reported(A, {"": Load(busy=1)}, sequence=sequence, seen_at=9.0)
    assert not table.load_reported(B, {"": Load(busy=1)}, sequence=9, seen_at=9.0)
    assert table.get(A) == before
    assert table.get(B) is None


def test_the_load_of_a_whole_peer_says_nothing_of_its_lanes() -> None:
    """Unless it has one; the load of a lane counts for that lane."""
    table = PeerTable()
    lanes = tuple(Lane(id=name, backend="b", simulated=False) for name in "xy")
    table.advertised(A, Capability(lanes=lanes), incarnation=1, sequence=1, seen_at=0.0)
    table.reported(A, Load(busy=7))
    table.reported(A, Load(busy=2), lane="y")
    after = table.get(A)
    assert after is not None
    assert [lane.load.busy for lane in after.capability.lanes] == [0, 2]


def test_a_report_that_crossed_our_requests_does_not_hide_them() -> None:
    """We know that they are there, whatever it says."""
    table = table_of()
    for _ in range(3):
        table.sent(A, prompt_tokens=1)
    table.reported(A, Load(busy=0))
    assert (record(table).candidates()[0].present, record(table).in_flight) == (3, 3)


STEPS = st.lists(
    st.sampled_from(["sent", "ended", "reported", "advertised", "answered", "failed", "trip"]),
    max_size=30,
)


def act(table: PeerTable, step: str, turn: int) -> None:
    """One thing that happens to peer A."""
    if step == "sent":
        table.sent(A, prompt_tokens=turn)
    elif step == "ended":
        table.ended(A)
    elif step == "reported":
        table.reported(A, Load(busy=turn))
    elif step == "advertised":
        advertise(table, sequence=100 + turn, seen_at=float(turn))
    elif step == "answered":
        answer(table, decode=1.0 + turn)
    elif step == "failed":
        table.failed(A, now=float(turn))
    else:
        table.round_trip(A, float(turn))


@given(steps=STEPS)
def test_requests_in_flight_are_those_sent_and_not_ended(steps: list[str]) -> None:
    """Nothing else moves the count, and it never falls below nothing."""
    table, expected = table_of(), 0
    for turn, step in enumerate(steps):
        act(table, step, turn)
        expected = max(0, expected + {"sent": 1, "ended": -1}.get(step, 0))
        found = record(table)
        assert found.in_flight == expected
        assert found.candidates()[0].present >= expected
        assert found.sent_since_report >= 0


# ---- snapshots ----


@given(steps=STEPS)
def test_a_snapshot_never_changes(steps: list[str]) -> None:
    """A decision is made on it and shows it later."""
    table = table_of("a", "b")
    for turn, step in enumerate(steps):
        before = table.snapshot()
        spelled = repr(before)
        act(table, step, turn)
        table.lost(B, now=0.0)
        assert repr(before) == spelled


def test_a_snapshot_is_made_once_a_change() -> None:
    """Thousands of decisions share one."""
    table = table_of("a", "b")
    first = table.snapshot()
    assert table.snapshot() is first
    table.ended(A)
    assert table.snapshot() is not first


def test_a_snapshot_has_the_peers_in_the_order_they_came() -> None:
    """A change of one does not move it."""
    table = table_of("c", "a", "b")
    table.failed(A, now=0.0)
    advertise(table, "c", sequence=2)
    assert [peer.peer_id for peer in table.snapshot()] == ["c", "a", "b"]


@pytest.mark.parametrize("step", ["sent", "reported", "advertised", "answered", "failed", "trip"])
def test_every_change_is_in_the_next_snapshot(step: str) -> None:
    """No decision is made on what was."""
    table = table_of("a", "b")
    before = table.snapshot()
    act(table, step, 1)
    assert table.snapshot() != before
    assert table.snapshot()[0] is record(table)


def test_what_was_measured_cannot_be_changed_from_outside() -> None:
    """The rates in a record are for reading."""
    table = table_of()
    answer(table)
    with pytest.raises(TypeError):
        record(table).rates["m"] = Rates()  # type: ignore[index]  # what is tried


# ---- what a hostile or unlucky peer can do ----


def test_a_fault_counts_against_a_peer_that_is_gone() -> None:
    """Breaking the session on every request does not make a peer look new each time."""
    table = table_of()
    for now in (0.0, 10.0, 20.0):
        table.lost(A, now=now)
        table.failed(A, now=now)
        table.met(A)
        advertise(table, seen_at=now)
    assert record(table).failures == 3
    assert record(table).breaker(None).until == 20.0 + 4.0


def test_everything_that_fails_at_once_is_one_fault() -> None:
    """Ten requests on a session that breaks do not make a peer ten times as bad."""
    table = table_of()
    for _ in range(10):
        table.failed(A, now=5.0)
    assert (record(table).failures, record(table).breaker(None).until) == (1, 6.0)


def test_a_peer_whose_clock_was_set_back_is_believed_in_a_new_session() -> None:
    """Its incarnation is smaller than before; the stream it comes on is new."""
    table = table_of()
    advertise(table, A, 100, 7, seen_at=1.0)
    table.lost(A, now=2.0)
    assert advertise(table, A, 50, 0, seen_at=3.0) is False
    table.met(A)
    assert advertise(table, A, 50, 0, seen_at=3.0) is True


def test_a_peer_that_refuses_with_room_to_spare_is_left_alone_for_a_moment() -> None:
    """It claims free slots and takes nothing: otherwise it would be asked first every time."""
    table = table_of()
    table.refused(A, now=10.0)
    assert (record(table).resting_until, record(table).failures) == (11.0, 0)
    table.refused(A, now=10.0, retry_after=1e9)
    assert record(table).resting_until == 40.0


def test_no_timing_makes_a_rate_that_is_no_number() -> None:
    """An answer of 2**53 tokens in no time at all is not believed, now or later."""
    table = table_of()
    for seconds in (1e-300, 1.0, 1e-300):
        table.succeeded(A, "m", Sample(decode_tokens=2**53, decode_seconds=seconds))
    assert record(table).rates_of("m").decode is None


# ---- breakers of models ----


def test_a_fault_of_one_model_says_nothing_of_the_others() -> None:
    """Its file may be broken, and the machine is well."""
    table = table_of()
    table.failed(A, offer="m", now=100.0)
    found = record(table)
    assert found.breaker("m") == Breaker(failures=1, until=101.0)
    assert (found.breaker("n").state, found.breaker(None).state) == ("closed", "closed")


def test_a_fault_of_the_whole_peer_is_one_of_every_model() -> None:
    """A connection that broke serves none of them."""
    table = table_of()
    table.failed(A, now=100.0)
    assert record(table).breaker("m") == Breaker(failures=1, until=101.0)


def test_a_single_request_probes_a_breaker_that_has_cooled() -> None:
    """The others wait for what it finds out."""
    table = table_of()
    table.failed(A, offer="m", now=100.0)
    assert record(table).breaker("m").admits(101.0)
    table.sent(A, offer="m", prompt_tokens=1, now=101.0)
    assert record(table).breaker("m").state == "half-open"
    assert not record(table).breaker("m").admits(500.0)
    table.ended(A, offer="m")
    answer(table)
    assert record(table).breakers == {}


def test_a_probe_that_fails_opens_the_breaker_for_longer() -> None:
    """And whatever the order in which its end and its fault are told."""
    for first in ("ended", "failed"):
        table = table_of()
        table.failed(A, offer="m", now=100.0)
        table.sent(A, offer="m", prompt_tokens=1, now=101.0)
        if first == "ended":
            table.ended(A, offer="m")
        table.failed(A, offer="m", now=102.0)
        if first == "failed":
            table.ended(A, offer="m")
        assert record(table).breaker("m") == Breaker(failures=2, until=104.0)


def test_a_probe_without_a_verdict_makes_room_for_another() -> None:
    """It was cancelled: nothing was found out."""
    table = table_of()
    table.failed(A, offer="m", now=100.0)
    table.sent(A, offer="m", prompt_tokens=1, now=101.0)
    table.ended(A, offer="m")
    assert record(table).breaker("m") == Breaker(failures=1, until=101.0)
    assert record(table).breaker("m").admits(101.0)


def test_an_older_request_that_ends_does_not_make_room_for_a_second_probe() -> None:
    """Only when nothing of ours is left there has the probe ended for certain."""
    table = table_of()
    table.sent(A, offer="m", prompt_tokens=1, now=99.0)
    table.failed(A, offer="m", now=100.0)
    table.sent(A, offer="m", prompt_tokens=1, now=101.0)
    table.ended(A, offer="m")
    assert record(table).breaker("m").state == "half-open"
    table.ended(A, offer="m")
    assert record(table).breaker("m").state == "open"


def test_a_request_that_is_sent_all_the_same_is_no_probe() -> None:
    """It goes there because every breaker is open, before this one has cooled."""
    table = table_of()
    table.failed(A, offer="m", now=100.0)
    table.sent(A, offer="m", prompt_tokens=1, now=100.5)
    assert record(table).breaker("m").state == "open"


def test_a_probe_does_not_outlive_its_session() -> None:
    """Whoever comes back may be asked when it has cooled."""
    table = table_of()
    table.failed(A, now=100.0)
    table.sent(A, offer="m", prompt_tokens=1, now=101.0)
    table.lost(A, now=102.0)
    advertise(table, sequence=2, seen_at=103.0)
    assert record(table).breaker("m").admits(103.0)


def test_so_many_breakers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past that a fault is one of the whole peer."""
    monkeypatch.setattr(_faults, "MAX_OFFERS", 2)
    table = table_of()
    for number in range(9):
        table.failed(A, offer=f"m{number}", now=100.0)
    assert set(record(table).breakers) == {"m0", "m1", "m2", None}


@given(steps=STEPS)
def test_a_breaker_admits_at_most_one_probe_at_a_time(steps: list[str]) -> None:
    """Whatever else happens in between, as long as nothing is sent that it does not admit."""
    table, probes = table_of(), 0
    table.failed(A, offer="m", now=0.0)
    for turn, step in enumerate(steps):
        now = 2.0 + turn / 100
        breaker = record(table).breaker("m")
        if step == "sent" and breaker.state != "closed" and breaker.admits(now):
            table.sent(A, offer="m", prompt_tokens=1, now=now)
            probes += 1
            assert not record(table).breaker("m").admits(now)
        elif step == "ended" and probes:
            table.ended(A, offer="m")
            probes -= 1
        elif step in ("reported", "trip"):
            act(table, step, turn)
        assert probes <= 1


# ---- the share of faults ----


def test_a_peer_that_fails_is_remembered_for_it() -> None:
    """A fifth for each fault or refusal; good answers and time make up for it."""
    table = table_of()
    table.failed(A, now=0.0)
    assert record(table).fault_share == pytest.approx(0.2)
    table.refused(A, now=10.0)
    assert record(table).fault_share == pytest.approx(0.36)
    answer(table)
    assert record(table).fault_share == pytest.approx(0.288)
    advertise(table, sequence=2, seen_at=60.0)
    assert record(table).fault_share == pytest.approx(0.144)


def test_a_restart_does_not_clear_a_peer_of_its_faults() -> None:
    """One that dies of every request would be new each time."""
    table = table_of()
    table.failed(A, now=0.0)
    table.lost(A, now=0.0)
    advertise(table, A, 2, 0, seen_at=0.0)
    assert record(table).fault_share == pytest.approx(0.2)


def test_an_answer_ends_a_rest() -> None:
    """It takes requests again."""
    table = table_of()
    table.refused(A, now=10.0, retry_after=20.0)
    answer(table)
    assert record(table).resting_until == 0.0


def test_the_answer_tokens_we_sent_for_count_until_the_peer_reports() -> None:
    """As their prompts do."""
    table = table_of()
    table.sent(A, offer="m", prompt_tokens=10, output_tokens=70, now=0.0)
    table.sent(A, offer="m", prompt_tokens=10, output_tokens=30, now=0.0)
    assert record(table).output_tokens_since_report == 100
    table.reported(A, Load(busy=2, output_tokens_left=90))
    assert record(table).output_tokens_since_report == 0


# ---- lanes ----


def tell(table: PeerTable, sequence: int = 1) -> None:
    """A claim with two lanes that offer the same model arrives."""
    lanes = tuple(
        Lane(id=name, backend="b", simulated=False, load=Load(slots=2)) for name in ("one", "two")
    )
    offers = tuple(ModelOffer(name="m", id=f"{lane.id}/m", lane=lane.id) for lane in lanes)
    claimed = Capability(lanes=lanes, models=offers)
    table.advertised(A, claimed, incarnation=1, sequence=sequence, seen_at=0.0)


def of_lanes(table: PeerTable) -> dict[str, Candidate]:
    """The candidates of the only peer, by lane."""
    return {one.lane.id: one for one in record(table).candidates("m")}


def test_what_we_sent_is_counted_by_lane() -> None:
    """So are reports, refusals and ends; the peer has the sums."""
    table = PeerTable()
    tell(table)
    table.sent(A, offer="one/m", lane="one", prompt_tokens=7)
    table.sent(A, offer="one/m", lane="one", prompt_tokens=5)
    table.sent(A, offer="two/m", lane="two", prompt_tokens=1)
    assert {name: c.present for name, c in of_lanes(table).items()} == {"one": 2, "two": 1}
    assert record(table).in_flight == 3
    assert record(table).prompt_tokens_since_report == 13

    table.reported(A, Load(slots=2, busy=2), lane="one")
    assert record(table).lanes["one"] == LaneRecord(in_flight=2)
    assert of_lanes(table)["two"].ours.sent_since_report == 1
    table.refused(A, lane="one", now=1.0, retry_after=9.0)
    resting = {name: c.ours.resting_until for name, c in of_lanes(table).items()}
    assert resting == {"one": 10.0, "two": 0.0}
    assert record(table).resting_until == 0.0

    table.ended(A, offer="one/m", lane="one")
    table.ended(A, offer="two/m", lane="two")
    assert {name: c.ours.in_flight for name, c in of_lanes(table).items()} == {"one": 1, "two": 0}


def test_speed_and_faults_are_those_of_an_offer() -> None:
    """The same model on two lanes is two offers; a connection that broke is of the peer."""
    table = PeerTable()
    tell(table)
    table.succeeded(A, "one/m", Sample(decode_tokens=100, decode_seconds=1.0), lane="one")
    table.failed(A, offer="two/m", now=100.0)
    found = of_lanes(table)
    assert (found["one"].rates.decode, found["two"].rates.decode) == (100.0, None)
    assert found["one"].breaker.admits(100.5)
    assert not found["two"].breaker.admits(100.5)
    table.failed(A, now=100.0)
    assert not any(one.breaker.admits(100.5) for one in of_lanes(table).values())


def test_the_load_of_each_lane_is_as_new_as_its_own_report() -> None:
    """However reports and adverts arrive; what is older changes nothing that is newer."""
    table = PeerTable()
    tell(table)
    assert table.load_reported(A, {"one": Load(slots=2, busy=1)}, sequence=4, seen_at=3.0)
    assert table.load_reported(A, {"two": Load(slots=2, busy=2)}, sequence=3, seen_at=3.0)
    assert not table.load_reported(A, {"one": Load(slots=2)}, sequence=2, seen_at=3.0)
    tell(table, 2)
    assert {name: c.load.busy for name, c in of_lanes(table).items()} == {"one": 1, "two": 2}
    tell(table, 5)
    assert {name: c.load.busy for name, c in of_lanes(table).items()} == {"one": 0, "two": 0}


def test_a_record_knows_its_candidates_until_it_is_replaced() -> None:
    """One of each lane that satisfies; one that stands for nothing where none does."""
    table = PeerTable()
    tell(table)
    before = record(table)
    assert before.candidates("m") is before.candidates("m")
    assert [one.id for one in before.candidates()] == [f"{A}/one/m", f"{A}/two/m"]
    assert [one.id for one in before.candidates(offer="two/m")] == [f"{A}/two/m"]
    (nothing,) = before.candidates("another")
    assert (nothing.is_offered, nothing.id) == (False, A)
    table.round_trip(A, 0.1)
    assert record(table).candidates("m")[0].peer.rtt == 0.1
