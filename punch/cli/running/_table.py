"""Makes the table of `punch status` of what the running `punch up` has said; computes nothing.

The texts may come from any peer, and the program that said them may be of another version: what is
missing is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._columns import aligned, folded
from .._output import plain

# What most terminals have.
USUAL_COLUMNS = 80

# Of the column of labels.
_LABEL_COLUMNS = 11


def table_of(said: Mapping[str, Any], width: int = USUAL_COLUMNS) -> list[str]:
    """The lines of a status, of at most *width* columns where words and names allow it.

    Args:
      said: What `Status.as_data` makes.
      width: Columns of the terminal.

    """
    lines = [_head(said)]
    for label, text in _facts(said):
        lines += _labelled(label, text, width)
    lines += _rows("members", _members(said), width)
    lines += _rows("lanes", _lanes(said), width)
    lines += _rows("adopted", _adopted(said), width)
    lines += _list("workers", _texts(said, "workers"), width)
    lines += _list("waits for", _texts(said, "waits_for"), width)
    lines += _list("wrong", _texts(said, "wrong"), width)
    return lines


def _head(said: Mapping[str, Any]) -> str:
    version, process = _text(said.get("version")), _text(said.get("process"))
    return f"punch {version} (process {process}) is {_text(said.get('state'))}"


def _facts(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    namespace = _text(said.get("namespace"))
    if namespace:
        kind = "closed" if said.get("is_closed") else "open: whoever reaches it is in it"
        may = "; this machine may let others in" if said.get("is_admin") else ""
        yield "namespace", f"{namespace} ({kind}{may})"
    yield "here", _text(said.get("name")) or _text(said.get("peer"))
    yield "roles", ", ".join(_texts(said, "roles"))
    addresses = said.get("addresses")
    if isinstance(addresses, Mapping):
        yield "OpenAI", _text(addresses.get("openai"))
        yield "Ollama", _text(addresses.get("ollama"))
        yield "Anthropic", _text(addresses.get("anthropic"))
        yield "dashboard", _text(addresses.get("dashboard"))
    if said.get("has_keys"):
        yield "API keys", "every request needs one"
    yield "models", ", ".join(_texts(said, "models")) or "none"


def _members(said: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for each in _mappings(said, "members"):
        state = "here" if each.get("is_here") else "there" if each.get("is_connected") else "away"
        yield _text(each.get("name")), state, ", ".join(_texts(each, "models")) or "-"


def _lanes(said: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for each in _mappings(said, "lanes"):
        backend = _text(each.get("backend"))
        yield (
            _text(each.get("name")),
            f"{backend} (simulated)" if each.get("simulated") else backend,
            _text(each.get("state")),
            f"{_text(each.get('busy'))}/{_text(each.get('slots'))}",
            _text(each.get("reason")) or ", ".join(_texts(each, "models")) or "-",
        )


def _adopted(said: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for each in _mappings(said, "adopted"):
        # Of the usual places, those where somebody is; what a person has named, in any case.
        if each.get("how") == "named" or each.get("state") != "looking":
            yield (
                _text(each.get("url")),
                _text(each.get("program")),
                _text(each.get("how")),
                _text(each.get("state")),
                _text(each.get("reason")) or ", ".join(_texts(each, "models")) or "-",
            )


_COLUMNS = {
    "members": ("name", "state", "models"),
    "lanes": ("name", "backend", "state", "busy", "models"),
    "adopted": ("url", "program", "how", "state", "models"),
}


# Words that may be shortened where the terminal is narrow; a state is needed whole.
_GIVING_WAY = ("name", "backend", "program", "models")

# What is left of an address leads nowhere: only where there is no room at all.
_GIVING_WAY_LAST = ("url",)


def _rows(title: str, rows: Iterator[tuple[str, ...]], width: int) -> list[str]:
    found = list(rows)
    if not found:
        return []
    heads = _COLUMNS[title]
    may = _GIVING_WAY if width >= USUAL_COLUMNS else _GIVING_WAY + _GIVING_WAY_LAST
    names = [number for number, head in enumerate(heads) if head in may]
    lines = aligned([heads, *found], width=width - 2, give_way=names)
    return ["", title, *(f"  {line}" for line in lines)]


def _labelled(label: str, text: str, width: int) -> list[str]:
    if not text:
        return []
    lead = f"  {label:{_LABEL_COLUMNS}}"
    lines = folded(text, max(20, width - len(lead)))
    return [(lead if number == 0 else " " * len(lead)) + line for number, line in enumerate(lines)]


def _list(title: str, texts: Sequence[str], width: int) -> list[str]:
    if not texts:
        return []
    lines = [line for text in texts for line in folded(text, width - 2, indent="  ")]
    return ["", title, *(f"  {line}" for line in lines)]


def _text(value: object) -> str:
    return "" if value is None else " ".join(plain(str(value)).split())


def _texts(said: Mapping[str, Any], name: str) -> list[str]:
    value = said.get(name)
    return [_text(each) for each in value] if isinstance(value, list | tuple) else []


def _mappings(said: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = said.get(name)
    found = value if isinstance(value, list | tuple) else []
    return [each for each in found if isinstance(each, Mapping)]
