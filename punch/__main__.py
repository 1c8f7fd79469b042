"""The `punch` command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from ._version import __version__
from .bootstrap import __main__ as bootstrap
from .cli import ExitCode, with_streams
from .cli.commands import alias, models, peers, replay, settings, why
from .dialer import __main__ as dialer
from .listener import __main__ as listener

USAGE = """\
usage: punch COMMAND ...

  punch up          make of this machine what it can be, behind one address
  punch listener    run a model and answer the dialers of a namespace
  punch dialer      ask the best listener of a namespace
  punch serve       serve OpenAI's and Ollama's API, answered by the listeners
  punch worker      lend memory to a model that runs over several machines
  punch bootstrap   let listeners and dialers find each other
  punch coordinator run a model that lies on several machines
  punch plan        show what would lie where, and start nothing
  punch models      fetch and list models, and tell what fits where
  punch engine      list, try and build the programs of llama.cpp
  punch adopt       answer with a server of models that runs already
  punch alias       give models further names, and list these
  punch keys        make, list and revoke API keys of the gateway
  punch namespace   make a closed namespace, and show those of this machine
  punch invite      let a machine join a closed namespace
  punch join        join a closed namespace with the code of an invite
  punch members     list who is in a closed namespace, and remove members
  punch leave       take a closed namespace off this machine
  punch status      show what the running `punch up` is, and what is wrong
  punch doctor      say what is wrong with this machine's set-up, and what to do about it
  punch logs        show the log of the running `punch up`
  punch open        open the dashboard of the running `punch up` in a browser
  punch reload      have the running `punch up` read its settings again
  punch down        end the programs of punch that run on this machine
  punch rpc         find and keep RPC servers that run already, for splits
  punch tunnel      lead a port of this machine to one of a peer
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


def _namespace(arguments: Sequence[str]) -> int:
    # Here: it brings the keys of a machine with it, which few commands need.
    from .cli.commands._namespace import namespace

    return namespace(arguments)


def _invite(arguments: Sequence[str]) -> int:
    from .cli.commands._invite import invite

    return invite(arguments)


def _join(arguments: Sequence[str]) -> int:
    from .cli.commands._join import join

    return join(arguments)


def _members(arguments: Sequence[str]) -> int:
    from .cli.commands._members import members

    return members(arguments)


def _adopt(arguments: Sequence[str]) -> int:
    from .cli.adopting._adopt import adopt

    return adopt(arguments)


def _leave(arguments: Sequence[str]) -> int:
    from .cli.commands._leave import leave

    return leave(arguments)


def _down(arguments: Sequence[str]) -> int:
    from .cli.running._down import down

    return down(arguments)


def _status(arguments: Sequence[str]) -> int:
    from .cli.running._status import status

    return status(arguments)


def _doctor(arguments: Sequence[str]) -> int:
    # Here: as `up`, whose settings it reads.
    from .cli.doctor._doctor import doctor

    return doctor(arguments)


def _logs(arguments: Sequence[str]) -> int:
    from .cli.running._logs import logs

    return logs(arguments)


def _open(arguments: Sequence[str]) -> int:
    from .cli.running._open import open_dashboard

    return open_dashboard(arguments)


def _reload(arguments: Sequence[str]) -> int:
    from .cli.running._reload import reload

    return reload(arguments)


def _engine(arguments: Sequence[str]) -> int:
    from .cli.splits._engine import engine

    return engine(arguments)


def _worker(arguments: Sequence[str]) -> int:
    # Here: certificates take a while to import.
    from .cluster.worker.__main__ import main

    return main(arguments)


def _rpc(arguments: Sequence[str]) -> int:
    from .cli.splits._rpc import rpc

    return rpc(arguments)


def _tunnel(arguments: Sequence[str]) -> int:
    from .cli.splits._tunnel import tunnel

    return tunnel(arguments)


def _coordinator(arguments: Sequence[str]) -> int:
    from .cli.splits._coordinator import coordinator

    return coordinator(arguments)


def _plan(arguments: Sequence[str]) -> int:
    from .cli.splits._coordinator import plan_command

    return plan_command(arguments)


def _up(arguments: Sequence[str]) -> int:
    # Here: as `serve`.
    from .cli.up._up import main

    return main(arguments)


def _serve(arguments: Sequence[str]) -> int:
    # Here: an HTTP server takes half a second to import.
    from .gateway.__main__ import main

    return main(arguments)


def _keys(arguments: Sequence[str]) -> int:
    # Here: the gateway's room brings an HTTP server with it, which no other command needs.
    from .cli.commands._keys import keys

    return keys(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "up": _up,
    "listener": listener.main,
    "dialer": dialer.main,
    "bootstrap": bootstrap.main,
    "serve": _serve,
    "worker": _worker,
    "coordinator": _coordinator,
    "plan": _plan,
    "models": models,
    "engine": _engine,
    "adopt": _adopt,
    "alias": alias,
    "keys": _keys,
    "namespace": _namespace,
    "invite": _invite,
    "join": _join,
    "members": _members,
    "leave": _leave,
    "status": _status,
    "doctor": _doctor,
    "logs": _logs,
    "open": _open,
    "reload": _reload,
    "down": _down,
    "rpc": _rpc,
    "tunnel": _tunnel,
    "peers": peers,
    "why": why,
    "replay": replay,
    "settings": settings,
    "simulate": _simulate,
}


def main() -> int:
    """Run the program that the first argument names; its exit code."""
    return with_streams(lambda: _run(sys.argv[1:]))


def _run(arguments: Sequence[str]) -> int:
    match arguments:
        case [] | ["-h" | "--help" | "help"]:
            print(USAGE)
            return ExitCode.OK
        case ["-V" | "--version" | "version"]:
            print(f"punch {__version__}")
            return ExitCode.OK
        case ["help", name, *rest] if name in COMMANDS:
            return COMMANDS[name]([*rest, "--help"])
        case [name, *rest] if name in COMMANDS:
            return COMMANDS[name](rest)
        case ["help", name, *_] | [name, *_]:
            print(f"punch: there is no command {name!r}{_meant(name)}\n\n{USAGE}", file=sys.stderr)
    return ExitCode.USAGE


def _meant(name: str) -> str:
    """The command that was probably meant, for the end of a sentence."""
    near = get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean `punch {near[0]}`?" if near else ""


if __name__ == "__main__":
    sys.exit(main())
