"""The forms in which servers answer: OpenAI's, its many variations, and answers that are none.

Each was seen in the streams of a real server. They are values, to be given to an `Upstream`:

    upstream = Upstream([response(ODD_FORMS["no blank line at the end"].body(["Hel", "lo"]))])
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs

Layout = Literal["events", "lines", "value", "indented value"]


def _delta(text: str) -> dict[str, Any]:
    return {"delta": {"content": text}}


@attrs.frozen(kw_only=True)
class AnswerForm:
    """How a server writes its answer to a chat; as OpenAI does, unless a field says otherwise."""

    layout: Layout = "events"
    """Server-sent events; a JSON value a line; or one JSON value, on one line or on many."""

    line_end: str = "\n"
    """What ends a line."""

    space: str = " "
    """What stands behind the colon of a field."""

    start: bytes = b""
    """What comes before the first event."""

    before_each: str = ""
    """Lines that come before each event."""

    blank_line: bool = True
    """Whether an empty line ends an event."""

    last_line_end: bool = True
    """Whether the last event has the line end and the empty line of the others."""

    choice: Callable[[str], Mapping[str, Any]] = _delta
    """A choice with a piece of the text."""

    finish_reason: Any = "stop"
    """What the answer says of its end; `None` says nothing."""

    finishes_with_text: bool = False
    """Whether the last piece of text has the reason, and not an event of its own."""

    more: Sequence[Mapping[str, Any]] = ()
    """Values that come after the text, each an event."""

    done: str | None = "[DONE]"
    """The last event; `None` for no such event."""

    usage: Mapping[str, Any] | None = None
    """What every event has as its `usage`."""

    indent: int | None = None
    """Spaces by which the JSON of events is indented, over several ``data`` lines."""

    def body(self, texts: Sequence[str]) -> bytes:
        """The body of an answer in the pieces *texts*."""
        if self.layout in ("value", "indented value"):
            return self._value("".join(texts))
        texts = list(texts) or [""]
        values = [self._event(self.choice(text), None) for text in texts[:-1]]
        if self.finishes_with_text:
            values.append(self._event(self.choice(texts[-1]), self.finish_reason))
        else:
            values.append(self._event(self.choice(texts[-1]), None))
            values.append(self._event({"delta": {}}, self.finish_reason))
        spelled = [json.dumps(value, indent=self.indent) for value in [*values, *self.more]]
        if self.done is not None:
            spelled.append(self.done)
        return self.start + self.spell(spelled)

    def spell(self, values: Sequence[str]) -> bytes:
        """*values* as events, or a line each."""
        field = "" if self.layout == "lines" else f"data:{self.space}"
        blank = "\n" if self.blank_line else ""
        events = []
        for value in values:
            lines = "\n".join(field + line for line in value.split("\n"))
            events.append(f"{self.before_each}{lines}\n{blank}")
        text = "".join(events)
        if not self.last_line_end:
            text = text.rstrip("\n")
        return text.replace("\n", self.line_end).encode()

    def _event(self, choice: Mapping[str, Any], reason: Any) -> dict[str, Any]:
        return {
            "id": "1",
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, **choice, "finish_reason": reason}],
            "usage": self.usage,
        }

    def _value(self, text: str) -> bytes:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        value = {"object": "chat.completion", "choices": [choice], "usage": self.usage}
        indent = 2 if self.layout == "indented value" else None
        return self.start + json.dumps(value, indent=indent).encode()


def _parts(kind: str) -> Callable[[str], Mapping[str, Any]]:
    return lambda text: {"delta": {"content": [{"type": kind, "text": text}]}}


_COUNTED = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}

ODD_FORMS: Mapping[str, AnswerForm] = {
    "OpenAI's": AnswerForm(),
    "CR LF": AnswerForm(line_end="\r\n"),
    "CR": AnswerForm(line_end="\r"),
    "a byte order mark": AnswerForm(start=b"\xef\xbb\xbf"),
    "no space behind the colon": AnswerForm(space=""),
    "two spaces behind the colon": AnswerForm(space="  "),
    "empty lines first": AnswerForm(start=b"\n\n"),
    "comments": AnswerForm(before_each=": ping\n\n"),
    "bare colons": AnswerForm(before_each=":\n\n"),
    "empty data": AnswerForm(before_each="data:\n\n"),
    "data of a space": AnswerForm(before_each="data: \n\n"),
    "a field without a colon": AnswerForm(before_each="data\n\n"),
    "an empty object": AnswerForm(before_each="data: {}\n\n"),
    "an event named ping": AnswerForm(before_each='event: ping\ndata: {"type": "ping"}\n\n'),
    "a heartbeat in words": AnswerForm(before_each="data: keep-alive\n\n"),
    "names, ids and times": AnswerForm(before_each="id: 7\nretry: 10\nevent: message\n"),
    "no choices": AnswerForm(before_each='data: {"choices": [], "usage": null}\n\n'),
    "no error": AnswerForm(before_each='data: {"error": null, "choices": []}\n\n'),
    "only a role": AnswerForm(
        before_each='data: {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}\n\n'
    ),
    "no empty lines": AnswerForm(blank_line=False),
    "values over several lines": AnswerForm(indent=1),
    "no blank line at the end": AnswerForm(last_line_end=False),
    "no blank line at the end, nor [DONE]": AnswerForm(last_line_end=False, done=None),
    "no [DONE]": AnswerForm(done=None),
    "[DONE] and a space": AnswerForm(done="[DONE] "),
    "[DONE] in spaces": AnswerForm(done=" [DONE]\t"),
    "[done]": AnswerForm(done="[done]"),
    "a value a line": AnswerForm(layout="lines"),
    "one value": AnswerForm(layout="value"),
    "one value over many lines": AnswerForm(layout="indented value"),
    "one value without a reason": AnswerForm(layout="value", finish_reason=None),
    "a message in place of a delta": AnswerForm(choice=lambda text: {"message": _message(text)}),
    "a message beside an empty delta": AnswerForm(
        choice=lambda text: {"delta": {}, "message": _message(text)}
    ),
    "a list of parts": AnswerForm(choice=_parts("text")),
    "a list of OpenAI's newer parts": AnswerForm(choice=_parts("output_text")),
    "a list of texts": AnswerForm(choice=lambda text: {"delta": {"content": [text]}}),
    "a part": AnswerForm(
        choice=lambda text: {"delta": {"content": {"type": "text", "text": text}}}
    ),
    "a text in place of a delta": AnswerForm(choice=lambda text: {"delta": text}),
    "the text of a plain completion": AnswerForm(choice=lambda text: {"text": text}),
    "no reason, but [DONE]": AnswerForm(finish_reason=None),
    "an empty reason, and [DONE]": AnswerForm(finish_reason=""),
    "the reason with the text": AnswerForm(finishes_with_text=True),
    "eos": AnswerForm(finish_reason="eos"),
    "eos_token": AnswerForm(finish_reason="eos_token"),
    "stop_sequence": AnswerForm(finish_reason="stop_sequence"),
    "STOP": AnswerForm(finish_reason="STOP", done=None),
    "end_turn": AnswerForm(finish_reason="end_turn", done=None),
    "tool_calls without calls": AnswerForm(finish_reason="tool_calls"),
    "the usage at the end": AnswerForm(more=[{"choices": [], "usage": _COUNTED}]),
    "an empty usage with every event": AnswerForm(usage={}),
    "a text after [DONE]": AnswerForm(done='[DONE]\n\ndata: {"choices": [{"text": "!"}]}'),
}
"""Answers that read as their text and end with ``stop``, by what is odd about them."""


def _message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


WORDS = "the model fell over its own feet"
"""What the servers of `ODD_FAILURES` say, where they say anything."""

_SAID = json.dumps({"message": WORDS})
_HTML = (
    "<!DOCTYPE html>\n<html><head><title>Bad gateway</title><style>p {color: red}</style></head>\n"
    f"<body><h1>502</h1><p>{WORDS}</p></body></html>\n"
)

ODD_FAILURES: Mapping[str, bytes] = {
    "an event named error": f"event: error\ndata: {_SAID}\n\n".encode(),
    "an event named error, in words": f"event: error\ndata: {WORDS}\n\n".encode(),
    "an event named error, without an end": f"event: error\ndata: {WORDS}".encode(),
    "a field named error": f"error: {_SAID}\n\n".encode(),
    "a field named error, in words": f"error: {WORDS}\n\n".encode(),
    "an error": f'data: {{"error": {_SAID}}}\n\n'.encode(),
    "an error in words": f'data: {{"error": "{WORDS}"}}\n\n'.encode(),
    "an error and [DONE]": f'data: {{"error": {_SAID}}}\n\ndata: [DONE]\n\n'.encode(),
    "an error in a list": f'data: [{{"error": {_SAID}}}]\n\n'.encode(),
    "an error in a choice": (
        f'data: {{"choices": [{{"delta": {{}}, "finish_reason": "error", "error": {_SAID}}}]}}\n\n'
    ).encode(),
    "an object of the kind error": (
        f'data: {{"object": "error", "message": "{WORDS}"}}\n\n'
    ).encode(),
    "a type of the kind error": f'data: {{"type": "error", "error": {_SAID}}}\n\n'.encode(),
    "a detail": f'data: {{"detail": "{WORDS}"}}\n\n'.encode(),
    "a code": f'data: {{"code": 500, "msg": "x", "message": "{WORDS}"}}\n\n'.encode(),
    "a message and [DONE]": f"data: {_SAID}\n\ndata: [DONE]\n\n".encode(),
    "a page": _HTML.encode(),
    "a text": f"{WORDS}\n".encode(),
    "an error as one value": f'{{"error": {_SAID}}}'.encode(),
    "an error as one value over many lines": json.dumps(
        {"error": {"message": WORDS}}, indent=2
    ).encode(),
    "a detail as one value": f'{{"detail": "{WORDS}"}}'.encode(),
    "a message as one value": _SAID.encode(),
}
"""Bodies with status 200 that hold no answer but `WORDS`, by what is odd about them."""

EMPTY_ANSWERS: Mapping[str, bytes] = {
    "nothing": b"",
    "comments": b": ping\n\n: ping\n\n",
    "only [DONE]": b"data: [DONE]\n\n",
    "only a role": (
        b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, '
        b'"finish_reason": null}]}\n\ndata: [DONE]\n\n'
    ),
    "a call that is not there": (
        b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}\n\n'
        b"data: [DONE]\n\n"
    ),
    "no choices": b'data: {"choices": []}\n\ndata: [DONE]\n\n',
    "an empty object": b"{}",
    "an empty list": b"[]",
}
"""Bodies with status 200 that hold no answer and no word, by what is in them."""


def response(
    body: bytes,
    *,
    content_type: str = "text/event-stream",
    framing: Literal["chunked", "length", "close"] = "chunked",
    compressed: bool = False,
    sizes: Sequence[int] = (),
) -> bytes:
    """A whole response with status 200.

    Args:
      body: Its body.
      content_type: What it says that this is.
      framing: How the client learns where the body ends; after ``close`` the script must have a
        cut.
      compressed: Whether the body is sent with gzip.
      sizes: Lengths of the chunks, in bytes; the last chunk has what is left.

    """
    fields = [f"Content-Type: {content_type}"]
    if compressed:
        body = gzip.compress(body, mtime=0)
        fields.append("Content-Encoding: gzip")
    if framing == "chunked":
        fields.append("Transfer-Encoding: chunked")
    elif framing == "length":
        fields.append(f"Content-Length: {len(body)}")
    else:
        fields.append("Connection: close")
    start = "\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode()
    if framing != "chunked":
        return start + body
    chunks = []
    for size in sizes:
        chunks.append(body[:size])
        body = body[size:]
    return start + b"".join(
        b"%x\r\n%b\r\n" % (len(data), data) for data in (*filter(None, (*chunks, body)), b"")
    )
