"""Who is let in: one function that decides, called at every door.

A namespace without a lock lets everybody in who knows its name and can reach it. The doors are a
session's hello and a bootstrap's join; each calls an `Admit` before it says a word of its own.
"""

from ._admit import Admit, Introduction, Refusal, admit_everybody

__all__ = ["Admit", "Introduction", "Refusal", "admit_everybody"]
