"""Decides which slot of a server gets which prompt, so that conversations keep their caches.

A llama.cpp server keeps, for each of its slots, the keys and values of the last prompt and
answer; of the next prompt it computes only what is new. So a conversation must come back to the
slot that it had.

* A free slot that holds the beginning of the prompt gets it: the one with the longest.
* But not if more than half of what it holds would be lost: a short common beginning, such as a
  system prompt, does not cost another conversation its cache.
* Otherwise the free slot that was used the longest ago.

What a slot holds is remembered as keyed hashes of blocks; no text is kept. No I/O: what the
server really holds is its own affair, and a wrong guess costs time and nothing else.
"""

from __future__ import annotations

import hashlib

import attrs

from ...wire import CommandRequest

# Characters: some 8 tokens of English, fine enough to tell short conversations apart.
BLOCK_CHARACTERS = 32

# Blocks of one prompt that are remembered: 256 Ki characters, 64 KB of hashes.
MAX_BLOCKS = 8192


def conversation(request: CommandRequest) -> str:
    """The text of *request* in the order in which the model reads it."""
    # Templates write the tools before the conversation.
    turns = ["\x1f".join(tool.texts) + "\x1e" for tool in request.tools]
    turns += ["\x1f".join((message.role, *message.texts)) + "\x1e" for message in request.messages]
    if request.command == "chat":
        turns.append("assistant\x1f")
    return "".join([*turns, request.prompt or "", request.continuation or ""])


@attrs.define
class _Slot:
    blocks: tuple[bytes, ...] = ()
    used: int = 0
    busy: bool = False


class Pins:
    """Chooses a slot for each prompt.

    Args:
      slots: How many there are.
      key: Key of the hashes, which therefore mean nothing outside this process.

    """

    def __init__(self, slots: int, *, key: bytes) -> None:
        self._slots = [_Slot() for _ in range(slots)]
        self._key = key
        self._uses = 0

    def acquire(self, text: str) -> int | None:
        """The number of a slot for the prompt *text*, from 0; `None` if all are busy.

        No other prompt gets that slot before `release`.
        """
        blocks = self._blocks(text)
        free = [number for number, slot in enumerate(self._slots) if not slot.busy]
        if not free:
            return None

        def worth(number: int) -> tuple[int, int]:
            slot = self._slots[number]
            common = _common(blocks, slot.blocks)
            # The same prompt again, or most of what is there.
            keeps = common == len(blocks) or 2 * common >= len(slot.blocks)
            return (common if keeps else 0), -slot.used

        number = max(free, key=worth)
        self._slots[number].busy = True
        return number

    def release(self, number: int, text: str) -> None:
        """Make slot *number* free again; it holds *text*, the prompt and what was answered."""
        self._uses += 1
        self._slots[number] = _Slot(blocks=self._blocks(text), used=self._uses)

    def clear(self) -> None:
        """Forget what the slots hold: the server has lost its caches."""
        for slot in self._slots:
            slot.blocks = ()

    def _blocks(self, text: str) -> tuple[bytes, ...]:
        """A hash for each whole block of *text*, over that block and all before it.

        So two texts with an equal hash have everything in common up to there.
        """
        found = []
        before = b""
        whole = min(len(text) // BLOCK_CHARACTERS, MAX_BLOCKS)
        for start in range(0, whole * BLOCK_CHARACTERS, BLOCK_CHARACTERS):
            block = text[start : start + BLOCK_CHARACTERS].encode("utf-8", "surrogatepass")
            before = hashlib.blake2b(before + block, digest_size=8, key=self._key).digest()
            found.append(before)
        return tuple(found)


def _common(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> int:
    count = 0
    for mine, its in zip(one, other, strict=False):
        if mine != its:
            break
        count += 1
    return count
