"""The `punch` command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ._version import __version__
from .bootstrap import __main__ as bootstrap
from .cli.commands import models, peers, replay, settings, why
from .dialer import __main__ as dialer
from .listener import __main__ as listener

USAGE = """\
usage: punch COMMAND ...

  punch listener    run a model and answer the dialers of a namespace
  punch dialer      ask the best listener of a namespace
  punch serve       serve OpenAI's and Ollama's API, answered by the listeners
  punch bootstrap   let listeners and dialers find each other
  punch models      fetch and list models
  punch keys        make, list and revoke API keys of the gateway
  punch peers       show the listeners of a namespace, again every second
  punch why         tell what was decided for a request, why, and what came of it
  punch replay      decide what is in a decision log again, with another policy
  punch settings    show and change what is kept in the settings file
  punch simulate    compare policies on a simulated swarm

`punch COMMAND --help` has the options of each."""


def _simulate(arguments: Sequence[str]) -> int:
    # Here: it brings a whole swarm with it, which no other command needs.
    from .cli.commands._simulate import simulation

    return simulation(arguments)


def _serve(arguments: Sequence[str]) -> int:
    # Here: an HTTP server takes half a second to import.
    from .gateway.__main__ import main

    return main(arguments)


def _keys(arguments: Sequence[str]) -> int:
    # Here: the gateway's room brings an HTTP server with it, which no other command needs.
    from .cli.commands._keys import keys

    return keys(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "listener": listener.main,
    "dialer": dialer.main,
    "bootstrap": bootstrap.main,
    "serve": _serve,
    "models": models,
    "keys": _keys,
    "peers": peers,
    "why": why,
    "replay": replay,
    "settings": settings,
    "simulate": _simulate,
}


def main() -> int:
    """Run the program that the first argument names; its exit code."""
    match sys.argv[1:]:
        case [] | ["-h" | "--help"]:
            print(USAGE)
            return 0
        case ["--version"]:
            print(f"punch {__version__}")
            return 0
        case [name, *arguments] if name in COMMANDS:
            return COMMANDS[name](arguments)
        case [name, *_]:
            print(f"punch: there is no command {name!r}\n\n{USAGE}", file=sys.stderr)
            return 2
    return 2


if __name__ == "__main__":
    sys.exit(main())
