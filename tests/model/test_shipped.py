"""The models that ship: their files are whole, int8 costs what the card says at most, they know what everybody writes.

The text they are tried on is this project's own source, which no model was trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.session import Session
from lsp_charrnn.model.files import list_models, load_model, load_weights, model_for_language, read_config, verify_model
from lsp_charrnn.model.score import bits_of_documents
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.document import Document
from lsp_charrnn.text.symbols import header, to_symbols
from lsp_charrnn.train.export import build_onnx

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "models"
UNSEEN = {
    "python": sorted((ROOT / "lsp_charrnn" / "engine").glob("*.py")),
    "code": sorted([*(ROOT / "editors" / "nvim").rglob("*.lua"), *(ROOT / "editors" / "vscode" / "src").glob("*.ts")]),
}


@pytest.fixture(scope="module", params=UNSEEN)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def served(name: str) -> Model:
    return load_model(MODELS / name)


def documents(name: str, characters: int) -> list[tuple[bytes, bytes]]:
    return [(header(path.relative_to(ROOT).as_posix()), path.read_bytes()[:characters]) for path in UNSEEN[name]]


def test_every_model_is_tried() -> None:
    assert sorted(path.name for path in MODELS.iterdir() if (path / "config.json").is_file()) == sorted(UNSEEN)


def test_its_files_are_whole_and_small(name: str) -> None:
    assert all(check.ok for check in verify_model(MODELS / name))
    assert sum(file.stat().st_size for file in (MODELS / name).iterdir()) < 16e6


def test_int8_costs_at_most_a_hundredth_of_a_bit(name: str, served: Model) -> None:
    weights, spec = load_weights(MODELS / name)
    exact = Model(build_onnx(weights, spec, quantise=False), spec)
    texts = documents(name, 6_000)
    characters = sum(len(text) for _, text in texts)
    bits = [sum(bits_of_documents(model, texts)) / characters for model in (exact, served)]
    assert bits[0] < {"python": 2.0, "code": 2.2}[name], "it knows its languages"  # these files are the shorter ones
    assert bits[1] - bits[0] <= 0.01


def test_neither_lanes_nor_pieces_change_a_bit(name: str, served: Model) -> None:
    texts = [to_symbols(head + text)[:700] for head, text in documents(name, 700) if len(text) == 700]
    symbols = np.stack(texts, axis=1)  # [time, lanes]
    lanes = symbols.shape[1]
    state = served.initial_state(lanes)
    for start, end in ((0, 1), (1, 60), (60, 700)):
        logits, state = served.advance(symbols[start:end], state)
    for lane, text in enumerate(texts):
        alone, own = served.advance(text[:, None], served.initial_state())
        np.testing.assert_array_equal(alone[0], logits[lane])
        np.testing.assert_array_equal(own[:, :, 0], state[:, :, lane])
    together, after = served.step(symbols[-1], state)
    for lane in range(lanes):
        alone, own = served.step(symbols[-1, [lane]], np.ascontiguousarray(state[:, :, [lane]]))
        np.testing.assert_array_equal(alone[0], together[lane])
        np.testing.assert_array_equal(own[:, :, 0], after[:, :, lane])


def test_the_card_says_what_the_config_knows(name: str) -> None:
    config, _ = read_config(MODELS / name)
    card = (MODELS / name / "README.md").read_text(encoding="utf-8")
    assert config["evaluation"]["held_out"]["int8_cost_in_bits"] <= 0.01
    assert f"{config['training']['steps']:,} steps" in card
    for project, facts in config["training"]["corpus"]["projects"].items():
        assert f"| {project} | {facts['version']} | {facts['licence']} |" in card


@pytest.mark.parametrize(
    ("language", "model"),
    [
        *((language, "code") for language in ("c", "cpp", "go", "rust", "java", "javascript", "typescript")),
        *((language, "code") for language in ("javascriptreact", "typescriptreact", "shellscript", "lua")),
        ("python", "python"),
        ("ruby", "code"),  # of what no model was trained for, the one that has seen most languages knows most
    ],
)
def test_the_language_chooses(language: str, model: str) -> None:
    assert {info.name for info in list_models()} >= set(UNSEEN)
    assert model_for_language(language).name == model


@pytest.mark.parametrize(
    ("path", "language", "text", "begins"),
    [
        ("src/tool.py", "python", "if __name__ == ", '"__main__'),
        ("src/tool.py", "python", "import numpy ", "as np"),
        ("src/tool.py", "python", "class A:\n    def __init__(", "self"),
        ("src/tool.c", "c", "static int f(void)\n{\n\tfor (int i = 0; i < n; ", "i++)"),
        ("src/tool.cpp", "cpp", "#include <vector>\nint f(const std::vec", "tor"),
        ("tool.go", "go", "package main\n\nfunc f() error {\n\tif err != ", "nil {"),
        ("src/Tool.java", "java", "public class Tool {\n    private final Str", "ing"),
        ("src/tool.js", "javascript", "module.ex", "ports"),
        ("src/tool.ts", "typescript", "export async function f(): Promise<vo", "id>"),
        ("src/lib.rs", "rust", "impl fmt::Display for Error {\n    fn fmt(&self, f: &mut fmt::Form", "atter"),
        ("tool.lua", "lua", "local M = {}\nlocal function f(x)\n  if x == nil th", "en"),
        ("run.sh", "shellscript", "#!/bin/sh\nset -e\nif [ -f x ]; th", "en"),
    ],
)
def test_it_knows_what_everybody_writes(path: str, language: str, text: str, begins: str) -> None:
    model = load_model(model_for_language(language))
    session = Session(lambda _: model, Settings(decode_budget_ms=10_000))  # however busy the machine is
    session.open("file", Document.from_text(text), path=path, language=language)
    assert session.complete("file", len(text)).completions[0].text.startswith(begins)
