"""One front of a gateway with several processes. Only the gateway itself starts it."""

from __future__ import annotations

import sys

from ...cli.serving import run_front_program

if __name__ == "__main__":
    sys.exit(run_front_program(sys.argv[1:]))
