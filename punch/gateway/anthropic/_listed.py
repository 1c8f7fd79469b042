"""The models on offer, as Anthropic's clients read them: pages of a list. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ...peers import PeerRecord
from .._errors import Refusal
from .._offered import AUTO, OfferedModel, no_such_model, on_offer

MAX_PAGE = 1000
"""Models of one page, as Anthropic has it; also where none is asked for."""


def model_body(name: str, model: OfferedModel | None, began_at: int) -> dict[str, Any]:
    """A model; `None` for any."""
    best = None if model is None else model.best
    created = datetime.fromtimestamp(began_at, UTC).isoformat().replace("+00:00", "Z")
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created,
        "lifecycle": "active",
        "max_input_tokens": None if best is None else best.context_tokens,
        "max_tokens": None if best is None else best.context_tokens,
    }


def models_body(
    peers: Sequence[PeerRecord], began_at: int, query: Mapping[str, str]
) -> dict[str, Any]:
    """``GET /v1/models``: one page; raises `Refusal` if *query* names none."""
    offered = on_offer(peers)
    found = [model_body(name, model, began_at) for name, model in offered.items()]
    if found:
        found.insert(0, model_body(AUTO, None, began_at))
    names = [each["id"] for each in found]
    limit = _limit(query.get("limit"))
    first, end = 0, len(found)
    if (after := query.get("after_id")) is not None:
        first = _place(names, after, "after_id") + 1
    if (before := query.get("before_id")) is not None:
        end = _place(names, before, "before_id")
    if before is not None and after is None:
        page = found[max(0, end - limit) : end]
        has_more = end > limit
    else:
        page = found[first:end][:limit]
        has_more = end - first > limit
    return {
        "data": page,
        "has_more": has_more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def one_model_body(name: str | None, peers: Sequence[PeerRecord], began_at: int) -> dict[str, Any]:
    """``GET /v1/models/NAME``, for the *name* on offer, or `None` for any.

    Raises:
      Refusal: with the models on offer, if it is none of them.

    """
    offered = on_offer(peers)
    if name is None and offered:
        return model_body(AUTO, None, began_at)
    if name is None or name not in offered:
        raise no_such_model(name or AUTO, offered)
    return model_body(name, offered[name], began_at)


def _limit(text: str | None) -> int:
    if not text:
        return MAX_PAGE
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_PAGE:
        return int(text)
    raise _no("limit", f"is {text[:80]!r}; it must be from 1 to {MAX_PAGE}")


def _place(names: Sequence[str], name: str, param: str) -> int:
    if name in names:
        return names.index(name)
    raise _no(param, f"is {name[:80]!r}, which is no model on offer")


def _no(param: str, rule: str) -> Refusal:
    return Refusal(status=400, message=f"{param} {rule}", code="invalid_value", param=param)
