"""A model file on disk: what it offers, its digest, and what is said when it is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from gguf_writer import LLAMA, TENSORS, gguf, tiny
from hypothesis import given
from hypothesis import strategies as st

from punch.exceptions import ConfigurationError, ModelFileError
from punch.model_store import describe, layout_of
from punch.model_store._model_file import digest
from punch.wire import fault_of_offer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model."""
    path = tmp_path / "Tiny.Q4_K_M.gguf"
    path.write_bytes(tiny())
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder for the cache, which does not exist yet."""
    return tmp_path / "cache" / "punch"


def test_the_offer_has_what_the_file_says(model: Path, cache: Path) -> None:
    """Its name is the file's, without the ending."""
    found = describe(model, cache_folder=cache)
    assert found.path == model
    assert found.file_bytes == len(tiny())
    assert found.offer.name == "Tiny.Q4_K_M"
    assert found.offer.digest == hashlib.sha256(tiny()).hexdigest()
    assert found.offer.context_tokens == 512
    assert found.offer.features == {"chat", "complete"}
    assert found.offer.parameters == 1280
    assert found.offer.quantization == "Q4_K_M"
    assert found.offer.size_bytes == 64 * 3 * 4 + 4 * 144 + 64 * 4
    assert found.offer.kv_bytes_per_token == 256
    assert found.offer.chat_template == found.header.chat_template_digest
    assert not found.offer.continues
    assert (found.offer.architecture, found.offer.embedding_length) == ("llama", 64)


def test_an_alias_is_the_name(model: Path, cache: Path) -> None:
    """The operator's word counts more than the file's."""
    assert describe(model, cache_folder=cache, alias="tiny").offer.name == "tiny"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (b"two\nlines.gguf", "two_lines"),
        (b" spaces .gguf", "spaces"),
        (b"not \xff\xfe utf.gguf", "not _ utf"),
        (b"bell\x07.gguf", "bell_"),
        (b"\n.gguf", "model"),
    ],
)
def test_a_files_name_that_no_peer_could_ask_for_is_cleaned(
    file: bytes, name: str, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, and the model is offered."""
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), file)))  # noqa: PTH118 - bytes
    path.write_bytes(tiny())
    offer = describe(path, cache_folder=cache).offer
    assert offer.name == name
    assert fault_of_offer(offer) is None
    assert len(caplog.records) == 1


@given(st.text(max_size=300))
def test_whatever_an_alias_is_the_offer_can_be_read(alias: str) -> None:
    """Peers accept it, and one that they accepted anyway is not touched."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        path.write_bytes(tiny())
        offer = describe(path, cache_folder=Path(folder) / "c", alias=alias).offer
    assert fault_of_offer(offer) is None
    if alias and fault_of_offer(attrs.evolve(offer, name=alias)) is None:
        assert offer.name == alias.strip()


def test_the_digest_is_computed_once(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same path, size and time of change: the same digest, without reading."""
    first = digest(model, cache_folder=cache)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert digest(model, cache_folder=cache) == first


def test_a_changed_file_is_read_again(model: Path, cache: Path) -> None:
    """A new time of change is enough."""
    first = digest(model, cache_folder=cache)
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    os.utime(model, ns=(1, 1))
    second = digest(model, cache_folder=cache)
    assert second == hashlib.sha256(data).hexdigest() != first


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"digests": 5}',
        b'{"digests": [[1, 2]]}',
        b'{"digests": [["x", 1, 2, "short"]]}',
        b"[" * 100_000,
        b" " * 2_000_000,
    ],
)
def test_a_damaged_cache_is_ignored_and_replaced(model: Path, cache: Path, damage: bytes) -> None:
    """A cache never stands in the way."""
    cache.mkdir(parents=True)
    (cache / "digests.json").write_bytes(damage)
    found = digest(model, cache_folder=cache)
    assert found == hashlib.sha256(model.read_bytes()).hexdigest()
    assert json.loads((cache / "digests.json").read_bytes())["digests"][0][3] == found


def test_the_cache_stays_small(model: Path, cache: Path, tmp_path: Path) -> None:
    """The oldest entries go, and nothing else lies around."""
    for i in range(300):
        path = tmp_path / f"{i}"
        path.write_bytes(b"")
        digest(path, cache_folder=cache)
    entries = json.loads((cache / "digests.json").read_bytes())["digests"]
    assert (len(entries), entries[-1][0]) == (256, str(tmp_path / "299"))
    assert [path.name for path in cache.iterdir()] == ["digests.json"]


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(model: Path) -> None:
    """Here, because its folder is a file."""
    assert digest(model, cache_folder=model) == hashlib.sha256(tiny()).hexdigest()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (os.mkfifo, "is not a regular file"),
    ],
)
def test_what_is_no_file_names_the_setting_and_the_remedy(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    """The value, the rule, what to do."""
    path = tmp_path / "model.gguf"
    make(path)
    with pytest.raises(ConfigurationError) as caught:
        describe(path, cache_folder=tmp_path, setting="LLAMA_GGUF_PATH")
    assert str(caught.value).startswith(f"LLAMA_GGUF_PATH={path} {words}")


def test_a_file_that_may_not_be_read_says_so(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The administrator, who runs tests at times, may read everything: hence the patch."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError, match=r"may not be read.*chmod"):
        describe(model, cache_folder=cache)


def test_another_file_is_not_a_model(tmp_path: Path) -> None:
    """The text has the setting, the fault and the remedy."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(ModelFileError) as caught:
        describe(path, cache_folder=tmp_path, setting="LLAMA_GGUF_PATH")
    assert f"LLAMA_GGUF_PATH={path}: not a GGUF file: it starts with b'<htm'" in str(caught.value)
    assert "punch models pull smollm2" in str(caught.value)


def test_a_projector_is_not_a_model(tmp_path: Path) -> None:
    """It lies beside the model in many folders."""
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(gguf({"general.type": "mmproj", "general.architecture": "clip"}, TENSORS))
    with pytest.raises(ModelFileError, match="'mmproj'"):
        describe(path, cache_folder=tmp_path)


def shards(folder: Path, count: int) -> list[Path]:
    """A model in *count* files."""
    paths = [folder / f"Big-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]
    for i, path in enumerate(paths):
        split = {"split.no": i, "split.count": count}
        path.write_bytes(gguf((LLAMA if i == 0 else {}) | split, TENSORS))
    return paths


def test_a_model_in_several_files_is_one_model(tmp_path: Path, cache: Path) -> None:
    """Weights add up; the digest is the digest of the digests."""
    paths = shards(tmp_path, 3)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    found = describe(paths[0], cache_folder=cache)
    assert found.offer.name == "Big"
    assert found.offer.parameters == 3 * 1280
    assert found.file_bytes == sum(path.stat().st_size for path in paths)
    assert found.offer.digest == hashlib.sha256("\n".join(digests).encode()).hexdigest()


def test_the_layout_is_that_of_all_files(tmp_path: Path, cache: Path) -> None:
    """The same whether the file is described or only laid out."""
    first = shards(tmp_path, 3)[0]
    layout = layout_of(first)
    assert layout.weights == 3 * (64 * 3 * 4 + 4 * 144 + 64 * 4)
    assert [layer.weights for layer in layout.layers] == [3 * 4 * 144, 0]
    assert layout == describe(first, cache_folder=cache).layout


def test_a_layout_names_the_file_that_is_missing(tmp_path: Path) -> None:
    """Of several, as well as the only one; and what kind of file has no layout."""
    paths = shards(tmp_path, 3)
    paths[1].unlink()
    with pytest.raises(ConfigurationError, match=paths[1].name):
        layout_of(paths[0])
    with pytest.raises(ConfigurationError, match=r"MODEL=.*nowhere\.gguf does not exist"):
        layout_of(tmp_path / "nowhere.gguf", setting="MODEL")
    (tmp_path / "bare.gguf").write_bytes(tiny(llama_block_count=None))
    with pytest.raises(ModelFileError, match=r"bare\.gguf: the header has no llama\.block_count"):
        layout_of(tmp_path / "bare.gguf")


def test_a_missing_shard_is_named(tmp_path: Path, cache: Path) -> None:
    """So that one knows what to download."""
    paths = shards(tmp_path, 3)
    paths[2].unlink()
    with pytest.raises(ConfigurationError, match=r"Big-00003-of-00003\.gguf does not exist"):
        describe(paths[0], cache_folder=cache)


def test_a_later_shard_points_to_the_first(tmp_path: Path, cache: Path) -> None:
    """llama.cpp starts with the first, too."""
    second = shards(tmp_path, 2)[1]
    header_with_features = gguf({**LLAMA, "split.no": 1, "split.count": 2}, TENSORS)
    second.write_bytes(header_with_features)
    with pytest.raises(ModelFileError, match=r"file 2 of 2.*-00001-of-00002"):
        describe(second, cache_folder=cache)


def test_a_first_shard_of_another_name_is_told_its_own(tmp_path: Path, cache: Path) -> None:
    """By that of the others, which are there still."""
    first = shards(tmp_path, 3)[0]
    for name in ("model.gguf", "Big-00002-of-00003-copy.gguf", "Big-00001-of-00004.gguf"):
        renamed = first.rename(tmp_path / name)
        with pytest.raises(ModelFileError, match=r"the first of 3 files.*Big-00001-of-00003\.gguf"):
            describe(renamed, cache_folder=cache)
        first = renamed


def test_a_later_shard_names_the_first(tmp_path: Path, cache: Path) -> None:
    """Whole, so that it can be pasted."""
    paths = shards(tmp_path, 3)
    with pytest.raises(ModelFileError, match=f"file 3 of 3.*: {paths[0]}"):
        describe(paths[2], cache_folder=cache)


def test_a_shard_of_another_model_is_named(tmp_path: Path, cache: Path) -> None:
    """It would be found out in the middle of loading."""
    paths = shards(tmp_path, 3)
    paths[1].write_bytes(tiny())
    with pytest.raises(ModelFileError, match=f"{paths[1]} is not one of the 3 files"):
        describe(paths[0], cache_folder=cache)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ({"general.architecture": "bert", "bert.pooling_type": 4}, "is a reranker"),
        ({"general.type": "adapter"}, "LoRA"),
        ({"general.type": "imatrix"}, "importance matrix"),
        ({"general.type": "of a later day"}, "'of a later day'"),
    ],
)
def test_a_file_that_answers_nothing_says_what_it_is(
    pairs: dict[str, object], words: str, tmp_path: Path, cache: Path
) -> None:
    """And what to give instead."""
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(pairs, TENSORS))
    with pytest.raises(ModelFileError, match=words) as caught:
        describe(path, cache_folder=cache)
    assert "ive " in str(caught.value)
