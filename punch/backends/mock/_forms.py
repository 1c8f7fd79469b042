"""Makes up what a mock says besides words: tool calls, JSON for a schema, log-probabilities.

All of it depends on the request alone, so that two mocks say the same. No I/O.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from random import Random
from typing import Any

from ...wire import CommandRequest, TokenLogprob, Tool, ToolCall
from .._tools import arguments_schema

# Values in one instance, and characters or items where a schema demands many: it may demand
# more than there is memory for.
MAX_VALUES = 1000
MAX_CHARACTERS = 1000

# A text of each form that programs commonly ask for.
FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "text@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/text",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

# Levels. A schema that refers to itself has no end of its own.
MAX_DEPTH = 64


class _Maker:
    """Makes a small instance of a schema; keywords that are not known here are not followed."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._left = MAX_VALUES
        self._depth = 0

    def make(self, schema: Any) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or self._left <= 0 or self._depth >= MAX_DEPTH:
            return None
        self._depth += 1
        value = self._make(schema)
        self._depth -= 1
        return value

    def _make(self, schema: dict[str, Any]) -> Any:
        if isinstance(reference := schema.get("$ref"), str):
            return self.make(self._find(reference))
        if "const" in schema:
            return schema["const"]
        if isinstance(choices := schema.get("enum"), list) and choices:
            return choices[0]
        if isinstance(parts := schema.get("allOf"), list) and parts:
            made = [self.make(part) for part in parts]
            both = {
                name: value for one in made if isinstance(one, dict) for name, value in one.items()
            }
            return both or made[0]
        for either in ("anyOf", "oneOf"):
            if isinstance(parts := schema.get(either), list) and parts:
                return self.make(parts[0])
        return self._of_type(schema)

    def _of_type(self, schema: dict[str, Any]) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        if kind is None:
            kind = "object"
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                items = schema.get("items", {"type": "null"})
                least = min(_whole(schema.get("minItems")), MAX_VALUES)
                return [self.make(items) for _ in range(least) if self._left > 0]
            case "string":
                if isinstance(form := schema.get("format"), str) and form in FORMATS:
                    return FORMATS[form]
                least = min(_whole(schema.get("minLength")), MAX_CHARACTERS)
                text = "text" if least <= 4 else "text" * (least // 4 + 1)
                most = schema.get("maxLength")
                return text[: max(least, 4)] if most is None else text[: max(least, _whole(most))]
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case _:
                return None

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        names = required if isinstance(required, list) else []
        return {
            name: self.make(properties.get(name, {"type": "null"}))
            for name in names
            if isinstance(name, str) and self._left > 0
        }

    def _find(self, reference: str) -> Any:
        found: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            if not isinstance(found, dict):
                return None
            found = found.get(step.replace("~1", "/").replace("~0", "~"))
        return found


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _number(schema: dict[str, Any], *, whole: bool) -> int | float:
    """The number in the schema's range that is nearest to 0."""
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    value: float = 0
    if isinstance(least, int | float):
        value = max(value, math.ceil(least) if whole else least)
    if isinstance(above, int | float) and value <= above:
        value = math.floor(above) + 1
    if isinstance(most, int | float):
        value = min(value, math.floor(most) if whole else most)
    if isinstance(below, int | float) and value >= below:
        value = math.ceil(below) - 1
    return int(value) if whole else value


def instance(schema: str) -> str:
    """JSON text that fits *schema*: its required fields, filled in by their types."""
    root = json.loads(schema)
    return json.dumps(_Maker(root).make(root), ensure_ascii=False)


def call_for(request: CommandRequest) -> ToolCall | None:
    """The call of a tool that the mock makes, if it makes one.

    The mock calls a tool if it must, and if the last message is the user's and names one.
    """
    tool = _wanted(request)
    if tool is None:
        return None
    arguments = instance(json.dumps(arguments_schema(tool)))
    key = hashlib.sha256(f"{request.texts}\n{tool.name}".encode(errors="replace"))
    return ToolCall(id=f"call_{key.hexdigest()[:24]}", name=tool.name, arguments=arguments)


def _wanted(request: CommandRequest) -> Tool | None:
    choice = request.tool_choice or "auto"
    if choice == "none" or not request.tools:
        return None
    last = request.messages[-1]
    said = last.content if last.role == "user" else ""
    named = [
        tool
        for tool in request.tools
        if choice == f"function:{tool.name}" or (tool.name in said and ":" not in choice)
    ]
    if named:
        return named[0]
    return None if choice == "auto" else request.tools[0]


def made_up_logprob(
    token: str, number: int, alternatives: int, words: Sequence[str]
) -> TokenLogprob:
    """A made-up log-probability of token *number*, with the most likely *alternatives*."""
    draw = Random(hashlib.sha256(f"{number}\n{token}".encode(errors="replace")).digest())
    logprob = -draw.uniform(0.01, 0.5)
    others = [
        (f" {word}", logprob - rank) for rank, word in enumerate(words, 1) if word != token.strip()
    ]
    top = [(token, logprob), *others][:alternatives]
    return TokenLogprob(token=token, logprob=logprob, top=tuple(top))
