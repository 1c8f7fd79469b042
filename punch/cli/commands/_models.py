"""``punch models``: fetches models, lists those that are there, and tells what fits where."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import attrs

from ...model_store import KNOWN_MODELS, ListedModel, list_models, pull
from ...settings import TEXT, Settings, argument, cache_folder, data_folder, of
from .._exits import ExitCode
from .._run import Command, command, run_one_of

NAME = argument(
    "name",
    TEXT,
    metavar="NAME",
    about="; ".join(f"{m.name}: {m.description} ({m.licence})" for m in KNOWN_MODELS.values()),
)


@attrs.frozen(kw_only=True)
class PullSettings(Settings):
    """Settings of ``punch models pull``."""

    name: str = of(NAME)


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _row(listed: ListedModel) -> str:
    if listed.model is None:
        return f"{listed.path.name}: cannot be used: {listed.problem}"
    offer, header = listed.model.offer, listed.model.header
    facts = [
        _size(listed.model.file_bytes),
        header.architecture,
        f"{header.parameters / 1e6:.0f}M parameters",
        offer.quantization or "",
        f"{header.context_tokens} tokens of context",
        f"sha256 {offer.digest}",
    ]
    return f"{offer.name}: " + ", ".join(fact for fact in facts if fact)


def _pull(settings: PullSettings) -> ExitCode:
    path = pull(
        settings.name,
        data_folder() / "models",
        cache_folder=cache_folder(),
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(path)
    return ExitCode.OK


def _list(_: Settings) -> ExitCode:
    folder = data_folder() / "models"
    found = list_models(folder, cache_folder=cache_folder())
    for listed in found:
        print(_row(listed))
    if not found:
        print(f"no model in {folder}; `punch models pull smollm2` fetches one", file=sys.stderr)
    return ExitCode.OK


def _fit(name: str, arguments: Sequence[str]) -> int:
    # Here: it brings all that splits are made of, which no other of these commands needs.
    from ..splits._fit import fit_model

    return fit_model(name, arguments)


COMMANDS = {
    "pull": command("fetch a model and check its digest", PullSettings, _pull),
    "list": command("list the models that are there", Settings, _list),
    "fit": Command(about="tell whether a model fits here, and how it would be split", main=_fit),
}


def models(arguments: Sequence[str]) -> int:
    """Run ``punch models``; its exit code."""
    return run_one_of(
        "punch models", "Fetch and list models, and tell what fits where.", COMMANDS, arguments
    )
