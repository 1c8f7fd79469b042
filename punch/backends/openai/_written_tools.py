"""Writes tools into the prompt of models whose chat template has none, and reads calls back.

llama-server leaves tools out of the prompt, and calls and results out of the conversation,
without a word, if the model's template knows none. Here they are written into the conversation
as text, in the form that most models with tools were trained on (Hermes: a call is JSON between
``<tool_call>`` tags), and found again in the answer:

* A call that the caller demands is forced: the answer is held to a schema that is the call.
* Otherwise the model writes what it likes, and what it writes as a call is one.
* An answer that must be a call or fit the caller's own schema is held to either.

No I/O: the server is asked by the function that `ask_in_writing` is given.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import attrs

from ...wire import ChatMessage, CommandRequest, Completion, ToolCall
from .._base import Emit, Generation
from .._stop import StopMatcher
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
        await emit(reader.feed(text), tokens)

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
        if results and message.role == "user":
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
    wanted = (request.tool_choice or "").removeprefix("function:")
    named = [tool for tool in request.tools if tool.name == wanted]
    parts = {}
    for number, tool in enumerate(named or request.tools):
        place = f"/$defs/{number}/properties/arguments"
        arguments = _moved(json.loads(tool.parameters) or {"type": "object"}, place)
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


class _CallReader:
    """Lets the text of an answer through, and keeps its calls back."""

    def __init__(self, request: CommandRequest) -> None:
        calls = request.tool_choice != "none"
        self._names = {tool.name for tool in request.tools if calls}
        calls = bool(self._names)
        # What is held to a schema is a call or none, as its end shows.
        self._whole = calls and (_is_forced(request) or request.response_schema is not None)
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
        text, calls = completion.text, list(self._calls_in(completion.text))
        if not calls:
            return text[self._passed :], completion
        reason = completion.finish_reason
        return "", attrs.evolve(
            completion,
            text=text[: self._passed],
            finish_reason="length" if reason == "length" else "tool_calls",
            tool_calls=tuple(calls),
            logprobs=(),
        )

    def _calls_in(self, text: str) -> Iterator[ToolCall]:
        if self._whole:
            parts = [text]
        else:
            parts = [part.partition(CLOSE)[0] for part in text.split(OPEN)[1:]]
        for part in parts:
            call = self._read(part)
            if call is not None:
                yield call

    def _read(self, text: str) -> ToolCall | None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or value.get("name") not in self._names:
            return None
        arguments = value.get("arguments", {})
        # Some models write them as text that is JSON.
        written = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return ToolCall(id=new_call_id(), name=value["name"], arguments=written)
