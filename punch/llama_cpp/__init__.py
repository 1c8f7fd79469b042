"""What llama.cpp's programs can do, learnt from the programs themselves.

Which program to run, and with what, is decided by the backends and the cluster.
"""

from ._named import Named, read_named
from ._program import Program, ask_program, find_completion, find_server, list_gpus

__all__ = [
    "Named",
    "read_named",
    "find_server",
    "Program",
    "ask_program",
    "find_completion",
    "list_gpus",
]
