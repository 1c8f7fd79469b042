"""Closed namespaces for tests: a root, admins, machines and processes in a few calls.

    home = MadeUpNamespace("home")
    desk = home.admin("desk")                  # root -> desk
    laptop = home.machine("laptop", by=desk)   # root -> desk -> laptop
    member = home.process("node-3", on=laptop) # root -> desk -> laptop -> network.node("node-3")
    async with open_listener(network.node("node-3"), ..., membership=member.membership()): ...

Keys are names that sign as the network in memory does; `MadeUpNamespace(..., keys=RealKeys())` has
Ed25519 keys, and `keys.adopt(key_pair)` takes those of a real node. Every `membership()` of one
machine is a `FakeMembership` of its own: removals reach it through `add_revocations` alone, as they
reach a program.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import attrs
from libp2p.crypto.keys import KeyPair

from punch.access import (
    Chain,
    Grant,
    Kind,
    Lock,
    Namespace,
    Sign,
    encode_chain,
    hidden_name,
    remove,
    sign_grant,
)
from punch.access._grant import NAME_SALT_BYTES
from punch.capability import PeerId
from punch.libp2p import _identity
from punch.network import Node
from punch.testing._memory import _hash
from punch.wire import Registration

NOW = 1_800_000_000
"""UTC, in seconds since 1970: the moment at which grants are made here unless it is said."""

DAY = 24 * 3600
MACHINE_SCOPES = frozenset({"dial", "listen"})
ADMIN_SCOPES = frozenset({"dial", "listen", "lend", "borrow", "relay", "admin"})


class Keys(Protocol):
    """Where keys come from, and how they sign."""

    def peer_id(self, name: str) -> PeerId:
        """The key that tests call *name*; made when it is asked for first."""
        ...

    def signer(self, peer_id: PeerId) -> Sign:
        """What signs with a key."""
        ...

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        """Whether *peer_id* has signed."""
        ...


class StandIns:
    """The peers of the network in memory: names, with hashes for signatures."""

    def peer_id(self, name: str) -> PeerId:
        return PeerId(name)

    def signer(self, peer_id: PeerId) -> Sign:
        return lambda data: _hash(peer_id, data)

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        return signature == _hash(peer_id, data)


class RealKeys:
    """Ed25519 keys, as real nodes have them."""

    def __init__(self) -> None:
        self._named: dict[str, PeerId] = {}
        self._pairs: dict[PeerId, KeyPair] = {}

    def adopt(self, pair: KeyPair) -> PeerId:
        """Let *pair* sign as well, such as that of a node."""
        peer_id = _identity.peer_id_of(pair)
        self._pairs[peer_id] = pair
        self._named[peer_id] = peer_id
        return peer_id

    def peer_id(self, name: str) -> PeerId:
        if name not in self._named:
            self._named[name] = self.adopt(_identity.new_key_pair())
        return self._named[name]

    def signer(self, peer_id: PeerId) -> Sign:
        pair = self._pairs[peer_id]
        return lambda data: _identity.sign(pair, data)

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        return _identity.verify(peer_id, data, signature)


class FakeMembership:
    """A `punch.access.Membership` that keeps everything in memory."""

    def __init__(self, lock: Lock, chain: bytes) -> None:
        self.lock = lock
        self.remembered: dict[PeerId, Registration] = {}
        """What the program has asked to keep."""
        self.extra_places: tuple[str, ...] = ()
        """Places that are known from the start, before all others."""
        self.names: dict[PeerId, str] = {}
        """What this machine calls others."""
        self._chain = chain
        self._watchers: list[Callable[[], None]] = []

    @property
    def namespace(self) -> Namespace:
        return self.lock.namespace

    @property
    def takes_newcomers(self) -> bool:
        return False

    def called(self, machine: PeerId) -> str:
        return self.names.get(machine, "")

    @property
    def identity(self) -> str | None:
        return None

    @asynccontextmanager
    async def kept_up(self, node: Node, *, serves: bool) -> AsyncIterator[None]:
        yield

    def chain(self) -> bytes:
        return self._chain

    def renew(self, chain: bytes) -> None:
        """Have another chain from now on."""
        self._chain = chain
        self._changed()

    def add_revocations(self, revocations: Iterable[bytes]) -> None:
        if self.lock.add(revocations):
            self._changed()

    @contextmanager
    def watch(self, changed: Callable[[], None]) -> Iterator[None]:
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    @contextmanager
    def seeing(self, who: Callable[[], Iterable[PeerId]]) -> Iterator[None]:
        yield

    def remember(self, registrations: Iterable[Registration]) -> None:
        for registration in registrations:
            self.remembered.pop(registration.peer_id, None)
            self.remembered[registration.peer_id] = registration

    def machine_of(self, peer_id: PeerId) -> PeerId | None:
        found = [each.machine for each in self.lock.remembered if each.peer_id == peer_id]
        return found[0] if found else None

    def places(self) -> tuple[str, ...]:
        found = [
            address if "/p2p/" in address else f"{address}/p2p/{registration.peer_id}"
            for registration in reversed(self.remembered.values())
            for address in registration.addresses
        ]
        return (*self.extra_places, *found)

    def _changed(self) -> None:
        for changed in tuple(self._watchers):
            changed()


@attrs.frozen(kw_only=True)
class MadeUpMember:
    """A key with its chain."""

    home: MadeUpNamespace
    peer_id: PeerId
    chain: Chain

    @property
    def encoded(self) -> bytes:
        """The chain as it travels."""
        return encode_chain(self.chain)

    @property
    def sign(self) -> Sign:
        """Signs with the member's key."""
        return self.home.keys.signer(self.peer_id)

    def membership(self) -> FakeMembership:
        """A membership of its own, which knows nobody."""
        return FakeMembership(self.home.lock(), self.encoded)


class MadeUpNamespace:
    """A closed namespace whose keys are all at hand."""

    def __init__(self, name: str = "home", *, root: str = "root", keys: Keys | None = None) -> None:
        self.keys = keys or StandIns()
        self.namespace = Namespace(name=name, root=self.keys.peer_id(root))

    def lock(self) -> Lock:
        """A new lock of it."""
        return Lock(self.namespace, self.keys.verify)

    def admin(
        self,
        name: str,
        *,
        by: MadeUpMember | None = None,
        scopes: Iterable[str] = ADMIN_SCOPES,
        ends: int = NOW + 3650 * DAY,
        number: int = 1,
        owner: PeerId | None = None,
    ) -> MadeUpMember:
        """A machine that may let others in; let in by the root, or by another admin."""
        return self._grant("admin", name, by, scopes, ends, number, owner)

    def machine(
        self,
        name: str,
        *,
        by: MadeUpMember | None = None,
        scopes: Iterable[str] = MACHINE_SCOPES,
        ends: int = NOW + 90 * DAY,
        number: int = 1,
        owner: PeerId | None = None,
        called: str = "",
    ) -> MadeUpMember:
        """A machine; let in by an admin, or by the root. People call it *called*."""
        return self._grant("machine", name, by, scopes, ends, number, owner, called)

    def process(
        self,
        name: str,
        *,
        on: MadeUpMember,
        scopes: Iterable[str] | None = None,
        ends: int = NOW + DAY,
        number: int = 1,
    ) -> MadeUpMember:
        """A process on a machine, with all that the machine may do unless it is said."""
        above = on.chain[-1].grant
        allowed = above.scopes if scopes is None else scopes
        return self._grant("process", name, on, allowed, ends, number, above.owner)

    def remove(
        self,
        key: MadeUpMember | PeerId,
        *,
        by: MadeUpMember | None = None,
        lock: Lock | None = None,
        known: Iterable[MadeUpMember] = (),
        keep: bool = True,
    ) -> bytes:
        """The removal of a key by an admin, or by the root; *lock* learns of it if it is given.

        What *key* has signed stays as far as it is *known*.
        """
        shown = [member.chain for member in known]
        if isinstance(key, MadeUpMember):
            shown.append(key.chain)
        return remove(
            lock or self.lock(),
            key.peer_id if isinstance(key, MadeUpMember) else key,
            issuer=by.peer_id if by is not None else self.namespace.root,
            sign=by.sign if by is not None else self.keys.signer(self.namespace.root),
            chain=by.chain if by is not None else (),
            known=shown,
            keep=keep,
        )

    def _grant(
        self,
        kind: Kind,
        name: str,
        by: MadeUpMember | None,
        scopes: Iterable[str],
        ends: int,
        number: int,
        owner: PeerId | None,
        called: str = "",
    ) -> MadeUpMember:
        subject = self.keys.peer_id(name)
        above = by.chain[-1].grant if by is not None else None
        grant = Grant(
            namespace=self.namespace.name,
            root=self.namespace.root,
            subject=subject,
            issuer=above.subject if above is not None else self.namespace.root,
            kind=kind,
            scopes=frozenset(scopes),
            ends=ends,
            number=number,
            under=above.number if above is not None else 0,
            owner=owner or subject,
            name=hidden_name(called, bytes(NAME_SALT_BYTES)) if called else b"",
        )
        signed = sign_grant(grant, self.keys.signer(grant.issuer))
        chain = (*by.chain, signed) if by is not None else (signed,)
        return MadeUpMember(home=self, peer_id=subject, chain=chain)
