"""What `punch serve` and `punch up` have in common: everything in front of a namespace.

It brings an HTTP server with it, so that a command imports it where it runs.
"""

from ._books import Books, open_books
from ._front import main as run_front_program
from ._serving import Serving, open_serving

__all__ = ["open_serving", "Serving", "open_books", "Books", "run_front_program"]
