r"""Finds the answer in what llama.cpp's command line programs print around it. No I/O.

This is the one place where the words of these programs are parsed.

``llama-completion`` and the ``llama-cli`` of builds before December 2025 print the answer
and then an ending:

    ANSWER [end of text]\n\n\n      the model ended it
    ANSWER\n\n                       max_tokens or the context ended it

Later builds of ``llama-cli`` print a banner, the prompt, and an ending that does not say why:

    BANNER\n> PROMPT\nANSWER\n\n\nExiting...\n
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from ...wire import Timings, Usage
from .._stop import partial_suffix

_ENDED = b" [end of text]\n\n\n"
_FULL = b"\n\n"
_EXITING = b"\n\n\nExiting...\n"
_THINKING = b"\n[Start thinking]\n\n"
_THOUGHT = b"[End thinking]\n\n"

# From `cli-ui.h` of llama.cpp: a longer prompt is shown cut, with these words.
_ECHOED_BYTES = 500
_CUT = b" ... (truncated)"

_PROMPT_TIME = re.compile(r"prompt eval time =\s*([\d.]+) ms /\s*(\d+) tokens")
_ANSWER_TIME = re.compile(r"(?<!prompt )eval time =\s*([\d.]+) ms /\s*(\d+) (runs|tokens)")

_TOO_LONG = (
    re.compile(r"prompt is too long \((\d+) tokens, max (\d+)\)"),
    re.compile(r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)"),
)


class Output(Protocol):
    """Takes the answer out of what a program prints."""

    def feed(self, data: bytes | bytearray) -> bytes:
        """The part of the answer that is certain by now."""
        ...

    def finish(self) -> tuple[bytes, str | None]:
        """The rest of the answer, and why it ended: ``stop``, ``length`` or unknown."""
        ...


class PlainOutput:
    """The output of ``llama-completion``: the answer and an ending, an `Output`."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes | bytearray) -> bytes:
        """The part of the answer that is certain: what cannot be the ending."""
        whole = self._held + data
        held = _possible_ending(whole, _ENDED, _FULL)
        self._held = whole[len(whole) - held :]
        return whole[: len(whole) - held]

    def finish(self) -> tuple[bytes, str | None]:
        """The rest of the answer without the ending, which says why it ended."""
        rest, self._held = self._held, b""
        if rest.endswith(_ENDED):
            return rest.removesuffix(_ENDED), "stop"
        return rest.removesuffix(_FULL), "length"


class ConversationOutput:
    """The output of the ``llama-cli`` that talks, an `Output`: skips all up to its echo.

    Args:
      prompt: The prompt that the program echoes.

    """

    def __init__(self, prompt: str) -> None:
        shown = prompt.encode("utf-8", "replace")
        if len(shown) > _ECHOED_BYTES:
            shown = shown[:_ECHOED_BYTES] + _CUT
        self._awaited: bytes | None = b"\n> " + shown + b"\n"
        self._begun = False
        self._held = b""

    def feed(self, data: bytes | bytearray) -> bytes:
        """The part of the answer that is certain; the banner, the echo and thoughts are skipped."""
        whole = self._held + data
        if self._awaited is not None:
            _, found, rest = whole.partition(self._awaited)
            if not found:
                # Of what is no echo, only an end that may become one is of use.
                self._held = whole[-len(self._awaited) :]
                return b""
            self._awaited = None
            whole = rest
        if not self._begun:
            if _THINKING.startswith(whole):
                self._held = whole
                return b""
            self._begun = True
            if whole.startswith(_THINKING):
                self._awaited = _THOUGHT
                self._held = b""
                return self.feed(whole[len(_THINKING) :])
        held = _possible_ending(whole, _EXITING)
        self._held = whole[len(whole) - held :]
        return whole[: len(whole) - held]

    def finish(self) -> tuple[bytes, str | None]:
        """The rest of the answer; why it ended is not said."""
        rest, self._held = self._held, b""
        return (b"" if self._awaited is not None else rest.removesuffix(_EXITING)), None


def _possible_ending(whole: bytes, *endings: bytes) -> int:
    """Length of the end of *whole* that may be an ending, or the beginning of one."""
    # Latin 1 maps bytes to characters one to one; the extra character lets a whole ending
    # count as a beginning.
    targets = [ending.decode("latin-1") + "\0" for ending in endings]
    longest = max(map(len, endings))
    return partial_suffix(whole[-longest:].decode("latin-1"), targets)


def read_perf(lines: Iterable[str]) -> tuple[Usage, Timings]:
    """Tokens and seconds in the program's own account in *lines*; `None` for what is not there."""
    text = "\n".join(lines)
    prompt = _PROMPT_TIME.search(text)
    answer = _ANSWER_TIME.search(text)
    usage = Usage(
        prompt_tokens=int(prompt.group(2)) if prompt else None,
        completion_tokens=_answer_tokens(answer) if answer else None,
    )
    timings = Timings(
        prefill=float(prompt.group(1)) / 1000 if prompt else None,
        decode=float(answer.group(1)) / 1000 if answer else None,
    )
    return usage, timings


def _answer_tokens(match: re.Match[str]) -> int:
    count = int(match.group(2))
    if match.group(3) == "tokens":
        return count
    # "Runs" are decodings after the prompt's, which gives the first token. None at all is
    # printed as "0.00 ms / 1 runs" (llama_perf_context: max(1, n_eval)).
    return 1 if count == 1 and float(match.group(1)) == 0 else count + 1


def read_too_long(lines: Iterable[str]) -> tuple[int, int] | None:
    """Tokens of the prompt and of the context, if *lines* say that the prompt does not fit."""
    for line in lines:
        for pattern in _TOO_LONG:
            if match := pattern.search(line):
                return int(match.group(1)), int(match.group(2))
    return None
