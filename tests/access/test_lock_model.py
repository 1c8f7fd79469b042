"""A lock beside a model of it: members that grant and remove as they please, honestly or not.

The model knows facts, no bytes: who has really signed what. It judges each chain by the rules in
words, anew each time. The lock sees bytes, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from made_up_members import DAY, NOW, MadeUpNamespace

from punch.access import GRANT_CONTEXT, REVOCATION_CONTEXT, Member, key_of, read_revocation
from punch.access._grant import digest_of
from punch.capability import PeerId
from punch.wire import encode_map

HOME = MadeUpNamespace("home")
ROOT = HOME.namespace.root
KEYS = [PeerId(name) for name in ("a1", "a2", "a3", "m1", "m2", "p1")]
SCOPES = [frozenset(text.split()) for text in ("admin dial listen", "dial listen", "dial", "x")]


@attrs.frozen(kw_only=True, eq=False)
class Granted:
    """A grant as a fact."""

    issuer: PeerId
    signer: PeerId
    subject: PeerId
    kind: str
    scopes: frozenset[str]
    ends: int
    number: int
    under: int
    owner: PeerId
    namespace: str = "home"

    @property
    def encoded(self) -> bytes:
        return encode_map(
            {
                "namespace": self.namespace,
                "root": key_of(ROOT),
                "subject": key_of(self.subject),
                "issuer": key_of(self.issuer),
                "kind": self.kind,
                "scopes": sorted(self.scopes),
                "ends": self.ends,
                "number": self.number,
                "under": self.under,
                "owner": key_of(self.owner),
            }
        )

    @property
    def link(self) -> dict[str, bytes]:
        signature = HOME.keys.signer(self.signer)(GRANT_CONTEXT + self.encoded)
        return {"grant": self.encoded, "signature": signature}

    @property
    def digest(self) -> bytes:
        return digest_of(GRANT_CONTEXT, self.encoded)


Path = tuple[Granted, ...]


def travelling(path: Path) -> bytes:
    """The bytes of a chain."""
    return encode_map({"grants": [granted.link for granted in path]})


@attrs.frozen(kw_only=True, eq=False)
class Removed:
    """A removal as a fact."""

    issuer: PeerId
    signer: PeerId
    key: PeerId
    number: int
    path: Path
    kept: tuple[bytes, ...]

    @property
    def encoded(self) -> bytes:
        fields: dict[str, Any] = {
            "namespace": "home",
            "root": key_of(ROOT),
            "key": key_of(self.key),
            "number": self.number,
            "issuer": key_of(self.issuer),
        }
        if self.path:
            fields["chain"] = travelling(self.path)
        if self.kept:
            fields["kept"] = list(self.kept)
        return encode_map(fields)

    @property
    def travelling(self) -> bytes:
        signature = HOME.keys.signer(self.signer)(REVOCATION_CONTEXT + self.encoded)
        return encode_map({"revocation": self.encoded, "signature": signature})

    @property
    def digest(self) -> bytes:
        return digest_of(REVOCATION_CONTEXT, self.encoded)


# ---- the model ----


def hangs_together(path: Path) -> bool:
    """Each grant was given by who may give it, and none gives more than its giver has."""
    kinds = "".join(granted.kind[0] for granted in path)
    admins = kinds.count("a")
    if kinds not in {"a" * admins, "a" * admins + "m", "a" * admins + "mp", "a" * admins + "p"}:
        return False
    if kinds[0] == "p" or admins > 3 or len({granted.subject for granted in path}) < len(path):
        return False
    for position, granted in enumerate(path):
        if granted.signer != granted.issuer or granted.namespace != "home":
            return False
        if granted.subject in (ROOT, granted.issuer):
            return False
        if granted.kind != "process" and (granted.kind == "admin") != ("admin" in granted.scopes):
            return False
        if not position:
            if granted.issuer != ROOT or granted.under:
                return False
            continue
        giver = path[position - 1]
        if granted.issuer != giver.subject or granted.under != giver.number or not granted.under:
            return False
        if not granted.scopes <= giver.scopes or granted.ends > giver.ends:
            return False
        own = granted.owner == granted.subject and granted.kind != "process"
        if not own and granted.owner != giver.owner:
            return False
    return True


def may_say(word: Removed) -> bool:
    """The signer is the root, an admin, or a machine that speaks of itself."""
    if word.signer != word.issuer or word.key == ROOT:
        return False
    if word.issuer == ROOT:
        return not word.path
    if word.kept or not word.path or not hangs_together(word.path):
        return False
    last = word.path[-1]
    of_itself = word.issuer == word.key and last.kind == "machine"
    if word.issuer == word.key and word.number != last.number:
        return False
    return last.subject == word.issuer and (last.kind == "admin" or of_itself)


def is_cut(path: Path, statement: bytes | None, words: Iterable[Removed]) -> bool:
    """The root has removed a key on the path, and does not keep what comes after it."""
    for position, granted in enumerate(path):
        found = [word for word in words if word.issuer == ROOT and word.key == granted.subject]
        if not found:
            continue
        newest = max(found, key=lambda word: (word.number, word.digest))
        after = path[position + 1] if position + 1 < len(path) else None
        if after is not None and after.kind == "process":
            said = None
        else:
            said = after.digest if after is not None else statement
        if granted.number <= newest.number and said not in newest.kept:
            return True
    return False


def is_barred(path: Path, words: list[Removed]) -> bool:
    """Somebody has removed the member, who may remove such a one."""
    if is_cut(path, None, words):
        return True
    mine = path[-2:] if path[-1].kind == "process" else path[-1:]
    for word in words:
        for granted in mine:
            if word.issuer == ROOT or word.key != granted.subject:
                continue
            if granted.number > word.number:
                continue
            if word.issuer == word.key:
                return True
            if granted.kind != "admin" and not is_cut(word.path, word.digest, words):
                return True
    return False


def is_member(path: Path, words: list[Removed], now: int) -> bool:
    """The whole of the rules."""
    last = path[-1]
    if not hangs_together(path) or is_barred(path, words) or now > last.ends + 300:
        return False
    return last.kind != "process" or last.ends <= now + DAY + 300


# ---- the lock beside it ----


def _given(giver: Path, subject: PeerId, kind: str, *, number: int = 1) -> Path:
    """A grant as it should be, below *giver*."""
    above = giver[-1] if giver else None
    if kind == "process" and above is not None:
        scopes, ends = above.scopes, min(NOW + DAY, above.ends)
    else:
        scopes = SCOPES[0] if kind == "admin" else SCOPES[1]
        ends = above.ends if above is not None else NOW + 100 * DAY
    granted = Granted(
        issuer=above.subject if above is not None else ROOT,
        signer=above.subject if above is not None else ROOT,
        subject=subject,
        kind=kind,
        scopes=scopes,
        ends=ends,
        number=number,
        under=above.number if above is not None else 0,
        owner=above.owner if above is not None and kind == "process" else subject,
    )
    return (*giver, granted)


class Locks(RuleBasedStateMachine):
    """Never admits what no chain allows, whatever the order of messages; nor refuses a member."""

    @initialize()
    def begin(self) -> None:
        self.granted: list[Granted] = []
        self.paths: list[Path] = []
        self.words: list[Removed] = []
        self.heard: list[list[Removed]] = [[], []]
        self.locks = [HOME.lock(), HOME.lock()]
        # Two admins, and a machine of each: what is worth attacking.
        for admin, machine in (("a1", "m1"), ("a2", "m2")):
            first = _given((), PeerId(admin), "admin")
            self._add(first)
            self._add(_given(first, PeerId(machine), "machine"))

    def _add(self, path: Path) -> None:
        self.granted.append(path[-1])
        # Chains of more than five grants are not even read, which another test tries.
        if len(path) <= 5:
            self.paths.append(path)

    @rule(
        data=st.data(),
        subject=st.sampled_from(KEYS),
        kind=st.sampled_from(["admin", "machine", "process"]),
    )
    def grant(self, data: st.DataObject, subject: PeerId, kind: str) -> None:
        """The root or a peer gives a grant as it should be."""
        giver = data.draw(st.sampled_from([(), *self.paths]))
        self._add(_given(giver, subject, kind, number=data.draw(st.integers(1, 3))))

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def bend(self, data: st.DataObject) -> None:
        """A peer writes itself something better."""
        path = data.draw(st.sampled_from(self.paths))
        changes = st.one_of(
            st.fixed_dictionaries({"signer": st.sampled_from([ROOT, *KEYS])}),
            st.fixed_dictionaries({"issuer": st.sampled_from([ROOT, *KEYS])}),
            st.sampled_from(KEYS).map(lambda key: {"issuer": key, "signer": key}),
            st.fixed_dictionaries({"subject": st.sampled_from([ROOT, *KEYS])}),
            st.fixed_dictionaries({"kind": st.sampled_from(["admin", "machine", "process"])}),
            st.fixed_dictionaries({"scopes": st.sampled_from(SCOPES)}),
            st.fixed_dictionaries({"ends": st.sampled_from([0, NOW - 300, NOW + 200 * DAY])}),
            st.fixed_dictionaries({"number": st.integers(1, 4)}),
            st.fixed_dictionaries({"under": st.integers(0, 3)}),
            st.fixed_dictionaries({"owner": st.sampled_from(KEYS)}),
            st.fixed_dictionaries({"namespace": st.just("work")}),
        )
        self._add((*path[:-1], attrs.evolve(path[-1], **data.draw(changes))))

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def mix(self, data: st.DataObject) -> None:
        """A peer puts its grant behind another chain."""
        path = data.draw(st.sampled_from([(), *self.paths]))
        self._add((*path, data.draw(st.sampled_from(self.granted))))

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """The root or a peer removes a key, whether it may or not."""
        granted = data.draw(st.sampled_from(self.granted))
        key = granted.subject
        number = granted.number + data.draw(st.sampled_from([0, 0, 1]))
        path = data.draw(st.sampled_from([(), (), *self.paths]))
        issuer = path[-1].subject if path else ROOT
        leaves = data.draw(st.booleans())
        if path and leaves:
            key, number = issuer, path[-1].number
        digests = [granted.digest for granted in self.granted]
        digests += [word.digest for word in self.words]
        keeps = not path and bool(digests) and data.draw(st.booleans())
        kept = data.draw(st.sets(st.sampled_from(digests), max_size=6)) if keeps else set()
        signer = issuer if data.draw(st.integers(0, 5)) else data.draw(st.sampled_from(KEYS))
        word = Removed(
            issuer=issuer,
            signer=signer,
            key=key,
            number=number,
            path=path,
            kept=tuple(sorted(kept)),
        )
        self.words.append(word)
        self._hear(0, word)

    def _hear(self, which: int, word: Removed) -> None:
        self.heard[which].append(word)
        self.locks[which].add([word.travelling])

    @rule(which=st.integers(0, 1), by_root=st.booleans(), other=st.booleans())
    def quarrel(self, which: int, by_root: bool, other: bool) -> None:
        """The root removes an admin and keeps nothing, or an admin removes another's machine."""
        admin, machine = self.paths[0], self.paths[1 if other else 3]
        word = Removed(
            issuer=ROOT if by_root else admin[0].subject,
            signer=ROOT if by_root else admin[0].subject,
            key=admin[0].subject if by_root else machine[-1].subject,
            number=1,
            path=() if by_root else admin,
            kept=(),
        )
        self.words.append(word)
        self._hear(which, word)

    @precondition(lambda self: self.words)
    @rule(data=st.data(), which=st.integers(0, 1))
    def tell(self, data: st.DataObject, which: int) -> None:
        """A lock hears of a removal, perhaps once more."""
        word = data.draw(st.sampled_from(self.words))
        self._hear(which, word)

    @precondition(lambda self: self.words)
    @rule(seed=st.integers(0, 1000))
    def meet(self, seed: int) -> None:
        """Two members tell each other all they know, and a third hears it in another order."""
        both = [*self.heard[0], *self.heard[1]]
        for lock, other in (self.locks, self.locks[::-1]):
            lock.add(other.revocations)
        self.heard = [list(both), list(both)]
        Random(seed).shuffle(both)
        third = HOME.lock()
        for word in both:
            third.add([word.travelling])
        for lock in self.locks:
            assert {meaning(word) for word in lock.revocations} == {
                meaning(word) for word in third.revocations
            }
            for path in self.paths[-5:]:
                assert admits(lock, path, NOW) == admits(third, path, NOW)

    @invariant()
    def nobody_whom_the_root_has_removed_comes_back(self) -> None:
        """Whatever is said afterwards, and whatever is shown: not below the number."""
        for lock, heard in zip(self.locks, self.heard, strict=True):
            for word in heard:
                if not may_say(word) or word.issuer != ROOT:
                    continue
                for path in self.paths[-12:]:
                    mine = path[-2:] if path[-1].kind == "process" else path[-1:]
                    if any(one.subject == word.key and one.number <= word.number for one in mine):
                        assert not admits(lock, path, NOW)

    @invariant()
    def the_lock_says_what_the_model_says(self) -> None:
        """Today, and in a hundred days, when most has ended."""
        for lock, heard in zip(self.locks, self.heard, strict=True):
            words = [word for word in heard if may_say(word)]
            for path in (*self.paths[:4], *self.paths[4:][-8:]):
                for now in (NOW, NOW + 100 * DAY + 301):
                    expected = is_member(path, words, now)
                    assert admits(lock, path, now) == expected, (path, words)


def meaning(data: bytes) -> tuple[object, ...]:
    """A removal; a machine's words on one of its grants all mean the same."""
    said = read_revocation(data).revocation
    return (said.key, said.number) if said.issuer == said.key else (data,)


def admits(lock: Any, path: Path, now: int) -> bool:
    """Whether the last of a path is let in, when it shows the path."""
    return isinstance(lock.judge(path[-1].subject, travelling(path), now), Member)


TestLocks = Locks.TestCase
TestLocks.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
