"""The tables of all fields, for documents: what of each body is honoured, taken or refused.

What becomes of a field is decided where the body is declared; here it is only written down.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from .anthropic._bodies import CountBody, MessagesBody
from .bodies import Body, FieldRule, PunchOptions, rules_of
from .ollama._bodies import (
    EmbedBody,
    GenerateBody,
    OldEmbedBody,
    OllamaChatBody,
    PullBody,
    ShowBody,
)
from .ollama._options import Options
from .openai._bodies import ChatBody, CompletionBody, EmbeddingBody
from .openai._responses import ResponsesBody

BODIES: Mapping[str, type[Body]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/responses": ResponsesBody,
    "/v1/embeddings": EmbeddingBody,
    "/v1/messages": MessagesBody,
    "/v1/messages/count_tokens": CountBody,
    "/api/chat": OllamaChatBody,
    "/api/generate": GenerateBody,
    "/api/embed": EmbedBody,
    "/api/embeddings": OldEmbedBody,
    "/api/show": ShowBody,
    "/api/pull": PullBody,
    "options": Options,
    "punch": PunchOptions,
}
"""Path of an endpoint, or name of an object inside others, to its body."""


def fields_table() -> str:
    """Each body with the names of its fields, as a table of Markdown."""
    rows = ["| endpoint | honoured | taken | refused |", "| --- | --- | --- | --- |"]
    for name, body in BODIES.items():
        rules = rules_of(body)
        cells = [
            ", ".join(f"`{rule.name}`" for rule in rules if rule.verdict == verdict) or "-"
            for verdict in ("honoured", "taken", "refused")
        ]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def taken_table() -> str:
    """Each field that is taken, with the reason and where it is."""
    rows = ["| field | changes nothing, since | where |", "| --- | --- | --- |"]
    for rule, names in _with_places("taken"):
        rows.append(f"| `{rule.name}` | {_cell(rule.why)} | {_places(names)} |")
    return "\n".join(rows)


def refused_table() -> str:
    """Each field that is refused, with the reason, what is taken all the same, and where it is."""
    rows = ["| field | cannot be honoured | taken | where |", "| --- | --- | --- | --- |"]
    for rule, names in _with_places("refused"):
        values = [f"`{json.dumps(value)}`" for value in rule.nothing]
        taken = ", ".join(values) or "-"
        rows.append(f"| `{rule.name}` | {_cell(rule.why)} | {taken} | {_places(names)} |")
    return "\n".join(rows)


def _with_places(verdict: str) -> list[tuple[FieldRule, list[str]]]:
    """Each rule of a *verdict* once, by its field's name, with the bodies that have it."""
    found: dict[tuple[str, str, str], tuple[FieldRule, list[str]]] = {}
    for name, body in BODIES.items():
        for rule in rules_of(body):
            if rule.verdict == verdict:
                key = (rule.name, rule.why, json.dumps(rule.nothing))
                found.setdefault(key, (rule, []))[1].append(name)
    return [found[key] for key in sorted(found)]


def _places(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
