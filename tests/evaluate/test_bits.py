"""Bits per character: what is counted, and that reading many files at once changes nothing."""

import io
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from lsp_charrnn.cli import app
from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.bits import FileBits, bits_of
from lsp_charrnn.model import score
from lsp_charrnn.text.symbols import header
from lsp_charrnn.train.corpus import SourceFile


class Uniform:
    """Gives every symbol the same probability."""

    def initial_state(self, lanes=1):
        return np.zeros((1, 1, lanes, 1), dtype=np.float32)

    def read(self, symbols, state):
        return np.zeros((*symbols.shape, 256), dtype=np.float32), state


class TinyRnn:
    """A vanilla network with random weights: its predictions hang on all that was read."""

    def __init__(self):
        random = np.random.default_rng(0)
        self.inputs, self.recurrent, self.output = (
            random.normal(0, scale, shape).astype(np.float32)
            for scale, shape in ((1, (256, 8)), (0.5, (8, 8)), (1, (8, 256)))
        )

    def initial_state(self, lanes=1):
        return np.zeros((1, 1, lanes, 8), dtype=np.float32)

    def read(self, symbols, state):
        logits = []
        for row in symbols:
            state = np.tanh(self.inputs[row] + state @ self.recurrent)
            logits.append(state[0, 0] @ self.output)
        return np.stack(logits), state

    def bits_slowly(self, file):
        """Return what the file costs, read alone and one symbol after the other."""
        state, cost = self.initial_state(), 0.0
        head = header(file.path)
        symbols = head + file.text
        for at in range(len(symbols) - 1):
            logits, state = self.read(np.array([[symbols[at]]]), state)
            if at + 1 >= len(head):
                odds = np.exp(logits[0, 0].astype(np.float64))
                cost -= math.log2(odds[symbols[at + 1]] / odds.sum())
        return cost


def a_file(text, path="a.py", project="p"):
    return SourceFile(project, path, text.encode(), "python")


def some_files():
    lengths = [1, 2, 40, 255, 256, 257, 511, 600, 700, 1100, 3]
    texts = ["".join(chr(97 + (i * i + n) % 26) for i in range(n)) for n in lengths]
    files = [a_file(text, f"dir/{n}.py", f"p{n % 3}") for n, text in zip(lengths, texts, strict=True)]
    return [a_file("añ = 1\n" * 400, "long.py", "q"), *files]


def test_a_uniform_model_costs_eight_bits_exactly():
    report = bits_of(Uniform(), some_files())
    assert report.bits_per_char == 8.0
    assert all(file.bits == 8.0 * file.characters for file in report.files)


def test_characters_are_the_bytes_of_the_text_without_the_header():
    report = bits_of(Uniform(), [a_file("naïve\n", "a/very/long/path.py")])
    assert report.characters == 7


@pytest.mark.parametrize("lanes", [1, 3, 16])
def test_lanes_and_pieces_change_nothing(lanes, monkeypatch):
    monkeypatch.setattr(score, "_PIECE", 100)
    model, files = TinyRnn(), some_files()
    report = bits_of(model, files, lanes=lanes)
    found = {(file.project, file.path): file.bits for file in report.files}
    for file in files:
        assert found[file.project, file.path] == pytest.approx(model.bits_slowly(file), rel=1e-5)


def test_the_report_weighs_every_character_the_same():
    report = bits_of(TinyRnn(), some_files(), name="tiny")
    data = report.to_json()
    assert data["model"] == "tiny"
    assert data["characters"] == sum(len(file.text) for file in some_files())
    total = sum(p["bits_per_char"] * p["characters"] for p in data["projects"].values())
    assert data["bits_per_char"] == pytest.approx(total / data["characters"])
    assert list(data["projects"]) == ["p0", "p1", "p2", "q"]
    assert report.table().row_count == 5


def test_languages_and_compressors_stand_beside_the_projects():
    report = bits_of(Uniform(), [a_file("fn f() {}\n", "a.rs", "p"), a_file("x = 1\n" * 9, "b.py", "p")])
    costs = (FileBits("p", "a.rs", 10, 20.0), FileBits("p", "b.py", 54, 54.0))
    report = replace(report, compressors={"PPMd-16, cold": costs})
    assert list(report.by_language()) == ["python", "rust"]
    shown = Console(file=io.StringIO(), width=120)
    shown.print(report.table())
    text = shown.file.getvalue()
    assert [line.split("\u2502")[-2].strip() for line in text.splitlines() if "rust" in line] == ["2.000"]
    assert [line.split("\u2502")[-2].strip() for line in text.splitlines() if "all" in line] == ["1.156"]
    assert report.for_card() == {
        "characters": 64,
        "bits per char": 8.0,
        "python": 8.0,
        "rust": 8.0,
        "project p": 8.0,
        "PPMd-16, cold": 1.156,
    }
    assert report.to_json()["languages"] == {"python": 8.0, "rust": 8.0}


def test_the_card_gets_the_figures(tiny_model, tmp_path):
    model = tmp_path / "mine"
    shutil.copytree(tiny_model, model)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.rs").write_text("fn quartz() {}\n" * 30)
    command = ["evaluate", "bits", str(tmp_path / "p"), "--model", str(model), "--suffix", ".rs", "--compare"]
    done = CliRunner().invoke(app, [*command, "--record", "held-out Rust", "--json"])
    assert done.exit_code == 0, done
    data = json.loads(done.stdout)
    figures = json.loads((model / "config.json").read_text())["evaluation"]["held-out Rust"]
    assert figures["project p"] == round(data["bits_per_char"], 3)
    assert 0 < figures["PPMd-16, cold"] < 2
    assert "| held-out Rust: project p |" in (model / "README.md").read_text()


def test_nothing_to_measure_is_one_sentence():
    with pytest.raises(CorpusError, match="nothing to measure"):
        bits_of(Uniform(), [])
