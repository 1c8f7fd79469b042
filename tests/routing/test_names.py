"""Which model a name means: every name that a person would try, and nothing that is a guess."""

from __future__ import annotations

from typing import Any

import pytest

from punch.capability import Capability, Lane, ModelOffer, PeerId
from punch.peers import PeerRecord
from punch.routing.names import (
    MAX_ALIASES,
    Alias,
    Aliases,
    Ambiguous,
    Meaning,
    ModelNames,
    PulledModel,
)

D1, D2 = "1" * 64, "2" * 64
EMBEDS = frozenset({"embed"})

PULLED = {"smollm2": PulledModel("SmolLM2-135M-Instruct.Q4_1.gguf", D1)}


def offer(name: str, **fields: Any) -> ModelOffer:
    """A model on offer."""
    return ModelOffer(name=name, **fields)


def peer(*offers: ModelOffer, simulated: bool = False, name: str = "p") -> PeerRecord:
    """A peer with these offers."""
    lane = Lane(backend="b", simulated=simulated)
    return PeerRecord(
        peer_id=PeerId(name),
        capability=Capability(lanes=(lane,), models=offers),
        incarnation=1,
        sequence=1,
        seen_at=0.0,
    )


def names(*offered: str | PeerRecord, aliases: str = "") -> ModelNames:
    """The names of these models, each of a peer of its own."""
    found = ModelNames(Aliases(map(Alias.of, aliases.split())), pulled=PULLED)
    found.look([each if isinstance(each, PeerRecord) else peer(offer(each)) for each in offered])
    return found


def meant(said: str, *offered: str | PeerRecord, aliases: str = "", **how: Any) -> Any:
    """The name that *said* means, the names that it may mean, or `None`."""
    found = names(*offered, aliases=aliases).meaning(said, **how)
    if isinstance(found, Ambiguous):
        return found.names
    return found.name if found is not None else None


@pytest.mark.parametrize(
    ("said", "offered"),
    [
        ("llama3.2", "llama3.2"),
        ("llama3.2", "llama3.2:latest"),
        ("llama3.2:latest", "llama3.2"),
        ("LLAMA3.2", "llama3.2:latest"),
        ("Llama3.2:Latest", "llama3.2"),
        ("tiny.gguf", "tiny"),
        ("tiny", "tiny.gguf"),
        ("tiny.GGUF", "tiny"),
        ("tiny.gguf:latest", "tiny"),
        ("big-00001-of-00003.gguf", "big-00001-of-00003"),
        ("big", "big-00001-of-00003"),
        ("big.gguf", "big-00001-of-00003"),
        # a path, or an owner, on either side
        ("/home/me/models/tiny.gguf", "tiny"),
        ("C:\\models\\tiny.gguf", "tiny"),
        ("SmolLM2-135M-GGUF", "bartowski/SmolLM2-135M-GGUF"),
        ("bartowski/smollm2", "hf.co/bartowski/SmolLM2"),
        ("openai/gpt-oss", "gpt-oss"),
        # how it is stored, and its tag
        ("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1"),
        ("smollm2-135m-instruct.gguf", "SmolLM2-135M-Instruct-Q4_K_M"),
        ("qwen3-8b", "Qwen3-8B-UD-Q4_K_XL"),
        ("qwen3-8b", "Qwen3-8B-IQ3_XXS"),
        ("qwen3-8b", "Qwen3-8B-BF16"),
        ("llama3.2", "llama3.2:3b"),
        ("llama3.2:3b-instruct", "llama3.2:3b-instruct-q4_K_M"),
        ("llama3.2", "llama3.2:3b-instruct-q4_K_M"),
        ("Llama-3.2-1B-Instruct-GGUF", "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M"),
        # the name it is fetched by, and that of its file
        ("smollm2", "SmolLM2-135M-Instruct.Q4_1"),
        ("smollm2:latest", "SmolLM2-135M-Instruct.Q4_1"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2"),
    ],
)
def test_a_model_is_found_by_every_name_that_a_person_would_try(said: str, offered: str) -> None:
    """Also with other models beside it."""
    assert meant(said, offered, "another", "mistral-7b") == offered


@pytest.mark.parametrize(
    ("said", "offered"),
    [
        ("llama3", "llama3.2"),
        ("llama3.2", "llama3.2-vision"),
        ("llama", "llama-3.2-1b"),
        ("llama3.2:1b", "llama3.2:3b"),
        ("llama3.2:3b", "llama3.2:latest"),
        ("qwen3-8b-q8_0", "qwen3-8b-q4_0"),
        ("a/model", "b/model"),
        ("a/model", "b/model-q4_0"),
        ("gpt-4o", "gpt-4o-mini"),
        (".gguf", "tiny"),
        (":latest", "tiny"),
        ("/", "tiny"),
        ("smollm2", "SmolLM2-1.7B"),
    ],
)
def test_another_model_is_none(said: str, offered: str) -> None:
    """A name that is only like another one, is another one."""
    assert meant(said, offered, "another") is None


def test_the_nearest_spelling_is_meant() -> None:
    """The very name before one that differs in what programs add, and that before its case."""
    offered = ("Tiny", "tiny", "tiny:latest", "TINY.gguf", "x/tiny")
    assert [meant(said, *offered) for said in ("tiny", "Tiny", "tiny:latest")] == [
        "tiny",
        "Tiny",
        "tiny:latest",
    ]
    assert meant("tiny.gguf", "tiny", "TINY") == "tiny"
    assert meant("TINY.gguf", *offered) == "TINY.gguf"
    assert meant("y", "x/y", "y-q4_0") == "x/y"


@pytest.mark.parametrize(
    ("said", "offered", "may_be"),
    [
        ("llama3.2", ("llama3.2:1b", "llama3.2:3b"), ("llama3.2:1b", "llama3.2:3b")),
        ("tiny", ("tiny-Q4_0", "tiny-Q8_0"), ("tiny-Q4_0", "tiny-Q8_0")),
        ("tiny", ("a/tiny", "b/tiny"), ("a/tiny", "b/tiny")),
        ("TINY", ("Tiny", "tiny"), ("Tiny", "tiny")),
    ],
)
def test_what_may_be_several_is_none_and_they_are_named(
    said: str, offered: tuple[str, ...], may_be: tuple[str, ...]
) -> None:
    """Also where a later and looser step would find one."""
    assert meant(said, *offered) == may_be
    assert meant(said, *offered, any_name=True) == may_be


def test_of_several_those_are_meant_that_can_do_what_is_asked() -> None:
    """An embedder is no chat model; a simulated one stands in for no real one."""
    embedder = peer(offer("nomic:v1", features=EMBEDS))
    chat = peer(offer("nomic:chat"))
    assert meant("nomic", embedder, chat, command="chat") == "nomic:chat"
    assert meant("nomic", embedder, chat, command="embed") == "nomic:v1"
    assert meant("nomic", embedder, chat) == ("nomic:chat", "nomic:v1")
    made_up = peer(offer("nomic:mock"), simulated=True)
    assert meant("nomic", made_up, chat, command="chat") == "nomic:chat"
    assert meant("nomic", made_up, command="chat", strict=True) is None


def test_names_of_one_file_are_one_model() -> None:
    """By its digest, which only real offers can claim."""
    one, other = peer(offer("tiny-Q4_0", digest=D1)), peer(offer("tiny:q4", digest=D1))
    assert meant("tiny", one, other) == "tiny-Q4_0"
    found = names(one, other).meaning("tiny:q4")
    assert found == Meaning(name="tiny:q4", digest=D1)
    assert meant("tiny", one, peer(offer("tiny:q4", digest=D2))) == ("tiny-Q4_0", "tiny:q4")
    mocks = [peer(offer(name, digest=D1), simulated=True) for name in ("tiny:a", "tiny:b")]
    assert meant("tiny", *mocks) == ("tiny:a", "tiny:b")
    # Where two say different things of one name, neither is believed.
    found = names(one, peer(offer("tiny-Q4_0", digest=D2), name="q")).meaning("tiny-Q4_0")
    assert found == Meaning(name="tiny-Q4_0", digest=None)


def test_a_digest_names_a_model() -> None:
    """As it stands in what peers say of their models."""
    both = (peer(offer("a", digest=D1)), peer(offer("b", digest=D2)))
    assert meant(D2, *both) == "b"
    assert meant(f"sha256:{D1}", *both) == "a"
    assert meant("3" * 64, *both) is None


def test_auto_is_any_model_but_for_one_of_that_name() -> None:
    """Ollama's clients add their tag to it as well."""
    for said in ("auto", "auto:latest", "AUTO"):
        assert names("a", "b").meaning(said) == Meaning(name=None)
    assert meant("auto", "a", "auto") == "auto"


# ---- aliases ----


def test_an_alias_is_a_name_of_its_model_by_any_spelling() -> None:
    """Of the alias, and of the model."""
    aliases = "gpt-4o-mini=llama3.2"
    for said in ("gpt-4o-mini", "GPT-4o-mini", "gpt-4o-mini:latest"):
        found = names("llama3.2:latest", "b", aliases=aliases).meaning(said)
        assert found == Meaning(name="llama3.2:latest", by="alias")
    assert meant("gpt-4o-mini", "llama3.2:1b", "llama3.2:3b", aliases=aliases) == (
        "llama3.2:1b",
        "llama3.2:3b",
    )
    assert meant("gpt-4o-mini", "b", aliases=aliases) is None
    assert names("b", aliases="gpt-4o=auto").meaning("gpt-4o") == Meaning(name=None, by="alias")


def test_an_alias_is_what_the_owner_said_and_a_name_what_a_peer_says() -> None:
    """Nobody gets the requests of an alias by offering such a name; a pattern gives way."""
    assert meant("gpt-4o", "gpt-4o", "b", aliases="gpt-4o=b") == "b"
    assert meant("gpt-4o", "gpt-4o", "b", aliases="gpt-*=b") == "gpt-4o"
    assert meant("GPT-4o", "gpt-4o", "b", aliases="*=b") == "gpt-4o"


def test_the_pattern_that_says_the_most_counts() -> None:
    """A star stands for any characters, also for none, and in any place."""
    aliases = "*=a gpt-*=b gpt-*-mini=c *whisper*=d"
    offered = ("a", "b", "c", "d")
    said = ["gpt-4o", "gpt-4o-mini", "GPT-4-MINI:latest", "gpt-", "gpt", "x", "my-whisper-1"]
    assert [meant(each, *offered, aliases=aliases) for each in said] == [
        *("b", "c", "c", "b", "a", "a", "d"),
    ]
    # What is meant is not on offer: then a model is found as if there were no pattern.
    assert meant("gpt-x", "gpt-x-q4_0", aliases="gpt-*=b") == "gpt-x-q4_0"


def test_an_alias_of_an_alias_is_a_model_of_that_name() -> None:
    """So that no two of them run in a circle."""
    assert meant("a", "x", aliases="a=b b=a") is None
    assert meant("a", "b", "x", aliases="a=b b=x") == "b"


@pytest.mark.parametrize(
    "text", ["a", "a=", "=b", "a=b*", "a=A", "tiny=tiny.gguf", f"{'n' * 257}=b", "a=b\x07", ""]
)
def test_what_is_no_alias_is_refused(text: str) -> None:
    """With the rule."""
    with pytest.raises(ValueError, match=r"NAME=MODEL|printable|no \*|already"):
        Alias.of(text)


def test_aliases_are_bounded_and_the_last_word_counts() -> None:
    """More names than any program asks for are a pattern's work."""
    assert [str(alias) for alias in Aliases(map(Alias.of, ("a=b", "c=d", "a=e"))).all] == [
        *("a=e", "c=d"),
    ]
    many = [Alias(f"n{number}", "m") for number in range(MAX_ALIASES + 1)]
    assert len(Aliases(many[:-1])) == MAX_ALIASES
    with pytest.raises(ValueError, match=f"{MAX_ALIASES} are the most"):
        Aliases(many)


def test_a_pattern_takes_no_time_to_speak_of() -> None:
    """It comes from a file, and the name from anybody."""
    alias = Alias("*a" * 120 + "*b", "m")
    assert not alias.matches("a" * 256)


# ---- one model on offer ----


def test_any_name_means_the_only_model() -> None:
    """By what is asked for: one model that chats and one that embeds are one each."""
    chat, embedder = peer(offer("a")), peer(offer("e", features=EMBEDS))
    assert meant("test", chat, any_name=True) == "a"
    assert meant("test", chat) is None
    assert meant("test", chat, embedder, any_name=True, command="chat") == "a"
    assert meant("test", chat, embedder, any_name=True, command="embed") == "e"
    assert meant("test", chat, embedder, any_name=True) == "a"
    assert meant("test", embedder, any_name=True) == "e"
    assert meant("test", chat, peer(offer("b")), embedder, any_name=True) is None
    assert meant("test", chat, peer(offer("b")), any_name=True, command="chat") is None
    assert meant("test", embedder, any_name=True, command="chat") is None
    found = names(chat).meaning("test", any_name=True)
    assert found == Meaning(name="a", by="only")


def test_the_only_model_may_be_at_several_peers_and_have_several_names() -> None:
    """One file is one model; a simulated one counts only where no real one is."""
    one, other = peer(offer("a", digest=D1)), peer(offer("b", digest=D1), name="q")
    assert meant("test", one, one, other, any_name=True) == "a"
    made_up = peer(offer("mock"), simulated=True)
    assert meant("test", one, made_up, any_name=True, command="chat") == "a"
    assert meant("test", made_up, any_name=True, command="chat") == "mock"
    assert meant("test", made_up, any_name=True, command="chat", strict=True) is None


# ---- what somebody may use ----


def test_only_a_spelling_of_the_whole_name_is_what_a_key_says() -> None:
    """No alias, no pattern, no part of a name: what is offered tomorrow does not widen it."""
    known = names("llama3.2:3b", "tiny", "x/y", aliases="small=tiny *=tiny")
    said = ["tiny", "TINY.gguf", "tiny:latest", "small", "any", "llama3.2", "y", "llama3.2:3B"]
    assert [known.spelled(each) for each in said] == [
        *("tiny", "tiny", "tiny", None, None, None, None, "llama3.2:3b"),
    ]
