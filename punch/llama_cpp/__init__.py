"""What llama.cpp's programs can do, learnt from the programs themselves.

Which program to run, and with what, is decided by the backends and the cluster.
"""

from ._program import Program, ask_program, find_completion, find_server, list_gpus

__all__ = [
    "find_server",
    "Program",
    "ask_program",
    "find_completion",
    "list_gpus",
]
