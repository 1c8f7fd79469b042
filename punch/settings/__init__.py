"""The settings of punch: what can be set, which layer sets it, and the file that keeps it.

A flag counts, else the variable, else the settings file, else the default. Every value knows
which of them it came from. Only the command line passes in arguments, environment and file; the
library takes keyword arguments and knows nothing of this room.
"""

from ._adopting import ADOPT, ADOPT_FOUND, NO_ADOPT, Adoptee
from ._answering import BACKENDS, CALIBRATE, LLAMA_CPP_EXE
from ._asking import KEYS
from ._flags import help_text, parse_flags
from ._layers import Explained, explain, find_setting, load, refuse_unknown
from ._programs import (
    AdoptingSettings,
    BackendSettings,
    BootstrapSettings,
    DialerSettings,
    GatewaySettings,
    LendingSettings,
    ListenerSettings,
    NetworkSettings,
    PlainRpcSettings,
    ProgramSettings,
    SplitOptions,
    StrictSettings,
    WorkerSettings,
)
from ._rules import (
    PATH,
    PATH_OR_NAME,
    POSITIVE,
    SWITCH,
    TEXT,
    WORD,
    Rule,
    boolean,
    count,
    number,
    one_of,
)
from ._setting import (
    Origin,
    Setting,
    Settings,
    Within,
    argument,
    arguments,
    group,
    group_fields,
    of,
    optional,
    optional_argument,
    setting,
    setting_fields,
    settings_of,
    several,
)
from ._sizes import DURATION, RATE, SIZE
from ._splitting import ALLOW_PLAIN_RPC, RPC_BACKEND, RPC_PLACE
from ._table import (
    ALIAS,
    DECISION_LOG,
    DIALER_IDENTITY,
    LAN,
    LAN_INTERFACES,
    LEVELS,
    LISTENER_IDENTITY,
    LOG_LEVEL,
    SECTIONS,
    SETTINGS,
)
from ._tunnel_ports import TunnelPort
from .file import (
    FILE_VARIABLE,
    MAX_FILE_BYTES,
    SettingsFile,
    cache_folder,
    change_items,
    configuration_folder,
    data_folder,
    open_settings,
    read_settings_file,
    set_value,
    settings_path,
    unset_value,
)

__all__ = [
    # the settings of the programs
    "ListenerSettings",
    "DialerSettings",
    "GatewaySettings",
    "BootstrapSettings",
    "WorkerSettings",
    "LendingSettings",
    "SplitOptions",
    "ProgramSettings",
    "NetworkSettings",
    "PlainRpcSettings",
    "StrictSettings",
    "BackendSettings",
    "AdoptingSettings",
    "Adoptee",
    "TunnelPort",
    # one setting
    "Setting",
    "Settings",
    "Origin",
    "of",
    "group",
    "setting",
    "optional",
    "several",
    "argument",
    "arguments",
    "optional_argument",
    "settings_of",
    "setting_fields",
    "group_fields",
    "Within",
    # how a text becomes a value
    "Rule",
    "TEXT",
    "WORD",
    "PATH",
    "PATH_OR_NAME",
    "SWITCH",
    "POSITIVE",
    "SIZE",
    "RATE",
    "DURATION",
    "count",
    "number",
    "one_of",
    "boolean",
    # the layers
    "load",
    "explain",
    "Explained",
    "parse_flags",
    "help_text",
    # all of them
    "SETTINGS",
    "SECTIONS",
    "BACKENDS",
    "CALIBRATE",
    "LLAMA_CPP_EXE",
    "LEVELS",
    "ALIAS",
    "ADOPT",
    "ADOPT_FOUND",
    "NO_ADOPT",
    "DECISION_LOG",
    "KEYS",
    "LAN",
    "LAN_INTERFACES",
    "LOG_LEVEL",
    "DIALER_IDENTITY",
    "LISTENER_IDENTITY",
    "RPC_BACKEND",
    "RPC_PLACE",
    "ALLOW_PLAIN_RPC",
    "find_setting",
    # the file
    "SettingsFile",
    "MAX_FILE_BYTES",
    "FILE_VARIABLE",
    "open_settings",
    "read_settings_file",
    "refuse_unknown",
    "settings_path",
    "set_value",
    "change_items",
    "unset_value",
    # where punch keeps its files
    "configuration_folder",
    "data_folder",
    "cache_folder",
]
