"""Decides the HTTP status and body of every error, from one table, for each dialect.

An error is told apart by its `PunchError.code` and its data, never by its text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import attrs

from ..exceptions import (
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    NoPeerAvailable,
    PunchError,
    RequestError,
)
from ..routing import WISHED, Decision
from ..wire import SAMPLING_NUMBERS
from .server import BadRequest

# When to ask again where the error does not say: adverts come every second, and a listener that
# was restarted is back within five (`punch.routing`).
DEFAULT_RETRY_SECONDS = 5.0

Dialect = Literal["openai", "ollama", "anthropic"]
"""Whose shapes an answer has."""

MESSAGES_PATH = "/v1/messages"
_UNDER_MESSAGES = f"{MESSAGES_PATH}/"
ANTHROPIC_VERSION = b"anthropic-version"
"""Header of a request by which Anthropic's clients are told apart."""

E = TypeVar("E", bound=Exception)


def dialect_of(path: str, headers: Mapping[bytes, bytes] | None = None) -> Dialect:
    """Whose shapes the answer to a request has: by its path, or else by its headers."""
    if path.startswith("/api/"):
        return "ollama"
    if path == MESSAGES_PATH or path.startswith(_UNDER_MESSAGES):
        return "anthropic"
    return "anthropic" if headers is not None and ANTHROPIC_VERSION in headers else "openai"


def without_traceback(error: E) -> E:
    """*error* without the frames that it came through.

    The frames hold what the caller sent, up to megabytes, in a reference cycle: without this they
    would stay in memory until the cycle collector runs.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


@attrs.frozen
class Row:
    """How HTTP says one error."""

    status: int
    """HTTP status."""

    type: str
    """OpenAI's `type`: whose fault the error is."""

    code: str | None
    """OpenAI's `code`: theirs for this error where they have one."""


_INVALID = "invalid_request_error"
_SERVER = "server_error"
_BUSY = "service_unavailable_error"

TABLE: Mapping[str, Row] = {
    # ---- the caller's ----
    "request": Row(400, _INVALID, "invalid_request"),
    "invalid_request": Row(400, _INVALID, "invalid_value"),
    "context_too_long": Row(400, _INVALID, "context_length_exceeded"),
    "conflict": Row(409, _INVALID, "request_id_conflict"),
    # nginx's status for a client that went away; it is only logged.
    "cancelled": Row(499, _INVALID, "cancelled"),
    "unknown_model": Row(404, _INVALID, "model_not_found"),
    "unauthorized": Row(401, "authentication_error", "invalid_api_key"),
    "model_forbidden": Row(403, "permission_error", "model_not_allowed"),
    "quota": Row(429, "rate_limit_error", "rate_limit_exceeded"),
    # Not above 499, and neither 408, 409 nor 429: clients ask those again by themselves.
    "engines_died": Row(422, _INVALID, "engines_died"),
    # ---- nobody's: asking later may help ----
    "no_peer": Row(503, _BUSY, "no_peer"),
    "no_real_peer": Row(503, _BUSY, "no_real_peer"),
    "network": Row(503, _BUSY, "network"),
    "address_unavailable": Row(503, _BUSY, "network"),
    "identity_changed": Row(503, _BUSY, "identity_changed"),
    "not_permitted": Row(503, _BUSY, "not_permitted"),
    "bootstrap_full": Row(503, _BUSY, "bootstrap_full"),
    "not_running": Row(503, _BUSY, "not_running"),
    "deadline": Row(504, "timeout_error", "deadline_exceeded"),
    # ---- a peer's ----
    "interrupted": Row(502, _SERVER, "answer_interrupted"),
    "peer": Row(502, _SERVER, "peer_failed"),
    "unreachable": Row(502, _SERVER, "peer_unreachable"),
    "silent": Row(504, "timeout_error", "peer_silent"),
    "refused": Row(503, _BUSY, "peer_refused"),
    "unavailable": Row(503, _BUSY, "peer_refused"),
    "unable": Row(400, _INVALID, "invalid_value"),
    "backend_failed": Row(502, _SERVER, "backend_failed"),
    "unfit": Row(502, _SERVER, "schema_not_met"),
    "simulated": Row(502, _SERVER, "peer_simulated"),
    "protocol": Row(502, _SERVER, "protocol"),
    "remote_protocol": Row(502, _SERVER, "protocol"),
    # ---- ours ----
    "local_protocol": Row(500, _SERVER, "internal"),
    "backend": Row(500, _SERVER, "backend_failed"),
    "backend_crashed": Row(500, _SERVER, "backend_failed"),
    "generation_failed": Row(500, _SERVER, "backend_failed"),
    "configuration": Row(500, _SERVER, "configuration"),
    "model_file": Row(500, _SERVER, "model_file"),
    "internal": Row(500, _SERVER, "internal"),
}
"""`PunchError.code` to its row. A test walks the tree of errors, so that none is missing."""

# Anthropic's `type` goes with the status: https://docs.claude.com/en/api/errors
_ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    501: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@attrs.define(kw_only=True)
class Refusal(Exception):
    """An error as the client gets it, in place of an answer."""

    status: int
    """HTTP status."""

    message: str
    """What happened, for a person."""

    type: str = _INVALID
    """OpenAI's `type`: whose fault the error is."""

    code: str | None = None
    """OpenAI's `code`."""

    param: str | None = None
    """The field at fault, spelled ``messages[0].content``."""

    retry_after: float | None = None
    """Seconds after which asking again makes sense."""

    cause: str = "invalid_request"
    """The `PunchError.code` that comes nearest, for `RequestRecord.error_code`."""

    closes: bool = False
    """The connection cannot be used again: what was sent on it was not read to its end."""

    headers: tuple[tuple[str, str], ...] = ()
    """Further headers."""

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Every header but those of the body."""
        found = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        if self.retry_after is not None:
            found.append((b"retry-after", str(max(1, math.ceil(self.retry_after))).encode()))
        if self.status == 401:
            # RFC 9110, section 11.6.1: a 401 says how to do better.
            found.append((b"www-authenticate", b'Bearer realm="punch"'))
        if self.closes:
            found.append((b"connection", b"close"))
        return found

    def openai(self) -> dict[str, Any]:
        """The body, as OpenAI's clients read it."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def ollama(self) -> dict[str, Any]:
        """The body, as Ollama's clients read it: they look for "not found" in it."""
        if self.cause == "unknown_model":
            return {"error": f"model not found: {self.message}"}
        return {"error": self.message}

    def anthropic(self, request_id: str) -> dict[str, Any]:
        """The body, as Anthropic's clients read it."""
        message = self.message
        if self.cause == "context_too_long":
            # Clients look for these words, and make the conversation shorter.
            message = f"prompt is too long: {message}"
        kind = _ANTHROPIC_TYPES.get(self.status, _INVALID)
        return {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": request_id,
        }

    def body(self, dialect: Dialect, request_id: str = "") -> bytes:
        """The body, as clients of *dialect* read it."""
        match dialect:
            case "ollama":
                value = self.ollama()
            case "anthropic":
                value = self.anthropic(request_id)
            case _:
                value = self.openai()
        return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def refusal_of(
    error: PunchError, decisions: Sequence[Decision] = (), *, endpoint: str = ""
) -> Refusal:
    """The refusal that says *error*.

    Args:
      error: What went wrong.
      decisions: The decisions made for the request.
      endpoint: Path of the request; its dialect may have its own name for a field.

    """
    error = _what_it_comes_to(error, decisions)
    row = TABLE.get(error.code, TABLE["internal"])
    retry_after = error.retry_after
    if retry_after is None and row.status == 503:
        retry_after = DEFAULT_RETRY_SECONDS
    param = _param(error, endpoint)
    message = str(error)
    if isinstance(error, InvalidRequest) and error.rule is not None:
        message = f"{param} {error.rule}"
    elif isinstance(error, ContextTooLong):
        message = _too_long(error, param or "messages", endpoint)
    return Refusal(
        status=row.status,
        message=message,
        type=row.type,
        code=row.code,
        param=param,
        retry_after=retry_after,
        cause=error.code,
    )


# A field of `punch.wire` to the name under which clients of a dialect write it.
_PUNCH = {
    name: f"punch.{name}"
    for name in ("priority", "timeout", "strict", "prefer", "avoid", "only", "privacy")
}
_OLLAMA = {
    **{name: f"options.{name}" for name in (*SAMPLING_NUMBERS, "stop")},
    "max_tokens": "options.num_predict",
    "response_schema": "format",
}
_ANTHROPIC = {
    "response_schema": "output_config.format",
    "stop": "stop_sequences",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning_effort": "output_config.effort",
    "reasoning_budget": "thinking.budget_tokens",
}
_SPELLED: Mapping[str, Mapping[str, str]] = {
    "/v1/chat/completions": {"response_schema": "response_format"},
    "/v1/responses": {
        "response_schema": "text.format",
        "messages": "input",
        "max_tokens": "max_output_tokens",
    },
    "/v1/embeddings": {"inputs": "input"},
    "/api/embed": {"inputs": "input"},
    "/api/embeddings": {"inputs": "prompt"},
    "/v1/messages": _ANTHROPIC,
    "/v1/messages/count_tokens": _ANTHROPIC,
    "/api/chat": _OLLAMA,
    "/api/generate": _OLLAMA | {"messages": "prompt"},
}

# The field that holds the text which a model reads, where it is not `messages`.
_TEXTS: Mapping[str, str] = {
    "/v1/completions": "prompt",
    "/v1/embeddings": "inputs",
    "/api/embed": "inputs",
    "/api/embeddings": "inputs",
}


def _spelled(param: str, endpoint: str) -> str:
    """Our *param*, such as ``inputs[0]``, as clients of *endpoint* write it."""
    ours = param.partition("[")[0].partition(".")[0]
    place = param[len(ours) :]
    name = _SPELLED.get(endpoint, {}).get(ours) or _PUNCH.get(ours, ours)
    if dialect_of(endpoint) == "anthropic":
        # Turns of the conversation are not those of the body; a tool's fields have other names.
        place = "" if name == "messages" else place.replace("].parameters", "].input_schema")
    elif name == "tools" and endpoint != "/v1/responses":
        place = place.replace("].", "].function.")
    if ours != name == "prompt":
        # A prompt is one text, which has no places.
        place = ""
    return name + place


def _too_long(error: ContextTooLong, param: str, endpoint: str) -> str:
    """What clients look for in the text, to make a conversation shorter and ask again.

    LiteLLM, LangChain and pi look for OpenAI's words with the number of tokens, as the tests name
    them, Claude Code for Anthropic's, and Ollama's clients for those of its server.
    """
    has, most = error.prompt_tokens, error.context_tokens
    if endpoint.startswith(MESSAGES_PATH):
        # The words before that are those of `Refusal.anthropic`.
        return f"{has} tokens > {most} maximum" if has and most else error.message
    if most is None:
        limit = "is less than that: the input exceeds the context window"
    else:
        limit = f"is {most} tokens"
    beyond = f"has {has} tokens" if has else "is longer"
    words = (
        f"This model's maximum context length {limit}. However, the text in {param} {beyond}: "
        "shorten it, or ask for a model with a longer context"
    )
    if has is None:
        words += f" ({error.message})"
    if endpoint.startswith("/api/"):
        return f"the input exceeds the context length. {words}"
    return words


def spell_bad_request(error: BadRequest | None) -> tuple[bytes, bytes]:
    """Media type and body of the answer to a request that cannot be read, or else to a bug.

    A request that cannot be read has no known path, so no dialect: OpenAI's form is used.
    """
    refusal = internal()
    if error is not None:
        refusal = Refusal(status=error.status, message=str(error), code="invalid_request")
    return b"application/json", refusal.body("openai")


def internal() -> Refusal:
    """The refusal for a bug of punch; only its log has the details."""
    return Refusal(
        status=500,
        message="punch has a bug here; its log has the details",
        type=_SERVER,
        code="internal",
        cause="internal",
    )


def out_of_time_in_queue(error: DeadlineExceeded, seconds: float | None) -> Refusal:
    """A 503, not a 504: no peer had begun, so the same request may succeed later."""
    return Refusal(
        status=503,
        message=f"{error}; nobody had begun with it",
        type=_BUSY,
        code="deadline_in_queue",
        retry_after=seconds if seconds is not None else DEFAULT_RETRY_SECONDS,
        cause=error.code,
    )


def _what_it_comes_to(error: PunchError, decisions: Sequence[Decision]) -> PunchError:
    """*error*, or the caller's error if none of these peers could ever answer the request.

    The router says of all it cannot place that nobody could answer; here that would be a 503, and
    the client would ask the same thing again and again.
    """
    if type(error) is not NoPeerAvailable or not decisions or decisions[-1].order:
        return error
    removed = [c for c in decisions[-1].candidates() if c.removed_by is not None]
    # Whom the caller does not want to be asked is not looked at.
    by = {candidate.removed_by for candidate in removed} - WISHED
    if not by or not by <= {"model", "features", "context"} or by == {"model"}:
        return error
    kind = ContextTooLong if "context" in by else InvalidRequest
    lines = [
        f"  {candidate.peer_id}: {candidate.reason}"
        for candidate in removed
        if candidate.removed_by in ("features", "context")
    ]
    what = (
        "the prompt does not fit any listener that has the model"
        if kind is ContextTooLong
        else "no listener can do what the request needs"
    )
    if kind is InvalidRequest:
        return kind("\n".join([what, *lines]))
    contexts = [candidate.offer.context_tokens or 0 for candidate, _ in decisions[-1].removed]
    return ContextTooLong.of("\n".join([what, *lines]), None, max(contexts) or None)


def _param(error: PunchError, endpoint: str) -> str | None:
    """The field that *error* is about, as clients of *endpoint* write it."""
    match error.code:
        case "unknown_model" | "model_forbidden":
            return "model"
        case "context_too_long":
            return _spelled(_TEXTS.get(endpoint, "messages"), endpoint)
        case "conflict":
            return "X-Request-ID"
        case _:
            param = error.param if isinstance(error, RequestError) else None
            return None if param is None else _spelled(param, endpoint)
