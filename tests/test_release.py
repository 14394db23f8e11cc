"""What is released: an sdist and a wheel, the same bit for bit whoever builds them, with the models, and no stray file.

What only an installation shows is `make test-dist`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from lsp_charrnn import __version__
from lsp_charrnn.model.files import verify_model

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(path.parent.name for path in ROOT.glob("models/*/config.json"))


def build(tree: Path, out: Path, umask: int) -> tuple[Path, Path]:
    """Build as `make dist` does, from `tree`; return the sdist and the wheel."""
    quiet = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out)],
        cwd=tree,
        check=True,
        capture_output=True,
        umask=umask,
        env=quiet,
        timeout=120,
    )
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel of this tree."""
    return build(ROOT, tmp_path_factory.mktemp("dist"), 0o022)


@pytest.fixture(scope="module")
def unpacked(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that the sdist unpacks to."""
    out = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built[0]) as archive:
        archive.extractall(out, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(out)
    (tree,) = out.iterdir()
    return tree


def test_who_builds_from_the_sdist_gets_the_same_bits(built: tuple[Path, Path], unpacked: Path, tmp_path: Path) -> None:
    """At another time, in another place, by a user with other permissions, beside what a training has left."""
    (unpacked / "models" / "python.training").mkdir()
    (unpacked / "models" / "python.training" / "checkpoint.safetensors").write_bytes(b"large")
    shutil.copytree(unpacked / "examples", unpacked / "build" / "examples")
    for path in unpacked.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o600)
    for ours, theirs in zip(built, build(unpacked, tmp_path, 0o077), strict=True):
        assert ours.name == theirs.name
        assert ours.read_bytes() == theirs.read_bytes(), f"{ours.name} differs"


def test_the_sdist_holds_what_its_tests_need(unpacked: Path) -> None:
    for name in (
        ".ci/run",
        "Makefile",
        "constraints.txt",
        "benchmarks/bench.py",
        "docs/commands.md",
        "tests/conftest.py",
    ):
        assert (unpacked / name).is_file(), name


def test_the_wheel_holds_the_models_whole(built: tuple[Path, Path], tmp_path: Path) -> None:
    assert "python" in SHIPPED
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
        wheel.extractall(tmp_path)
    assert {name.split("/")[0] for name in names} == {"lsp_charrnn", f"lsp_charrnn-{__version__}.dist-info"}
    assert sorted({name.split("/")[2] for name in names if name.startswith("lsp_charrnn/models/")}) == SHIPPED
    for name in SHIPPED:
        checks = verify_model(tmp_path / "lsp_charrnn" / "models" / name)
        assert all(check.ok for check in checks), checks
    assert not [name for name in names if re.search(r"\.training/|__pycache__|\.pyc$|/\.", name)]


def test_the_wheel_asks_for_what_serving_needs(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        metadata = Parser().parsestr(wheel.read(f"lsp_charrnn-{__version__}.dist-info/METADATA").decode())
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.10"
    asked = [str(line) for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("onnxruntime") for line in asked)
    assert not [line for line in asked if line.startswith(("torch", "onnx>", "matplotlib"))]
