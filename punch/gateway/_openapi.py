"""Describes the gateway as ``/openapi.json``, from the body models and the error table.

Requests are described by the very models that check them; only answers are written out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from .._version import __version__
from ._endpoint import MAX_REQUEST_ID_CHARACTERS, Endpoint
from ._errors import TABLE, Dialect, dialect_of
from .bodies import Body
from .ollama._bodies import PullBody, ShowBody

REF = "#/components/schemas/{model}"

# Statuses of the door, of the limits and of a bug, which the table of errors does not have.
ANYWHERE = (400, 401, 403, 500)
OF_BODIES = (408, 413, 415)

_WORDS = {
    400: "The request breaks a rule; the message names the field.",
    401: "An API key is needed, or this one is wrong, expired or revoked.",
    403: "The key may not use this model, or the page may not ask here.",
    404: "No listener offers the model; the message lists those on offer.",
    408: "The body came too slowly.",
    409: "The request id was used for another request.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    429: "The key has had its share; Retry-After says when to come again.",
    422: "Two engines died while they worked at the request; no other is asked for it.",
    499: "The client went away.",
    500: "A bug, or this machine's own fault.",
    502: "A peer failed, and no other could continue.",
    503: "Nobody can answer now; Retry-After says when to come again.",
    504: "The time ran out.",
}

_TEXT = {"type": "string"}
_INTEGER = {"type": "integer"}
_ANY: dict[str, Any] = {}


def _object(*required: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required or properties),
    }


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_MODEL = _object(id=_TEXT, object={"const": "model"}, created=_INTEGER, owned_by=_TEXT)

OPENAI_ERROR = _object(
    error=_object(
        message=_TEXT,
        type=_TEXT,
        param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    )
)
OLLAMA_ERROR = _object(error=_TEXT)
ANTHROPIC_ERROR = _object(
    type={"const": "error"}, error=_object(type=_TEXT, message=_TEXT), request_id=_TEXT
)
ERRORS: Mapping[Dialect, str] = {
    "openai": "OpenAIError",
    "ollama": "OllamaError",
    "anthropic": "AnthropicError",
}

# Path of an endpoint that asks a model to the schema of its whole answer.
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": _object(
        id=_TEXT, object={"const": "chat.completion"}, created=_INTEGER, model=_TEXT,
        choices=_list(_object(index=_INTEGER, message={"type": "object"}, finish_reason=_TEXT)),
        usage={"type": ["object", "null"]},
    ),
    "/v1/completions": _object(
        id=_TEXT, object={"const": "text_completion"}, created=_INTEGER, model=_TEXT,
        choices=_list(_object(index=_INTEGER, text=_TEXT, finish_reason=_TEXT)),
        usage={"type": ["object", "null"]},
    ),
    "/v1/embeddings": _object(
        object={"const": "list"}, model=_TEXT,
        data=_list(_object(object={"const": "embedding"}, index=_INTEGER, embedding=_ANY)),
        usage={"type": ["object", "null"]},
    ),
    "/v1/responses": _object(
        id=_TEXT, object={"const": "response"}, created_at=_INTEGER, model=_TEXT,
        status={"enum": ["completed", "incomplete"]}, output=_list({"type": "object"}),
    ),
    "/v1/messages": _object(
        id=_TEXT, type={"const": "message"}, role={"const": "assistant"}, model=_TEXT,
        content=_list(_object(type=_TEXT)), stop_reason=_TEXT,
        stop_sequence={"type": ["string", "null"]}, usage={"type": "object"},
    ),
    "/v1/messages/count_tokens": _object(input_tokens=_INTEGER),
    "/api/chat": _object(model=_TEXT, created_at=_TEXT, message={"type": "object"}, done=_ANY),
    "/api/generate": _object(model=_TEXT, created_at=_TEXT, response=_TEXT, done=_ANY),
    "/api/embed": _object(model=_TEXT, embeddings=_list(_list({"type": "number"}))),
    "/api/embeddings": _object(embedding=_list({"type": "number"})),
}  # fmt: skip
STREAMS = {
    "/v1/chat/completions": "text/event-stream",
    "/v1/completions": "text/event-stream",
    "/v1/responses": "text/event-stream",
    "/v1/messages": "text/event-stream",
    "/api/chat": "application/x-ndjson",
    "/api/generate": "application/x-ndjson",
}

READ_ONLY: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "/health": ("Whether the process lives.", _object(status=_TEXT)),
    "/ready": (
        "Whether somebody can answer.",
        # `warnings`, texts for people, only where there are any.
        _object(ready={"const": True}, peers=_INTEGER),
    ),
    "/v1/models": ("The models on offer.", _object(object={"const": "list"}, data=_list(_MODEL))),
    "/v1/models/{model}": ("One model.", _MODEL),
    "/api/tags": ("The models on offer.", _object(models=_list({"type": "object"}))),
    "/api/ps": ("The models that are loaded.", _object(models=_list({"type": "object"}))),
    "/api/version": ("The version of Ollama's API.", _object(version=_TEXT)),
    "/openapi.json": ("This description.", _object(openapi=_TEXT, paths={"type": "object"})),
}


def describe(endpoints: Sequence[Endpoint[Any]], *, keys: bool) -> dict[str, Any]:
    """The description of a gateway.

    Args:
      endpoints: Those that ask a model.
      keys: Whether API keys are needed.

    """
    refs, schemas = _schemas((*(endpoint.body for endpoint in endpoints), ShowBody, PullBody))
    paths: dict[str, Any] = {
        path: {"get": _describe_read(path, about, schema)}
        for path, (about, schema) in READ_ONLY.items()
    }
    for endpoint in endpoints:
        paths[endpoint.path] = {"post": _describe_question(endpoint, refs[endpoint.body])}
    paths["/api/show"] = {"post": _describe_show(refs[ShowBody])}
    paths["/api/pull"] = {"post": _describe_pull(refs[PullBody])}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "punch",
            "version": __version__,
            "summary": "OpenAI's, Anthropic's and Ollama's API, answered by a namespace.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                **schemas,
                "OpenAIError": OPENAI_ERROR,
                "OllamaError": OLLAMA_ERROR,
                "AnthropicError": ANTHROPIC_ERROR,
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if keys else [],
    }


# A tenth of a second, which every gateway of a process would need anew.
@cache
def _schemas(
    bodies: tuple[type[Body], ...],
) -> tuple[Mapping[type[Body], Any], Mapping[str, Any]]:
    """A reference to the schema of each body, and what the references mean."""
    # All bodies in one call: pydantic gives equal models of two bodies one definition.
    named, definitions = models_json_schema(
        [(body, "validation") for body in bodies], ref_template=REF
    )
    return {body: named[body, "validation"] for body in bodies}, definitions.get("$defs", {})


def _errors(path: str, statuses: Sequence[int]) -> dict[str, Any]:
    name = ERRORS[dialect_of(path)]
    content = {"application/json": {"schema": {"$ref": REF.format(model=name)}}}
    return {
        str(status): {"description": _WORDS[status], "content": content}
        for status in sorted(set(statuses))
    }


def _describe_read(path: str, about: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    more = (404,) if "{" in path else (503,) if path == "/ready" else ()
    ok = {"description": "What there is.", "content": {"application/json": {"schema": schema}}}
    found: dict[str, Any] = {
        "summary": about,
        "responses": {"200": ok} | _errors(path, (*ANYWHERE, *more)),
    }
    if "{" in path:
        found["parameters"] = [
            {"name": "model", "in": "path", "required": True, "schema": _TEXT | {"minLength": 1}}
        ]
    return found


def _describe_question(endpoint: Endpoint[Any], body: Any) -> dict[str, Any]:
    path = endpoint.path
    content = {"application/json": {"schema": ANSWERS[path]}}
    if path in STREAMS:
        # OpenAPI 3.1 has no words for the events of a stream; `docs/gateway.md` has.
        content[STREAMS[path]] = {}
    statuses = {row.status for row in TABLE.values()} | {*ANYWHERE, *OF_BODIES}
    return {
        "summary": (endpoint.__doc__ or "").split("\n")[0].replace("`", ""),
        "parameters": [
            {
                "name": "X-Request-ID",
                "in": "header",
                "required": False,
                "description": "The same id again gets the same answer, made once.",
                "schema": _TEXT
                | {"minLength": 1, "maxLength": MAX_REQUEST_ID_CHARACTERS, "pattern": "^[!-~]+$"},
            }
        ],
        "requestBody": _json_body(body),
        "responses": {"200": {"description": "The answer.", "content": content}}
        | _errors(path, tuple(statuses)),
    }


def _describe_show(body: Any) -> dict[str, Any]:
    schema = _object(details={"type": "object"}, model_info={"type": "object"})
    ok = {"description": "The model.", "content": {"application/json": {"schema": schema}}}
    return _describe_aside("/api/show", "what is known of a model.", body, ok)


def _describe_pull(body: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": _object(status=_TEXT)}, "application/x-ndjson": {}}
    ok = {"description": "The model is on offer.", "content": content}
    return _describe_aside("/api/pull", "a model that is on offer is there already.", body, ok)


def _describe_aside(path: str, about: str, body: Any, ok: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "summary": f"POST {path}: {about}",
        "requestBody": _json_body(body),
        "responses": {"200": ok} | _errors(path, (*ANYWHERE, *OF_BODIES, 404)),
    }


def _json_body(schema: Any) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}
