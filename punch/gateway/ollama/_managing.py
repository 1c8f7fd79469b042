"""Ollama's endpoints about models: what is known of one, and the wish to change what there is.

Listeners decide which models there are. To pull one that is on offer asks for nothing, and is
taken; all else that would change something is refused, in words that say where it can be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from starlette.routing import Match, Route

from .._client import Receive, Send
from .._endpoint import Scope, Service, key_id_in
from .._errors import Refusal
from .._json import as_json
from .._memory import read_body
from .._offered import OfferedModel, model_on_offer
from ..bodies import parse_aside
from ._bodies import NamedBody, PullBody, ShowBody
from ._lists import show_body
from ._shapes import NDJSON

# The version of Ollama whose fields are known here: clients read it to learn what they may ask.
OLLAMA_VERSION = "0.13.0"

RUNNING = "Ollama is running"

N = TypeVar("N", bound=NamedBody)


class _AboutModels:
    """An ASGI application that asks no model.

    Args:
      service: What all endpoints work with.

    """

    path: ClassVar[str]
    """Template of the route."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def parsed(self, kind: type[N], scope: Scope, receive: Receive) -> N:
        """The body of a request."""
        service = self.service
        with service.memory.reserve(key_id_in(scope)) as reservation:
            data = await read_body(scope, receive, service.limits, reservation)
            return await parse_aside(kind, data, service.memory.parsing)

    def found(self, name: str, *, any_name: bool) -> OfferedModel:
        """The model on offer that *name* means; raises `Refusal` if there is none."""
        service, router = self.service, self.service.router
        return model_on_offer(
            name, service.naming, router.names, router.offering, any_name=any_name
        )


class Show(_AboutModels):
    """``POST /api/show``."""

    path = "/api/show"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = await self.parsed(ShowBody, scope, receive)
        model = self.found(body.said, any_name=True)
        shown = show_body(model, self.service.began_at, system=body.system or "")
        await _send(as_json(shown), send)


class Pull(_AboutModels):
    """``POST /api/pull``: a model that is on offer is there already."""

    path = "/api/pull"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = await self.parsed(PullBody, scope, receive)
        try:
            self.found(body.said, any_name=False)
        except Refusal as refusal:
            refusal.message += "; a gateway pulls no models: on a listener's machine "
            refusal.message += "`punch models pull` does"
            raise
        if body.stream is False:
            await _send(as_json({"status": "success"}), send)
            return
        lines = ({"status": status} for status in ("pulling manifest", "success"))
        await _send("".join(f"{as_json(line)}\n" for line in lines), send, kind=NDJSON)


# What would change the models that there are: method and path to what it would do.
CHANGES: Sequence[tuple[str, str, str]] = (
    ("POST", "/api/push", "publishes no models"),
    ("POST", "/api/create", "makes no models"),
    ("POST", "/api/copy", "gives no model another name"),
    ("DELETE", "/api/delete", "deletes no models"),
    ("POST", "/api/blobs/", "takes no files of models"),
)


def refused_change(method: str, path: str) -> Refusal | None:
    """The refusal of what would change the models that there are; `None` for anything else."""
    for its_method, its_path, words in CHANGES:
        if method == its_method and (
            path.startswith(its_path) if its_path.endswith("/") else path == its_path
        ):
            return Refusal(
                status=403,
                message=f"a gateway {words}: each listener has those of its own machine, where "
                "`punch models`, or its own Ollama, changes them",
                type="permission_error",
                code="models_are_the_listeners",
                cause="not_permitted",
            )
    return None


class Running(Route):
    """``GET /`` for programs: they look whether Ollama is there. A browser gets what else is there.

    Only browsers name HTML among what they accept; Ollama's own client names JSON, others
    anything.
    """

    def __init__(self) -> None:
        super().__init__("/", _say_running, methods=["GET"])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a program asks."""
        accepted = scope["punch.headers"].get(b"accept", b"")
        if b"text/html" in accepted.lower():
            return Match.NONE, {}
        return super().matches(scope)


class _Say:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send(RUNNING, send, kind="text/plain; charset=utf-8")


_say_running = _Say()


async def _send(text: str, send: Send, *, kind: str = "application/json") -> None:
    data = text.encode(errors="replace")
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(data)).encode()),
    ]
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": data, "more_body": False})
