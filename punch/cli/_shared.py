"""Options that several programs have."""

from __future__ import annotations

import os
from pathlib import Path

from ..discovery import DEFAULT_BOOTSTRAP, DEFAULT_NAMESPACE
from ._identity import data_folder
from ._logs import LEVELS
from ._options import Option, Settings, boolean, convert, one_of

BOOTSTRAP = Option(
    name="--bootstrap",
    default=DEFAULT_BOOTSTRAP,
    metavar="ADDRESS",
    help="where the peers of the namespace meet, with or without /p2p/PEER_ID",
)
NAMESPACE = Option(
    name="--namespace",
    default=DEFAULT_NAMESPACE,
    metavar="NAME",
    help="only peers of the same namespace see each other",
)
TRANSPORT = Option(
    name="--transport",
    default="tcp",
    convert=one_of("tcp", "quic", "dual"),
    metavar="tcp|quic|dual",
    help="what to dial and listen with",
)
IDENTITY = Option(
    name="--identity",
    metavar="FILE",
    help="key of this peer, made if it is not there",
    shown_default="one of its own in the data folder",
)
KNOWN = Option(
    name="--known-peers",
    metavar="FILE",
    help="who was at which bootstrap address before",
    shown_default="known_peers in the data folder",
)
STRICT = Option(
    name="--strict",
    default=False,
    convert=boolean,
    variable="PUNCH_STRICT_DISTRIBUTED",
    help="real inference only, never simulated; PUNCH_DISABLE_SIMULATION=1 does the same",
)
DECISION_LOG = Option(
    name="--decision-log",
    metavar="FILE",
    help="note every choice and what came of it, without any text, for `punch why`; none for not",
    shown_default="decisions.jsonl in the data folder",
)
KEYS = Option(
    name="--keys",
    metavar="FILE",
    help="the gateway's API keys, and what they used",
    shown_default="gateway.sqlite3 in the data folder",
)
LOG_LEVEL = Option(
    name="--log-level",
    default="info",
    convert=one_of(*LEVELS),
    metavar="|".join(LEVELS),
    help="what goes to standard error",
)


def is_strict(settings: Settings) -> bool:
    """Whether strict mode is on, by any of its three switches."""
    name = "PUNCH_DISABLE_SIMULATION"
    return bool(settings.strict) or bool(convert(boolean, os.environ.get(name, ""), name))


def decision_log_path(given: str | None) -> Path | None:
    """Where the decision log is: the file that was *given*, the usual one, or nowhere."""
    text = given or os.environ.get(DECISION_LOG.environment) or ""
    if text.strip().lower() == "none":
        return None
    return Path(text).expanduser() if text else data_folder() / "decisions.jsonl"


def keys_path(given: str | None) -> Path:
    """Where the gateway's keys are: the file that was *given*, or the usual one."""
    text = given or os.environ.get(KEYS.environment) or ""
    return Path(text).expanduser() if text else data_folder() / "gateway.sqlite3"
