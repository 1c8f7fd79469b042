"""Judges the namespace as this machine sees it: who is met, where, and by what right. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ..capability import PeerId
from ._finding import Finding, note, unknown, well, wrong
from ._text import NOTHING, Private, Text, text

# Findings of one kind that are told one by one; a namespace may have a thousand listeners.
MAX_TOLD = 16

# A grant that ends sooner than this is worth a word: it is renewed at half of its life.
SOON_SECONDS = 3 * 86_400.0


# ---- name ----


@attrs.frozen(kw_only=True)
class NameFacts:
    """What this machine is called, and the others."""

    own: str
    """The name of this machine; empty if it has none."""

    others: tuple[str, ...] = ()
    """The names of other machines of the namespace."""


def judge_name(facts: NameFacts) -> list[Finding]:
    """Whether people can tell this machine from the others."""
    own = Private("name", facts.own)
    if not facts.own:
        remedy = text("give it one with `punch settings set listener.name NAME`")
        return [note("name", text("this machine has no name for people"), remedy)]
    if facts.own.casefold() in {each.casefold() for each in facts.others}:
        remedy = text(
            "call one of them something else: `punch settings set listener.name NAME` there"
        )
        return [note("name", text("another machine is called {}, too", own), remedy)]
    return [well("name", text("this machine is called {}", own))]


# ---- grant ----


@attrs.frozen(kw_only=True)
class GrantFacts:
    """What lets this machine into a closed namespace."""

    now: float
    """Seconds of UTC since 1970."""

    ends: float = 0.0
    """The same of the end of its grant."""

    is_renewed: bool = False
    """Whether it is renewed by itself."""

    rule: str | None = None
    """The rule by which it does not count, such as ``expired``; `None` if it counts."""

    words: str = ""
    """That rule, in a sentence."""

    misses: tuple[str, ...] = ()
    """Scopes that a machine usually has, and this one has not: our own words."""


def judge_grant(facts: GrantFacts | None) -> list[Finding]:
    """Whether the grant counts, and for how long; `None` for an open namespace."""
    if facts is None:
        return [well("grant", text("an open namespace needs none"))]
    if facts.rule is not None:
        remedy = text(
            "ask a member for an invite (`punch invite` there), and join again with `punch join`"
        )
        if facts.rule == "expired":
            remedy = text(f"see that this machine's clock is right; if it is, {remedy}")
        why = Private("words", facts.words)
        return [wrong("grant", text("this machine's grant does not count: {}", why), remedy)]
    found = []
    if not facts.is_renewed and facts.ends - facts.now < SOON_SECONDS:
        hours = max(0.0, facts.ends - facts.now) / 3600
        remedy = text("ask a member for another invite before it does")
        said = text(f"the grant ends in {hours:.0f} hours and is not renewed by itself")
        found.append(note("grant", said, remedy))
    if facts.misses:
        said = text(f"the grant does not allow: {', '.join(facts.misses)}")
        found.append(note("grant", said, text("if that is needed, ask a member for an invite")))
    return found or [well("grant", text("it counts"))]


# ---- meeting points ----


@attrs.frozen(kw_only=True)
class MeetingPoint:
    """A place where the namespace is to be met."""

    address: str
    """Where it is."""

    is_here: bool
    """Whether that is this machine."""

    is_named: bool
    """Whether somebody has named it; else it is the usual one."""

    works: bool
    """Whether it has listed its members to this machine."""

    why: str | None = None
    """A word for why nobody could be dialled there; `None` if somebody answered."""

    code: str | None = None
    """The code of the error that came of it, if one did."""

    words: str = ""
    """That error, in a sentence."""


@attrs.frozen(kw_only=True)
class OtherSource:
    """Another way in which members are found."""

    name: str
    """What it is called."""

    works: bool
    """Whether it has found somebody, or says that nobody is there."""

    code: str | None = None
    """The code of its trouble; `None` if it has none."""

    words: str = ""
    """Its trouble, in a sentence."""


@attrs.frozen(kw_only=True)
class MeetingFacts:
    """Where the namespace is met."""

    points: tuple[MeetingPoint, ...]
    """The bootstraps, one by one."""

    others: tuple[OtherSource, ...] = ()
    """The LAN, and in a closed namespace the members themselves."""

    is_closed: bool = False
    """Whether the namespace is a closed one, whose members meet each other."""

    members: int = 0
    """Other machines that are members of a closed namespace, as far as this one knows."""

    warnings: tuple[str, ...] = ()
    """What a dialer warns of, though everything works: sentences that say what to do."""

    runs: bool = True
    """Whether a program of punch runs on this machine."""


_DIAL_REMEDIES = {
    "no_answer": "see that the machine is on, that its address is right, and that its firewall "
    "lets the port in",
    "no_route": "see that this machine and that one are in one network, or have a way between them",
    "no_name": "see that the name is right, or give an IP address in its place",
    "no_peer": "another program has that port: give the port of a bootstrap, 51820 unless said",
    "other_peer": "the address names an identity that is not there: leave `/p2p/...` out, or give "
    "the one of today",
}

_CODE_REMEDIES = {
    "network": "a listener is there and no bootstrap, or one that hangs: give the port of a "
    "bootstrap, 51820 unless said",
    "identity_changed": "if its key was lost or it was installed anew, take its line out of "
    "known_peers in the data folder; else somebody else is there",
    "bootstrap_full": "end what is not needed there, or raise its limits: `punch bootstrap --help`",
    "not_permitted": "see that this machine is a member: `punch members list` there",
}


def judge_meeting(facts: MeetingFacts) -> list[Finding]:
    """Whether the namespace is met, at each of its places."""
    found: list[Finding] = []
    for point in facts.points:
        # Members of a closed namespace meet each other, wherever the usual bootstrap would be.
        is_needed = point.is_named or not facts.is_closed
        if point.works or not is_needed:
            continue
        if not facts.runs and point.is_here and point.why == "refused":
            found.append(_nothing_runs())
            continue
        place = Private("address", point.address)
        found.append(wrong("meeting points", *_trouble_at(place, point)))
    for other in facts.others:
        # One that has found nobody has no trouble of its own.
        remedy = None if other.code == "network" else _CODE_REMEDIES.get(other.code or "")
        if not other.works and remedy is not None:
            source, words = Private("name", other.name), Private("words", other.words)
            said = text(f"{{}} ({other.code}): {{}}", source, words)
            found.append(wrong("meeting points", said, text(remedy)))
    found += [
        note("meeting points", text("a dialer warns: {}", Private("words", warning)))
        for warning in facts.warnings
    ]
    working = sum(each.works for each in facts.points) + sum(each.works for each in facts.others)
    if not found and not working:
        found.append(_nobody(facts.members) if facts.runs else _nothing_runs())
    places = "1 place" if working == 1 else f"{working} places"
    return found or [well("meeting points", text(f"the namespace is met at {places}"))]


def _nothing_runs() -> Finding:
    said = text("nothing of punch runs on this machine")
    return note("meeting points", said, text("start it with `punch up`"))


def _nobody(members: int) -> Finding:
    if not members:
        said = text("this machine is the only member, and what runs on it was not met")
        return note("meeting points", said, text("`punch invite` lets another machine in"))
    said = text(f"of {members} other members none can be met")
    remedy = "start `punch up` on one of them, and see that there is a network between it and this"
    return wrong("meeting points", said, text(remedy))


def _trouble_at(place: Private, point: MeetingPoint) -> tuple[Text, Text]:
    if point.why == "refused":
        remedy = "start `punch up` or `punch bootstrap` on that machine, or mend the address"
        return text("nothing listens at {}", place), text(remedy)
    words = Private("words", point.words or "it does not list its members")
    known = {**_CODE_REMEDIES, **_DIAL_REMEDIES}
    word = next((each for each in (point.why, point.code) if each in known), "")
    remedy = known.get(word or "", "see what its log says, and that it is a bootstrap of punch")
    # Strangers are shown the word, which is ours, in the place of the words.
    kind = f" ({word})" if word else ""
    return text(f"{{}} cannot be used{kind}: {{}}", place, words), text(remedy)


# ---- firewall ----


@attrs.frozen(kw_only=True)
class OwnListener:
    """A listener of this machine that runs."""

    reached: bool | None
    """Whether another machine could dial it; `None` if none has tried."""

    words: str = ""
    """Why not."""

    port: int | None = None
    """Where it listens, if that is known."""

    transport: str = "tcp"
    """``tcp`` or ``udp``, there."""

    relayed: bool | None = None
    """Whether a relay leads others to it; `None` if that is not known."""


def judge_firewall(listeners: tuple[OwnListener, ...], *, elsewhere: bool) -> list[Finding]:
    """Whether others can dial this machine, by what those say that have tried.

    Args:
      listeners: The listeners here.
      elsewhere: Whether peers of other machines are to be met at all.

    """
    found = []
    for each in listeners:
        if each.reached is not False:
            continue
        port = "its port" if each.port is None else f"{each.transport.upper()} port {each.port}"
        such = (
            "docs/what-if.md has the commands"
            if each.port is None
            else f"such as `sudo ufw allow {each.port}/{each.transport}`"
        )
        words = Private("words", each.words)
        if each.relayed:
            said = text("others reach this machine through a relay, and not without: {}", words)
            way = text(
                f"answers are quicker without one: let {port} in, and have the router forward it"
            )
            found.append(note("firewall", said, way))
            continue
        said = text("others cannot dial this machine: {}", words)
        remedy = text(
            f"let {port} in through this machine's firewall, {such}; behind a router, have that "
            "forward the port and name its address with `punch settings set listener.announce`"
        )
        found.append(wrong("firewall", said, remedy))
    if found:
        return found
    if any(each.reached for each in listeners):
        return [well("firewall", text("another machine could dial this one"))]
    if not elsewhere:
        return [well("firewall", text("nobody of another machine is to dial this one"))]
    if not listeners:
        remedy = text("start `punch up`, and ask again")
        return [unknown("firewall", text("no listener of this machine runs"), remedy)]
    return [unknown("firewall", text("nobody of another machine has dialled this one yet"))]


def judge_relay(listeners: tuple[OwnListener, ...]) -> list[Finding]:
    """Whether a relay leads others to this machine where they cannot dial it."""
    if any(each.reached is False and each.relayed is False for each in listeners):
        said = text("others cannot dial this machine, and no relay leads to it")
        remedy = text(
            "have a machine that others can dial relay for it: a bootstrap does unless it was "
            "started with `--no-relay`, and a member whose grant has the scope `relay`"
        )
        return [note("relay", said, remedy)]
    if any(each.relayed for each in listeners):
        return [well("relay", text("a relay leads others to this machine"))]
    if any(each.reached for each in listeners):
        return [well("relay", text("this machine needs none"))]
    return [unknown("relay", text("it is not known whether this machine needs one"))]


# ---- the peers ----


@attrs.frozen(kw_only=True)
class PeerFact:
    """A listener of the namespace that there is a session with."""

    name: str
    """Its name for people, or the end of its identity."""

    minor: int
    """Minor version of the protocol that it and this machine speak."""


def judge_hello(reached: int, unreached: Mapping[PeerId, str], *, is_met: bool) -> list[Finding]:
    """Whether every listener that is known can be asked.

    Args:
      reached: Listeners that there is a session with.
      unreached: Those that there is none with, each with the reason.
      is_met: Whether the namespace is met at all.

    """
    found = []
    for peer_id, why in list(unreached.items())[:MAX_TOLD]:
        remedy = text(
            "see that it runs (`punch status` there); `punch doctor` there says whether others "
            "can dial it"
        )
        peer, words = Private("peer", peer_id), Private("words", why)
        found.append(wrong("hello", text("{} cannot be asked: {}", peer, words), remedy))
    if len(unreached) > MAX_TOLD:
        more = len(unreached) - MAX_TOLD
        remedy = text("`punch peers --once` lists all")
        found.append(wrong("hello", text(f"{more} more listeners cannot be asked"), remedy))
    if found:
        return found
    if reached:
        return [well("hello", text(f"{reached} can be asked"))]
    if not is_met:
        return [unknown("hello", text("the namespace is not met"))]
    remedy = text("start `punch up` on a machine with a model")
    return [note("hello", text("no listener is in the namespace"), remedy)]


def judge_minors(peers: tuple[PeerFact, ...], ours: int) -> list[Finding]:
    """Whether every peer speaks what this version speaks."""
    older = [each for each in peers if each.minor < ours]
    found = [
        note(
            "minors",
            text(
                f"{{}} speaks minor {each.minor}, and this one {ours}", Private("name", each.name)
            ),
            text("update punch there: it is asked all the same, without what is newer"),
        )
        for each in older[:MAX_TOLD]
    ]
    if not peers:
        return [unknown("minors", text("nobody else is there"))]
    return found or [well("minors", text(f"all speak minor {ours}"))]


def judge_paths() -> list[Finding]:
    """What no part of punch can tell yet."""
    said = text("not known yet")
    return [unknown(check, said, NOTHING) for check in ("NAT kind", "direct upgrade")]
