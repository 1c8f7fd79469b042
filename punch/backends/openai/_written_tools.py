"""Writes tools into the prompt of models whose chat template has none, and reads calls back.

llama-server leaves tools out of the prompt, and calls and results out of the conversation,
without a word, if the model's template knows none. Here they are written into the conversation
as text, in the form that most models with tools were trained on (Hermes: a call is JSON between
``<tool_call>`` tags), and found again in the answer:

* A call that the caller demands is forced: the answer is held to a schema that is the call.
* A call that `max_tokens` cut off is an unfinished call, with what is there of its arguments.
* Otherwise the model writes what it likes, and what it writes as a call is one.
* An answer that must be a call or fit the caller's own schema is held to either.

No I/O: the server is asked by the function that `ask_in_writing` is given.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs

from ...wire import ChatMessage, CommandRequest, Completion, Tool, ToolCall
from .._base import Emit, Generation
from .._stop import StopMatcher
from .._tools import arguments_schema
from ._answer_parts import new_call_id

OPEN, CLOSE = "<tool_call>", "</tool_call>"

_INTRODUCTION = (
    "You may call one or more functions. They are described here, one JSON object a line:\n"
    "<tools>\n{tools}\n</tools>\n"
    "To call one, answer with a JSON object with its name and arguments between tags:\n"
    f'{OPEN}\n{{{{"name": "...", "arguments": {{{{}}}}}}}}\n{CLOSE}'
)

Ask = Callable[[CommandRequest, Emit], Awaitable[Generation]]


def has_tools(request: CommandRequest) -> bool:
    """Whether there are tools in *request*, or in the conversation so far."""
    return bool(request.tools) or any(
        message.role == "tool" or message.tool_calls for message in request.messages
    )


async def ask_in_writing(request: CommandRequest, emit: Emit, ask: Ask) -> Generation:
    """Have *ask* answer *request* with its tools written out, and find the calls in the answer.

    Args:
      request: What to answer.
      emit: Gets the text as it comes, without the calls.
      ask: Answers a request that has no tools.

    """
    reader = _CallReader(request)

    async def pass_on(text: str, tokens: int) -> None:
        await emit(reader.feed(text) if type(text) is str else text, tokens)

    generation = await ask(written_out(request), pass_on)
    rest, completion = reader.finish(generation.completion)
    if rest:
        await emit(rest, 0)
    return attrs.evolve(generation, completion=completion)


# ---- the question ----


def written_out(request: CommandRequest) -> CommandRequest:
    """*request* with its tools, their calls and results as text."""
    forced = _is_forced(request)
    messages = list(_plain_turns(request.messages))
    if request.tools and request.tool_choice != "none":
        messages = _introduced(messages, request)
    return attrs.evolve(
        request,
        messages=tuple(messages),
        tools=(),
        tool_choice=None,
        response_schema=_held_to(request),
        # A stop is for the text of an answer, and a call that was demanded has none.
        sampling=attrs.evolve(request.sampling, stop=()) if forced else request.sampling,
    )


def _is_forced(request: CommandRequest) -> bool:
    return request.tool_choice not in (None, "auto", "none")


def _callable(request: CommandRequest) -> Sequence[Tool]:
    """The tools that may be called: one, if it is demanded by its name."""
    wanted = (request.tool_choice or "").removeprefix("function:")
    return [tool for tool in request.tools if tool.name == wanted] or request.tools


def _introduced(messages: list[ChatMessage], request: CommandRequest) -> list[ChatMessage]:
    """With the tools described in the first system message."""
    lines = [
        json.dumps(
            {
                "name": tool.name,
                "description": tool.description or "",
                "parameters": json.loads(tool.parameters),
            },
            ensure_ascii=False,
        )
        for tool in request.tools
    ]
    text = _INTRODUCTION.format(tools="\n".join(lines))
    if messages and messages[0].role == "system":
        first = attrs.evolve(messages[0], content=f"{messages[0].content}\n\n{text}")
        return [first, *messages[1:]]
    return [ChatMessage(role="system", content=text), *messages]


def _plain_turns(messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    """Calls as the assistant's words, results as the user's.

    Results of one turn, and what the user says after them, are one message: many templates take
    the two sides in turn only.
    """
    results: list[str] = []
    for message in messages:
        if message.role == "tool":
            results.append(f"<tool_response>\n{message.content}\n</tool_response>")
            continue
        if results and message.role == "user" and not message.parts:
            message = attrs.evolve(message, content="\n".join([*results, message.content]))
            results = []
        elif results:
            yield ChatMessage(role="user", content="\n".join(results))
            results = []
        calls = [f"{OPEN}\n{_spelled(call)}\n{CLOSE}" for call in message.tool_calls]
        texts = [message.content, *calls] if message.content else calls
        yield attrs.evolve(message, content="\n".join(texts), tool_calls=()) if calls else message
    if results:
        yield ChatMessage(role="user", content="\n".join(results))


def _spelled(call: ToolCall) -> str:
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = call.arguments
    return json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)


def _held_to(request: CommandRequest) -> str | None:
    """The schema of a forced call, or of either a call or the caller's own schema."""
    forced, own = _is_forced(request), request.response_schema
    if not request.tools or request.tool_choice == "none" or (own is None and not forced):
        return own
    parts = {}
    for number, tool in enumerate(_callable(request)):
        place = f"/$defs/{number}/properties/arguments"
        arguments = _moved(arguments_schema(tool), place)
        parts[str(number)] = {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": arguments},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
    if own is not None and not forced:
        parts["own"] = _moved(json.loads(own) or {"type": "object"}, "/$defs/own")
    either = [{"$ref": f"#/$defs/{name}"} for name in parts]
    return json.dumps({"$defs": parts, "anyOf": either})


def _moved(schema: Any, place: str) -> Any:
    """*schema* as a part of another one: what it refers to within itself has moved along."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _moved(one, place) for name, one in schema.items()}
    reference = found.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        found["$ref"] = f"#{place}{reference[1:]}"
    return found


# ---- the answer ----


@attrs.frozen
class _Begun:
    """A call as far as it has come."""

    name: str = ""
    is_named: bool = False
    """Whether the name is all there."""
    arguments: str = ""


def _read_begun(text: str) -> _Begun | None:
    """The call that *text* is the beginning of; `None` if it begins something else."""
    name, is_named = "", False
    for sign in ("{", '"name"', ":", '"', None, ",", '"arguments"', ":"):
        if sign is None:
            name, quote, text = text.partition('"')
            is_named = bool(quote)
            continue
        text = text.lstrip()
        if not text.startswith(sign):
            return _Begun(name, is_named) if sign.startswith(text) else None
        text = text[len(sign) :]
    return _Begun(name, is_named, text.strip())


def _json_in(text: str) -> Any:
    """The value that *text* is; `None` if it is none, or null."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


class _CallReader:
    """Lets the text of an answer through, and keeps its calls back."""

    def __init__(self, request: CommandRequest) -> None:
        calls = request.tool_choice != "none"
        self._names = {tool.name for tool in _callable(request) if calls}
        calls = bool(self._names)
        # What is held to a schema is a call or none, as its end shows.
        self._is_either = not _is_forced(request) and request.response_schema is not None
        self._whole = calls and (_is_forced(request) or self._is_either)
        self._before_call = StopMatcher([OPEN] if calls else [])
        self._passed = 0

    def feed(self, text: str) -> str:
        """The part of the text so far that belongs to the answer for certain."""
        if self._whole:
            return ""
        text = self._before_call.feed(text)
        self._passed += len(text)
        return text

    def finish(self, completion: Completion) -> tuple[str, Completion]:
        """The text that is still to be passed on, and the answer with its calls."""
        text, parts = completion.text, list(self._parts_in(completion.text))
        calls = [call for part in parts if (call := self._read(part)) is not None]
        is_cut = completion.finish_reason == "length"
        has_begun = is_cut and self._has_begun(parts)
        if has_begun and (unfinished := self._read_unfinished(parts[-1])) is not None:
            calls.append(unfinished)
        if not calls and not has_begun:
            return text[self._passed :], completion
        return "", attrs.evolve(
            completion,
            text=text[: self._passed],
            finish_reason="length" if is_cut else "tool_calls",
            tool_calls=tuple(calls),
            logprobs=(),
        )

    def _parts_in(self, text: str) -> list[str]:
        """The parts of *text* that may be calls."""
        if self._whole:
            return [text]
        return [part.partition(CLOSE)[0] for part in text.split(OPEN)[1:]]

    def _has_begun(self, parts: Sequence[str]) -> bool:
        """Whether the last of *parts* is the beginning of a call, and of nothing else."""
        if not parts or _json_in(parts[-1]) is not None:
            return False
        if self._is_either:
            return self._read_unfinished(parts[-1]) is not None
        return _read_begun(parts[-1]) is not None

    def _read_unfinished(self, text: str) -> ToolCall | None:
        """The call that *text* begins, as far as it came; `None` if its tool is not certain."""
        begun = _read_begun(text)
        if begun is None:
            return None
        names = {begun.name} & self._names if begun.is_named else self._names
        if self._whole and not self._is_either:
            # A grammar has held it to one of them.
            names = {one for one in names if one.startswith(begun.name)}
        elif not begun.is_named:
            return None
        if len(names) != 1:
            return None
        arguments = begun.arguments
        if arguments.startswith('"'):
            # Written as text that is JSON.
            written = _json_in(arguments) or _json_in(f'{arguments}"')
            arguments = written if isinstance(written, str) else ""
        return ToolCall(id=new_call_id(), name=names.pop(), arguments=arguments)

    def _read(self, text: str) -> ToolCall | None:
        value = _json_in(text)
        if not isinstance(value, dict) or value.get("name") not in self._names:
            return None
        arguments = value.get("arguments", {})
        # Some models write them as text that is JSON.
        written = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return ToolCall(id=new_call_id(), name=value["name"], arguments=written)
