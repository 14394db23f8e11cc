"""What the memories save in bits: every byte is predicted from what stands before it and from the other files alone."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.engine.mixer import Mixer, Mixture, shipped_mixer
from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate import memory
from lsp_charrnn.evaluate.bits import measure_bits
from lsp_charrnn.evaluate.compress import ppmd_bits, xz_bits
from lsp_charrnn.evaluate.memory import ALONE, DOCUMENT, PROJECT, WAYS, MemoryBits, fit_mixer, measure_memory
from lsp_charrnn.model.files import load_model
from lsp_charrnn.text.symbols import header, to_symbols
from lsp_charrnn.train import mixing

FILES = {
    "one/a.py": "def area(width, height):\n    return width * height\n",
    "one/b.py": "from a import area\n\n\ndef größe(width):\n    return area(width, width)\n",
    "one/c.py": "import a\n\nprint(a.area(1, 2), 'as wide as it is high')\n",
    "two/d.py": "class Box:\n    width = height = 0\n\n    def __len__(self):\n        return self.width\n",
}


@pytest.fixture
def projects(tmp_path: Path) -> list[Path]:
    for name, text in FILES.items():
        path = tmp_path / "held" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return [tmp_path / "held" / "one", tmp_path / "held" / "two"]


def slowly(model_directory: Path, name: str, *, document: bool, project: bool, most: int | None = None) -> float:
    """What a file costs in bits, byte by byte, as serving predicts it."""
    model, (of, path), text = load_model(model_directory), name.split("/"), FILES[name].encode()
    head = header(path)
    logits, _ = model.read(to_symbols(head + text)[:, None], model.initial_state())
    others = Counts.of_texts(other.encode() for at, other in FILES.items() if at.startswith(f"{of}/") and at != name)
    cost = 0.0
    for place, byte in enumerate(text[:most]):
        before = text[:place]
        tables = [Counts.of_texts([before])] if document else [], [others] if project else []
        expected = Mixture(shipped_mixer(), *tables, before).expected(logits[len(head) - 1 + place])
        cost -= float(expected[0, byte]) / np.log(2)
    return cost


def costs(report: MemoryBits, way: str) -> dict[str, float]:
    return {f"{file.project}/{file.path}": file.bits for file in report.ways[way]}


def test_every_byte_costs_what_serving_gives_it_from_what_was_before(projects: list[Path], tiny_model: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = measure_memory(projects, model=tiny_model, progress=lambda *what: seen.append(what))
    assert report.characters == sum(len(text.encode()) for text in FILES.values())
    assert seen[-1] == (report.characters, report.characters)
    assert list(report.ways) == [ALONE, DOCUMENT, PROJECT]
    for way, (document, project) in WAYS.items():
        found = costs(report, way)
        assert found.keys() == FILES.keys()
        for name, cost in found.items():
            assert cost == pytest.approx(slowly(tiny_model, name, document=document, project=project), rel=1e-4)
    assert report.bits_per_char(PROJECT) < report.bits_per_char(DOCUMENT) < report.bits_per_char(ALONE)


def test_without_memories_it_is_what_the_model_costs(projects: list[Path], tiny_model: Path) -> None:
    report = measure_memory(projects, model=tiny_model)
    assert report.bits_per_char(ALONE) == pytest.approx(
        measure_bits(projects, model=tiny_model).bits_per_char, rel=1e-3
    )


def test_what_is_cut_off_a_file_is_not_known_when_it_is_measured(
    projects: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as what stands behind, nor as a part of the project."""
    monkeypatch.setattr(memory, "FILE_CHARS", 40)
    before = measure_memory(projects, model=tiny_model, max_chars=10_000)
    assert {file.characters for files in before.ways.values() for file in files} == {40}
    assert costs(before, PROJECT)["one/b.py"] == pytest.approx(
        slowly(tiny_model, "one/b.py", document=True, project=True, most=40), rel=1e-4
    )
    path = projects[0] / "b.py"
    kept = path.read_text("utf-8")[:40]
    for rest in ("", kept * 3, "x = 'something else'\n" * 9):
        path.write_text(kept + rest, "utf-8")
        after = measure_memory(projects, model=tiny_model, max_chars=10_000)
        for way in WAYS:
            assert costs(after, way)["one/b.py"] == pytest.approx(costs(before, way)["one/b.py"], rel=1e-6)


def test_compressors_are_given_the_same_bytes_and_the_rest_of_the_project(
    projects: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "FILE_CHARS", 45)
    report = measure_memory(projects, model=tiny_model, max_chars=10_000, compare=True)
    for way, bits in (("PPMd-16, primed", ppmd_bits), ("xz -9e, primed", xz_bits)):
        assert [(f.project, f.path, f.characters) for f in report.ways[way]] == sorted(
            (f.project, f.path, f.characters) for f in report.ways[ALONE]
        )
        rest = (FILES["one/a.py"] + FILES["one/c.py"]).encode()
        assert costs(report, way)["one/b.py"] == bits(FILES["one/b.py"].encode()[:45], rest)
        assert costs(report, way)["two/d.py"] == bits(FILES["two/d.py"].encode()[:45])


def test_a_sample_is_of_all_projects_with_the_whole_of_each_around_it(projects: list[Path], tiny_model: Path) -> None:
    report = measure_memory(projects, model=tiny_model, max_chars=100)
    assert len(report.ways[ALONE]) == 2
    assert report.projects() == ["one", "two"]
    [name] = [name for name in costs(report, PROJECT) if name.startswith("one/")]
    assert costs(report, PROJECT)[name] == pytest.approx(
        slowly(tiny_model, name, document=True, project=True), rel=1e-4
    )


def test_the_figures_are_of_all_characters_alike(projects: list[Path], tiny_model: Path) -> None:
    report = measure_memory(projects, model=tiny_model)
    data = report.to_json()
    for way in WAYS:
        found = costs(report, way)
        assert data["ways"][way]["bits_per_char"] == pytest.approx(sum(found.values()) / data["characters"])
        size = len(FILES["two/d.py"].encode())
        assert data["ways"][way]["projects"]["two"] == pytest.approx(found["two/d.py"] / size)
    assert report.table().row_count == 3


def test_a_mixer_is_fitted_and_written(
    projects: list[Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "BATCH", 64)
    monkeypatch.setattr(memory, "fit", functools.partial(mixing.fit, steps=150))
    out, seen = tmp_path / "mixer.safetensors", []
    alone, mixed = fit_mixer(projects, out, model=tiny_model, progress=lambda *what: seen.append(what))
    assert seen[3] == ("reading", 4, 4)
    assert seen[-1] == ("fitting", 150, 0)
    mixer = Mixer.of(load_file(out))
    report = measure_memory(projects, model=tiny_model, mixer=mixer)
    assert report.bits_per_char(ALONE) == pytest.approx(alone)
    assert report.bits_per_char(PROJECT) == pytest.approx(mixed)
    assert mixed < alone


def test_each_language_is_read_by_its_own_model(
    projects: list[Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (projects[0] / "tool.go").write_text("package main\n" * 30)
    monkeypatch.setattr(memory, "model_for_language", lambda language: Path(language))
    monkeypatch.setattr(memory, "load_model", lambda path, *_: (read.append(str(path)), load_model(tiny_model))[1])
    monkeypatch.setattr(memory, "fit", functools.partial(mixing.fit, steps=1))
    monkeypatch.setattr(memory, "read_config", lambda path: ({"name": str(path)}, None))
    read: list[str] = []
    seen: list[tuple[str, int, int]] = []
    fit_mixer(
        projects,
        tmp_path / "mixer.safetensors",
        suffixes=(".py", ".go"),
        max_chars=1,
        progress=lambda *what: seen.append(what),
    )
    assert sorted(read) == ["go", "python"]
    assert seen[:2] == [("reading", 1, 2), ("reading", 2, 2)], "so much of the text of each"
    report = measure_memory(projects, suffixes=(".py", ".go"))
    assert sorted(read) == ["go", "go", "python", "python"]
    assert sorted(report.model.split(", ")) == ["go", "python"]
    assert len(report.ways[ALONE]) == len(FILES) + 1


def test_where_there_is_nothing_to_measure_it_says_so(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "empty.py").touch()
    with pytest.raises(CorpusError, match=r"empty"):
        measure_memory([tmp_path / "held"], model=tiny_model)
