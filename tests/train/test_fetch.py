"""Fetching a list through the real client, from a local directory instead of an index; scripts play apt-get and npm."""

from __future__ import annotations

import hashlib
import io
import json
import os
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


# --- Debian packages ---

# What apt-get does, as far as it is asked to: its index is a directory, and it knows source packages either from the
# start or after an update with sources that name them.
APT_GET = """#!/bin/sh
set -e
lists=$MIRROR/lists
for last; do
    case $last in Dir::State::Lists=*) lists=${last#*=} ;; Dir::Etc::SourceParts=*) parts=${last#*=} ;; esac
done
echo "$@" >> "$MIRROR/calls"
case " $* " in
*" indextargets --format "*) [ ! -e "$MIRROR/sources" ] || echo "$MIRROR/sources/demo.sources:1" ;;
*" indextargets "*) ls "$lists" | grep Sources || true ;;
*" update "*)
    [ ! -e "$MIRROR/offline" ] || { echo "W: Failed to fetch the index" >&2; exit 0; }
    grep -q '^Types: deb-src$' "$parts/demo.sources" && touch "$lists/demo_Sources" ;;
*" download "*) cp "$MIRROR"/"${last%=*}"_* . || { echo "E: Unable to locate package ${last%=*}" >&2; exit 100; } ;;
*" source "*)
    [ -e "$lists"/demo_Sources ] || { echo "E: You must put some 'deb-src' URIs in your sources.list" >&2; exit 100; }
    cp "$MIRROR"/"${last%=*}"_*.orig*.tar.gz . || { echo "E: Unable to find it" >&2; echo "E: Done" >&2; exit 100; } ;;
esac
"""


def tar(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            archive.addfile(info, io.BytesIO(content.encode()))
        link = tarfile.TarInfo("./usr/share/code/demo/link.go")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def deb(directory: Path, name: str = "golang-demo-dev") -> Path:
    """Make what the fake dpkg-deb takes for a package: the tar that a real one holds."""
    files = {
        f"./usr/share/doc/{name}/copyright": "MIT\n",
        f"./usr/share/doc/{name}/examples/use.go": "package main\n",
        f"./usr/share/doc/{name}/changelog.gz": "",
        "./usr/share/code/demo/demo.go": "package demo\n\nfunc Demo() int {\n\treturn 1\n}\n",
        "./usr/share/code/demo/inner/part.go": "package inner\n\nfunc Part() int {\n\treturn 2\n}\n",
        "../outside.go": "package outside\n",
    }
    return tar(directory / f"{name}_1.0-1_all.deb", files)


def debian(path: Path, **changes: str) -> str:
    name = path.name.split("_")[0]
    return entry(path, **{"name": name, "version": "1:1.0~rc1+ds-1", "kind": "deb", **changes})


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that a fake apt-get takes for all the packages there are."""
    directory, programs = tmp_path / "mirror", tmp_path / "bin"
    (directory / "lists").mkdir(parents=True)
    (directory / "sources").mkdir()
    (directory / "sources" / "demo.sources").write_text("Types: deb\nURIs: file:/nowhere\nSuites: demo\n")
    programs.mkdir()
    for name, script in {"apt-get": APT_GET, "dpkg-deb": '#!/bin/sh\nexec cat "$2"\n'}.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("MIRROR", str(directory))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return directory


def test_a_debian_package_is_laid_out_like_the_project_it_packs(mirror: Path, tmp_path: Path) -> None:
    listed, out = tmp_path / "list.toml", tmp_path / "out"
    listed.write_text(debian(deb(mirror)))
    assert [result.outcome for result in fetch(listed, out)] == ["fetched"]
    tree = out / "golang-demo-dev"
    kept = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    assert kept == [".lsp-charrnn-sha256", "copyright", "demo.go", "examples/use.go", "inner/part.go"]
    assert not list(tmp_path.rglob("outside.go"))
    calls = (mirror / "calls").read_text()
    assert calls == "-qq download golang-demo-dev=1:1.0~rc1+ds-1\n"  # no index of source packages is asked for
    assert [result.outcome for result in fetch(listed, out)] == ["already there"]
    assert (mirror / "calls").read_text() == calls
    files, _ = read_corpus([out], suffixes=[".go"])
    assert [(file.project, file.path, file.language) for file in files] == [
        ("golang-demo-dev", "demo.go", "go"),
        ("golang-demo-dev", "examples/use.go", "go"),
        ("golang-demo-dev", "inner/part.go", "go"),
    ]


def source_package(mirror: Path, name: str = "demo-java") -> Path:
    tar(mirror / f"{name}_1.0.orig-more.tar.gz", {"more/More.java": "class More {}\n"})
    files = {"Demo-v1/README.md": "# Demo\n", "Demo-v1/src/Demo.java": "class Demo {}\n"}
    return tar(mirror / f"{name}_1.0.orig.tar.gz", files)


@pytest.mark.parametrize("known", [False, True])
def test_a_source_package_needs_no_change_to_the_machines_sources(mirror: Path, tmp_path: Path, known: bool) -> None:
    if known:
        (mirror / "lists" / "demo_Sources").touch()
    before = sorted((path, path.is_file() and path.read_bytes()) for path in mirror.rglob("*"))
    first, second = source_package(mirror), source_package(mirror, "other-java")
    listed, out = tmp_path / "list.toml", tmp_path / "out"
    listed.write_text(debian(first, kind="dsc") + debian(second, kind="dsc"))
    assert [result.outcome for result in fetch(listed, out)] == ["fetched", "fetched"]
    assert (out / "demo-java" / "src" / "Demo.java").is_file()
    assert (out / "demo-java" / "README.md").is_file()
    assert not list(out.rglob("More.java"))
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, "demo-java", "other-java"]
    assert (mirror / "calls").read_text().count(" update\n") == (not known)
    assert all(path.is_dir() or path.read_bytes() == content for path, content in before)


def test_why_a_debian_package_cannot_be_had(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reasons() -> list[str]:
        return [result.reason for result in fetch(listed, tmp_path / "out")]

    listed = tmp_path / "list.toml"
    good, tampered, damaged = deb(mirror), deb(mirror, "tampered-dev"), mirror / "damaged-dev_1.0-1_all.deb"
    damaged.write_bytes(b"no tar")
    absent = debian(good, name="absent-dev", file="absent-dev_1.0-1_all.deb")
    source = debian(source_package(mirror), kind="dsc")
    listed.write_text(debian(good) + debian(tampered) + absent + debian(damaged) + source)
    tampered.write_bytes(tampered.read_bytes() + b"\n")
    (mirror / "offline").touch()
    had, changed, unknown, broken, unindexed = reasons()
    assert had == ""
    assert "tampered-dev_1.0-1_all.deb has SHA-256" in changed
    assert unknown == "apt-get could not download absent-dev 1:1.0~rc1+ds-1: E: Unable to locate package absent-dev"
    assert "not an archive" in broken
    assert unindexed == "apt-get has no index of source packages: W: Failed to fetch the index"
    (mirror / "offline").unlink()
    (mirror / "demo-java_1.0.orig.tar.gz").rename(mirror / "demo-java_1.1.orig.tar.gz")
    assert reasons()[4] == "apt-get could not download demo-java 1:1.0~rc1+ds-1: it said nothing"
    (mirror / "sources" / "demo.sources").unlink()
    (mirror / "sources").rmdir()
    assert "run `apt-get update`" in reasons()[4]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(reasons()) == {"", "apt-get is not on this machine; fetch Debian packages on Debian."}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MANIFEST, "golang-demo-dev"]


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
        ({"kind": "dsc", "file": ""}, "tarball"),
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
    code = read_list(ROOT / "corpora" / "gate-code.toml") + read_list(ROOT / "corpora" / "heldout-code.toml")
    names = [release.project for release in train + held_out + code]
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


NPM = """#!/bin/sh
[ "$1" = pack ] || exit 1
for last; do :; done
while [ "$1" != --pack-destination ]; do shift; done
name=$(echo "${last%@*}" | tr -d @ | tr / -)
cp "$MIRROR/$name-${last##*@}.tgz" "$2" 2>/dev/null || { echo "npm error code E404" >&2; exit 1; }
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that a fake npm takes for all the packages there are."""
    directory, program = tmp_path / "mirror", tmp_path / "bin" / "npm"
    directory.mkdir()
    program.parent.mkdir()
    program.write_text(NPM)
    program.chmod(0o755)
    monkeypatch.setenv("MIRROR", str(directory))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return directory


def packed(directory: Path, name: str = "demo-core-2.0.0.tgz") -> Path:
    files = {"package/src/demo.ts": "export const demo = 1;\n", "package/LICENSE": "MIT\n", "other/evil.ts": "x\n"}
    return tar(directory / name, {**files, "package/package.json": "{}\n", "package/../../evil.ts": "x\n"})


def test_an_npm_package_is_laid_out_without_its_top_directory(npm: Path, tmp_path: Path) -> None:
    listed, out = tmp_path / "list.toml", tmp_path / "out"
    good = entry(packed(npm), name="@demo/core", version="2.0.0", kind="npm")
    absent = entry(packed(npm), name="absent", version="2.0.0", kind="npm")
    listed.write_text(good + absent)
    assert [(result.outcome, result.reason) for result in fetch(listed, out)] == [
        ("fetched", ""),
        ("skipped", "npm could not download absent 2.0.0: npm error code E404"),
    ]
    tree = out / "demo-core"
    kept = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    assert kept == [".lsp-charrnn-sha256", "LICENSE", "src/demo.ts"]
    assert not list(tmp_path.rglob("evil.ts"))
    listed.write_text(entry(packed(npm), name="@demo/core", version="2.0.0", kind="npm", sha256="0" * 64))
    with pytest.raises(CorpusError, match="the list says 0000"):
        fetch(listed, tmp_path / "other")


def test_a_scope_is_npm_s_alone(tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text(entry(wheel(tmp_path), name="@demo/core"))
    with pytest.raises(CorpusError, match="not a package name"):
        read_list(listed)
    listed.write_text(entry(wheel(tmp_path), name="@demo/../core", kind="npm"))
    with pytest.raises(CorpusError, match="not a package name"):
        read_list(listed)


def test_the_text_of_another_version_is_not_taken_for_the_listed_one(npm: Path, tmp_path: Path) -> None:
    listed, out = tmp_path / "list.toml", tmp_path / "out"
    other = entry(packed(npm, "other-2.0.0.tgz"), name="other", version="2.0.0", kind="npm")
    listed.write_text(other + entry(packed(npm), name="@demo/core", version="2.0.0", kind="npm"))
    fetch(listed, out)
    renewed = entry(packed(npm), name="@demo/core", version="3.0.0", kind="npm", sha256="1" * 64)
    listed.write_text(other + renewed)
    assert [result.outcome for result in fetch(listed, out)] == ["already there", "skipped"]
    assert json.loads((out / MANIFEST).read_text())["projects"] == ["other"]
