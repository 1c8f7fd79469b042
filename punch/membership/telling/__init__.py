"""Members tell each other who is a member and what each machine is called; nobody else is told."""

from ._cards import Card, Cards
from ._exchange import PROTOCOL, Teller, keep_telling

__all__ = ["Cards", "Card", "Teller", "keep_telling", "PROTOCOL"]
