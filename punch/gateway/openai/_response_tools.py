"""The tools of a response: OpenAI's kinds of tools made functions, and calls of them made theirs.

A peer's model knows functions. A group of functions becomes its functions, under names of both; a
tool that takes free text becomes a function of one text. `ToolNames` knows both ways. What would
run at OpenAI's cannot be had, and is refused by name, with how to turn it off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import attrs
from pydantic import ConfigDict, Discriminator, Field, Tag

from ...wire import Tool, ToolCall
from ..bodies import Body, Refused, Taken, field_of, within

MAX_NAME = 64
"""Characters of a function's name, by OpenAI's rule and by that between peers."""


class FunctionTool(Body):
    """A function that the model may ask for."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    # llama.cpp writes the arguments of every call under a grammar of their schema.
    strict: bool | None = None
    output_schema: Annotated[Any, Taken("models are not told what comes back", kept=True)] = None
    defer_loading: Annotated[Any, Taken("the model is told of all tools at once", kept=True)] = None


class FunctionGroup(Body):
    """Functions under a name of their own, as Codex has those of each MCP server."""

    type: Literal["namespace"]
    name: str
    description: str | None = None
    tools: Annotated[list[FunctionTool], within("tools")]


class TextFormat(Body):
    """The form of a free text; a grammar cannot be held to."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[
        Any,
        Refused(
            "a free text cannot be held to a grammar; describe the tool as a function",
            nothing=("text",),
        ),
    ] = None


class FreeTextTool(Body):
    """A tool that takes any text, in place of arguments."""

    type: Literal["custom"]
    name: str
    description: str | None = None
    format: TextFormat | None = None
    defer_loading: Annotated[Any, Taken("the model is told of all tools at once", kept=True)] = None


def _not_here(kind: Any) -> str:
    return (
        f"tools of the type {json.dumps(kind)[:80]} run at OpenAI's, and nobody runs them here; "
        'turn them off in the program (Codex: web_search = "disabled" in config.toml), or send '
        "functions in their place"
    )


class OtherTool(Body):
    """A tool that would run on a server of OpenAI's."""

    model_config = ConfigDict(extra="ignore")

    # It may be missing once it is refused: else the list would not be read to its end, and of
    # several such tools one alone would be told.
    type: Annotated[Any, Refused(_not_here, empty=False)] = None


def _kind_of_tool(value: Any) -> str:
    kind = field_of(value, "type")
    if kind in ("function", "namespace", "custom"):
        return f"~{kind}"
    return "~other" if isinstance(kind, str) else "~function"


AnyTool = Annotated[
    Annotated[FunctionTool, Tag("~function")]
    | Annotated[FunctionGroup, Tag("~namespace")]
    | Annotated[FreeTextTool, Tag("~custom")]
    | Annotated[OtherTool, Tag("~other")],
    Discriminator(_kind_of_tool),
]
Tools = Annotated[list[AnyTool], Field(max_length=128, fail_fast=True)]

_FREE_TEXT = json.dumps(
    {
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
        "additionalProperties": False,
    }
)


@attrs.frozen(kw_only=True)
class _Named:
    """What the caller calls a function of ours."""

    name: str
    group: str | None = None
    is_free_text: bool = False


class ToolNames:
    """The functions that stand for the tools of one request, by the names that models use.

    Args:
      tools: The tools, as the caller has described them.

    """

    def __init__(self, tools: Sequence[Body]) -> None:
        self.tools: tuple[Tool, ...] = ()
        """The functions."""
        self._named: dict[str, _Named] = {}
        # Names of plain functions are as they are: those of groups must get out of their way.
        self._plain = {tool.name for tool in tools if isinstance(tool, FunctionTool | FreeTextTool)}
        self.tools = tuple(self._functions(tools))

    def _functions(self, tools: Sequence[Body]) -> Iterator[Tool]:
        for tool in tools:
            if isinstance(tool, FunctionTool):
                yield _function(tool, tool.name)
            elif isinstance(tool, FreeTextTool):
                self._named[tool.name] = _Named(name=tool.name, is_free_text=True)
                yield Tool(name=tool.name, description=tool.description, parameters=_FREE_TEXT)
            elif isinstance(tool, FunctionGroup):
                for each in tool.tools:
                    name = self._free(tool.name, each.name)
                    self._named[name] = _Named(name=each.name, group=tool.name)
                    yield _function(each, name, tool.description)

    def _free(self, group: str, name: str) -> str:
        """A name for a function of a group that no other function has."""
        joined = re.sub(
            r"[^a-zA-Z0-9_-]", "_", f"{group}{'' if group.endswith('_') else '__'}{name}"
        )
        wanted, number = joined[-MAX_NAME:], 2
        while wanted in self._named or wanted in self._plain:
            tail = f"_{number}"
            wanted, number = joined[-(MAX_NAME - len(tail)) :] + tail, number + 1
        return wanted

    def ours(self, name: str, group: str | None = None) -> str:
        """The name that the model has for a function of the caller's."""
        for ours, theirs in self._named.items():
            if theirs.name == name and theirs.group == group and group is not None:
                return ours
        # A group that is not among the tools any more is still part of the conversation.
        return name if group is None else self._free(group, name)

    def item(self, call: ToolCall, place: str) -> Mapping[str, Any]:
        """*call* as an item of a response, but for its status; *place* makes its id its own."""
        theirs = self._named.get(call.name) or _Named(name=call.name)
        if theirs.is_free_text:
            return {
                "id": f"ctc_{place}",
                "type": "custom_tool_call",
                "call_id": call.id,
                "name": theirs.name,
                "input": text_in(call.arguments),
            }
        group = {} if theirs.group is None else {"namespace": theirs.group}
        return {
            "id": f"fc_{place}",
            "type": "function_call",
            "call_id": call.id,
            "name": theirs.name,
            **group,
            "arguments": call.arguments,
        }


def _function(tool: FunctionTool, name: str, about: str | None = None) -> Tool:
    texts = [text for text in (about, tool.description) if text]
    return Tool(
        name=name,
        description="\n".join(texts) if texts else tool.description,
        parameters=json.dumps(tool.parameters or {}, ensure_ascii=False),
    )


def text_in(arguments: str) -> str:
    """The free text in the arguments of a call; of one that was cut off, all there is."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    found = value.get("input") if isinstance(value, dict) else None
    return found if isinstance(found, str) else arguments


def arguments_of(text: str) -> str:
    """The arguments that stand for a free text."""
    return json.dumps({"input": text}, ensure_ascii=False)
