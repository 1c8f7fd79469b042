"""Backends that are HTTP servers with OpenAI's interface, and what their clients share."""

from ._address import Server, read_server
from ._backend import OpenAIBackend, open_openai
from ._client import HttpClient, open_http_client

__all__ = [
    "open_openai",
    "OpenAIBackend",
    # to ask a server before it is one of ours
    "Server",
    "read_server",
    "HttpClient",
    "open_http_client",
]
