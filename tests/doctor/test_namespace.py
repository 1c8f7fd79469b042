"""What is wrong with a namespace, by the facts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from doctor.judged import DAY, NOW, only

from punch.capability import PeerId
from punch.doctor import (
    CHECKS,
    Finding,
    GrantFacts,
    MeetingFacts,
    MeetingPoint,
    NameFacts,
    OfferFact,
    OtherSource,
    OwnListener,
    PeerFact,
    judge_firewall,
    judge_grant,
    judge_hello,
    judge_meeting,
    judge_minors,
    judge_models,
    judge_name,
    judge_paths,
    judge_relay,
)

# ---- name ----


def test_two_machines_of_one_name_are_noted() -> None:
    """In whatever case: people do not tell them apart."""
    assert only(judge_name(NameFacts(own="desk", others=("shed",)))).state == "well"
    assert only(judge_name(NameFacts(own="desk", others=("Desk",)))).state == "note"
    assert only(judge_name(NameFacts(own=""))).state == "note"


# ---- grant ----

GOOD = GrantFacts(now=NOW, ends=NOW + 30 * DAY, is_renewed=True)


def test_a_grant_that_counts_is_well_and_an_open_namespace_needs_none() -> None:
    """One that is renewed may end soon."""
    assert only(judge_grant(None)).state == "well"
    assert only(judge_grant(GOOD)).state == "well"
    assert only(judge_grant(attrs.evolve(GOOD, ends=NOW + 60))).state == "well"


def test_a_grant_that_ends_soon_for_good_is_noted() -> None:
    """Somebody has to ask for another."""
    ending = attrs.evolve(GOOD, ends=NOW + DAY, is_renewed=False)
    found = only(judge_grant(ending))
    assert (found.state, "24 hours" in str(found.said)) == ("note", True)


@pytest.mark.parametrize("rule", ["expired", "revoked"])
def test_a_grant_that_does_not_count_is_wrong(rule: str) -> None:
    """An ended one may be a wrong clock's."""
    found = only(judge_grant(attrs.evolve(GOOD, rule=rule, words="it was taken away")))
    assert "punch join" in str(found.remedy)
    assert ("clock" in str(found.remedy)) == (rule == "expired")


def test_a_grant_that_lets_nobody_ask_is_noted() -> None:
    """A machine that only lends is well so."""
    assert only(judge_grant(attrs.evolve(GOOD, misses=("dial",)))).state == "note"


# ---- meeting points ----

WORKS = MeetingPoint(address="desk:51820", is_here=False, is_named=True, works=True)
AWAY = attrs.evolve(WORKS, works=False, why="no_answer", code="network", words="silent")
MEMBER = OtherSource(name="member 1", works=True)
IDLE = OtherSource(name="member 2", works=False, code="network", words="nobody")


def meet(*points: MeetingPoint, **fields: Any) -> list[Finding]:
    """What is said of these bootstraps."""
    return judge_meeting(attrs.evolve(MeetingFacts(points=points), **fields))


def test_each_meeting_point_is_judged_by_itself() -> None:
    """One that works hides none that does not."""
    assert only(meet(WORKS)).state == "well"
    assert only(meet(WORKS, AWAY)).state == "wrong"
    assert len(meet(AWAY, attrs.evolve(AWAY, address="attic"))) == 2


@pytest.mark.parametrize(
    ("why", "code", "remedy"),
    [
        ("no_answer", "network", "firewall"),
        ("refused", "network", "start `punch up`"),
        ("no_route", "network", "network"),
        ("no_name", "network", "IP address"),
        ("no_peer", "network", "port"),
        ("other_peer", "network", "identity"),
        (None, "identity_changed", "known_peers"),
        (None, "bootstrap_full", "limits"),
        (None, "not_permitted", "members"),
        (None, "network", "a listener is there"),
        (None, None, "log"),
        ("a word of tomorrow", "another", "log"),
    ],
)
def test_every_trouble_at_a_meeting_point_has_its_remedy(
    why: str | None, code: str | None, remedy: str
) -> None:
    """By the word for it, whatever the sentence."""
    found = only(meet(attrs.evolve(AWAY, why=why, code=code)))
    assert (found.state, remedy in str(found.remedy)) == ("wrong", True)


def test_a_machine_where_nothing_runs_has_nothing_broken() -> None:
    """Its own bootstrap is not there, since nobody has started it."""
    own = attrs.evolve(AWAY, is_here=True, why="refused", is_named=False)
    found = only(meet(own, runs=False))
    assert (found.state, "punch up" in str(found.remedy)) == ("note", True)
    assert only(meet(own, runs=True)).state == "wrong"


def test_members_that_meet_each_other_need_no_usual_bootstrap() -> None:
    """Unless somebody has named one."""
    usual = attrs.evolve(AWAY, is_named=False)
    assert only(meet(usual, others=(MEMBER, IDLE), is_closed=True)).state == "well"
    assert only(meet(usual)).state == "wrong"
    assert only(meet(AWAY, others=(MEMBER,), is_closed=True)).state == "wrong"


def test_members_of_whom_none_can_be_met_are_wrong() -> None:
    """Where there are any; a machine alone in its namespace meets nobody."""
    usual = attrs.evolve(AWAY, is_named=False)
    alone = only(meet(usual, others=(IDLE,), is_closed=True))
    assert (alone.state, "punch invite" in str(alone.remedy)) == ("note", True)
    lost = only(meet(usual, others=(IDLE,), is_closed=True, members=3))
    assert (lost.state, "of 3 other members" in str(lost.said)) == ("wrong", True)
    off = only(meet(usual, others=(IDLE,), is_closed=True, members=3, runs=False))
    assert (off.state, "punch up" in str(off.remedy)) == ("note", True)


def test_a_member_that_does_not_let_us_in_is_wrong() -> None:
    """Whether another one does or not."""
    refuses = attrs.evolve(IDLE, code="not_permitted", words="no grant")
    assert only(meet(WORKS, others=(MEMBER, refuses))).state == "wrong"


def test_what_a_dialer_warns_of_is_noted() -> None:
    """Such as a second process with this machine's identity."""
    found = only(meet(WORKS, warnings=("two processes have this identity",)))
    assert (found.state, str(found.said)) == (
        "note",
        "a dialer warns: two processes have this identity",
    )


# ---- firewall ----

HERE = OwnListener(reached=False, words="no answer", port=21820)


def test_a_listener_that_nobody_can_dial_has_its_port_let_in() -> None:
    """The remedy has the port and the protocol."""
    found = only(judge_firewall((HERE,), elsewhere=True))
    assert "ufw allow 21820/tcp" in str(found.remedy)
    unknown_port = attrs.evolve(HERE, port=None)
    assert "docs/what-if.md" in str(only(judge_firewall((unknown_port,), elsewhere=True)).remedy)


def test_what_nobody_has_tried_is_not_known() -> None:
    """A namespace of one machine has nobody who would."""
    untried = attrs.evolve(HERE, reached=None)
    assert only(judge_firewall((untried,), elsewhere=True)).state == "unknown"
    assert only(judge_firewall((), elsewhere=True)).state == "unknown"
    assert only(judge_firewall((untried,), elsewhere=False)).state == "well"
    assert only(judge_firewall((attrs.evolve(HERE, reached=True),), elsewhere=True)).state == "well"


def test_a_listener_that_a_relay_leads_to_is_no_fault() -> None:
    """It is a note, with the way to quicker answers; the relay is well."""
    served = attrs.evolve(HERE, relayed=True)
    found = only(judge_firewall((served,), elsewhere=True))
    assert (found.state, str(found.said)) == (
        "note",
        "others reach this machine through a relay, and not without: no answer",
    )
    assert "TCP port 21820" in str(found.remedy)
    assert only(judge_relay((served,))).state == "well"
    both = judge_firewall((served, attrs.evolve(HERE, relayed=False)), elsewhere=True)
    assert [each.state for each in both] == ["note", "wrong"]


def test_a_relay_is_missed_where_nobody_can_dial_this_machine() -> None:
    """The firewall is what is wrong, and a relay what would help; elsewhere none is needed."""
    alone = attrs.evolve(HERE, relayed=False)
    assert only(judge_firewall((alone,), elsewhere=True)).state == "wrong"
    found = only(judge_relay((alone,)))
    assert (found.state, "--no-relay" in str(found.remedy)) == ("note", True)
    assert only(judge_relay((attrs.evolve(alone, reached=True),))).state == "well"
    for unknown in (HERE, attrs.evolve(alone, reached=None)):
        assert only(judge_relay((unknown,))).state == "unknown"
    assert only(judge_relay(())).state == "unknown"


# ---- hello, minors ----


def test_each_listener_that_cannot_be_asked_is_told_of() -> None:
    """A thousand are counted."""
    away = {PeerId(f"peer-{number}"): "silent" for number in range(1000)}
    one = only(judge_hello(3, {PeerId("peer"): "silent"}, is_met=True))
    assert (one.state, str(one.said)) == ("wrong", "peer cannot be asked: silent")
    many = judge_hello(3, away, is_met=True)
    assert len(many) < 20
    assert "984 more" in str(many[-1].said)


def test_an_empty_namespace_is_noted_and_one_that_is_not_met_is_not_known() -> None:
    """Nobody is blamed twice for one fault."""
    assert only(judge_hello(2, {}, is_met=True)).state == "well"
    assert only(judge_hello(0, {}, is_met=True)).state == "note"
    assert only(judge_hello(0, {}, is_met=False)).state == "unknown"


def test_an_older_peer_is_noted() -> None:
    """It works, without what is newer."""
    peers = (PeerFact(name="desk", minor=2), PeerFact(name="shed", minor=1))
    found = only(judge_minors(peers, 2))
    assert (found.state, str(found.said)) == ("note", "shed speaks minor 1, and this one 2")
    assert only(judge_minors(peers[:1], 2)).state == "well"


# ---- models ----

OFFER = OfferFact(model="llama", peer="a", digest="d1", template="t1")


@pytest.mark.parametrize(
    ("other", "state"),
    [
        (OFFER, "well"),
        (attrs.evolve(OFFER, digest="d2"), "note"),
        (attrs.evolve(OFFER, template="t2"), "note"),
        (attrs.evolve(OFFER, digest=None, template=None), "well"),
        (attrs.evolve(OFFER, model="other", digest="d2", template="t2"), "well"),
    ],
)
def test_one_name_for_two_files_or_templates_is_noted(other: OfferFact, state: str) -> None:
    """What is not known differs from nothing."""
    assert only(judge_models((OFFER, attrs.evolve(other, peer="b")))).state == state


def test_what_no_part_of_punch_can_tell_is_not_known() -> None:
    """It has its place all the same."""
    assert [each.check for each in judge_paths()] == ["NAT kind", "direct upgrade"]
    assert {each.state for each in judge_paths()} == {"unknown"}


def test_the_document_has_every_check_in_its_order() -> None:
    """And none that there is not."""
    path = Path(__file__).parents[2] / "docs" / "doctor.md"
    rows = re.findall(r"^\| ([^|]+) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert ", ".join(rows[2:]) == ", ".join(CHECKS)
