"""The mock: makes answers up, at a speed of its own, and says so."""

from ._backend import MockBackend, MockScript, mock_words, open_mock

__all__ = [
    "open_mock",
    "MockBackend",
    "MockScript",
    "mock_words",
]
