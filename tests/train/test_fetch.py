"""Fetching a list through the real client, from a local directory instead of an index."""

from __future__ import annotations

import hashlib
import io
import json
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from lsp_charrnn.errors import CorpusError, OutputError
from lsp_charrnn.train import fetch as fetching
from lsp_charrnn.train.corpus import MANIFEST, read_corpus
from lsp_charrnn.train.fetch import Release, Result, fetch, is_permissive, read_list

ROOT = Path(__file__).parents[2]


def wheel(directory: Path, name: str = "demo", tags: str = "py3-none-any") -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}-1.0-{tags}.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"def {name}_function(argument):\n    return argument\n")
        archive.writestr(f"{name}/_speed.so", b"\x7fELF")
        archive.writestr("../outside.py", "print()\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n")
        archive.writestr(f"{info}/licenses/LICENSE", "MIT\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


BACKEND = """
import pathlib


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = pathlib.Path(directory, "packed-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: packed\\nVersion: 1.0\\n")
    return info.name


def build_wheel(*_):
    raise NotImplementedError
"""


def sdist(directory: Path) -> Path:
    """Make a source release that brings its own build backend: pip asks one for metadata even to download."""
    path = directory / "packed-1.0.tar.gz"
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "pyproject.toml": project,
        "backend.py": BACKEND,
        "src/packed.py": "def packed():\n    return 1\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {
            **files,
            "PKG-INFO": "Metadata-Version: 2.1\nName: packed\nVersion: 1.0\n",
        }.items():
            info = tarfile.TarInfo(f"packed-1.0/{name}")
            info.size = len(content.encode())
            archive.addfile(info, io.BytesIO(content.encode()))
    return path


def entry(path: Path, **changes: str) -> str:
    name, version = path.name.removesuffix(".tar.gz").split("-")[:2]
    values = {
        "name": name,
        "version": version,
        "licence": "MIT",
        "kind": "wheel",
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return "[[package]]\n" + "".join(f'{key} = "{value}"\n' for key, value in {**values, **changes}.items())


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes for all the packages there are."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return directory


def test_fetch_lays_out_the_text_and_fetches_nothing_twice(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "list.toml"
    other = entry(wheel(index, "other", "cp312-cp312-manylinux_2_17_s390x"))  # of some other machine
    listed.write_text(entry(wheel(index)) + other)
    out = tmp_path / "out"
    assert [result.outcome for result in fetch(listed, out)] == ["fetched", "fetched"]
    assert (out / "demo" / "demo" / "__init__.py").is_file()
    assert (out / "demo" / "demo-1.0.dist-info" / "licenses" / "LICENSE").is_file()
    assert not list(out.rglob("*.so"))
    assert not list(tmp_path.rglob("outside.py"))
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, "demo", "other"]
    files, _ = read_corpus([out])
    assert [(file.project, file.path) for file in files] == [
        ("demo", "demo/__init__.py"),
        ("other", "other/__init__.py"),
    ]

    def no_download(*_: object) -> Path:
        raise AssertionError("fetched again")

    monkeypatch.setattr(fetching, "_download", no_download)
    assert [result.outcome for result in fetch(listed, out)] == ["already there", "already there"]
    # A release taken off the list is no longer read, though its directory stays.
    listed.write_text(other)
    fetch(listed, out)
    assert {file.project for file in read_corpus([out])[0]} == {"other"}


def test_a_source_release_loses_its_top_directory(index: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text(entry(sdist(index), kind="sdist"))
    assert [result.outcome for result in fetch(listed, tmp_path / "out")] == ["fetched"]
    assert (tmp_path / "out" / "packed" / "src" / "packed.py").is_file()


def test_an_interrupted_run_is_started_again(index: Path, tmp_path: Path) -> None:
    listed, out = tmp_path / "list.toml", tmp_path / "out"
    listed.write_text(entry(wheel(index)))
    (out / ".partial-killed" / "tree").mkdir(parents=True)
    (out / MANIFEST).write_text('{"projects": [], "releases": []}')
    (out / "demo" / "demo").mkdir(parents=True)  # no stamp: not finished
    (out / "demo" / "stale.py").write_text("x = 1\n")
    assert [result.outcome for result in fetch(listed, out)] == ["fetched"]
    assert not (out / "demo" / "stale.py").exists()
    assert not list(out.glob(".partial-*"))


def test_what_cannot_be_had_is_skipped_with_the_reason(index: Path, tmp_path: Path) -> None:
    listed, out = tmp_path / "list.toml", tmp_path / "out"
    good, tampered = wheel(index), wheel(index, "tampered")
    pinned = entry(tampered)
    tampered.write_bytes(tampered.read_bytes() + b"\n")
    listed.write_text(entry(good) + pinned + entry(good, name="absent", file="absent-1.0-py3-none-any.whl"))
    seen: list[Result] = []
    results = {result.release.name: result for result in fetch(listed, out, progress=seen.append)}
    assert len(seen) == 3
    assert {name: result.outcome for name, result in results.items()} == {
        "demo": "fetched",
        "tampered": "skipped",
        "absent": "skipped",
    }
    assert "tampered 1.0" in results["tampered"].reason
    assert "absent 1.0" in results["absent"].reason
    assert json.loads((out / MANIFEST).read_text())["projects"] == ["demo"]
    assert fetching.results_table(list(results.values())).row_count == 4


def test_nothing_to_be_had_at_all_is_an_error(index: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text(entry(wheel(tmp_path / "elsewhere")))
    with pytest.raises(CorpusError, match="could not download demo"):
        fetch(listed, tmp_path / "out")


def test_another_standard_library_than_the_listed_one_is_taken_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "lib"
    for name in ("os.py", "site-packages/numpy.py", "test/data/x.py", "json/tool.py", "LICENSE.txt", "a.so"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text("x = 1\n")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(library)})
    listed = tmp_path / "list.toml"
    values = {"name": "cpython-lib", "version": "3.0", "licence": "PSF-2.0", "kind": "stdlib"}
    text = "[[package]]\n" + "".join(f'{key} = "{value}"\n' for key, value in values.items())
    listed.write_text(text + f'sha256 = "{"0" * 64}"\n')
    (result,) = fetch(listed, tmp_path / "out")
    assert result.outcome == "differs"
    assert "Python 3.0" in result.reason
    tree = tmp_path / "out" / "cpython-lib"
    kept = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("[!.]*.*"))
    assert kept == ["LICENSE.txt", "json/tool.py", "os.py"]


def test_a_directory_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    listed = tmp_path / "list.toml"
    listed.write_text(entry(wheel(tmp_path / "index")))
    with pytest.raises(OutputError, match="--out"):
        fetch(listed, tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="--out"):
        fetch(listed, tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"licence": "GPL-3.0-only"}, "GPL-3.0-only"),
        ({"licence": "MPL-2.0 AND MIT"}, "MPL-2.0"),
        ({"kind": "egg"}, "egg"),
        ({"sha256": "abc"}, "64"),
        ({"name": "../evil"}, "evil"),
        ({"name": "--index-url"}, "index-url"),
        ({"colour": "blue"}, "colour"),
        ({"version": "1.0\\n--index-url x"}, "version"),
    ],
)
def test_a_faulty_list_names_the_entry(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    listed = tmp_path / "list.toml"
    good = entry(wheel(tmp_path / "index"))
    listed.write_text(good + entry(tmp_path / "index" / "demo-1.0-py3-none-any.whl", **changes))
    with pytest.raises(CorpusError, match=said) as caught:
        read_list(listed)
    assert "entry 2" in str(caught.value)


@pytest.mark.parametrize("content", ["", "package = 3", "not toml at all"])
def test_what_is_no_list_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.toml").write_text(content)
    with pytest.raises(CorpusError, match=r"list\.toml"):
        read_list(tmp_path / "list.toml")
    with pytest.raises(CorpusError, match="missing"):
        read_list(tmp_path / "missing.toml")


def test_licence_expressions() -> None:
    assert is_permissive("MIT OR GPL-2.0-only")
    assert is_permissive("Apache-2.0 AND MIT")
    assert not is_permissive("LGPL-2.1-or-later")
    assert not is_permissive("")


def test_the_committed_lists_are_sound_and_disjoint() -> None:
    train = read_list(ROOT / "corpora" / "python.toml")
    held_out = read_list(ROOT / "corpora" / "heldout-python.toml")
    assert len(train) >= 45
    assert " ".join(sorted(release.project for release in held_out)) == (
        "arrow attrs cachetools click flask itsdangerous loguru marshmallow python-dotenv requests"
    )
    names = [release.project for release in train + held_out]
    assert len(set(names)) == len(names)


def test_pip_is_asked_for_the_listed_wheel_and_no_host_is_named() -> None:
    tags = fetching._wheel_tags("numpy-2.0-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl")
    assert tags[:6] == ["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"]
    assert tags[6:] == ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64"]
    assert fetching._wheel_tags("demo-1.0-py3-none-any.whl") == []
    written = [Path(fetching.__file__), *(ROOT / "corpora").glob("*.toml")]
    assert not any("://" in path.read_text("utf-8") for path in written)


def test_the_project_is_the_normalised_name() -> None:
    assert Release("Foo.Bar_baz", "1", "MIT", "sdist", "0" * 64).project == "foo-bar-baz"
