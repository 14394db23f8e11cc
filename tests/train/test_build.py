"""`corpus build`: what is kept, dropped and reported; the same shards whoever does the work; going on after a stop."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from datasketch import MinHash, MinHashLSH
from distributed import Client, LocalCluster
from rich.console import Console
from test_corpus import SECRETS, code, write
from test_fetch import entry, index, wheel  # noqa: F401

from lsp_charrnn.config import TrainOptions
from lsp_charrnn.errors import CorpusError, OutputError, SettingError
from lsp_charrnn.model.files import load_model
from lsp_charrnn.text.symbols import HEADER_END, START
from lsp_charrnn.train import build as building
from lsp_charrnn.train import cluster, duplicates
from lsp_charrnn.train.build import WORK, build
from lsp_charrnn.train.cluster import connected
from lsp_charrnn.train.corpus import pack, read_corpus
from lsp_charrnn.train.run import run
from lsp_charrnn.train.shards import CORPUS_FILE, open_corpus, read_description

QUIET = Console(file=io.StringIO())


@pytest.fixture(scope="session")
def scheduler() -> Iterator[str]:
    """A scheduler with one worker in this very process: quick, and it sees what a test patches."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None,
        worker_dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as local:  # fmt: skip
        yield local.scheduler_address


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    """A directory of twelve work trees, and in the first something of all that must be dropped."""
    root = tmp_path / "src"
    for number in range(12):
        name = f"p{number:02}"
        write(root, {f"{name}/.git/HEAD": ""})
        write(root, {f"{name}/pkg/m{i}.py": code(f"{name}_{i}", 40 + number) for i in range(3)})
    near = code("p03_0", 43).replace("function_7(", "function_changed(")
    write(root / "p00", {"same.py": code("p00_1", 40)})
    write(root / "p05", {"same.py": code("p00_2", 40), "near.py": near, "secret.py": f"a = 1\n{SECRETS[0]}\nb = 2\n"})
    write(
        root / "p07", {"binary.py": b"\0\0", "notes.txt": "x", "_vendor/six.py": code("six"), "copy.py": code("held")}
    )
    write(tmp_path / "held-out", {"flask/app.py": code("held", 40)})
    return root


def built(projects: Path, out: Path, **options: Any) -> dict[str, Any]:
    return build([projects], out, console=QUIET, held_out=[projects.parent / "held-out"], **options)


def shard_files(out: Path) -> dict[str, bytes]:
    """Return all that `train` reads; of corpus.json, what doesn't say how it was made."""
    files = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    description = json.loads(files.pop(CORPUS_FILE))
    return {**files, CORPUS_FILE: json.dumps({**description, "command": ""}).encode()}


def texts(documents: Any) -> list[tuple[bytes, bytes]]:
    return [tuple(bytes(document[1:]).split(bytes([HEADER_END]), 1)) for document in documents]  # type: ignore[misc]


def test_every_drop_is_counted_by_reason(projects: Path, tmp_path: Path, scheduler: str) -> None:
    facts = built(projects, tmp_path / "out", scheduler=scheduler, project_share=1.0)["corpus"]
    assert {reason: count["files"] for reason, count in facts["dropped"].items()} == {
        "exact duplicate": 2,
        "near duplicate": 1,
        "shares lines with a held-out file": 1,
        "binary": 1,
        "wrong suffix": 1,
        "vendored": 1,
    }
    assert facts["secret_lines"] == 1
    assert len(facts["projects"]) == 12
    assert facts["held_out_by"] == "project"
    assert facts["files"] == 37
    for project in facts["projects"].values():  # whole projects, never files
        assert project["held_out_files"] in (0, project["files"])


def test_the_shards_hold_what_reading_at_once_gives(projects: Path, tmp_path: Path, scheduler: str) -> None:
    out = tmp_path / "out"
    built(projects, out, scheduler=scheduler, project_share=1.0, shard_bytes=5_000)
    corpus = open_corpus(out)
    documents = [*corpus.train, *corpus.held_out]
    files, _ = read_corpus([projects], held_out=[tmp_path / "held-out"], max_project_share=1.0)
    assert sorted(map(bytes, documents)) == sorted(map(bytes, pack(files)))
    assert len(list(out.glob("train-*.symbols"))) > 3
    assert all(document[0] == START for document in documents)
    assert corpus.train.symbols == sum(map(len, corpus.train))
    assert bytes(corpus.train[-1]) == bytes(corpus.train[len(corpus.train) - 1])
    assert list(map(bytes, corpus.train[1:4])) == [bytes(corpus.train[at]) for at in (1, 2, 3)]
    with pytest.raises(IndexError):
        corpus.train[len(corpus.train)]
    order = [head for head, _ in texts(corpus.train)]
    assert order != sorted(order), "the order looks random"


def test_caps_of_projects_and_languages(tmp_path: Path, scheduler: str) -> None:
    root = tmp_path / "src"
    for number in range(8):
        suffix = (".py", ".c", ".go", ".rs")[number % 4]
        sizes = 30 if suffix == ".py" else 4
        write(root, {f"p{number}/.git/HEAD": ""})
        write(root, {f"p{number}/{i}{suffix}": code(f"n{number}_{i}", 4) for i in range(sizes)})
    options: dict[str, Any] = {"scheduler": scheduler, "suffixes": (".py", ".c", ".go", ".rs"), "console": QUIET}
    facts = build([root], tmp_path / "a", project_share=1.0, language_share=0.4, **options)["corpus"]
    assert facts["languages"]["python"] <= 0.4 * facts["characters"]
    assert facts["dropped"].keys() == {"over the language's share"}
    facts = build([root], tmp_path / "b", project_share=0.2, **options)["corpus"]
    assert max(project["characters"] for project in facts["projects"].values()) <= 0.2 * facts["characters"]
    assert facts["dropped"].keys() == {"over the project's share"}


def test_a_build_that_was_stopped_goes_on(
    projects: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    built(projects, whole, scheduler=scheduler)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building, "choose", stopped)
        with pytest.raises(KeyboardInterrupt):
            built(projects, out, scheduler=scheduler)
    with pytest.raises(CorpusError, match="interrupted"):
        open_corpus(out)
    (out / WORK / ".half.text.partial").write_bytes(b"what a killed worker left")
    wrote: list[str] = []
    write_part = building._write_part

    def counting(unit: Any, *rest: Any) -> None:
        wrote.append(unit.path.name)
        write_part(unit, *rest)

    monkeypatch.setattr(building, "_write_part", counting)
    built(projects, out, scheduler=scheduler)
    assert wrote == []
    assert shard_files(out) == shard_files(whole)
    assert not list(out.rglob("*.partial"))

    # Other shares read nothing again, a changed file its own unit, and a part that was cut is not believed.
    built(projects, out, scheduler=scheduler, project_share=0.3, shard_bytes=5_000)
    assert wrote == []
    built(projects, out, scheduler=scheduler)
    assert shard_files(out) == shard_files(whole), "nothing is left of the build before"
    write(projects, {"p04/pkg/m0.py": code("new", 30)})
    built(projects, out, scheduler=scheduler)
    assert wrote == ["src"]
    assert shard_files(out) != shard_files(whole)
    text = next((out / WORK).glob("*.text"))
    text.write_bytes(text.read_bytes()[:-1])
    built(projects, out, scheduler=scheduler)
    assert wrote == ["src", "src"]


# Workers that a test can hold up: the first waits until the second has killed itself, half way through a part.
PRELOAD = """
import os, pathlib, signal, time
from lsp_charrnn.train import build
from lsp_charrnn.train.corpus import examine  # not build's: a preload is loaded twice

killed, parts = pathlib.Path({killed!r}), []


def survivor(*arguments):
    while not killed.exists():
        time.sleep(0.01)
    yield from examine(*arguments)


def victim(*arguments):
    parts.append(1)
    for number, file in enumerate(examine(*arguments)):
        if len(parts) == 2 and number == 1:
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield file


build.examine = {name}
"""


def test_the_same_shards_whoever_does_the_work(projects: Path, tmp_path: Path, scheduler: str) -> None:
    sources = sorted(path for path in projects.iterdir() if path.is_dir())
    options: dict[str, Any] = {"console": QUIET, "shard_bytes": 5_000, "project_share": 0.2}
    build(sources, tmp_path / "one", scheduler=scheduler, **options)
    build(sources, tmp_path / "two", workers=2, **options)
    assert shard_files(tmp_path / "two") == shard_files(tmp_path / "one")

    dask, file, killed = [sys.executable, "-m", "dask"], tmp_path / "scheduler.json", tmp_path / "killed"
    place = ["--host", "127.0.0.1", "--no-dashboard"]
    scratch = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [
        subprocess.Popen([*dask, "scheduler", *place, "--port", "0", "--scheduler-file", str(file)], **scratch)  # type: ignore[call-overload]
    ]
    try:
        for name in ("survivor", "victim"):
            preload = write(tmp_path, {f"{name}.py": PRELOAD.format(killed=str(killed), name=name)}) / f"{name}.py"
            command = [*dask, "worker", *place, "--scheduler-file", str(file), "--no-nanny", "--nthreads", "1"]
            command += ["--preload", str(preload), "--local-directory", str(tmp_path / "scratch")]
            started.append(subprocess.Popen(command, **scratch))  # type: ignore[call-overload]
        while not file.exists() or not file.read_text().endswith("}"):
            assert started[0].poll() is None
            time.sleep(0.02)
        address = json.loads(file.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        build(sources, tmp_path / "three", scheduler=address, **options)
        assert started[2].wait(timeout=60) == -9
        assert started[1].poll() is None
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=60)
    assert shard_files(tmp_path / "three") == shard_files(tmp_path / "one")
    assert not list((tmp_path / "three").rglob("*.partial"))


def test_the_local_cluster_is_reached_from_this_machine_only() -> None:
    with connected(workers=1) as client:
        assert client.submit(os.getpid).result() != os.getpid()
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [c.laddr for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening
        assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}
        assert 8787 not in {address.port for address in listening}


def test_a_list_is_fetched_first_and_its_facts_are_kept(
    index: Path,  # noqa: F811
    tmp_path: Path,
    scheduler: str,
) -> None:
    listed = tmp_path / "list.toml"
    gone = entry(wheel(index), name="gone")
    listed.write_text(entry(wheel(index)) + entry(wheel(index, "other"), licence="Apache-2.0") + gone)
    description = build([listed], tmp_path / "out", console=QUIET, scheduler=scheduler)
    assert {name: facts["licence"] for name, facts in description["corpus"]["projects"].items()} == {
        "demo": "MIT",
        "other": "Apache-2.0",
    }
    assert description["lists"][0]["not_as_listed"].keys() == {"gone"}
    assert (tmp_path / "out" / "fetched" / "list" / "demo").is_dir()
    assert read_description(tmp_path / "out") == description
    elsewhere = (tmp_path / "out" / "fetched").rename(tmp_path / "corpus")
    build([listed], tmp_path / "again", console=QUIET, scheduler=scheduler, fetched=elsewhere)
    assert not (tmp_path / "again" / "fetched").exists()
    assert shard_files(tmp_path / "again") == shard_files(tmp_path / "out")


def test_train_reads_the_shards(
    projects: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "corpus"
    facts = built(projects, out, scheduler=scheduler, shard_bytes=5_000)["corpus"]
    options: dict[str, Any] = {
        "spec_options": {"cell": None, "layers": 1, "hidden": 16},
        "options": TrainOptions(steps=4, batch=4, bptt=32, checkpoint_every=4, device="cpu"),
        "console": QUIET,
    }
    model = run([out], tmp_path / "model", **options)
    assert model is not None
    config = load_model(model).config
    assert config["training"]["corpus"] == facts
    assert config["evaluation"]["held_out"]["by"] == "project"
    for given in ({"suffixes": (".c",)}, {"held_out": [projects]}, {"max_project_share": 0.1}):
        with pytest.raises(SettingError, match="chosen when it was built"):
            run([out], tmp_path / "other", **options, **given)
    with pytest.raises(SettingError, match="alone"):
        run([out, projects], tmp_path / "other", **options)


def damaged(out: Path, name: str, change: str) -> None:
    path = out / name
    data = path.read_bytes()
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-8] if change == "cut" else data[:9] + bytes([data[9] ^ 1]) + data[10:])


@pytest.mark.parametrize("change", ["gone", "cut", "flipped"])
def test_a_damaged_shard_is_named(projects: Path, tmp_path: Path, scheduler: str, change: str) -> None:
    out = tmp_path / "out"
    built(projects, out, scheduler=scheduler, shard_bytes=5_000)
    for name in ("train-00001.symbols", "train-00000.offsets", "held-out-00000.symbols"):
        before = (out / name).read_bytes()
        damaged(out, name, change)
        with pytest.raises(CorpusError, match=rf"{name} is damaged .*build the corpus again"):
            open_corpus(out)
        (out / name).write_bytes(before)
    open_corpus(out)


@pytest.mark.parametrize(
    ("text", "says"), [("{", "damaged"), ("[]", "damaged"), ('{"format": 1}', "damaged"), ("", "damaged")]
)
def test_a_damaged_description_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / CORPUS_FILE).write_text(text)
    with pytest.raises(CorpusError, match=says):
        open_corpus(tmp_path)


def test_another_format_says_what_to_do(projects: Path, tmp_path: Path, scheduler: str) -> None:
    out = tmp_path / "out"
    description = built(projects, out, scheduler=scheduler)
    (out / CORPUS_FILE).write_text(json.dumps({**description, "format": 99}))
    with pytest.raises(CorpusError, match=r"format 99.*build the corpus again"):
        open_corpus(out)


def test_bad_inputs(projects: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"console": QUIET, "scheduler": scheduler}
    for sources, held_out in (([tmp_path / "nowhere"], []), ([projects], [tmp_path / "nowhere"])):
        with pytest.raises(CorpusError, match="nowhere does not exist"):
            build(sources, tmp_path / "out", held_out=held_out, **options)
    with pytest.raises(OutputError, match="lies within"):
        build([projects], projects / "corpus", **options)
    with pytest.raises(OutputError, match="holds other files"):
        build([projects / "p00"], projects / "p01", **options)
    with pytest.raises(OutputError, match="is a file"):
        build([projects / "p00"], projects / "p01" / "pkg" / "m0.py", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(CorpusError, match=r"Nothing to read in .*src: looked for \.go files"):
        build([projects], tmp_path / "out", suffixes=(".go",), **options)
    monkeypatch.setattr(cluster, "_SECONDS_TO_ANSWER", 0.2)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(SettingError, match="no Dask scheduler answers"):
            build([projects], tmp_path / "out", console=QUIET, scheduler=address)
    monkeypatch.setattr(building, "make_part", _of_another_version)
    with pytest.raises(CorpusError, match="another version"):
        build([projects], tmp_path / "out", **options)


make_part = building.make_part


def _of_another_version(unit: Any, rules: Any, work: Path) -> str:
    return make_part(unit, building.Rules(rules.suffixes, rules.unseen, rules.key, "another"), work)


def test_a_full_disk_is_one_sentence(
    projects: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(building, "_write_part", full)
    with pytest.raises(OutputError, match="No space left on device"):
        built(projects, tmp_path / "out", scheduler=scheduler)


def test_near_duplicates_are_those_that_the_library_finds() -> None:
    """The bands in arrays against `MinHashLSH` with the same bands, file by file."""
    random = np.random.default_rng(7)
    files = [set(random.integers(0, 2**32, 40).tolist()) for _ in range(60)]
    for _ in range(240):
        lines = list(files[random.integers(len(files))])
        changed = int(random.integers(0, 24))
        files.append({*lines[changed:], *random.integers(0, 2**32, changed).tolist()})
    rows = duplicates.PERMUTATIONS // duplicates.BANDS
    known = MinHashLSH(num_perm=duplicates.PERMUTATIONS, params=(duplicates.BANDS, rows))
    expected = []
    sketches: dict[int, MinHash] = {}
    for number, lines in enumerate(files):
        sketches[number] = MinHash(duplicates.PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")
        sketches[number].update_batch(lines)
        alike = [sketches[number].jaccard(sketches[other]) for other in known.query(sketches[number])]
        expected.append(bool(alike) and max(alike) >= 0.7)
        if not expected[-1]:
            known.insert(number, sketches[number])
    signatures = np.array([duplicates.signature(lines) for lines in files])
    assert duplicates.near_duplicates(signatures).tolist() == expected
    assert 60 < sum(expected) < 240


def test_signatures_stay_the_same() -> None:
    """Another library version with other permutations would make other corpora."""
    assert duplicates.signature({1, 2, 3})[:4].tolist() == SIGNATURE
    assert duplicates.near_duplicates(np.zeros((0, duplicates.PERMUTATIONS), dtype=np.uint32)).tolist() == []


SIGNATURE = [277274469, 2241546430, 1311794348, 1610968749]


def test_without_the_extra_there_is_one_sentence(projects: Path, tmp_path: Path) -> None:
    hide = "import sys; sys.modules['distributed'] = None; from lsp_charrnn.cli import main; main()"
    command = [sys.executable, "-c", hide, "corpus", "build", str(projects), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install -e '.[train]'" in done.stderr


def test_the_command_line_builds_and_shows(projects: Path, tmp_path: Path, scheduler: str) -> None:
    out = tmp_path / "out"

    def command(*arguments: str) -> str:
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, "-m", "lsp_charrnn", "corpus", *arguments],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
        return done.stdout

    held_out = str(tmp_path / "held-out")
    said = command("build", str(projects), "--out", str(out), "--workers", "1", "--held-out", held_out)
    assert "dropped: shares lines with a held-out file" in said
    assert read_description(out)["command"].startswith("lsp-charrnn corpus build ")
    shown = command("show", str(out), "--projects")
    assert said[said.index("Corpus") :].strip() in shown
    assert "p05" in shown
