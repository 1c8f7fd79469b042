"""What is remembered of the members of a namespace, for people: nothing here lets one in."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import attrs

from ..access import decode_chain, is_name, key_of
from ..capability import PeerId
from ..exceptions import ConfigurationError, LocalProtocolError, RemoteProtocolError
from ..wire import MAX_ADDRESSES, clean_name
from ._folder import Folder

FILE = "members.json"

# Of one namespace; the ones that were heard of last stay. A record has some 1,000 bytes.
MAX_MEMBERS = 2048

# What a grant may hold.
MAX_SCOPES = 16
MAX_SCOPE_CHARACTERS = 32

# How often it is looked whether the file has changed, in seconds.
LOOK_SECONDS = 1.0

MAX_NAME_CHARACTERS = 64
"""Of a machine: as much as a line of a table has room for."""


@attrs.frozen(kw_only=True)
class MemberRecord:
    """A machine that is, or was, a member."""

    machine: PeerId
    """The key of the machine, to which its grant was given."""

    name: str = ""
    """What it is called in the namespace; empty if nobody has said."""

    called: str = ""
    """What people call it on this machine instead; empty for its name. No other machine is told."""

    owner: PeerId | None = None
    """Whose machine it is: a machine key; see DESIGN.md, *Access*."""

    scopes: frozenset[str] = frozenset()
    """What its grant allows."""

    ends: int = 0
    """End of its grant, in seconds of UTC since 1970; 0 if that is not known."""

    number: int = 0
    """Number of its grant."""

    seen: int = 0
    """When this machine last heard of it, by its own clock, in seconds since 1970; 0 for never."""

    addresses: tuple[str, ...] = ()
    """Where it said to be when it was last heard of, as multiaddresses."""

    chain: bytes = b""
    """What it has shown, encoded, without a process; empty if this machine has not seen it."""

    @property
    def shown(self) -> str:
        """What people call it here."""
        return self.called or self.name

    def merged(self, other: MemberRecord) -> MemberRecord:
        """The record with what *other*, of the same machine, knows better."""
        newer = other if (other.number, other.ends) >= (self.number, self.ends) else self
        return MemberRecord(
            machine=self.machine,
            name=own_name(newer.chain or self.chain or other.chain, other.name, self.name),
            called=other.called or self.called,
            owner=newer.owner or self.owner,
            scopes=newer.scopes or self.scopes,
            ends=newer.ends,
            number=newer.number,
            seen=other.seen or self.seen,
            addresses=other.addresses or self.addresses,
            chain=newer.chain or self.chain or other.chain,
        )

    def encode(self) -> str:
        """One line of JSON."""
        fields = attrs.asdict(self) | {
            "scopes": sorted(self.scopes),
            "chain": base64.b64encode(self.chain).decode(),
        }
        known = {name: value for name, value in fields.items() if value}
        # As it is: a name of 64 characters must not become one of 768.
        return json.dumps(known, ensure_ascii=False)

    @classmethod
    def decode(cls, text: str) -> MemberRecord:
        """The record in *text*, of which what a stranger to this version wrote is left out.

        Raises:
          ValueError: if it is none.

        """
        found = json.loads(text)
        if not isinstance(found, dict) or not isinstance(found.get("machine"), str):
            raise ValueError("no record of a member")
        return cls(
            machine=_key(found["machine"]),
            name=named(_text(found.get("name"))),
            called=named(_text(found.get("called"))),
            owner=_key(_text(found.get("owner"))) if found.get("owner") else None,
            scopes=frozenset(_scopes(found.get("scopes"))),
            ends=_number(found.get("ends")),
            number=_number(found.get("number")),
            seen=_number(found.get("seen")),
            addresses=_addresses(found.get("addresses")),
            chain=base64.b64decode(_text(found.get("chain"))),
        )


def own_name(chain: bytes, *names: str) -> str:
    """The first of *names* that is what the grant at the end of *chain* was given for.

    Without a chain, or in a grant without a name, any is taken, as nobody can tell.
    """
    try:
        hidden = decode_chain(chain)[-1].grant.name if chain else b""
    except RemoteProtocolError:
        hidden = b""
    return next((name for name in names if name and (not hidden or is_name(name, hidden))), "")


def named(name: str) -> str:
    """*name* as it is kept and shown: one line, of a bounded length."""
    return (clean_name(name) or "")[:MAX_NAME_CHARACTERS].strip()


class MemberNames:
    """What this machine calls the others, as the file has it; other processes write it, too."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._stamp: object = None
        self._looked_at = -math.inf
        self._names: dict[PeerId, str] = {}

    def of(self, machine: PeerId) -> str:
        """What a machine is called; empty if that is not known."""
        # Also called in threads, which know no other clock.
        now = time.monotonic()
        if now >= self._looked_at + LOOK_SECONDS:
            self._looked_at, stamp = now, self._folder.stamp(FILE)
            if stamp != self._stamp:
                self._stamp = stamp
                # What was read before still holds where the file cannot be read.
                with suppress(ConfigurationError):
                    records = read_members(self._folder).values()
                    self._names = {each.machine: each.shown for each in records}
        return self._names.get(machine, "")


def read_members(folder: Folder) -> dict[PeerId, MemberRecord]:
    """The members that are kept in *folder*, by machine; a line that is damaged is left out."""
    found = {}
    for line in (folder.read(FILE) or b"").decode(errors="replace").split("\n"):
        try:
            record = MemberRecord.decode(line)
        except (ValueError, RecursionError):
            continue
        found[record.machine] = record
    return found


def add_members(folder: Folder, records: Iterable[MemberRecord]) -> None:
    """Keep *records* with what other processes of this machine have written meanwhile.

    Raises:
      ConfigurationError: if the file cannot be written.

    """
    news = {record.machine: record for record in records}
    if not news:
        return
    with folder.locked():
        before = read_members(folder)
        changed = {
            machine: before[machine].merged(record) if machine in before else record
            for machine, record in news.items()
        }
        if any(before.get(machine) != record for machine, record in changed.items()):
            # The order of the file, and no clock, says who was heard of last: they are at the end.
            rest = {each: record for each, record in before.items() if each not in changed}
            _write(folder, rest | changed)


def call_member(folder: Folder, machine: PeerId, called: str) -> None:
    """Call a machine *called* on this machine; by its own name if that is empty."""
    with folder.locked():
        members = read_members(folder)
        before = members.get(machine, MemberRecord(machine=machine))
        _write(folder, members | {machine: attrs.evolve(before, called=called)})


def forget_members(folder: Folder, machines: Iterable[PeerId]) -> None:
    """Remove *machines* from what is kept."""
    with folder.locked():
        before = read_members(folder)
        after = {machine: before[machine] for machine in before.keys() - set(machines)}
        if after != before:
            _write(folder, after)


def _write(folder: Folder, members: Mapping[PeerId, MemberRecord]) -> None:
    lines = [record.encode() for record in list(members.values())[-MAX_MEMBERS:]]
    folder.write(FILE, "".join(f"{line}\n" for line in lines).encode(errors="replace"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _key(text: str) -> PeerId:
    """The id of a key that *text* is; raises `ValueError`."""
    try:
        key_of(PeerId(text))
    except LocalProtocolError as error:
        raise ValueError(str(error)) from None
    return PeerId(text)


def _scopes(value: Any) -> tuple[str, ...]:
    found = map(_text, value[:MAX_SCOPES]) if isinstance(value, list) else ()
    return tuple(each for each in found if len(each) <= MAX_SCOPE_CHARACTERS and each.isprintable())


def _addresses(value: Any) -> tuple[str, ...]:
    found = map(_text, value[:MAX_ADDRESSES]) if isinstance(value, list) else ()
    return tuple(each for each in found if each.isprintable())


def _number(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 53 else 0
