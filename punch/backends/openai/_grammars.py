r"""Says a JSON schema in the words from which llama.cpp makes a grammar.

llama.cpp leaves out most formats, and every pattern that has more in it than characters, classes,
groups and repetitions between ``^`` and ``$``; a part that is only true or false it refuses. Much
of it can be said more simply: ``\d`` is ``[0-9]``. What cannot stays as it is; whoever asked
compares the answer at its end.

Source: llama.cpp, ``common/json-schema-to-grammar.cpp``, and what its server made of each.
"""

from __future__ import annotations

import re
from typing import Any

# Within a text of JSON, what stands for itself.
_PLAIN = r'"\\\x00-\x1F'
_ANY = f"[^{_PLAIN}]"

# All that JavaScript calls white space, but for what JSON writes with a backslash.
_SPACES = r" \xA0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF"

# A class may stand for less than it means: what fits the less fits. So a space is one space.
_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}
_NOT_IN = {"d": "0-9", "w": "A-Za-z0-9_", "s": _SPACES}

# Before what may stand anywhere: a model that is allowed any text goes on with it for ever.
_BEFORE = f"{_ANY}{{0,100}}"
_AFTER = f"{_ANY}*"

# Formats that llama.cpp leaves out: what people mean by them, not all that they allow.
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LABEL = "[a-z0-9]{1,30}"
_HOST = rf"({_LABEL}\.){{1,3}}[a-z]{{2,8}}"
_FORMATS = {
    "email": rf"^[A-Za-z0-9_]{{1,20}}([.+-][A-Za-z0-9_]{{1,20}}){{0,2}}@{_HOST}$",
    "hostname": f"^{_HOST}$",
    "ipv4": rf"^({_OCTET}\.){{3}}{_OCTET}$",
    "uri": f"^https?://{_HOST}(/[A-Za-z0-9._~-]{{0,60}}){{0,4}}$",
}

_GROUP = re.compile(r"\((\?:|\?P?<[A-Za-z_]\w*>)?(?!\?)")
_REPEAT = re.compile(r"([*+?]|\{\d+(?:,\d*)?\})\??")
_LITERAL_ESCAPE = re.compile(r"\\([^\w\s\"\\])")
_CODE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))")


def for_grammar(schema: Any) -> Any:
    """*schema*, said more simply where that holds an answer to more of it."""
    if isinstance(schema, list):
        return [for_grammar(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for name, value in schema.items():
        if name in ("enum", "const", "default", "examples"):
            found[name] = value
        elif name == "pattern" and isinstance(value, str):
            found[name] = simpler(value) or value
        elif name in ("items", "additionalItems", "contains", "unevaluatedItems") and (
            isinstance(value, bool)
        ):
            continue
        elif name == "properties" and isinstance(value, dict):
            found[name] = {key: for_grammar(one) for key, one in value.items() if one is not False}
        else:
            found[name] = for_grammar(value)
    form = schema.get("format")
    if isinstance(form, str) and form in _FORMATS and "pattern" not in schema:
        found["pattern"] = _FORMATS[form]
    return found


def simpler(pattern: str) -> str | None:
    """A pattern between ``^`` and ``$`` whose texts all fit *pattern*; `None` if none is known."""
    starts = pattern.startswith("^")
    body = pattern[1:] if starts else pattern
    ends = body.endswith("$") and not re.search(r"(?<!\\)(?:\\\\)*\\\$$", body)
    body = body[:-1] if ends else body
    parts = _parts(body)
    if parts is None:
        return None
    text = "".join(parts)
    if "|" in _outermost(parts):
        if starts or ends:
            # It belongs to one of them only.
            return None
        text = f"({text})"
    return f"^{'' if starts else _BEFORE}{text}{'' if ends else _AFTER}$"


def _parts(body: str) -> list[str] | None:
    """The parts of *body*, each said more simply; `None` if one cannot be."""
    found: list[str] = []
    at = 0
    while at < len(body):
        part = _part(body, at, bool(found) and found[-1] not in "(|")
        if part is None:
            return None
        taken, text = part
        found.append(text)
        at += taken
    return found


def _part(body: str, at: int, repeatable: bool) -> tuple[int, str] | None:
    """How many characters the part at *at* has, and what it is."""
    sign = body[at]
    if group := _GROUP.match(body, at):
        return len(group.group()), "("
    if repeat := _REPEAT.match(body, at):
        return (len(repeat.group()), repeat.group(1)) if repeatable else None
    if sign == "[":
        return _class(body, at)
    if sign == ".":
        return 1, _ANY
    if sign == "\\":
        return _escape(body, at)
    if sign in '^$(]{}"' or not sign.isprintable():
        return None
    return 1, sign


def _escape(body: str, at: int) -> tuple[int, str] | None:
    name = body[at + 1 : at + 2]
    if name in _CLASSES:
        return 2, f"[{_CLASSES[name]}]"
    if name.lower() in _NOT_IN:
        return 2, f"[^{_NOT_IN[name.lower()]}{_PLAIN}]"
    if literal := _LITERAL_ESCAPE.match(body, at):
        return 2, literal.group()
    if (code := _CODE.match(body, at)) and (sign := chr(int(code[1] or code[2], 16))).isalnum():
        return len(code.group()), sign
    return None


def _class(body: str, at: int) -> tuple[int, str] | None:
    negated = body.startswith("[^", at)
    here = at + 1 + negated
    classes = _NOT_IN if negated else _CLASSES
    inner = ""
    while here < len(body) and body[here] != "]":
        if body[here] != "\\":
            if body[here] in '["' or not body[here].isprintable():
                return None
            inner += body[here]
            here += 1
            continue
        name = body[here + 1 : here + 2]
        if name in classes:
            inner += classes[name]
        elif name.isalnum() or name in ('"', "\\", ""):
            return None
        else:
            inner += f"\\x{ord(name):02X}" if ord(name) < 128 else name
        here += 2
    if here >= len(body) or not inner:
        return None
    return here + 1 - at, f"[^{inner}{_PLAIN}]" if negated else f"[{inner}]"


def _outermost(parts: list[str]) -> list[str]:
    """The *parts* that stand in no group."""
    found, depth = [], 0
    for part in parts:
        depth -= part == ")"
        if depth == 0:
            found.append(part)
        depth += part == "("
    return found
