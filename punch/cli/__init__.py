"""What the programs share: settings of this process, logging, backends, output, exit codes.

Only this room and the programs read the environment, and only this room configures logging.
Everything that a program does can be had without it, as a library call with keyword arguments.
"""

from ._aliases import aliases_of, open_alias_following
from ._backends import OPENERS, open_backend
from ._chat import converse
from ._exits import EXITS, ExitCode, exit_code
from ._identity import claim_identity
from ._listener import open_listener_of
from ._namespace import Place, namespaces_folder, open_membership_of, place_of
from ._output import explain, print_json, print_text, warn_of_simulation
from ._router import open_router_of
from ._run import Shutdown, load_settings, run_command, run_program
from ._shared import JoinLines, bootstraps, decision_log_path, join_lines, keys_path, known_peers
from ._streams import read_all, with_streams

__all__ = [
    # running
    "run_program",
    "run_command",
    "load_settings",
    "Shutdown",
    "with_streams",
    "ExitCode",
    "EXITS",
    "exit_code",
    # what settings describe
    "claim_identity",
    "Place",
    "place_of",
    "namespaces_folder",
    "open_membership_of",
    "decision_log_path",
    "keys_path",
    "bootstraps",
    "JoinLines",
    "join_lines",
    "known_peers",
    "open_backend",
    "open_router_of",
    "aliases_of",
    "open_alias_following",
    "open_listener_of",
    "OPENERS",
    # what programs do
    "converse",
    "explain",
    "print_json",
    "read_all",
    "print_text",
    "warn_of_simulation",
]
