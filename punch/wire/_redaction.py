"""Cuts words of callers and peers, and takes out of them what others must not read. No I/O.

Errors and names come from programs that are not ours, and go into logs, rows and other peers'
errors. A prompt belongs to its caller alone, a key and the address of a server to its owner.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import overload

from ._limits import MAX_NAME_CHARACTERS
from ._request import CommandRequest

# An error may come from any program; what is longer than a few sentences is cut.
MAX_ERROR_CHARACTERS = 300

# The same for words of a caller or a peer, such as the name of a model or a backend, which stand in
# logs, spans, labels and rows.
MAX_WORD_CHARACTERS = 120

# Sentences of a peer: room for a template's whole complaint.
MAX_QUOTED_CHARACTERS = 2000

# A run of this many characters that is also in the prompt was copied from it; shorter ones are
# words that both happen to use.
MIN_COPY_CHARACTERS = 12

GAP = "[...]"

# Stands where a secret was.
HIDDEN = "[hidden]"

# A shorter secret is part of many words, and would be shown by what is missing of them.
MIN_SECRET_CHARACTERS = 4

# What is left of a name that is too long: its beginning, and digits that tell it from others.
_DIGEST_BYTES = 6


@overload
def bounded(text: str, longest: int = ...) -> str: ...
@overload
def bounded(text: None, longest: int = ...) -> None: ...
@overload
def bounded(text: str | None, longest: int = ...) -> str | None: ...
def bounded(text: str | None, longest: int = MAX_ERROR_CHARACTERS) -> str | None:
    """*text*, cut to *longest* characters."""
    if text is None or len(text) <= longest:
        return text
    return text[: longest - 3] + "..."


@overload
def short_word(text: str) -> str: ...
@overload
def short_word(text: None) -> None: ...
@overload
def short_word(text: str | None) -> str | None: ...
def short_word(text: str | None) -> str | None:
    """A word of a caller's or a peer's, cut to `MAX_WORD_CHARACTERS` characters of one line."""
    if text is None or (len(text) <= MAX_WORD_CHARACTERS and text.isprintable()):
        return text
    return "".join(c if c.isprintable() else "\ufffd" for c in bounded(text, MAX_WORD_CHARACTERS))


# Line breaks of all kinds, as Python's `splitlines` has them.
_BREAKS = re.compile(r"(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])\s*")


def quoted(words: str, longest: int = MAX_QUOTED_CHARACTERS) -> str:
    """A peer's sentences on one line, with nothing in them that a terminal or a reader would obey.

    Line breaks become bars: what follows one would else pass for a line of ours. Escapes, controls
    and marks that turn the direction of text become U+FFFD.
    """
    text = _BREAKS.sub(" | ", bounded(words.strip(), longest)).replace("\t", " ")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def scrubbed(message: str, request: CommandRequest, answer: str = "") -> str:
    """*message*, bounded, without what it repeats of the texts of *request* or of *answer*.

    Runs of at least 12 characters count as repeated, and every text that is shorter than that
    if it is longer than three. An answer's parts count where the message has them in one piece.
    """
    text = bounded(message)
    texts = [part for part in _texts(request, answer) if len(part) > 3]
    copied = [False] * len(text)
    for part in texts:
        length = min(MIN_COPY_CHARACTERS, len(part))
        for start in range(len(text) - length + 1):
            if text[start : start + length] in part:
                copied[start : start + length] = [True] * length
    return _without(text, copied)


def _texts(request: CommandRequest, answer: str) -> Iterable[str]:
    yield from request.texts
    yield answer
    yield from request.sampling.stop


def _without(text: str, copied: Iterable[bool]) -> str:
    parts: list[str] = []
    for letter, is_copy in zip(text, copied, strict=True):
        if not is_copy:
            parts.append(letter)
        elif not parts or parts[-1] != GAP:
            parts.append(GAP)
    return "".join(parts)


# ---- secrets ----


class Secrets:
    """Takes secrets out of texts, in every form in which a program may write them.

    Args:
      values: The secrets; what is shorter than `MIN_SECRET_CHARACTERS` is not looked for.
      addresses: Whether URLs and IPv4 addresses are secrets, whichever they are: a server may name
        those that stand behind it.

    """

    def __init__(self, values: Iterable[str | None], *, addresses: bool = False) -> None:
        forms = {
            form
            for value in values
            if value is not None and len(value) >= MIN_SECRET_CHARACTERS
            for form in _forms(value)
        }
        # The longest first: one secret may be part of another.
        parts = sorted(map(re.escape, forms), key=len, reverse=True)
        parts += _ADDRESSES if addresses else ()
        self._pattern = re.compile("|".join(parts)) if parts else None

    def hide(self, text: str) -> str:
        """*text* with `HIDDEN` in the place of each secret."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _forms(value: str) -> Iterator[str]:
    """*value* as it is, and as URLs, JSON, Python and headers have it."""
    data = value.encode("utf-8", "surrogatepass")
    yield value
    for kept in (_UNRESERVED, _UNRESERVED + b"/"):
        for pattern in ("%{:02X}", "%{:02x}"):
            quoted = "".join(chr(b) if b in kept else pattern.format(b) for b in data)
            yield quoted
            yield quoted.replace("%20", "+")
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield ascii(value)[1:-1]
    yield data.hex()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(data).rstrip(b"=").decode()
        # Inside a longer text that was encoded whole: three bytes are four characters, and the
        # secret may begin at any of the three.
        for start in range(3):
            whole = data[start : start + (len(data) - start) // 3 * 3]
            if len(whole) >= MIN_SECRET_CHARACTERS:
                yield encode(whole).decode()


_ADDRESSES = (r"\b[a-z]{2,8}://[^\s'\"<>`]+", r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b")

# Characters that no URL writes otherwise: RFC 3986, section 2.3.
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def without_secrets(address: str) -> str:
    """*address*, the URL of a server, without user, password, query and fragment.

    For texts about an address that may be no URL at all: whatever stands in front of an ``@`` may
    be a password, and whatever stands behind a ``?`` or ``#`` a key.
    """
    scheme, mark, rest = address.partition("://")
    if mark and scheme.isalnum():
        scheme += mark
    else:
        scheme, rest = "", address
    login = rest.rfind("@") + 1
    cut = min((rest.index(c) for c in "?#" if c in rest), default=len(rest))
    if login > cut:
        # Either the password has a "?", or the query an "@".
        return f"{scheme}{HIDDEN}"
    head = f"{HIDDEN}@" if login else ""
    tail = f"{rest[cut]}{HIDDEN}" if cut < len(rest) else ""
    return f"{scheme}{head}{rest[login:cut]}{tail}"


# ---- names ----


def clean_name(text: str) -> str | None:
    """*text* as a name that peers accept, of a model say; `None` if nothing is left of it.

    White space around it goes, a run of what no terminal should print becomes ``_``, and what is
    too long is cut and gets digits that tell it from others with the same beginning.
    """
    if not any(c.isprintable() and not c.isspace() for c in text):
        return None
    marked = "".join(c if c.isprintable() else "\0" for c in text.strip())
    name = re.sub("\0+", "_", marked)
    if len(name) <= MAX_NAME_CHARACTERS:
        return name
    return f"{name[: MAX_NAME_CHARACTERS - 2 * _DIGEST_BYTES - 1]}-{tell_apart(text)}"


def tell_apart(text: str) -> str:
    """Some digits that another text does not have."""
    data = text.encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
