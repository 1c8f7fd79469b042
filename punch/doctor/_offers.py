"""Judges whether models of one name are one model, on all machines that have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from ._finding import Finding, note, unknown, well
from ._text import Private, text

# Names that are told one by one.
MAX_TOLD = 16


@attrs.frozen(kw_only=True)
class OfferFact:
    """A model that a peer offers, and that no mock makes up."""

    model: str
    """What it is called."""

    peer: str
    """Whose it is."""

    digest: str | None
    """SHA-256 of its file; `None` where that is not known."""

    template: str | None
    """SHA-256 of its chat template; `None` where that is not known."""


def judge_models(offers: Sequence[OfferFact]) -> list[Finding]:
    """Whether each name means one file, and one template, wherever it is known."""
    if not offers:
        return [unknown("models", text("nobody offers a model"))]
    found = []
    for name in sorted({each.model for each in offers}):
        same = [each for each in offers if each.model == name]
        model = Private("model", name)
        files, templates = _known(each.digest for each in same), _different_templates(same)
        if files > 1:
            remedy = text(
                "have one file everywhere, or names that differ: an answer cannot be continued on "
                "the other, and a question may go to either"
            )
            found.append(note("models", text(f"{{}} is {files} different files", model), remedy))
        elif templates > 1:
            said = text(f"{{}} is one file with {templates} different chat templates", model)
            remedy = text("have one engine, or one template, on all machines that offer it")
            found.append(note("models", said, remedy))
    count = len({each.model for each in offers})
    one = "1 model, the same everywhere"
    many = f"{count} models, each the same everywhere"
    return found[:MAX_TOLD] or [well("models", text(one if count == 1 else many))]


def _different_templates(offers: Iterable[OfferFact]) -> int:
    return _known(each.template for each in offers)


def _known(values: Iterable[str | None]) -> int:
    """How many different values are known."""
    return len({value for value in values if value is not None})
