"""``punch models``: fetch and list models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..exceptions import PunchError
from ..model_store import KNOWN_MODELS, ListedModel, list_models, pull
from ._exits import ExitCode, exit_code
from ._identity import cache_folder, data_folder


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


def models(arguments: Sequence[str]) -> int:
    """Run ``punch models``; its exit code."""
    parser = argparse.ArgumentParser(prog="punch models", description="Fetch and list models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fetch = commands.add_parser("pull", help="fetch a model and check its digest")
    known = "; ".join(f"{m.name}: {m.description} ({m.licence})" for m in KNOWN_MODELS.values())
    fetch.add_argument("name", help=known)
    commands.add_parser("list", help="list the models that are there")
    given = parser.parse_args(arguments)
    folder = data_folder() / "models"
    try:
        if given.command == "pull":
            path = pull(
                given.name,
                folder,
                cache_folder=cache_folder(),
                report=lambda line: print(line, file=sys.stderr, flush=True),
            )
            print(path)
            return ExitCode.OK
        found = list_models(folder, cache_folder=cache_folder())
        for listed in found:
            print(_row(listed))
        if not found:
            print(f"no model in {folder}; `punch models pull smollm2` fetches one", file=sys.stderr)
    except PunchError as error:
        print(f"punch: {error}", file=sys.stderr)
        return exit_code(error)
    return ExitCode.OK
