"""The settings file: where it is, what is in it, and how a single key of it is changed."""

from ._edit import change_items, set_value, unset_value
from ._file import MAX_FILE_BYTES, SettingsFile, open_settings, read_settings_file
from ._folders import (
    FILE_VARIABLE,
    cache_folder,
    configuration_folder,
    data_folder,
    path_to_change,
    settings_path,
)
from ._importing import Import, Left, Taken, import_of, read_import

__all__ = [
    # reading
    "SettingsFile",
    "MAX_FILE_BYTES",
    "open_settings",
    "read_settings_file",
    # changing
    "set_value",
    "change_items",
    "unset_value",
    # what of another program's settings is taken
    "read_import",
    "import_of",
    "Import",
    "Taken",
    "Left",
    # where punch keeps its files
    "FILE_VARIABLE",
    "settings_path",
    "path_to_change",
    "configuration_folder",
    "data_folder",
    "cache_folder",
]
