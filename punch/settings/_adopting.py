"""The table of settings of adopted servers, and how a person writes one of these.

Which servers are found by themselves is decided by `punch.adoption`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs

from ..wire import without_secrets
from ._answering import CONTEXT, FEATURES, SLOTS
from ._rules import SWITCH, Rule
from ._setting import optional, setting, several

_WORDS = "model, features, context, slots and key"
_SHAPE = (
    f"write URL WORD=VALUE ... with the words {_WORDS}, such as "
    "http://nas:11434 model=llama3.2 features=chat,tools key=@NAS_KEY"
)
_ADDRESS = "it must look like http://nas:11434 or https://models.example.com/v1"


@attrs.frozen(kw_only=True)
class Adoptee:
    """A server that a person has named, with what is known of it beyond what it tells."""

    url: str
    """Its address, with or without ``/v1``."""

    model: str | None = None
    """Offer this one of its models only; `None` for all."""

    features: tuple[str, ...] = ()
    """What its models that chat can do; empty for what it tells."""

    context: int | None = None
    """Tokens of one request; `None` for what it tells."""

    slots: int | None = None
    """Requests side by side; `None` for what it tells."""

    key: str | None = None
    """Where its key is: ``@`` and the name of a variable, or a file; never the key itself."""

    @classmethod
    def of(cls, text: str) -> Adoptee:
        """What *text* says: the address and the words, with blanks between them.

        Raises:
          ValueError: with the rule that it breaks.

        """
        url, *words = text.split() or [""]
        said: dict[str, str] = {}
        for word in words:
            name, sign, value = word.partition("=")
            if not sign or not value or name not in ("model", *_READ, "key"):
                raise ValueError(f"{_short(word)} is none of the words {_WORDS}: {_SHAPE}")
            if name in said:
                raise ValueError(f"{name} is there twice: say it once")
            said[name] = value
        read = {
            name: _value(name, rule, said[name]) for name, rule in _READ.items() if name in said
        }
        key = said.get("key")
        return cls(
            url=address(url),
            model=said.get("model"),
            key=None if key is None else _place_of_key(key),
            **read,  # type: ignore[arg-type]  # each is as its rule makes it
        )

    def __str__(self) -> str:
        words = {
            "model": self.model,
            "features": ",".join(self.features),
            "context": self.context,
            "slots": self.slots,
            "key": self.key,
        }
        said = [f"{name}={value}" for name, value in words.items() if value not in (None, "")]
        return " ".join([self.url, *said])


def address(text: str) -> str:
    """The address of a server in *text*, in which ``http://`` may be missing.

    Raises:
      ValueError: with the rule that it breaks.

    """
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(_ADDRESS)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "an address has no key, user or password in it, since lists and logs show it: put the "
            "key into a variable or a file, and name that with key=@VARIABLE or key=FILE"
        )
    return url.rstrip("/")


def _features(text: str) -> tuple[str, ...]:
    # A setting with many values does not tell the type of one: here, a word.
    return tuple(str(FEATURES.rule.value(word)) for word in text.split(",") if word)


_READ: dict[str, Rule[object]] = {
    "features": Rule(_features),
    "context": CONTEXT.rule,
    "slots": SLOTS.rule,
}


def _value(name: str, rule: Rule[object], text: str) -> object:
    try:
        return rule.value(text)
    except ValueError as error:
        raise ValueError(f"{name} is {_short(text)}: {error}") from None


def _place_of_key(text: str) -> str:
    is_variable = text.startswith("@") and text[1:].isidentifier()
    is_file = text.startswith("~") or bool({"/", "\\"} & set(text))
    if not is_variable and not is_file:
        # It may be the key itself, so it is not repeated.
        raise ValueError(
            "key does not take the key itself, which would stand in lists and logs: put it into a "
            "variable or a file, and write key=@VARIABLE or key=/path/of/the/file"
        )
    return text


def _short(text: str) -> str:
    return repr(shown(text)[:60])


def shown(text: str) -> str:
    """What is shown of *text*, which a person has written: no key, user or password."""
    words = (without_secrets(word) for word in text.split())
    return " ".join("key=(secret)" if _is_key(word) else word for word in words)


def _is_key(word: str) -> bool:
    """Whether *word* has a key where only the place of one may be."""
    name, sign, value = word.partition("=")
    if not sign or name != "key":
        return False
    try:
        return not _place_of_key(value)
    except ValueError:
        return True


ADOPT = several(
    "servers",
    Rule(Adoptee.of),
    section="adopt",
    flag="--adopt",
    variable="PUNCH_ADOPT",
    metavar="URL",
    separators=";\n",
    hides=shown,
    help="a server of models that runs already, here or elsewhere, to answer with too; may be "
    "given several times, and may have words behind it: 'http://nas:11434 model=llama3.2 "
    "features=chat,tools context=8192 slots=2 key=@NAS_KEY'; `punch adopt` keeps them in the file",
)
ADOPT_FOUND = optional(
    "found",
    SWITCH,
    section="adopt",
    flag="--adopt-found",
    variable="PUNCH_ADOPT_FOUND",
    help="find Ollama, llama-server, LM Studio, vLLM and others that run on this machine, at their "
    "usual ports, and answer with them too",
    shown_default="on in a closed namespace, off in an open one",
)
NO_ADOPT = setting(
    "off",
    SWITCH,
    False,
    section="adopt",
    flag="--no-adopt",
    variable="PUNCH_NO_ADOPT",
    help="adopt no server, neither found nor named",
)

ADOPTING = (ADOPT, ADOPT_FOUND, NO_ADOPT)
