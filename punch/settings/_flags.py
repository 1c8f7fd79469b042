"""Reads flags and arguments as texts; argparse says what is wrong with them.

What the texts mean is decided by `_layers` and `_rules`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import attrs

from ._layers import Flags
from ._setting import Setting, Settings, settings_of


def _parser(program: str, about: str, kind: type[Settings]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for setting in settings_of(kind):
        if setting.flag is not None:
            _add_flag(parser, setting)
        elif setting.section is None:
            _add_argument(parser, setting)
    return parser


def _add_flag(parser: argparse.ArgumentParser, setting: Setting[object]) -> None:
    assert setting.flag is not None
    notes = "; ".join(filter(None, (setting.variable, setting.default_text)))
    text = (setting.help + (f" [{notes}]" if notes else "")).replace("%", "%%")
    if setting.is_switch:
        parser.add_argument(
            setting.flag,
            dest=setting.flag,
            default=None,
            help=text,
            # Nobody says --no-no-adopt.
            action="store_true"
            if setting.flag.startswith("--no-")
            else argparse.BooleanOptionalAction,
        )
    else:
        parser.add_argument(
            setting.flag,
            dest=setting.flag,
            default=None,
            help=text,
            metavar=setting.metavar or setting.key.upper(),
            action="append" if setting.many else "store",
        )


def _add_argument(parser: argparse.ArgumentParser, setting: Setting[object]) -> None:
    required = setting.default is attrs.NOTHING
    many = ("+" if required else "*") if setting.many else None
    parser.add_argument(
        setting.key,
        metavar=setting.metavar,
        nargs=many or (None if required else "?"),
        help=setting.help.replace("%", "%%"),
    )


def help_text(program: str, about: str, kind: type[Settings]) -> str:
    """The text that ``--help`` prints."""
    return _parser(program, about, kind).format_help()


def parse_flags(program: str, about: str, kind: type[Settings], arguments: Sequence[str]) -> Flags:
    """The texts that were typed for the settings of *kind*.

    Prints and exits for ``--help`` and for options that do not exist, as argparse does.

    Args:
      program: How it is called, such as ``punch keys create``.
      about: What it does, in a sentence.
      kind: What it takes.
      arguments: What was typed after its name.

    """
    given: dict[str, object] = vars(_parser(program, about, kind).parse_args(arguments))
    return {name: _texts(value) for name, value in given.items() if value not in (None, [])}


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ("1" if value else "0",)
    return tuple(value) if isinstance(value, list) else (str(value),)
