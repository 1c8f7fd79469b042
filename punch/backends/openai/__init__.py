"""Backends that are HTTP servers with OpenAI's interface, and what their clients share."""

from ._backend import open_openai

__all__ = [
    "open_openai",
]
