"""The responses that can be referred to later: what was asked and answered, by key and by id.

Kept in memory alone, for as long as they are used now and then, and within bounds: of all that is
kept, what was used longest ago goes first, and of several keys that of the one with the most. Time
is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import attrs

from ...wire import ChatMessage

DEFAULT_STORED_SECONDS = 3600.0
"""For which a response can be referred to, from when it was last: a conversation with pauses."""

MAX_STORED_RESPONSES = 4096
"""Responses of all keys together."""

MAX_STORED_BYTES = 64 << 20
"""About so many bytes of them: a quarter of what the bodies of requests under way may have."""

# What a message or an entry takes besides its text, about.
_OVERHEAD_BYTES = 512


@attrs.define(kw_only=True)
class _Stored:
    """One response."""

    asked: tuple[ChatMessage, ...]
    """What was new in its input."""

    answered: Mapping[str, ChatMessage]
    """The items of its output, by id."""

    before: str | None
    """The response that it followed."""

    size: int
    """Bytes that it takes, about."""

    used_at: float
    """When it was made or last referred to, in seconds."""


@attrs.define
class _OfKey:
    """The responses of one key, the one that was used last at the end."""

    responses: OrderedDict[str, _Stored] = attrs.field(factory=OrderedDict)
    items: dict[str, str] = attrs.field(factory=dict)
    """Of which response an item is, by its id."""
    size: int = 0

    def drop(self, response_id: str) -> None:
        """Forget a response, if it is there."""
        stored = self.responses.pop(response_id, None)
        if stored is not None:
            self.size -= stored.size
            for item_id in stored.answered:
                self.items.pop(item_id, None)

    def drop_oldest(self) -> None:
        """Forget the response that was used longest ago."""
        self.drop(next(iter(self.responses)))


class ResponseStore:
    """Keeps responses for those who refer to them.

    Args:
      seconds: For which a response is kept after it was last used; 0 for none at all.
      most: Responses that are kept, of all keys together.
      most_bytes: About how many bytes they may take.

    """

    def __init__(
        self,
        *,
        seconds: float = DEFAULT_STORED_SECONDS,
        most: int = MAX_STORED_RESPONSES,
        most_bytes: int = MAX_STORED_BYTES,
    ) -> None:
        self.seconds = seconds
        self._most = most
        self._most_bytes = most_bytes
        self._keys: dict[str | None, _OfKey] = {}

    def keep(
        self,
        key: str | None,
        response_id: str,
        *,
        asked: Sequence[ChatMessage],
        answered: Mapping[str, ChatMessage],
        before: str | None,
        now: float,
    ) -> None:
        """Keep a response.

        Args:
          key: Who may refer to it.
          response_id: Its id.
          asked: What was new in its input.
          answered: The items of its output, by id.
          before: The id of the response that it followed.
          now: In seconds.

        """
        if self.seconds <= 0:
            return
        self._expire(now)
        size = _OVERHEAD_BYTES + sum(map(_size, (*asked, *answered.values())))
        own = self._keys.setdefault(key, _OfKey())
        own.drop(response_id)
        own.responses[response_id] = _Stored(
            asked=tuple(asked), answered=dict(answered), before=before, size=size, used_at=now
        )
        own.items.update(dict.fromkeys(answered, response_id))
        own.size += size
        self._shrink()

    def conversation(self, key: str | None, response_id: str, now: float) -> list[ChatMessage]:
        """All that was said up to the end of a response; raises `KeyError` if not all is there."""
        self._expire(now)
        own = self._keys.get(key, _OfKey())
        found: list[_Stored] = []
        seen: set[str] = set()
        wanted: str | None = response_id
        while wanted is not None:
            # Ids that callers choose may lead in a circle.
            if wanted in seen:
                raise KeyError(wanted)
            seen.add(wanted)
            found.append(self._used(own, wanted, now))
            wanted = found[-1].before
        return [
            message
            for stored in reversed(found)
            for message in (*stored.asked, *stored.answered.values())
        ]

    def item(self, key: str | None, item_id: str, now: float) -> ChatMessage:
        """What an item of an output said; raises `KeyError` if it is not there."""
        self._expire(now)
        own = self._keys.get(key, _OfKey())
        return self._used(own, own.items[item_id], now).answered[item_id]

    @property
    def size(self) -> int:
        """Bytes that all of it takes, about."""
        return sum(own.size for own in self._keys.values())

    def __len__(self) -> int:
        return sum(len(own.responses) for own in self._keys.values())

    def _used(self, own: _OfKey, response_id: str, now: float) -> _Stored:
        stored = own.responses[response_id]
        stored.used_at = now
        own.responses.move_to_end(response_id)
        return stored

    def _expire(self, now: float) -> None:
        for key, own in list(self._keys.items()):
            while own.responses:
                oldest = next(iter(own.responses.values()))
                if oldest.used_at + self.seconds > now:
                    break
                own.drop_oldest()
            if not own.responses:
                del self._keys[key]

    def _shrink(self) -> None:
        while len(self) > self._most or self.size > self._most_bytes:
            largest = max(self._keys.values(), key=lambda own: (own.size, len(own.responses)))
            largest.drop_oldest()


def _size(message: ChatMessage) -> int:
    """The bytes of a message, and rather more than too few."""
    texts = [message.content, message.reasoning or ""]
    texts += [text for call in message.tool_calls for text in (call.name, call.arguments)]
    texts += [part.text or "" for part in message.parts]
    size = _OVERHEAD_BYTES + sum(len(part.data or b"") for part in message.parts)
    # As Python holds them: by the widest character of each.
    return size + sum(len(text) * (1 if text.isascii() else 4) for text in texts)
