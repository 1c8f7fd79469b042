"""The GGUF header: what it says, and that no file can do harm."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import tracemalloc

import pytest
from gguf_writer import LLAMA, TENSORS, Tensor, gguf, text, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from punch.exceptions import ConfigurationError, ModelFileError
from punch.gguf import GgufHeader, read_header


def read(data: bytes) -> GgufHeader:
    """The header of a file with these bytes."""
    return read_header(io.BytesIO(data))


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_is_read_to_the_last_number(version: int) -> None:
    """Versions 2 and 3 have the same layout."""
    assert read(gguf(LLAMA, TENSORS, version=version)) == GgufHeader(
        version=version,
        name="Tiny",
        architecture="llama",
        layers=2,
        context_tokens=512,
        embedding=64,
        heads=(4, 4),
        kv_heads=(2, 2),
        key_length=16,
        value_length=16,
        vocabulary=3,
        chat_template_digest=hashlib.sha256(b"{{ messages }}").hexdigest(),
        quantization="Q4_K_M",
        parameters=64 * 3 + 256 * 4 + 64,
        weight_bytes=64 * 3 * 4 + 4 * 144 + 64 * 4,
        tensors=3,
        features=frozenset({"chat", "complete"}),
    )


def test_the_cache_of_a_token_is_counted_over_layers_heads_and_both_halves() -> None:
    """2 layers x 2 heads x (16 + 16) numbers x 2 bytes."""
    assert read(tiny()).kv_bytes_per_token() == 2 * 2 * (16 + 16) * 2


def test_a_quantised_cache_is_counted_in_blocks() -> None:
    """Q8_0 stores 32 numbers in 34 bytes."""
    assert read(tiny()).kv_bytes_per_token("q8_0", "Q8_0") == 2 * 2 * 34


def test_an_unknown_cache_type_is_refused_with_the_known_ones() -> None:
    """The text names the wrong one and the right ones."""
    with pytest.raises(ConfigurationError, match=r"'q9'.*q8_0"):
        read(tiny()).kv_bytes_per_token("q9")


def test_layers_may_have_heads_of_their_own() -> None:
    """A layer without attention takes no cache."""
    header = read(gguf({**LLAMA, "llama.attention.head_count_kv": [2, 0]}, TENSORS))
    assert (header.kv_heads, header.kv_bytes_per_token()) == ((2, 0), 2 * 32 * 2)


def test_without_key_value_heads_every_head_counts() -> None:
    """That is llama.cpp's rule."""
    pairs = {key: each for key, each in LLAMA.items() if not key.endswith("_kv")}
    assert read(gguf(pairs, TENSORS)).kv_heads == (4, 4)


def test_latent_attention_stores_no_values() -> None:
    """Keys and values come out of one latent of `key_length` numbers."""
    latent = {
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": 576,
        "llama.attention.value_length": 512,
        "llama.attention.key_length_mla": 192,
    }
    assert read(gguf(LLAMA | latent, TENSORS)).kv_bytes_per_token() == 2 * 576 * 2


@pytest.mark.parametrize(
    "key", ["attention.sliding_window", "ssm.state_size", "attention.shared_kv_layers"]
)
def test_a_smaller_cache_is_announced_as_an_upper_bound(key: str) -> None:
    """Nobody takes the number for exact where it is not."""
    assert read(tiny()).kv_exact
    assert not read(gguf({**LLAMA, f"llama.{key}": 128}, TENSORS)).kv_exact
    assert read(gguf({**LLAMA, f"llama.{key}": 0}, TENSORS)).kv_exact


@pytest.mark.parametrize(
    ("more", "features"),
    [
        ({}, {"chat", "complete"}),
        ({"llama.pooling_type": 0}, {"chat", "complete"}),
        ({"llama.pooling_type": 1}, {"embed"}),
        ({"llama.pooling_type": 4}, set()),
        ({"general.type": "mmproj"}, set()),
    ],
)
def test_features_follow_what_the_model_was_made_for(
    more: dict[str, object], features: set[str]
) -> None:
    """An embedder does not chat, a reranker and a projector do neither."""
    assert read(gguf({**LLAMA, **more}, TENSORS)).features == features


def test_without_a_template_there_is_no_chat() -> None:
    """A base model goes on from a text."""
    assert read(tiny(tokenizer_chat_template=None)).features == {"complete"}


def test_without_a_file_type_the_type_of_most_bytes_counts() -> None:
    """Bytes, since a few large tensors are the model."""
    assert read(tiny(general_file_type=None)).quantization == "F32"


def test_a_guessed_file_type_counts_too() -> None:
    """1024 is a mark, not a type."""
    assert read(tiny(general_file_type=1024 + 7)).quantization == "Q8_0"


def test_a_shard_says_which_one_it_is() -> None:
    """Later shards have little else in their header."""
    header = read(gguf({"split.no": 1, "split.count": 3}, TENSORS))
    assert (header.split_number, header.split_count, header.architecture) == (1, 3, None)
    assert header.kv_bytes_per_token() is None


# Two matrices at the same place: name, and bytes in the file.
LYING = (("one", 0), ("two", 64 * 64 * 4))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "starts with b''"),
        (b"GG", "starts with b'GG'"),
        (b"PK\x03\x04 a zip file", "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1; versions 2 and 3"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0), "number of tensors is 1099511627776"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "number of key-value pairs"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "length of a key"),
        (gguf({"k": struct.pack("<IQ", 8, 2**60)}), "cut short or damaged"),
        (gguf({"k": struct.pack("<IIQ", 9, 4, 2**62)}), "cut short or damaged"),
        (gguf({"k": struct.pack("<IIQ", 9, 8, 2**62)}), "cut short or damaged"),
        (gguf({"k": struct.pack("<IIQ", 9, 8, 1) + struct.pack("<Q", 2**63)}), "cut short"),
        (gguf({"k": struct.pack("<IIQ", 9, 9, 1)}), "list of lists"),
        (gguf({"k": struct.pack("<I", 13)}), "type 13; types 0 to 12"),
        (gguf([("k", 1), ("k", 2)]), "there twice"),
        (gguf({"general.alignment": 48}), "power of two"),
        (tiny(llama_block_count=-1 & 0xFFFFFFFF), "block_count is 4294967295"),
        (tiny(llama_block_count=1_000_000), "1000000 layers"),
        (tiny(llama_block_count="two"), "block_count is a text"),
        (tiny(general_architecture=7), "must be text"),
        (tiny(llama_attention_head_count=[4]), "1 values for 2 layers"),
        (gguf(LLAMA, [Tensor(name="x", shape=(1,) * 5)]), "dimensions"),
        (gguf(LLAMA, [Tensor(name="x", shape=(-1,))]), "-1 elements"),
        (gguf(LLAMA, [Tensor(name="x", shape=(2**40, 2**40))]), "damaged"),
        (gguf(LLAMA, [Tensor(name="x", shape=(32,), kind=4)]), "type 4"),
        (gguf(LLAMA, [Tensor(name="x", shape=(33,), kind=2)]), "multiple of 32"),
        (gguf(LLAMA, TENSORS, data=False), "not downloaded completely"),
        (
            gguf(LLAMA, [Tensor(name=each, shape=(64, 64), size=n) for each, n in LYING]),
            "some lie on others",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_what_was_found(data: bytes, words: str) -> None:
    """The text is for the person who has the file."""
    with pytest.raises(ModelFileError) as caught:
        read(data)
    assert words in str(caught.value)


def test_no_beginning_of_a_file_is_taken_for_a_file() -> None:
    """A download that broke off is found at every length."""
    data = tiny()
    for length in range(len(data) - 32):  # The last tensor's padding is not missed.
        with pytest.raises(ModelFileError):
            read(data[:length])


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_flipped_bytes_raise_nothing_else(data: st.DataObject) -> None:
    """Damage gives another header or one kind of error."""
    damaged = bytearray(tiny())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelFileError):
        read(bytes(damaged)).kv_bytes_per_token()


@settings(max_examples=80, deadline=None)
@given(body=st.binary(max_size=400), pairs=st.integers(0, 5), tensors=st.integers(0, 5))
def test_arbitrary_bytes_raise_nothing_else(body: bytes, pairs: int, tensors: int) -> None:
    """Also behind a header that looks right."""
    for head in (b"", b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs)):
        with contextlib.suppress(ModelFileError):
            read(head + body)


@pytest.mark.slow
def test_a_large_vocabulary_is_walked_over_not_kept() -> None:
    """300,000 tokens take no more memory than 3."""
    tokens = struct.pack("<IIQ", 9, 8, 300_000) + text("some token") * 300_000
    file = io.BytesIO(gguf({**LLAMA, "tokenizer.ggml.tokens": tokens}, TENSORS))
    tracemalloc.start()
    header = read_header(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert header.vocabulary == 300_000
    assert peak < 1_000_000


def test_a_string_longer_than_a_piece_is_passed_over() -> None:
    """Strings that cross the end of a piece, or are longer than one, are found whole."""
    long = ["x" * length for length in (0, 1, 65_530, 65_536, 200_000, 3)]
    header = read(gguf({"long.list": long, "long.text": "y" * 150_000, **LLAMA}, TENSORS))
    assert header.vocabulary == 3


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (bytes(600), "blank"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\n  <html>", "HTML"),
        (b"PK\x03\x04abc", "zip archive"),
        (b"\x80\x02}q\x00", "PyTorch"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"tjgg\x03", "older than GGUF"),
        (struct.pack("<Q", 12345) + b'{"__metadata__":', "safetensors"),
        (b'{"error":"Invalid credentials"}', "JSON"),
        (b"Entry not found", "a text"),
        (bytes(257) + b"ustar" + b"\1" * 300, "tar archive"),
    ],
)
def test_what_is_no_gguf_file_is_told_by_its_beginning(head: bytes, words: str) -> None:
    """With what to do about it."""
    with pytest.raises(ModelFileError, match="not a GGUF file: it starts with") as caught:
        read(head)
    assert words in str(caught.value)


@given(st.binary(max_size=600))
def test_any_beginning_is_told_or_left_untold(head: bytes) -> None:
    """Never a fault of punch."""
    with pytest.raises(ModelFileError):
        read(head)


def test_a_context_of_nothing_is_none() -> None:
    """Converters write 0 where they do not know it."""
    assert read(tiny(llama_context_length=0)).context_tokens is None


@given(st.sampled_from([4, 5, 31, 38, 43, 137, 2**31]), st.integers(1, 300))
def test_weights_of_a_fork_are_taken_where_the_program_may_know_them(kind: int, row: int) -> None:
    """And refused elsewhere, with a program that may."""
    data = gguf(LLAMA, [*TENSORS, Tensor(name="x", shape=(row, 2), kind=kind, size=96)])
    header = read_header(io.BytesIO(data), any_types=True)
    assert header.unknown_types == {kind}
    assert header.parameters == 64 * 3 + 256 * 4 + 64 + row * 2
    assert 0 < header.weight_bytes < len(data)
    with pytest.raises(ModelFileError, match=f"type {kind}.*LLAMA_CPP_EXE"):
        read(data)
