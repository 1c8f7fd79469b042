"""What the programs share: options and their variables, logging, backends, output, exit codes.

Only this room and the programs read the environment, and only this room configures logging.
"""

from ._backends import BACKENDS, BackendSettings, open_backend
from ._chat import converse
from ._exits import EXITS, ExitCode, exit_code
from ._identity import cache_folder, claim_identity, data_folder
from ._models import models
from ._options import Option, Settings, boolean, count, number, one_of, parse, positive
from ._output import explain, print_json, print_text
from ._peers import peers
from ._replay import replay
from ._router import open_router_of
from ._run import Shutdown, run_program
from ._shared import (
    BOOTSTRAP,
    DECISION_LOG,
    IDENTITY,
    KEYS,
    KNOWN,
    LOG_LEVEL,
    NAMESPACE,
    STRICT,
    TRANSPORT,
    decision_log_path,
    is_strict,
    keys_path,
)
from ._why import why

__all__ = [
    # options
    "Option",
    "Settings",
    "parse",
    "boolean",
    "count",
    "number",
    "one_of",
    "positive",
    "BOOTSTRAP",
    "NAMESPACE",
    "TRANSPORT",
    "STRICT",
    "IDENTITY",
    "KNOWN",
    "DECISION_LOG",
    "KEYS",
    "LOG_LEVEL",
    "is_strict",
    "decision_log_path",
    "keys_path",
    # running
    "run_program",
    "Shutdown",
    "ExitCode",
    "EXITS",
    "exit_code",
    "data_folder",
    "cache_folder",
    "claim_identity",
    "open_backend",
    "open_router_of",
    "BackendSettings",
    "BACKENDS",
    # what programs do
    "models",
    "peers",
    "why",
    "replay",
    "converse",
    "explain",
    "print_json",
    "print_text",
]
