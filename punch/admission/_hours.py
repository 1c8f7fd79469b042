"""Decides whether a time of the day is among the hours of a limit. No clock: times are arguments.

Hours go by the clock that hangs on the listener's wall: from 22 to 7 is the night, whatever the
season. On the two days a year when the clock is set, the seconds until they begin may be an hour
off.
"""

from __future__ import annotations

from datetime import datetime

DAY_SECONDS = 24 * 3600

Hours = tuple[int, int]
"""From which hour of the day until before which, both from 0 to 24; ``(22, 7)`` is the night."""


def fault_of_hours(hours: Hours) -> str | None:
    """What is wrong with *hours*, as the end of a sentence; `None` if nothing is."""
    begin, end = hours
    if not (0 <= begin <= 24 and 0 <= end <= 24):
        return "the hours of a day are 0 to 24"
    if begin % 24 == end % 24:
        return "they end when they begin: leave the hours out to allow all, or name others"
    return None


def is_within(hours: Hours, now: datetime) -> bool:
    """Whether *now*, a local time, is among the *hours*."""
    begin, end = hours
    if begin < end:
        return begin <= now.hour < end
    return not end <= now.hour < begin


def seconds_until(hours: Hours, now: datetime) -> float:
    """Seconds from *now*, a local time, until the *hours* begin."""
    passed = now.hour * 3600 + now.minute * 60 + now.second + now.microsecond / 1e6
    return (hours[0] * 3600 - passed) % DAY_SECONDS


def spelled(hours: Hours) -> str:
    """The *hours* in words: ``from 22 to 7 o'clock``."""
    return f"from {hours[0]} to {hours[1]} o'clock"
