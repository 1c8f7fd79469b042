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

from ..access import key_of
from ..capability import PeerId
from ..exceptions import ConfigurationError, LocalProtocolError
from ..wire import clean_name
from ._folder import Folder

FILE = "members.json"

# Of one namespace; the ones that were seen last stay. A record has some 600 bytes.
MAX_MEMBERS = 1024

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
    """What people call it; empty if nobody has said."""

    owner: PeerId | None = None
    """Whose machine it is: a machine key; see DESIGN.md, *Access*."""

    scopes: frozenset[str] = frozenset()
    """What its grant allows."""

    ends: int = 0
    """End of its grant, in seconds of UTC since 1970; 0 if that is not known."""

    number: int = 0
    """Number of its grant."""

    seen: int = 0
    """When it was last heard of, in seconds of UTC since 1970."""

    chain: bytes = b""
    """What it has shown, encoded, without a process; empty if this machine has not seen it."""

    def merged(self, other: MemberRecord) -> MemberRecord:
        """The record with what *other*, of the same machine, knows better."""
        newer = other if (other.number, other.ends) >= (self.number, self.ends) else self
        return MemberRecord(
            machine=self.machine,
            name=other.name or self.name,
            owner=newer.owner or self.owner,
            scopes=newer.scopes or self.scopes,
            ends=newer.ends,
            number=newer.number,
            seen=max(self.seen, other.seen),
            chain=newer.chain or self.chain or other.chain,
        )

    def encode(self) -> str:
        """One line of JSON."""
        fields = attrs.asdict(self) | {
            "scopes": sorted(self.scopes),
            "chain": base64.b64encode(self.chain).decode(),
        }
        return json.dumps({name: value for name, value in fields.items() if value})

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
            owner=_key(_text(found.get("owner"))) if found.get("owner") else None,
            scopes=frozenset(_scopes(found.get("scopes"))),
            ends=_number(found.get("ends")),
            number=_number(found.get("number")),
            seen=_number(found.get("seen")),
            chain=base64.b64decode(_text(found.get("chain"))),
        )


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
                    self._names = {record.machine: record.name for record in records}
        return self._names.get(machine, "")


def read_members(folder: Folder) -> dict[PeerId, MemberRecord]:
    """The members that are kept in *folder*, by machine; a line that is damaged is left out."""
    found = {}
    for line in (folder.read(FILE) or b"").decode(errors="replace").splitlines():
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
        after = before | {
            machine: before[machine].merged(record) if machine in before else record
            for machine, record in news.items()
        }
        if after != before:
            _write(folder, after)


def rename_member(folder: Folder, machine: PeerId, name: str) -> None:
    """Call a machine *name*, on this machine."""
    add_members(folder, [MemberRecord(machine=machine, name=named(name))])


def forget_members(folder: Folder, machines: Iterable[PeerId]) -> None:
    """Remove *machines* from what is kept."""
    with folder.locked():
        before = read_members(folder)
        after = {machine: before[machine] for machine in before.keys() - set(machines)}
        if after != before:
            _write(folder, after)


def _write(folder: Folder, members: Mapping[PeerId, MemberRecord]) -> None:
    newest = sorted(members.values(), key=lambda record: (-record.seen, record.machine))
    lines = [record.encode() for record in newest[:MAX_MEMBERS]]
    folder.write(FILE, "".join(f"{line}\n" for line in lines).encode())


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


def _number(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 53 else 0
