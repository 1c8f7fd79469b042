"""llama.cpp as a backend: its server, its command line programs, and two wheels that hold it."""

from ._binding import open_binding
from ._cli import open_llama_cli
from ._embedded import open_embedded
from ._server import open_llama_server

__all__ = [
    "open_llama_server",
    "open_llama_cli",
    "open_embedded",
    "open_binding",
]
