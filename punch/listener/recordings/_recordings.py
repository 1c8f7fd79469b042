"""Sees to it that an answer is made exactly once, however often its dialer asks for it.

A dialer whose connection broke sends the same request again, with the same id. It must get the
answer that is being made, from its beginning, or the one that was just finished; not a second
one. So an answer is made in a task of its own into a `Recording`, from which its dialer reads.

* A request is known by its dialer's identity and its id: not by the session, which may be new,
  nor by the lane, which a dialer may choose anew.
* The same id with another body is a `RequestConflict`. To continue an answer that other peers
  began is another piece of work each time, though its id is the same.
* Only a success is kept. A dialer that asks again after an error wants another try.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection

import attrs

from ...capability import PeerId
from ...exceptions import RequestConflict
from ...wire import CommandRequest, Completion, size_of
from ..members import Asker
from ._recording import Key, Recording, key_of

# A finished answer is kept so long: more than the 60 s that clients such as OpenAI's wait before
# they ask again, and more than a dialer needs to find its way back.
KEPT_SECONDS = 120.0

# As many answers as `MAX_REQUESTS` of one session; 1,024 of a usual length take 2 MB. All dialers
# share them: where there are too many, the oldest of the dialer that holds the most is dropped.
KEPT_ANSWERS = 1024

# Text of all that are kept, for the unusual ones. Embeddings count with eight bytes a number.
KEPT_BYTES = 32 << 20

LOGPROB_BYTES = 128

# A short question is kept with its answer, in some 4 KB: its fingerprint takes more time than all
# else that is done here, and is hardly ever asked for. Of a longer one the fingerprint is kept.
SHORT_BYTES = 1024
SHORT_MESSAGES = 8


@attrs.frozen(kw_only=True)
class RecordingStatistics:
    """Counts of a store at one instant."""

    running: int
    """Answers being made."""

    kept: int
    """Finished answers."""

    kept_bytes: int
    """Bytes of these."""


@attrs.define
class _Holding:
    """The sums of the answers kept for one dialer."""

    answers: int = 0
    size: int = 0
    """Bytes."""


class Recordings:
    """The answers of one executor: those being made, and the successes of the last minutes."""

    def __init__(self) -> None:
        self._running: dict[Key, Recording] = {}
        self._kept: OrderedDict[Key, tuple[float, int, Recording]] = OrderedDict()
        self._kept_bytes = 0
        self._expires_at = -math.inf
        self._holdings: dict[PeerId, _Holding] = {}

    def statistics(self) -> RecordingStatistics:
        """Counts of answers under way and kept."""
        return RecordingStatistics(
            running=len(self._running), kept=len(self._kept), kept_bytes=self._kept_bytes
        )

    def find(self, dialer: PeerId, request: CommandRequest, *, now: float) -> Recording | None:
        """The recording of this very request, if there is one.

        Raises:
          RequestConflict: if the dialer has used the id for another request.

        """
        self._expire(now)
        key = key_of(dialer, request)
        found = self._running.get(key)
        if found is not None and not found.is_alive:
            found = None
        if found is None and key in self._kept:
            found = self._kept[key][2]
        if found is not None and _fingerprint(found.asked) != request.fingerprint:
            raise RequestConflict(
                f"request_id {request.request_id!r} was used for another request; "
                "give each request its own"
            )
        return found

    def open(
        self,
        dialer: PeerId,
        request: CommandRequest,
        asker: Asker | None = None,
        *,
        deadline: float = math.inf,
    ) -> Recording:
        """A recording of a request that is not known, for a reader; see `Recording`."""
        recording = Recording(dialer, request, asker, deadline=deadline)
        self._running[recording.key] = recording
        return recording

    def finish(self, recording: Recording, *, now: float) -> None:
        """Keep *recording*, which has ended, if it is a success."""
        if self._running.get(recording.key) is recording:
            del self._running[recording.key]
            response = recording.response
            if response is not None and response.status == "success":
                self._keep(recording, response.result or Completion(), now)

    def forget(self, dialers: Collection[PeerId]) -> None:
        """Drop the answers of *dialers*, who are members no longer, and end those under way."""
        for key in [key for key in self._kept if key[0] in dialers]:
            self._forget(key)
        for key, recording in self._running.items():
            if key[0] in dialers:
                recording.scope.cancel()

    def _keep(self, recording: Recording, completion: Completion, now: float) -> None:
        if isinstance(recording.asked, CommandRequest) and not _is_short(recording.asked):
            recording.asked = recording.asked.fingerprint
        size = _kept_size(completion)
        self._forget(recording.key)
        self._kept[recording.key] = (now + KEPT_SECONDS, size, recording)
        self._kept_bytes += size
        holding = self._holdings.get(recording.key[0])
        if holding is None:
            holding = self._holdings[recording.key[0]] = _Holding()
        holding.answers += 1
        holding.size += size
        self._expire(now)
        while len(self._kept) > KEPT_ANSWERS:
            self._forget_of(max(self._holdings, key=lambda dialer: self._holdings[dialer].answers))
        while self._kept_bytes > KEPT_BYTES:
            self._forget_of(max(self._holdings, key=lambda dialer: self._holdings[dialer].size))

    def _forget_of(self, dialer: PeerId) -> None:
        """Drop the oldest answer of *dialer*."""
        for key in self._kept:
            if key[0] == dialer:
                self._forget(key)
                return

    def _expire(self, now: float) -> None:
        if now < self._expires_at:
            return
        # The oldest come first, since all are kept for the same time.
        while self._kept:
            key, (until, _, _) = next(iter(self._kept.items()))
            if until > now:
                # Until then there is nothing to look for, even if that one is forgotten sooner.
                self._expires_at = until
                return
            self._forget(key)
        # What comes is kept for that long at least.
        self._expires_at = now + KEPT_SECONDS

    def _forget(self, key: Key) -> None:
        if key in self._kept:
            _, size, _ = self._kept.pop(key)
            self._kept_bytes -= size
            holding = self._holdings[key[0]]
            holding.answers -= 1
            holding.size -= size
            if not holding.answers:
                del self._holdings[key[0]]


def _kept_size(completion: Completion) -> int:
    """Bytes that *completion* takes, but for what holds it."""
    size = size_of(completion.text)
    if completion.embeddings:
        size += sum(8 * len(vector) for vector in completion.embeddings)
    if completion.tool_calls:
        size += sum(len(call.name) + len(call.arguments) for call in completion.tool_calls)
    if completion.logprobs:
        # A float and a short text in Python, with what holds them.
        size += sum(LOGPROB_BYTES * (1 + len(one.top)) for one in completion.logprobs)
    return size


def _is_short(request: CommandRequest) -> bool:
    """Whether *request* takes little memory: short texts, and no tools, pictures or schema."""
    is_short = request.size <= SHORT_BYTES and len(request.messages) <= SHORT_MESSAGES
    return is_short and not request.needs


def _fingerprint(asked: CommandRequest | bytes) -> bytes:
    return asked.fingerprint if isinstance(asked, CommandRequest) else asked
