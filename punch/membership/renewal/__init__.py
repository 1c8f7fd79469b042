"""New grants for a machine that has one: in time for its end, and for a new key in its place."""

from ._renewing import keep_renewed, renew
from ._rotating import new_chain, rotate_key

__all__ = ["keep_renewed", "renew", "rotate_key", "new_chain"]
