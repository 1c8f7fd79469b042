"""The backends: what punch talks to, to run a model.

Each is opened by a context manager of its own (`open_llama_server` and so on) and is then a
`Backend`, which is all that a lane knows of it. A new one needs nothing but that interface.
"""

from ._base import Adopted, Backend, Emit, Explained, Generation, Loading, Supervisable
from ._plausible import plausible
from .llama import open_binding, open_embedded, open_llama_cli, open_llama_server
from .mock import MockBackend, MockScript, mock_words, open_mock
from .openai import open_openai

__all__ = [
    "Backend",
    "Emit",
    "Generation",
    "Loading",
    "Supervisable",
    "Explained",
    "Adopted",
    "plausible",
    "open_mock",
    "MockBackend",
    "MockScript",
    "mock_words",
    "open_llama_server",
    "open_llama_cli",
    "open_embedded",
    "open_binding",
    "open_openai",
]
