"""What stands before the code of the page: what a program is asked, and how it says what came."""

import json
import sys
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

QUESTION = "Why is the sky blue?"
# A mock calls a tool that the last message names.
USE_ADD = "Use add."
NAME_A_PERSON = "Answer with the JSON of a Person, who has a name and an age."


class Person(BaseModel):
    """A person with a name and an age."""

    name: str
    age: int


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first number.
        b: The second number.

    """
    return a + b


def say(**asked: Callable[[], Any]) -> None:
    """Ask what the command line names, and print what came, one line for each."""
    for kind in sys.argv[1:]:
        got = asked[kind]()
        print(json.dumps({"kind": kind, "got": got}), flush=True)
