"""What runs a model. Each backend has its own `open_*()`; `_base` says what they share."""

from ._base import Backend, Emit, Generation
from ._mock import MockBackend, MockScript, mock_words, open_mock

__all__ = [
    # what a backend is
    "Backend",
    "Emit",
    "Generation",
    # the mock
    "open_mock",
    "MockBackend",
    "MockScript",
    "mock_words",
]
