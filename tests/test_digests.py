"""Nothing of a download runs before its digest was compared: a tampered one runs nothing."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import trio

from punch.exceptions import ConfigurationError
from punch.llama_cpp import _build

ROOT = Path(__file__).parent.parent
SETUP = ROOT / "bins" / "setup"


def tampered(folder: Path, name: str, version: str) -> Path:
    """A source distribution whose build code leaves a mark; the mark's place."""
    mark = folder / "it-ran"
    backend = f"open({str(mark)!r}, 'w').close()\n"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\n'
        'backend-path = ["."]\n',
        "backend.py": backend,
        "setup.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    stem = f"{name.replace('-', '_')}-{version}"
    with tarfile.open(folder / f"{stem}.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{stem}/{path}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return mark


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip finds packages in."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return tmp_path


async def test_the_archive_of_llama_cpp_is_compared_before_its_build_code_runs(
    index: Path, tmp_path: Path
) -> None:
    """`punch engine install`: pip would ask the archive for its metadata, which runs code of it."""
    mark = tampered(index, "llama-cpp-python", _build.VERSION)
    folder = tmp_path / "download"
    folder.mkdir()
    with pytest.raises(ConfigurationError, match="not the archive") as caught:
        await _build.download(folder, say=print)
    assert _build.SHA256 in str(caught.value), "pip says what it expected"
    assert not mark.exists()
    # The mark works: without a digest, the very same archive runs.
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-build-isolation"]
    wanted = f"llama-cpp-python=={_build.VERSION}"
    await trio.run_process([*pip, "-d", str(folder), wanted], capture_stdout=True, check=False)
    assert mark.exists()


def test_every_download_of_the_setup_has_its_digests() -> None:
    """Each of its pip commands that fetches; punch itself and the wheel made here are local."""
    text = SETUP.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r'"\$\{pip\[@\]\}" (?:install|wheel) .*', text)
    fetching = [one for one in commands if "-e ." not in one and '"$wheel"' not in one]
    assert len(fetching) == 3
    assert all("--require-hashes" in one for one in fetching)
    assert _build.SHA256 in text


def test_the_lock_has_the_versions_that_are_pinned_and_digests_for_each() -> None:
    """`bins/lock` makes it from constraints.txt."""
    pins = {
        line.strip()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    }
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    locked = [line for line in text.splitlines() if not line.startswith("#")]
    assert {line.split()[0] for line in locked} - {"fastecdsa==3.0.1", "fastecdsa==4.0.0"} == pins
    for line in locked:
        assert re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", line), line


def test_a_tampered_package_is_not_installed(index: Path, tmp_path: Path) -> None:
    """One of the two that exist as source only, by the line of the lock."""
    mark = tampered(index, "varint", "1.0.2")
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^varint==.*", text, re.MULTILINE)
    (tmp_path / "one.txt").write_text(line, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"),
            *("--no-binary=varint", "--require-hashes", "--target", str(tmp_path / "target")),
            *("-r", str(tmp_path / "one.txt")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Expected sha256" in done.stderr
    assert not mark.exists()
