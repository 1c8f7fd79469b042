"""Any server that speaks the HTTP API of OpenAI, and what its clients share."""

from ._backend import open_openai

__all__ = [
    "open_openai",
]
