"""Tools, and the choice among them, as clients of chat write them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from ...wire import Tool
from ..bodies import Body, Function, Refused, Taken, field_of, shown

Cached = Annotated[Any, Taken("a hint for caches of prompts")]


def _is_elsewhere(kind: Any) -> str:
    """No peer runs tools of its own; the caller does, and only functions are called so."""
    return (
        "tools that a server runs are not there, only functions of the caller's own: turn the tool "
        f"{shown(kind)} off in the program (Codex: codex -c web_search=disabled, --disable "
        "image_generation), or give it as a function"
    )


class ElsewhereTool(Body):
    """A tool that would run on the server, or is no function; always refused."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Any, Refused(_is_elsewhere, empty=False)] = None


class FunctionTool(Body):
    """A function that the model may ask for."""

    type: Literal["function"] = "function"
    function: Function
    cache_control: Cached = None


def tool_kind(value: Any) -> str:
    """The branch of a tool."""
    kind = field_of(value, "type")
    return "~function" if kind in (None, "function") else "~elsewhere"


ToolBody = Annotated[
    Annotated[FunctionTool, Tag("~function")] | Annotated[ElsewhereTool, Tag("~elsewhere")],
    Discriminator(tool_kind),
]


class NamedFunction(Body):
    """The name of a function."""

    name: str


class ChosenFunction(Body):
    """The one function that is to be called, in the words of chat or of responses."""

    type: Literal["function"] = "function"
    function: NamedFunction | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _is_named(self) -> ChosenFunction:
        # Nothing at all asks for nothing.
        if self.chosen is None and self.model_fields_set:
            raise ValueError("it names no function")
        return self

    @property
    def chosen(self) -> str | None:
        """Its name."""
        return self.function.name if self.function is not None else self.name


class ChosenMode(Body):
    """Whether a function must be called, written as an object."""

    type: Literal["none", "auto", "required", "any"]


class AllowedTool(Body):
    """One of the tools that may be called."""

    type: Literal["function"] = "function"
    function: NamedFunction | None = None
    name: str | None = None

    @property
    def allowed(self) -> str | None:
        """Its name."""
        return self.function.name if self.function is not None else self.name


class AllowedTools(Body):
    """The tools that may be called, of those that there are."""

    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[AllowedTool], Field(max_length=128, fail_fast=True)]


class ChosenAmong(Body):
    """The tools that may be called, in the words of chat or of responses."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[AllowedTool], Field(max_length=128, fail_fast=True)] | None = None

    @property
    def names(self) -> frozenset[str | None]:
        """Names of the tools."""
        given = self.allowed_tools.tools if self.allowed_tools is not None else self.tools or ()
        return frozenset(each.allowed for each in given)

    @property
    def must(self) -> str:
        """Whether one of them must be called."""
        return (self.allowed_tools.mode if self.allowed_tools is not None else self.mode) or "auto"


def choice_kind(value: Any) -> str:
    """Which form of a choice of tools *value* has, as the tag of the model that reads it."""
    if isinstance(value, str):
        return "~text"
    kind = field_of(value, "type")
    # LiteLLM's proxy writes what Anthropic's clients ask it for as an object.
    if kind in ("none", "auto", "required", "any"):
        return "~mode"
    return "~allowed" if kind == "allowed_tools" else "~function"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required", "any", ""], Tag("~text")]
    | Annotated[ChosenMode, Tag("~mode")]
    | Annotated[ChosenAmong, Tag("~allowed")]
    | Annotated[ChosenFunction, Tag("~function")],
    Discriminator(choice_kind),
]


def tool_of(function: Function) -> Tool:
    """*function*, as peers read it."""
    return Tool(
        name=function.name,
        description=function.description,
        parameters=json.dumps(function.parameters or {}, ensure_ascii=False),
    )


def chosen_tools(
    choice: ToolChoice | None, tools: Iterable[Tool]
) -> tuple[tuple[Tool, ...], str | None]:
    """The tools that the model may call, and whether it must, as peers read both."""
    there = tuple(tools)
    if isinstance(choice, ChosenAmong):
        there = tuple(tool for tool in there if tool.name in choice.names)
        return there, choice.must if there or choice.must == "required" else None
    if isinstance(choice, ChosenFunction):
        return there, None if choice.chosen is None else f"function:{choice.chosen}"
    mode = choice.type if isinstance(choice, ChosenMode) else choice or None
    # Mistral says any.
    mode = "required" if mode == "any" else mode
    # Without tools none is called, and that is all that these two want.
    return there, None if not there and mode in ("none", "auto") else mode
