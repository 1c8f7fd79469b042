"""What a tool takes, as a schema that a grammar can be made of. No I/O."""

from __future__ import annotations

import json
from typing import Any

from ..wire import Tool

# What a schema may say of itself without allowing a property.
_SAYS_NOTHING = frozenset(
    {"$comment", "$id", "$schema", "description", "examples", "properties", "required", "title"}
    | {"type", "unevaluatedProperties", "additionalProperties"}
)


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """The schema of *tool*'s arguments; of a tool that names no parameters, an empty object.

    By JSON Schema, such a tool would take anything, and a model that is held to that makes
    parameters up until it is cut off. By OpenAI, it has none
    (https://platform.openai.com/docs/api-reference/chat/create, `parameters`). A tool that does
    take anything says so with `additionalProperties`.
    """
    schema = json.loads(tool.parameters)
    if not isinstance(schema, dict):
        return {"type": "object"}
    is_open = schema.get("additionalProperties") or schema.get("unevaluatedProperties")
    if schema.get("properties") or schema.get("required") or is_open:
        return schema
    if schema.get("type", "object") != "object" or set(schema) - _SAYS_NOTHING:
        return schema
    return {"type": "object", "properties": {}, "additionalProperties": False}
