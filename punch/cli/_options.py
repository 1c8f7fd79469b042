"""Options: each has a working default and a variable, and one text for all of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from ..exceptions import ConfigurationError

Convert = Callable[[str], Any]

YES = frozenset({"1", "true", "yes", "on"})
NO = frozenset({"0", "false", "no", "off", ""})


def _read(kind: type[float] | type[int], text: str) -> Any:
    """*text* as a number of that *kind*."""
    try:
        return kind(text)
    except ValueError:
        # Python's own words say what a literal is, and nothing that would help.
        raise ValueError("it must be a number") from None


def boolean(text: str) -> bool:
    """True or false, as people write it."""
    word = text.strip().lower()
    if word not in YES | NO:
        raise ValueError("write 1 or 0")
    return word in YES


def positive(text: str) -> float:
    """A number above 0."""
    value: float = _read(float, text)
    if not 0 < value < float("inf"):
        raise ValueError("it must be above 0")
    return value


def number(least: float, most: float) -> Convert:
    """A number from *least* to *most*."""

    def convert(text: str) -> float:
        value: float = _read(float, text)
        if not least <= value <= most:
            raise ValueError(f"it must be from {least} to {most}")
        return value

    return convert


def count(least: int) -> Convert:
    """An integer, at least *least*."""

    def convert(text: str) -> int:
        value: int = _read(int, text)
        if value < least:
            raise ValueError(f"it must be {least} or more")
        return value

    return convert


def one_of(*choices: str) -> Convert:
    """One of *choices*."""

    def convert(text: str) -> str:
        if text not in choices:
            raise ValueError(f"it must be one of {', '.join(choices)}")
        return text

    return convert


@attrs.frozen(kw_only=True)
class Option:
    """One option of a program."""

    name: str
    """As it is written: ``--max-tokens``."""

    help: str
    """What it does, in a sentence."""

    default: Any = None
    """What it is when nobody says."""

    convert: Convert = str
    """Text to value; raises `ValueError` with the rule."""

    variable: str | None = None
    """Environment variable; by default ``PUNCH_`` and the name."""

    metavar: str | None = None
    """What stands for the value in the help."""

    many: bool = False
    """May be given several times (in the variable: separated by spaces)."""

    shown_default: str | None = None
    """How the help spells the default, where the value itself does not tell."""

    @property
    def key(self) -> str:
        """Its name as an attribute."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def environment(self) -> str:
        """Its variable."""
        return self.variable or f"PUNCH_{self.key.upper()}"


class Settings(argparse.Namespace):
    """The values of a program's options, by `Option.key`."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def convert(converter: Convert, text: str, source: str) -> Any:
    """The value that *text* stands for.

    Raises:
      ConfigurationError: naming *source*, the text and the rule.

    """
    try:
        return converter(text)
    except ValueError as error:
        raise ConfigurationError(f"{source} is {text!r}: {error}") from None


def _parser(program: str, about: str, options: Sequence[Option]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option in options:
        default = option.shown_default
        if option.convert is boolean:
            default = "on" if option.default else "off"
        elif default is None and option.default not in (None, ()):
            default = str(option.default)
        text = f"{option.help} [{option.environment}" + (f"; {default}]" if default else "]")
        text = text.replace("%", "%%")
        common: dict[str, Any] = {"dest": option.key, "default": None, "help": text}
        if option.convert is boolean:
            parser.add_argument(option.name, action=argparse.BooleanOptionalAction, **common)
        else:
            parser.add_argument(
                option.name,
                metavar=option.metavar or option.key.upper(),
                action="append" if option.many else "store",
                **common,
            )
    return parser


def help_text(program: str, about: str, options: Sequence[Option]) -> str:
    """What ``--help`` prints."""
    return _parser(program, about, options).format_help()


def parse(
    program: str,
    about: str,
    options: Sequence[Option],
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The value of every option: from *arguments*, else from its variable, else its default.

    Prints and exits for ``--help`` and for options that do not exist, as argparse does.

    Raises:
      ConfigurationError: naming the option or variable, its value and the rule.

    """
    environment = os.environ if environment is None else environment
    parser = _parser(program, about, options)
    given = vars(parser.parse_args(arguments))
    settings = Settings()
    for option in options:
        value = given[option.key]
        text = environment.get(option.environment)
        if isinstance(value, str):
            value = convert(option.convert, value, option.name)
        elif isinstance(value, list):
            value = tuple(convert(option.convert, item, option.name) for item in value)
        elif value is None and text is not None and (text or option.convert is boolean):
            items = text.split() if option.many else [text]
            found = tuple(convert(option.convert, item, option.environment) for item in items)
            value = found if option.many else found[0]
        elif value is None:
            value = option.default
        setattr(settings, option.key, value)
    return settings
