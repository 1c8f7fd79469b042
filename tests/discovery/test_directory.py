"""The directory: what several sources say together."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from trio.testing import MockClock

from punch.bootstrap import open_bootstrap
from punch.capability import PeerId
from punch.discovery import Announce, Directory, Found, Sighting, join_namespace
from punch.discovery._listed import Listed, listed_besides, merged
from punch.exceptions import ConfigurationError, NetworkError, NotPermitted, PeerUnreachable
from punch.network import Address, Handler, Stream, parse_address
from punch.testing import ScriptedBackend, Swarm
from punch.wire import Registration


def listener(
    name: str, incarnation: int = 1, sequence: int = 0, *, role: str = "listener"
) -> Registration:
    """A registration as a source would have verified it."""
    return Registration(
        peer_id=PeerId(name),
        namespace="home",
        roles=frozenset({role}),
        addresses=(f"/memory/{name}/{incarnation}",),
        incarnation=incarnation,
        sequence=sequence,
        lifetime=30.0,
    )


class ScriptedSource:
    """A source that a test speaks through."""

    announce: Announce
    found: Found

    def __init__(self, name: str) -> None:
        self.name = name

    async def run(self, announce: Announce, found: Found) -> None:
        self.found, self.announce = found, announce
        await trio.sleep_forever()


def directory_of(*sources: ScriptedSource) -> Directory:
    """A directory whose sources speak at once: it is not run, only told."""
    directory = Directory(
        _Node(),
        sources,
        namespace="home",
        roles=frozenset({"dialer"}),
        incarnation=1,
        changed=lambda: None,
    )
    for source, listed in zip(sources, directory._listed, strict=True):
        source.found = partial(directory._found, listed)
    return directory


class _Node:
    """A node that reaches nobody."""

    peer_id = PeerId("me")
    addresses = ()
    on_link = ()
    moved = trio.Event()

    def handle(self, protocol: str, handler: Handler) -> None: ...

    async def open_stream(
        self, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> Stream:
        raise PeerUnreachable("there is no network")

    async def identify(self, address: str) -> PeerId:
        raise PeerUnreachable("there is no network")

    def sign(self, data: bytes) -> bytes:
        return b""

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        return False


def test_a_listener_is_there_for_as_long_as_one_source_lists_it() -> None:
    """Losing a source that also listed it changes nothing but who says so."""
    a, b = ScriptedSource("a"), ScriptedSource("b")
    directory = directory_of(a, b)
    a.found(Sighting(present=(listener("x"),), is_whole=True))
    b.found(Sighting(present=(listener("x"), listener("y")), is_whole=True))
    both = {peer: set(known.sources) for peer, known in directory.listeners.items()}
    a.found(Sighting(gone=(PeerId("x"),)))
    one = {peer: set(known.sources) for peer, known in directory.listeners.items()}
    b.found(Sighting(present=(), is_whole=True))

    assert both == {"x": {"a", "b"}, "y": {"b"}}
    assert one == {"x": {"b"}, "y": {"b"}}
    assert directory.listeners == {}


def test_the_newest_word_counts_whichever_source_says_it() -> None:
    """By incarnation first and sequence second; a late old word moves nobody."""
    a, b = ScriptedSource("a"), ScriptedSource("b")
    directory = directory_of(a, b)
    a.found(Sighting(present=(listener("x", 2, 0),)))
    b.found(Sighting(present=(listener("x", 1, 9),)))
    a.found(Sighting(present=(listener("x", 1, 7),)))

    assert directory.listeners[PeerId("x")].addresses == ("/memory/x/2",)


def test_one_more_source_is_no_reason_to_dial_anew() -> None:
    """Two records that differ in their sources only are equal: the session pool compares them."""
    a, b = ScriptedSource("a"), ScriptedSource("b")
    directory = directory_of(a, b)
    a.found(Sighting(present=(listener("x"),)))
    before = directory.listeners[PeerId("x")]
    b.found(Sighting(present=(listener("x", sequence=5),)))

    assert directory.listeners[PeerId("x")] == before
    assert directory.listeners[PeerId("x")].sources == {"a", "b"}


def test_trouble_of_one_source_is_no_trouble_while_another_works() -> None:
    """And what the troubled one said last stays."""
    a, b = ScriptedSource("a"), ScriptedSource("b")
    directory = directory_of(a, b)
    away = NetworkError("out of reach")
    a.found(Sighting(present=(listener("x"),), is_whole=True))
    a.found(Sighting(trouble=away))
    alone = directory.trouble
    b.found(Sighting(present=(), is_whole=True))

    assert alone is away
    assert directory.trouble is None
    assert set(directory.listeners) == {"x"}
    assert [state.is_working for state in directory.sources] == [False, True]


def test_waiting_is_in_vain_only_when_no_source_can_recover() -> None:
    """Turned away by one of two, the other may still come up."""
    a, b = ScriptedSource("a"), ScriptedSource("b")
    directory = directory_of(a, b)
    no = NotPermitted("turned away")
    a.found(Sighting(trouble=NetworkError("away")))
    b.found(Sighting(trouble=no, is_final=True))
    hopeful = directory.refused.is_set()
    a.found(Sighting(trouble=NotPermitted("not here either"), is_final=True))

    assert not hopeful
    assert directory.trouble is not None
    assert directory.refused.is_set()


def test_a_source_that_lists_too_many_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond the limit is not looked at; what was there stays."""
    monkeypatch.setattr("punch.discovery._listed.MAX_LISTED", 3)
    source = ScriptedSource("a")
    directory = directory_of(source)
    source.found(Sighting(present=tuple(listener(f"x{number}") for number in range(10))))

    assert sorted(directory.listeners) == ["x0", "x1", "x2"]


def test_we_are_never_found_and_neither_is_who_listens_to_nobody() -> None:
    """Ourselves, and peers without the role of a listener."""
    source = ScriptedSource("a")
    directory = directory_of(source)
    source.found(Sighting(present=(listener("me"), listener("d", role="dialer"))))

    assert directory.listeners == {}
    assert directory.joined.is_set()


class DirectoryMachine(RuleBasedStateMachine):
    """The directory holds exactly what its sources together list, each at its newest word."""

    def __init__(self) -> None:
        super().__init__()
        self.sources = [ScriptedSource("a"), ScriptedSource("b")]
        self.directory = directory_of(*self.sources)
        self.model: list[dict[str, tuple[int, int]]] = [{}, {}]

    words = st.lists(
        st.tuples(st.sampled_from("xyz"), st.integers(1, 3), st.integers(0, 3)),
        max_size=3,
        unique_by=lambda word: word[0],
    )

    @rule(
        which=st.integers(0, 1),
        words=words,
        gone=st.sets(st.sampled_from("xyz")),
        whole=st.booleans(),
    )
    def say(
        self, which: int, words: list[tuple[str, int, int]], gone: set[str], whole: bool
    ) -> None:
        before = self.model[which]
        after = {} if whole else {name: at for name, at in before.items() if name not in gone}
        for name, incarnation, sequence in words:
            after[name] = max((incarnation, sequence), before.get(name, (0, 0)))
        self.model[which] = after
        self.sources[which].found(
            Sighting(
                present=tuple(listener(*word) for word in words),
                gone=tuple(PeerId(name) for name in gone),
                is_whole=whole,
            )
        )

    @rule(which=st.integers(0, 1))
    def fail(self, which: int) -> None:
        self.sources[which].found(Sighting(trouble=NetworkError("away")))

    @invariant()
    def the_union_is_there(self) -> None:
        wanted = {
            name: max(said[name] for said in self.model if name in said)[0]
            for name in {*self.model[0], *self.model[1]}
        }
        found = {str(p): known.incarnation for p, known in self.directory.listeners.items()}
        assert found == wanted

    @invariant()
    def no_order_of_reports_leaves_a_trace(self) -> None:
        """Each member is as if all that is listed were put together anew."""
        listed = self.directory._listed
        peers = {peer for each in listed for peer in each.members}
        anew = {peer: merged(listed, peer) for peer in peers}
        # Two that differ in sources and sequence alone are equal to the pool, and not here.
        assert {p: repr(one) for p, one in self.directory.members.items()} == {
            p: repr(one) for p, one in anew.items()
        }


TestDirectory = DirectoryMachine.TestCase
TestDirectory.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)


def test_who_is_listed_besides_a_source_and_by_whom() -> None:
    """Only what a source that works lists counts, and whether it has that from the member."""
    own, relays, hears, fails = (Listed(ScriptedSource(name)) for name in ("own", "b", "c", "d"))
    said = {
        own: Sighting(present=(listener("x"),)),
        relays: Sighting(
            present=(listener("y"), listener("z")), relayed=frozenset(map(PeerId, "yz"))
        ),
        hears: Sighting(present=(listener("z"),)),
        fails: Sighting(present=(listener("w"),)),
    }
    for listed, sighting in said.items():
        listed.take(sighting, PeerId("me"), set(), None)
        listed.is_working = listed is not fails
    assert listed_besides(said, "own") == {"y": False, "z": True}
    assert listed_besides([hears, relays], "own") == {"y": False, "z": True}


def test_a_members_word_is_taken_once_from_several_sources() -> None:
    """Of many that come at once the pool asks the first and the last: their order is kept."""
    first, second = ScriptedSource("a"), ScriptedSource("b")
    directory = directory_of(first, second)
    names = [f"m{number}" for number in range(40)]
    first.found(Sighting(present=tuple(listener(name) for name in names)))
    second.found(Sighting(present=tuple(listener(name, 1, 1) for name in reversed(names))))
    assert list(directory.listeners) == names


async def test_a_directory_without_any_source_is_refused() -> None:
    """It could find nobody, ever."""
    with pytest.raises(ConfigurationError, match="no bootstrap was given"):
        async with join_namespace(_Node(), namespace="home", roles={"dialer"}, incarnation=1):
            pass


async def test_two_bootstraps_stand_in_for_each_other(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A dialer finds who registered at either, and neither is missed when it goes."""
    node = swarm.network.node("second")
    first = swarm.network.node("third").addresses[0]  # Nobody serves there.
    async with open_bootstrap(node):
        both: list[str | Address] = [
            swarm.bootstrap,
            parse_address(node.addresses[0]),
            first,
        ]
        await swarm.listener("a", ScriptedBackend())
        async with swarm.router(bootstrap=both) as router:
            await router.wait_for_peers()
            swarm.network.take_down(PeerId("bootstrap"))
            await trio.sleep(60)
            trouble = router.trouble
            response = await router.ask("still there?")

    assert trouble is None
    assert response.executor == "a"
