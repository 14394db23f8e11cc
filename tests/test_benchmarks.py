"""Every benchmark runs on little text and measures what it says. How fast anything is, is not tested here."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import TINY_WORD

from lsp_charrnn.errors import UserError

ROOT = Path(__file__).parent.parent
SMALL = {
    "step": [],
    "training": ["--hidden", "8"],
    "open": ["--sizes", "2000", "--runs", "1"],
    "typing": ["--large", "40000", "--curve", "1000,3000", "--places", "3", "--keys", "3"],
    "project": ["--megabytes", "0.004", "--files", "1", "--keys", "3", "--rounds", "1"],
    "edit_anywhere": ["--size", "3000", "--runs", "1", "--pause", "0"],
    "inside": ["--all"],
    "memory_growth": ["--keys", "40", "--documents", "2"],
    "soak": ["--keys", "120", "--documents", "3", "--share", "0.5"],
}


@pytest.fixture(scope="session")
def heldout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two short files, in which the tiny model knows its way."""
    directory = tmp_path_factory.mktemp("heldout")
    for name in ("one", "two"):
        lines = "".join(f"    v{i % 10} = {TINY_WORD}" for i in range(60))
        (directory / f"{name}.py").write_text(f"# {name} 😀\ndef {name}():\n{lines}", "utf-8")
    return directory


def run(command: list[str], *options: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command, *map(str, options)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", SMALL)
def test_it_measures(name: str, heldout: Path, tiny_model: Path, tmp_path: Path) -> None:
    picture = ["--picture", tmp_path / "new" / "latency.png"] if name in ("typing", "soak") else []
    json_path = tmp_path / "new" / "figures.json"
    # In either of the ways to start one, and where `typing` is not the library's for whoever looks here first.
    command, cwd = (["-m", f"benchmarks.{name}"], ROOT) if picture else ([f"{name}.py"], ROOT / "benchmarks")
    options = [*SMALL[name], "--heldout", heldout, "--model", tiny_model, "--json", json_path, *picture]
    done = run(command, "--quick", *options, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(json_path.read_text("utf-8"))
    assert data["machine"]["cpu"]
    assert data["machine"]["versions"]["onnxruntime"] in done.stdout
    assert data["model"] == "tiny"
    assert data["measurements"]
    assert all(row["reached"] and "nan" not in row["reached"] for row in data["figures"])
    assert not picture or Path(picture[1]).read_bytes().startswith(b"\x89PNG")
    if name == "typing":
        suggestions = data["measurements"]["suggestions"]
        assert suggestions["along"]["count"] == suggestions["along_unchanged"] > 0
        assert all(burst["answered"] <= 1 for burst in suggestions["bursts"])
    if name == "project":
        measured = data["measurements"]
        assert measured["project"]["counted"] == measured["project"]["bytes"] == 4_000
        assert {keys["count"] for keys in measured["keys"].values()} == {6}
        assert len(measured["keys"]) == 3
        counts = [measured["meanwhile"][name]["count"] for name in ("during", "known", "without")]
        assert counts == counts[:1] * 3
    if name == "soak":
        measured = data["measurements"]
        assert measured["keys"] >= 120
        assert measured["errors"] == []
        assert [sample["open"] for sample in measured["samples"]].count(0) == 2
        assert sum(part["count"] for part in measured["latency"]) > 30
    if name == "memory_growth":
        assert data["measurements"]["replay"]["keys"] >= 40
        assert data["figures"][-1]["reached"] == "0"  # errors


@pytest.mark.parametrize("name", ["typing", "bench"])
def test_it_says_what_it_measures(name: str) -> None:
    done = run([str(ROOT / "benchmarks" / f"{name}.py")], "--help", cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


def test_what_is_missing_is_one_sentence(tmp_path: Path, heldout: Path) -> None:
    for options, said in (
        (["--heldout", tmp_path / "nowhere"], "make heldout"),
        (["--heldout", heldout, "--model", "no-such-model"], "no-such-model"),
    ):
        done = run(["-m", "benchmarks.open"], *options)
        assert done.returncode == 2
        assert said in done.stdout
        assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> object:
    """Import a module of `benchmarks`, whatever pytest was started by."""
    monkeypatch.syspath_prepend(ROOT)

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"benchmarks.{name}")

    return load


TEXT = "".join(f"def f{i}(self):\n    π = self.g{i} + '😀'\n\n" for i in range(400)).encode()


def test_the_same_is_typed_in_a_file_of_any_size(benchmark) -> None:
    typing, editor = benchmark("typing"), benchmark("editor")
    places = typing.places_in(len(TEXT), typing.ROUGH)
    stretches = [editor.stretch_at(TEXT, place, 12) for place in places]
    passages = [typing.passage_of(TEXT, stretch) for stretch in stretches]
    for stretch, passage in zip(stretches, passages, strict=True):
        assert TEXT[stretch.start : stretch.end] == passage.typed
        assert len(passage.keys) == 12
    large, there = typing.planted(TEXT * 8, passages, typing.ROUGH)
    assert len(large) == 8 * len(TEXT)
    large.decode("utf-8")
    for stretch, passage in zip(there, passages, strict=True):
        assert large[: stretch.end].endswith(passage.before + passage.typed)
        assert large[stretch.start : stretch.end] == passage.typed
    assert there[0].start < 100
    assert there[2].end > len(large) - 500
    for size in (1_000, 2_500, 20_000):
        text, stretch = typing.around((TEXT * 2)[:size], passages[1])
        assert size - 8 <= len(text) <= size  # what is left of a character that a cut parts is not kept
        assert text[stretch.start : stretch.end] == passages[1].typed


def test_the_edits_are_those_that_are_named(benchmark) -> None:
    edit_anywhere = benchmark("edit_anywhere")
    edits, moved = edit_anywhere.replace_all(TEXT, 100)
    assert len(edits) == 100
    assert [edit.start for edit in edits] == sorted((edit.start for edit in edits), reverse=True)
    text = TEXT
    for edit in edits:
        text = text[: edit.start] + edit.new + text[edit.end :]
    assert len(text) - len(TEXT) == moved
    assert text.count(b"self_new") == 100
    after = edit_anywhere.changed(TEXT, 30, random.Random(0)).split(b"\n")
    assert sum(one != other for one, other in zip(after, TEXT.split(b"\n"), strict=True)) == 30


def test_files_are_as_large_as_they_say(benchmark, heldout: Path) -> None:
    text = benchmark("workbench").HeldoutText(heldout)
    assert abs(len(text.of_size(10_000)) - 10_000) < 4
    assert text.of_lines(500).count(b"\n") == 500
    for file in benchmark("open").odd_files(20_000):
        assert abs(len(file.data) - 20_000) < 3_000
        file.data.decode("utf-8")


def test_a_project_is_as_large_as_it_says(benchmark, heldout: Path, tmp_path: Path) -> None:
    project, text = benchmark("project"), benchmark("workbench").HeldoutText(heldout)
    held_out = {file.text for file in text.files}
    made = project.project_of(text, tmp_path, 4_000, 2)
    assert made.size == 4_000
    assert {path: (tmp_path / path).read_bytes() for path in made.files} == made.files
    assert {made.files[path] for path in made.typed} == held_out
    assert not held_out & {made.files[path] for path in made.files if path not in made.typed}
    for path in made.typed:
        data = made.files[path]
        for place, stretch in project.places_of(data, 12).items():
            assert len(stretch.keys) == 12
            assert data[stretch.start : stretch.end] == b"".join(stretch.keys)
            assert (stretch.end == len(data)) == (place == "end")
    with pytest.raises(UserError, match="megabytes"):
        project.project_of(text, tmp_path, 50_000, 2)


def test_only_full_runs_are_recorded(tmp_path: Path) -> None:
    from benchmarks.record import BEGIN, END, PARTS

    page = tmp_path / "figures.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    machine = {
        "cpu": "A",
        "cores": 2,
        "features": ["AVX2"],
        "system": "Linux",
        "load_before": 0.1,
        "versions": {"python": "3"},
    }
    row = {"figure": "a key", "target": "10 ms", "reached": "5 ms", "enough": True, "note": "", "baseline": "~9 s"}
    part = {"machine": machine, "model": "m", "quick": False, "figures": [row, {**row, "target": ""}]}

    def recorded(name: str, change: dict[str, object]) -> subprocess.CompletedProcess[str]:
        for other in PARTS:
            data = {**part, **(change if other == name else {})}
            (tmp_path / f"{other}.json").write_text(json.dumps(data), "utf-8")
        return run(["-m", "benchmarks.record"], tmp_path, "--page", page)

    for change in ({"quick": True}, {"machine": {**machine, "cpu": "B"}}):
        refused = recorded("open", change)
        assert refused.returncode == 2, refused.stdout
        assert "old" in page.read_text("utf-8")
    assert recorded("", {}).returncode == 0
    text = page.read_text("utf-8")
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert text.count("| a key | 10 ms | **5 ms** | ✓ | ~9 s |") == len(PARTS)
    assert "old" not in text


def test_the_figures_of_the_clients_are_what_the_trials_have_left(tmp_path: Path) -> None:
    from benchmarks.clients import BEGIN, EDITORS, END, main

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    left = {"keys": 50, "debounce_ms": 200, "median_ms": 220, "p95_ms": 240, "load": 0.5}
    for _, name, _ in EDITORS:
        with pytest.raises(UserError, match=rf"{name}\.json is missing"):
            main(True, tmp_path, page)
        (tmp_path / f"{name}.json").write_text(json.dumps(left), "utf-8")
    with pytest.raises(UserError, match=r"vscode\.json lacks some"):  # the extension's size
        main(True, tmp_path, page)
    assert "old" in page.read_text("utf-8")
    (tmp_path / "vscode.json").write_text(json.dumps({**left, "kilobytes": 501, "activation_ms": 9}), "utf-8")
    main(True, tmp_path, page)
    text = page.read_text("utf-8")
    assert "less 200 ms of debounce | 30 ms | **20 ms** (220 ms with it, p95 240) | ✓ |" in text
    assert "| `lsp-charrnn.vsix` | 500 kB | **501 kB** | not reached |" in text
    assert "| 600 | **" in text
    assert "old" not in text
