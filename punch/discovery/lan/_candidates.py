"""Keeps what was found on a LAN, and decides when which of it is asked who it is. No I/O, no clock.

A candidate is a peer that a record with a fitting tag names. It is nothing more until it has
proved who it is and has shown its registration. Whoever knows the name of an open namespace can
make any number of records, so there is a place for a bounded number, a peer that was met keeps its
place, and one that does not answer is asked at doubling intervals.

In a closed namespace a few candidates are enough: they are meeting points, and tell who else is
there. Whom nobody else tells of is asked all the same, a moment later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import attrs

from ...capability import PeerId
from ...network import Address
from ._records import MAX_ADDRESSES, LanRecord

# More than any LAN has machines with models on it.
MAX_CANDIDATES = 512

# A listener that restarts has another record. One that answers nothing is asked again after these.
MIN_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0

# How long others have to tell of a candidate before it is asked itself, in seconds: a newcomer is
# registered where members meet within two or three.
TELLING_SECONDS = 5.0

# Records that are looked at, at once and a second, of whomever: a LAN of a thousand punch peers
# repeats each of its records once an hour.
RECORD_BURST, RECORD_RATE = 512.0, 64.0


@attrs.define(eq=False)
class Candidate:
    """A peer that records name."""

    peer_id: PeerId
    """Who should be there."""

    records: dict[tuple[str, str], LanRecord] = attrs.field(factory=dict)
    """Its records, by interface and instance; never empty."""

    is_followed: bool = False
    """True while we dial it, or have a stream to it."""

    was_met: bool = False
    """True once it has shown its registration."""

    tries: int = 0
    """How often it was asked in vain since."""

    due: float = 0.0
    """When it may be asked."""

    heard_at: float = 0.0
    """When it was first heard of as it is now."""

    is_on_link_alone: bool = False
    """True if all its addresses are of a link of ours: nobody elsewhere can tell where it is."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it may be, the newest records first; link-local addresses after all others."""
        found = (place for record in reversed(self.records.values()) for place in record.addresses)
        ordered = sorted(dict.fromkeys(found), key=Address.is_link_local)
        return tuple(ordered)[:MAX_ADDRESSES]

    @property
    def on_link(self) -> tuple[str, ...]:
        """Those of its addresses that are of a link of ours alone."""
        return tuple(str(each) for each in self.addresses if each.is_link_local())


class Candidates:
    """The candidates of one namespace. *now* is in seconds."""

    def __init__(self) -> None:
        self._by_peer: dict[PeerId, Candidate] = {}
        self._by_record: dict[tuple[str, str], PeerId] = {}
        self._budget = RECORD_BURST
        self._refilled_at = 0.0

    def __len__(self) -> int:
        return len(self._by_peer)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._by_peer.values())

    def has_time_for_a_record(self, now: float) -> bool:
        """True if another record may be looked at now; each counts, whoever sent it."""
        passed = max(0.0, now - self._refilled_at)
        self._refilled_at = now
        self._budget = min(RECORD_BURST, self._budget + passed * RECORD_RATE)
        if self._budget < 1.0:
            return False
        self._budget -= 1.0
        return True

    def hear(self, record: LanRecord, *, now: float) -> Candidate | None:
        """Note a record whose tag fits; `None` if there is no place for it."""
        name = record.interface, record.instance
        if self._by_record.get(name, record.peer_id) != record.peer_id:
            self.unhear(*name)
        candidate = self._by_peer.get(record.peer_id)
        if candidate is None:
            if len(self._by_peer) >= MAX_CANDIDATES and not self._make_room():
                return None
            candidate = Candidate(record.peer_id, due=now, heard_at=now)
            self._by_peer[record.peer_id] = candidate
        is_news = candidate.records.get(name) != record
        candidate.records.pop(name, None)  # So that the newest is the last.
        candidate.records[name] = record
        self._by_record[name] = record.peer_id
        while len(candidate.records) > MAX_ADDRESSES:
            self._by_record.pop(next(iter(candidate.records)))
            candidate.records.pop(next(iter(candidate.records)))
        if is_news:
            candidate.is_on_link_alone = len(candidate.on_link) == len(candidate.addresses)
        if is_news and candidate.was_met:
            # A peer that we know was somewhere else, or has started anew.
            candidate.tries, candidate.due, candidate.heard_at = 0, now, now
        return candidate

    def unhear(self, interface: str, instance: str) -> None:
        """Note that a record was taken back; who has none left and is not followed is forgotten."""
        peer_id = self._by_record.pop((interface, instance), None)
        candidate = None if peer_id is None else self._by_peer[peer_id]
        if candidate is not None:
            candidate.records.pop((interface, instance), None)
            self._forget(candidate)

    def _make_room(self) -> bool:
        """Give up the place of the oldest that was never met; False if there is none."""
        for candidate in self._by_peer.values():
            if not candidate.was_met and not candidate.is_followed:
                for name in list(candidate.records):
                    self.unhear(*name)
                return True
        return False

    def _forget(self, candidate: Candidate) -> None:
        if not candidate.records and not candidate.is_followed:
            self._by_peer.pop(candidate.peer_id, None)

    def wanted(
        self,
        few: int,
        *,
        order: Callable[[Iterable[PeerId]], Collection[PeerId]],
        besides: Collection[PeerId],
        now: float,
    ) -> set[PeerId]:
        """Those of a closed namespace that are to be followed.

        Args:
          few: How many are enough, as long as they are there.
          order: Puts all candidates in the order in which every member chooses its few.
          besides: The members that others tell of.
          now: The time.

        """
        there = (each.peer_id for each in self._by_peer.values() if not each.tries)
        return set(tuple(order(there))[:few]) | {
            each.peer_id
            for each in self._by_peer.values()
            if each.is_on_link_alone
            or (each.peer_id not in besides and now >= each.heard_at + TELLING_SECONDS)
        }

    def spare(
        self, wanted: Collection[PeerId], besides: Mapping[PeerId, bool]
    ) -> Iterator[Candidate]:
        """Those that are followed and need not be.

        Args:
          wanted: Those that are to be followed.
          besides: The members that others tell of, and whether they have it from the member itself:
            what two members know from each other alone is lost when both let go.

        """
        for each in self._by_peer.values():
            if each.is_followed and each.peer_id not in wanted and besides.get(each.peer_id):
                yield each

    def next_due(
        self, now: float, wanted: Collection[PeerId] | None = None
    ) -> Candidate | float | None:
        """Whom to ask now, those that were met first; else when somebody will be due, if ever.

        Args:
          now: The time.
          wanted: Who is to be asked at all; by default everybody.

        """
        waiting = [
            each
            for each in self._by_peer.values()
            if not each.is_followed and (wanted is None or each.peer_id in wanted)
        ]
        ready = [each for each in waiting if each.due <= now]
        if ready:
            return min(ready, key=lambda each: (not each.was_met, each.tries, each.due))
        return min((each.due for each in waiting), default=None)

    def began(self, candidate: Candidate) -> None:
        """Note that *candidate* is dialled."""
        candidate.is_followed = True

    def met(self, candidate: Candidate) -> None:
        """Note that *candidate* has shown its registration."""
        candidate.was_met, candidate.tries = True, 0

    def let_go(self, candidate: Candidate) -> None:
        """Note that *candidate*, which answers, is followed no more."""
        candidate.is_followed, candidate.tries = False, 0
        self._forget(candidate)

    def ended(self, candidate: Candidate, *, now: float) -> None:
        """Note that *candidate* does not answer, or that its stream has ended."""
        candidate.is_followed = False
        candidate.due = now + min(MIN_RETRY_SECONDS * 2**candidate.tries, MAX_RETRY_SECONDS)
        candidate.tries = min(candidate.tries + 1, 16)
        self._forget(candidate)
