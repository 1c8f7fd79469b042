"""Starting what nobody runs yet: once, however many requests wait for it.

How that is done is not known here: `open_router` is given values that say what could be started,
and something to call.
"""

from ._starter import Start, Startables, Starter

__all__ = ["Start", "Startables", "Starter"]
