"""Makes of the messages of Anthropic's clients a conversation as peers read it. No I/O.

Decides what is the system prompt, what becomes of blocks, and which tools are there: a chat
template takes one system message at the beginning, and turns by turns after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import attrs

from ...wire import ChatMessage, ContentPart, Tool, ToolCall
from ..bodies import thought_in
from ._blocks import (
    Base64Source,
    Block,
    CompactionBlock,
    DocumentBlock,
    ImageBlock,
    ResultPart,
    SearchResultBlock,
    TextBlock,
    ThinkingBlock,
    ToolChangeBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from ._bodies import PromptBody, ToolBody, TurnBody

# Claude Code says in its system prompt, so, who pays. Anthropic's servers read it and no model
# does; it differs between requests whose prompts are else the same, and would spoil every cache.
BILLING = "x-anthropic-billing-header:"


def conversation(body: PromptBody) -> tuple[ChatMessage, ...]:
    """The messages of *body*."""
    system = [text for text in _system_texts(body) if text]
    found: list[ChatMessage] = []
    for place, turn in enumerate(body.messages):
        blocks = _blocks(turn)
        if turn.role == "assistant":
            said = _said_by_assistant(blocks)
            # One that says nothing is a placeholder for the answer.
            if said != ChatMessage(role="assistant", content=""):
                _add(found, said)
        elif turn.role == "user":
            for message in _said_by_user(blocks):
                _add(found, message)
        elif not _is_cleared(turn, body.messages[place + 1 :]):
            text = _paragraphs(_readable(blocks))
            if text and any(message.role == "assistant" for message in found):
                # Templates take no second system message, and to change the first would empty
                # the cache of all that follows it.
                _add(found, ChatMessage(role="user", content=text))
            else:
                system.append(text)
    if system:
        found.insert(0, ChatMessage(role="system", content=_paragraphs(system)))
    return tuple(found)


def _system_texts(body: PromptBody) -> Iterable[str]:
    given = body.system
    texts = [given] if isinstance(given, str) else [block.text for block in given or ()]
    return [text for text in texts if not text.startswith(BILLING)]


def _blocks(turn: TurnBody) -> Sequence[Block]:
    content = turn.content
    if isinstance(content, str):
        return [TextBlock(type="text", text=content)] if content else []
    return content or ()


def _is_cleared(turn: TurnBody, later: Sequence[TurnBody]) -> bool:
    """Whether a system message was meant for an earlier turn only."""
    if turn.clear_at != "next_user_message":
        return False
    return any(other.role == "user" for other in later)


def _paragraphs(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)


def _readable(blocks: Iterable[Block | ResultPart]) -> Iterable[str]:
    """The texts of *blocks* that stand in a turn of the user's or of the system's."""
    for block in blocks:
        match block:
            case TextBlock() | DocumentBlock() | SearchResultBlock():
                yield block.text
            case CompactionBlock():
                yield block.content or ""
            case ToolReferenceBlock():
                yield f"The tool {block.tool_name} is there now."
            case _:
                pass


def _add(found: list[ChatMessage], message: ChatMessage) -> None:
    """Add a turn; what one role says in several messages is one turn, as Anthropic has it."""
    last = found[-1] if found else None
    if last is None or last.role != message.role or message.role == "tool":
        found.append(message)
        return
    if last.parts or message.parts:
        parts = [*_parts_of(last), *_parts_of(message)]
        found[-1] = ChatMessage.of_parts(message.role, parts)
        return
    thoughts = [thought for thought in (last.reasoning, message.reasoning) if thought]
    found[-1] = attrs.evolve(
        last,
        content=_paragraphs([last.content, message.content]),
        tool_calls=last.tool_calls + message.tool_calls,
        reasoning="\n".join(thoughts) or None,
    )


def _parts_of(message: ChatMessage) -> Iterable[ContentPart]:
    if message.parts:
        return message.parts
    return [ContentPart(type="text", text=message.content)] if message.content else []


def _said_by_assistant(blocks: Iterable[Block]) -> ChatMessage:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for block in blocks:
        match block:
            case ThinkingBlock():
                thoughts.append(block.thinking or thought_in(block.signature))
            case ToolUseBlock():
                calls.append(ToolCall(id=block.id, name=block.name, arguments=block.arguments))
            case TextBlock():
                texts.append(block.text)
            case _:
                texts += _readable([block])
    return ChatMessage(
        role="assistant",
        # Blocks of one answer are pieces of one text.
        content="".join(texts),
        tool_calls=tuple(calls),
        reasoning="\n".join(filter(None, thoughts)) or None,
    )


def _said_by_user(blocks: Sequence[Block]) -> Iterable[ChatMessage]:
    """The outputs of tools, each a message of its own, and then what the user says."""
    pictures: list[ContentPart] = []
    for block in blocks:
        if isinstance(block, ToolResultBlock):
            yield _result(block, pictures)
    parts: list[ContentPart] = list(pictures)
    texts: list[str] = []
    for block in blocks:
        if isinstance(block, ImageBlock):
            parts += [ContentPart(type="text", text=text) for text in texts]
            texts = []
            parts.append(_picture(block))
        else:
            texts += _readable([block])
    if not parts:
        if text := _paragraphs(texts):
            yield ChatMessage(role="user", content=text)
        return
    parts += [ContentPart(type="text", text=text) for text in texts if text]
    yield ChatMessage.of_parts("user", parts)


def _picture(block: ImageBlock) -> ContentPart:
    source = block.source
    # No body with another source gets here.
    assert isinstance(source, Base64Source)
    return ContentPart(type="image", media_type=source.media_type, data=source.content)


def _result(block: ToolResultBlock, pictures: list[ContentPart]) -> ChatMessage:
    """What a call has returned; its *pictures* are shown after all outputs: tools return text."""
    content = block.content
    if isinstance(content, list):
        shown = [_picture(part) for part in content if isinstance(part, ImageBlock)]
        pictures += shown
        text = _paragraphs(_readable(content))
        if shown and not text:
            text = "(see the image)" if len(shown) == 1 else "(see the images)"
    else:
        text = content or ""
    if block.is_error:
        # Chat templates have no other place for it.
        text = f"Error: {text}" if text else "Error"
    return ChatMessage(role="tool", content=text, tool_call_id=block.tool_use_id)


# ---- tools ----


def tools_of(body: PromptBody) -> tuple[Tool, ...]:
    """The tools that the model may call at the end of the conversation.

    A tool whose loading is deferred is there once a search has found it, or a message adds it.
    """
    there = _present(body)
    tools = [tool for tool in body.tools or () if isinstance(tool, ToolBody)]
    return tuple(_tool(tool) for tool in tools if there[tool.name])


def _present(body: PromptBody) -> dict[str, bool]:
    tools = [tool for tool in body.tools or () if isinstance(tool, ToolBody)]
    there = {tool.name: not tool.defer_loading for tool in tools}
    for turn in body.messages:
        for block in _blocks(turn):
            if isinstance(block, ToolChangeBlock):
                there[block.tool.name] = block.type == "tool_addition"
            elif isinstance(block, ToolResultBlock) and isinstance(block.content, list):
                for part in block.content:
                    if isinstance(part, ToolReferenceBlock):
                        there[part.tool_name] = True
    if body.tool_choice is not None and body.tool_choice.name is not None:
        there[body.tool_choice.name] = True
    return there


def _tool(body: ToolBody) -> Tool:
    description = body.description
    if body.input_examples:
        examples = "\n".join(json.dumps(one, ensure_ascii=False) for one in body.input_examples)
        description = _paragraphs([description or "", "Examples of its input:", examples])
    return Tool(
        name=body.name,
        description=description,
        parameters=json.dumps(body.input_schema, ensure_ascii=False),
    )
