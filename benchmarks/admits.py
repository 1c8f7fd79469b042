"""How many peers a lock judges in a second, on one core.

A chain has three grants with real Ed25519 keys: of an admin, its machine, and a process there. The
first row is of chains of which no signature was ever seen, as when a namespace of strangers meets;
the second of machines that one admin has let in; the third of processes of which each was seen
before, as when all sessions begin anew. Each is judged from the bytes of the peer's introduction to
the answer, with 100 removals known. One process, no network.
"""

from __future__ import annotations

import time

from _results import Report, Row

from punch.access import Introduction, Issuer, Kind, Lock, Namespace, encode_chain, remove
from punch.capability import PeerId
from punch.libp2p import _identity

TITLE = "Who is let into a closed namespace"

NOW = 1_800_000_000
MIN_PER_SECOND = 1000
REMOVED = 100


def _issuer() -> Issuer:
    pair = _identity.new_key_pair()
    return Issuer(
        key=_identity.peer_id_of(pair), sign=lambda data: _identity.sign(pair, data), chain=()
    )


def _let_in(lock: Lock, by: Issuer, *, kind: Kind) -> Issuer:
    """A new key with what leads to it."""
    scopes = by.chain[-1].grant.scopes if by.chain else frozenset({"dial", "listen", "admin"})
    if kind == "machine":
        scopes = frozenset({"dial", "listen"})
    new = _issuer()
    chain = by.issue(lock, new.key, now=NOW, kind=kind, scopes=scopes)
    return Issuer(key=new.key, sign=new.sign, chain=chain)


def _shown(process: Issuer) -> tuple[PeerId, Introduction]:
    introduction = Introduction(
        namespace="home", roles=frozenset({"listener"}), grant=encode_chain(process.chain)
    )
    return process.key, introduction


def _per_second(lock: Lock, shown: list[tuple[PeerId, Introduction]]) -> float:
    began = time.thread_time()
    for peer_id, introduction in shown:
        assert lock.admit(peer_id, introduction, NOW) is None
    return len(shown) / (time.thread_time() - began)


def measure(*, quick: bool) -> Report:
    """Admits a second: of new chains, of an admin's machines, of chains that are remembered."""
    count = 200 if quick else 2000
    root = _issuer()
    namespace = Namespace(name="home", root=root.key)
    lock = Lock(namespace, _identity.verify)
    for _ in range(REMOVED):
        remove(lock, _issuer().key, issuer=root.key, sign=root.sign)

    desk = _let_in(lock, root, kind="admin")
    strangers, guests = [], []
    for _ in range(count):
        admin = _let_in(lock, root, kind="admin")
        machines = (_let_in(lock, each, kind="machine") for each in (admin, desk))
        fresh, guest = (_shown(_let_in(lock, each, kind="process")) for each in machines)
        strangers.append(fresh)
        guests.append(guest)

    judge = Lock(namespace, _identity.verify, lock.revocations)
    found = {
        "chains of three grants that were never seen": _per_second(judge, strangers),
        "the same, of machines of one admin": _per_second(judge, guests),
        "chains that are remembered": _per_second(judge, guests),
    }
    rows = tuple(
        Row(
            what=what,
            ours=f"{number:.0f}/s",
            target=f"at least {MIN_PER_SECOND}/s",
            met=number >= MIN_PER_SECOND,
            why="A new chain is three signatures, each of a tenth of a millisecond.",
        )
        for what, number in found.items()
    )
    notes = (f"Of {count} peers each. {' '.join(__doc__.partition('.')[2].split())}",)
    return Report(title=TITLE, rows=rows, notes=notes)
