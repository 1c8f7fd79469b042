"""The version of punch. Hatchling reads it, peers tell each other, and nobody compares it."""

__version__ = "0.1.0"
