"""Leaving a namespace: the machine signs that it leaves, tells the others, and forgets its keys."""

from ._leaving import Left, leave_namespace, tell_leaving
from ._telling import Telling, open_telling

__all__ = ["leave_namespace", "tell_leaving", "Left", "open_telling", "Telling"]
