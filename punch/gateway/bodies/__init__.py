"""Bodies of requests: how their fields are declared, read, and listed in documents."""

from ._body import Body, Refused, Taken, is_empty
from ._branches import field_of, text_or, text_or_list
from ._fields import (
    MAX_PARTS,
    MAX_SEED,
    Always,
    Function,
    ModelName,
    Never,
    PunchOptions,
    Text,
    printable,
    within,
)
from ._hints import hints_in, with_wishes
from ._pictures import PictureAddress, PictureText, media_type_of, picture
from ._reading import AT_ONCE, CODES, MAX_VALUES, Reading, parse, parse_aside, read, read_aside
from ._table import FieldRule, rules_of
from ._thinking import (
    USUAL_EFFORT,
    Effort,
    ReasoningOptions,
    TemplateOptions,
    sealed,
    switched,
    thought_in,
)
from ._words import BRANCH, MAX_SHOWN_CHARACTERS, place_of, shown

__all__ = [
    # Declaring them.
    "Body",
    "Taken",
    "Refused",
    "is_empty",
    # Fields that all dialects share.
    "Always",
    "Function",
    "ModelName",
    "Never",
    "PunchOptions",
    "Text",
    "printable",
    "within",
    "MAX_PARTS",
    "MAX_SEED",
    # Telling the branches of unions apart.
    "field_of",
    "text_or",
    "text_or_list",
    # What is wished of the choice.
    "hints_in",
    "with_wishes",
    # Pictures.
    "PictureAddress",
    "PictureText",
    "media_type_of",
    "picture",
    # Thinking.
    "Effort",
    "ReasoningOptions",
    "TemplateOptions",
    "switched",
    "USUAL_EFFORT",
    "sealed",
    "thought_in",
    # Reading them.
    "Reading",
    "read",
    "read_aside",
    "parse",
    "parse_aside",
    "AT_ONCE",
    "CODES",
    "MAX_VALUES",
    # Speaking of them.
    "FieldRule",
    "rules_of",
    "BRANCH",
    "place_of",
    "shown",
    "MAX_SHOWN_CHARACTERS",
]
