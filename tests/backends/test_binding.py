"""The backend `llama_cpp_python` where the binding is not installed."""

from __future__ import annotations

import importlib.util

import pytest

from punch.backends import open_binding
from punch.capability import ModelOffer
from punch.exceptions import ConfigurationError


async def test_a_missing_binding_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what installing it takes."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError) as caught:
        async with open_binding(model_path="x.gguf", offer=ModelOffer(name="x")):
            pass
    assert "punch-router[llama-cpp-python]" in str(caught.value)


async def test_a_number_below_one_is_named() -> None:
    """The setting, its value, the rule."""
    offer = ModelOffer(name="x")
    with pytest.raises(ConfigurationError, match="threads is 0, but must be at least 1"):
        async with open_binding(model_path="x", offer=offer, threads=0):
            pass
    with pytest.raises(ConfigurationError, match="context_tokens is -1, but must be at least 1"):
        async with open_binding(model_path="x", offer=offer, context_tokens=-1):
            pass
