"""Reads what a listener allows a single member of a closed namespace, as a person writes it.

What the limits mean is decided by `punch.admission`.
"""

from __future__ import annotations

import attrs

from ..admission import fault_of_hours
from ..peers import checked_name
from ..wire import LIMITS, MAX_NAME_CHARACTERS
from ._rules import Rule, count, count_within, number_within

_WORDS = "model (several, if you like), tokens, seconds, priority and hours"
_SHAPE = (
    f"write MEMBER,WORD=VALUE,... with the words {_WORDS}, such as "
    "laptop,model=llama*,tokens=500,hours=22-7"
)
_HOUR = count(0, most=24)
_NUMBERS: dict[str, Rule[int] | Rule[float]] = {
    "tokens": count_within("max_tokens"),
    "seconds": number_within("timeout"),
    "priority": count_within("priority"),
}

# Of one member; a pattern stands for any number.
MAX_MODELS = 64


@attrs.frozen(kw_only=True)
class MemberLimits:
    """What one member may ask for; `None` for no limit of its own."""

    member: str
    """The name of its machine, or the machine's identity."""

    models: frozenset[str] | None = None
    """Names of the models, as they are offered; a ``*`` in one stands for any characters."""

    tokens: int | None = None
    """Tokens of one answer."""

    seconds: float | None = None
    """Seconds that one answer may hold its slot."""

    priority: int | None = None
    """The highest priority of a request."""

    hours: tuple[int, int] | None = None
    """From which hour of the day until before which, by this machine's clock."""

    @classmethod
    def of(cls, text: str) -> MemberLimits:
        """The limits that *text* says: the member and the words, with commas between them.

        Raises:
          ValueError: with the rule that it breaks.

        """
        member, *words = (part.strip() for part in text.split(","))
        if not words or "=" in member:
            raise ValueError(_SHAPE)
        models: set[str] = set()
        said: dict[str, str] = {}
        for word in words:
            key, sign, value = (part.strip() for part in word.partition("="))
            if not sign or not value or key not in {"model", "hours", *_NUMBERS}:
                raise ValueError(f"{word[:60]!r} is no limit: {_SHAPE}")
            if key == "model":
                models.add(_model(value))
            elif key in said:
                raise ValueError(f"{key} is there twice: say it once")
            else:
                said[key] = value
        if len(models) > MAX_MODELS:
            raise ValueError(f"there are {len(models)} models; {MAX_MODELS} are the most")
        hours = said.pop("hours", None)
        numbers = {key: _number(key, value) for key, value in said.items()}
        return cls(
            member=checked_name(member),
            models=frozenset(models) or None,
            hours=None if hours is None else _hours(hours),
            tokens=_whole(numbers.get("tokens")),
            seconds=numbers.get("seconds"),
            priority=_whole(numbers.get("priority")),
        )

    def __str__(self) -> str:
        words = [f"model={model}" for model in sorted(self.models or ())]
        numbers = {"tokens": self.tokens, "seconds": self.seconds, "priority": self.priority}
        words += [f"{key}={value}" for key, value in numbers.items() if value is not None]
        if self.hours is not None:
            words.append(f"hours={self.hours[0]}-{self.hours[1]}")
        return ",".join([self.member, *words])


def _model(name: str) -> str:
    if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        limit = LIMITS["model"]
        raise ValueError(f"model is {name[:60]!r}: a name is {limit.span} {limit.unit}")
    return name


def _number(key: str, text: str) -> float:
    try:
        return _NUMBERS[key].value(text)
    except ValueError as error:
        raise ValueError(f"{key} is {text[:60]!r}: {error}") from None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _hours(text: str) -> tuple[int, int]:
    begin, _, end = text.partition("-")
    try:
        hours = _HOUR.value(begin), _HOUR.value(end)
    except ValueError:
        raise ValueError(
            f"hours is {text[:60]!r}: write two whole hours of the day, from 0 to 24, such as 22-7 "
            "for the night"
        ) from None
    fault = fault_of_hours(hours)
    if fault is not None:
        raise ValueError(f"hours is {text!r}: {fault}")
    return hours
