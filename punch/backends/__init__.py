"""What runs a model. Each backend has its own `open_*()`; `_base` says what they share."""

from ._base import Backend, Emit, Generation, Loading
from ._binding import open_binding
from ._catalogue import KNOWN_MODELS, KnownModel, ListedModel, list_models, pull
from ._embedded import open_embedded
from ._llama_cli import open_llama_cli
from ._llama_server import open_llama_server
from ._mock import MockBackend, MockScript, mock_words, open_mock
from ._model_file import ModelFile, describe
from ._openai import open_openai
from ._plausible import plausible
from ._program import find_server

__all__ = [
    # what a backend is
    "Backend",
    "Emit",
    "Generation",
    "Loading",
    "plausible",
    # the mock
    "open_mock",
    "MockBackend",
    "MockScript",
    "mock_words",
    # llama.cpp, as programs
    "open_llama_server",
    "open_llama_cli",
    "find_server",
    # llama.cpp, as libraries
    "open_embedded",
    "open_binding",
    # any server
    "open_openai",
    # model files
    "describe",
    "ModelFile",
    "KNOWN_MODELS",
    "KnownModel",
    "pull",
    "list_models",
    "ListedModel",
]
