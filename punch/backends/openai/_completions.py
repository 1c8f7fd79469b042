"""Translates between requests of ours and the OpenAI-compatible HTTP interface. No I/O.

`build` turns a request into a path and a body, `fault` turns a rejection into one of our errors;
answers are read by `_answer`. What llama.cpp adds to the interface (``timings``,
``exceed_context_size_error``) is read where it is there. Whether the numbers can be true is judged
by `punch.backends.plausible`.
"""

from __future__ import annotations

import json
import re
from email.utils import mktime_tz, parsedate_tz
from typing import Any, Literal

import attrs

from ...exceptions import (
    ContextTooLong,
    GenerationFailed,
    InvalidRequest,
    OfferUnavailable,
    PeerUnable,
    PunchError,
)
from ...wire import (
    MAX_NAME_CHARACTERS,
    ChatMessage,
    CommandRequest,
    Completion,
    Sampling,
    Timings,
    Usage,
)
from .._base import Generation
from .._thinking import ThinkingWords, Told, content_of, thinking_fields, thought_fields
from .._tools import arguments_schema
from ._choices import complaint_in, status_in
from ._grammars import for_grammar
from ._sse import plain_words

Dialect = Literal["llama_cpp", "vllm", "other"]
"""Which extensions of the interface a server understands."""

_WORDS: dict[Dialect, ThinkingWords] = {
    "llama_cpp": "llama_cpp",
    "vllm": "template",
    "other": "effort",
}

# Characters of a server's own words that go into an error of ours.
_MAX_QUOTE = 500

_PATHS = {
    "chat": "/v1/chat/completions",
    "complete": "/v1/completions",
    "embed": "/v1/embeddings",
    # llama.cpp's own.
    "count": "/v1/chat/completions/input_tokens",
}

# How an answer is sent, which is no part of the question.
_STREAMED = frozenset({"stream", "stream_options", "timings_per_token"})

# The codes of OpenAI and llama.cpp for a prompt that does not fit.
_CONTEXT_KINDS = frozenset({"context_length_exceeded", "exceed_context_size_error"})

# The field that vLLM names for it.
_CONTEXT_PARAMS = frozenset({"input_tokens"})

# OpenAI's code and Ollama's for a model that is not there.
_MODEL_KINDS = frozenset({"model_not_found", "not_found_error"})

# What servers write into `type` and `code` where they say nothing more than the status does. Such
# an error may be about anything, a full context among it, and the words are for people.
_VAGUE_KINDS = frozenset({"None", "BadRequestError", "BadRequest", "Bad Request", "400", "422"})

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

# Errors within errors, and lists of one.
_MAX_WRAPPERS = 3


def build(
    request: CommandRequest,
    *,
    model: str | None,
    dialect: Dialect,
    slot: int | None = None,
    told: Told | None = None,
) -> tuple[str, dict[str, Any]]:
    """The path and the JSON body that ask a server for *request*.

    Args:
      request: What to ask.
      model: The server's name for the model, if it needs one.
      dialect: Which extensions the server understands.
      slot: Which of its slots is to answer; `None` leaves it to the server.
      told: How it is told how much to think; by default in the words of its dialect.

    Raises:
      InvalidRequest: if the command is not one that a model answers.
      GenerationFailed: if an answer is to be continued and this kind of server cannot.

    """
    path = _PATHS.get(request.command)
    if path is None:
        raise InvalidRequest(
            f"command {request.command!r} is not for a model: use chat, complete or embed"
        )
    body: dict[str, Any] = {} if model is None else {"model": model}
    if request.command == "embed":
        body["input"] = list(request.inputs)
        return path, body
    if request.command == "count":
        if not request.messages:
            # As completions read a prompt.
            whole = {"content": request.prompt, "add_special": True, "parse_special": True}
            return "/tokenize", whole
        # The same prompt as that of a question.
        asked = attrs.evolve(request, command="chat")
        _, question = build(asked, model=model, dialect=dialect, told=told)
        return path, {name: value for name, value in question.items() if name not in _STREAMED}
    body["stream"] = True
    # Without it, no server but llama.cpp says how many tokens it counted.
    body["stream_options"] = {"include_usage": True}
    if dialect == "llama_cpp":
        # An event may stand for several tokens: the bytes of one character, or text that was
        # held back because a stop sequence might have begun. The count in `timings` is exact.
        body["timings_per_token"] = True
        if slot is not None:
            body["id_slot"] = slot
    body.update(_sampling(request.sampling, dialect))
    if finds_stops(request, dialect):
        body.pop("stop", None)
    body.update(_form(request, dialect))
    if request.command == "complete":
        body["prompt"] = (request.prompt or "") + (request.continuation or "")
    else:
        told = told or Told(words=_WORDS[dialect])
        body.update(thinking_fields(request, told))
        body["messages"] = [_message(message, told.words) for message in request.messages]
        last = request.messages[-1] if request.messages else None
        begun = last is not None and last.role == "assistant" and not last.tool_calls
        if request.continuation or (begun and dialect != "other"):
            _continue(body, request.continuation or "", dialect)
    return path, body


def finds_stops(request: CommandRequest, dialect: Dialect) -> bool:
    """Whether the stop sequences of *request* are found here, and not by the server.

    llama-server does not say whether an answer ended by one of them or by itself. Its counts and
    log-probabilities would need a cut of their own, so with these the server finds the stops.
    """
    return dialect == "llama_cpp" and request.logprobs is None


def _sampling(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """Only what is set: the rest is the server's own default."""
    values = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        # vLLM ignores names that it does not know, so the wrong one would do nothing, silently.
        "repetition_penalty" if dialect == "vllm" else "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _message(message: ChatMessage, words: ThinkingWords) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": content_of(message)}
    found |= thought_fields(message, words)
    if message.name is not None:
        found["name"] = message.name
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        # Beside calls, a template may write an empty text, and not the lack of one.
        found["content"] = message.content or None
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                # Of a call without parameters, some models write nothing, and no server reads that.
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for call in message.tool_calls
        ]
    return found


def _form(request: CommandRequest, dialect: Dialect) -> dict[str, Any]:
    """What is said of the form of the answer: tools, a schema, log-probabilities."""
    body: dict[str, Any] = {}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    **({} if tool.description is None else {"description": tool.description}),
                    "parameters": _said_for(arguments_schema(tool), dialect),
                },
            }
            for tool in request.tools
        ]
    if request.tools and request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    choice = request.tool_choice
    if choice is not None:
        name = choice.removeprefix("function:")
        is_name = name != choice
        body["tool_choice"] = (
            {"type": "function", "function": {"name": name}} if is_name else choice
        )
    if request.response_schema is not None:
        schema = json.loads(request.response_schema)
        body.update(_schema(request, _said_for(schema, dialect), dialect))
    if request.logprobs is not None:
        # To llama-server, none is no wish at all; what is too many is left out again.
        alternatives = max(1, request.logprobs) if dialect == "llama_cpp" else request.logprobs
        if request.command == "complete":
            body["logprobs"] = alternatives
        else:
            body |= {"logprobs": True, "top_logprobs": alternatives}
    return body


def _said_for(schema: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    return for_grammar(schema) if dialect == "llama_cpp" else schema


def _schema(request: CommandRequest, schema: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    if request.command == "complete" and dialect == "llama_cpp":
        # Its plain completions ignore `response_format`.
        return {"json_schema": schema or {"type": "object"}}
    if not schema:
        return {"response_format": {"type": "json_object"}}
    # Strict: OpenAI refuses a schema that it could not hold an answer to, and says why.
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _continue(body: dict[str, Any], continuation: str, dialect: Dialect) -> None:
    """Have the server continue inside its own turn, without repeating any of it.

    The turn is what the caller has begun of it, if anything, and then *continuation*.
    """
    if dialect == "other":
        raise GenerationFailed(
            "this server cannot go on with an answer that another peer has begun"
        )
    messages = body["messages"]
    if messages and messages[-1]["role"] == "assistant":
        last = messages[-1]
        if isinstance(last["content"], list):
            last["content"].append({"type": "text", "text": continuation})
        else:
            last["content"] += continuation
    else:
        messages.append({"role": "assistant", "content": continuation})
    # vLLM's words. Without them llama-server would continue too, but repeat the beginning first.
    body["add_generation_prompt"] = False
    body["continue_final_message"] = True
    if dialect == "llama_cpp":
        # llama-server refuses to continue for a model that would think first; that is over here.
        body["chat_template_kwargs"] = {"enable_thinking": False}


def usage_in(usage: dict[str, Any], timings: dict[str, Any]) -> Usage:
    """The tokens that a server has counted, in its `usage` or in llama.cpp's `timings`."""
    cached = count_in(timings, "cache_n")
    if isinstance(details := usage.get("prompt_tokens_details"), dict):
        cached = count_in(details, "cached_tokens") if cached is None else cached
    prompt = count_in(usage, "prompt_tokens")
    if prompt is None and (fresh := count_in(timings, "prompt_n")) is not None:
        prompt = fresh + (cached or 0)
    answer = count_in(usage, "completion_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=count_in(timings, "predicted_n") if answer is None else answer,
        cached_tokens=cached,
        reasoning_tokens=_thought_in(usage),
    )


def read_count(value: Any) -> Generation:
    """The tokens of a prompt, in the body of a response of llama-server's.

    Raises:
      GenerationFailed: if the body is not such a response.

    """
    count = None
    if isinstance(value, dict):
        tokens = value.get("tokens")
        count = len(tokens) if isinstance(tokens, list) else count_in(value, "input_tokens")
    if count is None:
        raise GenerationFailed("the server's answer holds no count of tokens")
    return Generation(completion=Completion(), usage=Usage(prompt_tokens=count), timings=Timings())


def _thought_in(usage: dict[str, Any]) -> int | None:
    """The tokens that were thought, as OpenAI and vLLM tell them, or SGLang."""
    details = usage.get("completion_tokens_details")
    found = count_in(details, "reasoning_tokens") if isinstance(details, dict) else None
    return count_in(usage, "reasoning_tokens") if found is None else found


def read_embeddings(value: Any, *, expected: int) -> Generation:
    """The vectors in the body of an embeddings response, in the order of the inputs.

    Raises:
      GenerationFailed: if the body is not such a response.
      PunchError: the error that `fault_of` finds in it.

    """
    if isinstance(value, dict) and (complaint := complaint_in(value)) is not None:
        raise fault_of(complaint, status=status_in(complaint))
    try:
        rows = sorted(value["data"], key=lambda row: row.get("index", 0))
        vectors = tuple(tuple(float(x) for x in row["embedding"]) for row in rows)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise GenerationFailed("the server's answer holds no list of embeddings") from None
    if len(vectors) != expected:
        raise GenerationFailed(f"the server sent {len(vectors)} embeddings for {expected} texts")
    usage = value.get("usage")
    return Generation(
        completion=Completion(embeddings=vectors),
        usage=usage_in(usage if isinstance(usage, dict) else {}, {}),
        timings=Timings(),
    )


@attrs.frozen(kw_only=True)
class _Complaint:
    """What a server says went wrong."""

    kinds: frozenset[str]
    message: str
    param: str | None
    prompt_tokens: int | None
    context_tokens: int | None


def _read_complaint(error: Any) -> _Complaint:
    if not isinstance(error, dict):
        return _Complaint(
            kinds=frozenset(), message=_quoted(error), param=None,
            prompt_tokens=None, context_tokens=None,
        )  # fmt: skip
    param = error.get("param")
    is_field = (
        isinstance(param, str) and 0 < len(param) <= MAX_NAME_CHARACTERS and param.isprintable()
    )
    return _Complaint(
        # OpenAI says it in `code`, llama.cpp in `type` with the HTTP status in `code`.
        kinds=frozenset(str(error.get(name)) for name in ("type", "code")),
        message=_quoted(error.get("message") or error),
        param=param if is_field else None,
        prompt_tokens=count_in(error, "n_prompt_tokens"),
        context_tokens=count_in(error, "n_ctx"),
    )


def _quoted(words: Any) -> str:
    text = words if isinstance(words, str) else json.dumps(words, ensure_ascii=False)
    return text[:_MAX_QUOTE]


def fault(
    status: int,
    body: bytes,
    *,
    retry_after: str | None = None,
    date: str | None = None,
    key_setting: str | None = None,
) -> PunchError:
    """Our word for an HTTP response that is no answer.

    Args:
      status: Its HTTP status.
      body: The beginning of its body.
      retry_after: Its ``Retry-After`` header.
      date: Its ``Date`` header.
      key_setting: Name of the setting that holds the API key, for the text.

    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = plain_words(body) or f"HTTP status {status}"
    for _ in range(_MAX_WRAPPERS):
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, dict):
            value = _complained_in(value)
    error = fault_of(value, status=status, key_setting=key_setting)
    wait = _seconds_until(retry_after, date)
    error.retry_after = error.retry_after if wait is None else wait
    return error


def _complained_in(value: dict[str, Any]) -> Any:
    found = value.get("error")
    return (found if found is not True else None) or value.get("detail") or value


def _seconds_until(retry_after: str | None, date: str | None) -> float | None:
    """What a ``Retry-After`` says, in seconds: some, or a date (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    if _SECONDS.fullmatch(retry_after):
        return float(retry_after)
    then, now = parsedate_tz(retry_after), parsedate_tz(date)
    try:
        # By the server's own clock: ours may be another one.
        return max(0.0, mktime_tz(then) - mktime_tz(now)) if then and now else None
    except (ValueError, OverflowError):
        return None


def fault_of(error: Any, *, status: int, key_setting: str | None = None) -> PunchError:
    """Our word for the *error* object of a server, which came with HTTP *status*."""
    said = _read_complaint(error)
    # What the server says in fields comes first; only where it has none are its words read.
    if "exceed_context_size_error" in said.kinds and said.prompt_tokens and said.context_tokens:
        return ContextTooLong.of(
            f"the prompt has {said.prompt_tokens} tokens and the context of a request is "
            f"{said.context_tokens} tokens; shorten the prompt or ask a model with a longer "
            "context",
            said.prompt_tokens,
            said.context_tokens,
        )
    if said.kinds & _CONTEXT_KINDS or said.param in _CONTEXT_PARAMS:
        return ContextTooLong.of(said.message, said.prompt_tokens, said.context_tokens)
    if status in (401, 402, 403):
        remedy = f"; set {key_setting} to a key that it accepts" if key_setting else ""
        return OfferUnavailable(f"the server rejects our API key: {said.message}{remedy}")
    if status in (404, 405, 410) or said.kinds & _MODEL_KINDS:
        return OfferUnavailable(f"the server has no such model now: {said.message}")
    # 501 is llama-server's word for "not with this model", as for embeddings.
    if status in (413, 415, 501):
        return PeerUnable(f"the server cannot serve this: {said.message}", param=said.param)
    if status in (400, 422):
        names = f" (parameter {said.param!r})" if said.param else ""
        what = f"the server rejects the request: {said.message}{names}"
        if said.param is None and said.kinds <= _VAGUE_KINDS:
            # It may be too long for that server, or ask for what only that does not know.
            return PeerUnable(what)
        return InvalidRequest(what, param=said.param)
    failed = GenerationFailed(f"the server failed with status {status}: {said.message}")
    if status in (429, 503, 529):
        # Loading a model or clearing a queue takes seconds; less would only add to the load.
        failed.retry_after = 1.0
    return failed


def count_in(values: dict[str, Any], name: str) -> int | None:
    """The count that *values* have under *name*; `None` if there is none."""
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
