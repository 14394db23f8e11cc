"""The model that ships: its files are whole, int8 costs what the card says at most, and it knows what everybody writes.

The text it is tried on is this project's own source, which no model was trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsp_charrnn.engine.session import Session
from lsp_charrnn.model.files import load_model, load_weights, read_config, verify_model
from lsp_charrnn.model.score import bits_of_documents
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.document import Document
from lsp_charrnn.text.symbols import header, to_symbols
from lsp_charrnn.train.export import build_onnx

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / "models" / "python"
UNSEEN = sorted((ROOT / "lsp_charrnn" / "engine").glob("*.py"))


@pytest.fixture(scope="module")
def served() -> Model:
    return load_model(PYTHON)


def documents(characters: int) -> list[tuple[bytes, bytes]]:
    return [(header(path.relative_to(ROOT).as_posix()), path.read_bytes()[:characters]) for path in UNSEEN]


def test_its_files_are_whole_and_small() -> None:
    assert all(check.ok for check in verify_model(PYTHON))
    assert sum(file.stat().st_size for file in PYTHON.iterdir()) < 16e6


def test_int8_costs_at_most_a_hundredth_of_a_bit(served: Model) -> None:
    weights, spec = load_weights(PYTHON)
    exact = Model(build_onnx(weights, spec, quantise=False), spec)
    texts = documents(6_000)
    characters = sum(len(text) for _, text in texts)
    bits = [sum(bits_of_documents(model, texts)) / characters for model in (exact, served)]
    assert bits[0] < 2.0, "it knows Python"
    assert bits[1] - bits[0] <= 0.01


def test_neither_lanes_nor_pieces_change_a_bit(served: Model) -> None:
    texts = [to_symbols(head + text)[:700] for head, text in documents(700) if len(text) == 700]
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


def test_the_card_says_what_the_config_knows() -> None:
    config, _ = read_config(PYTHON)
    card = (PYTHON / "README.md").read_text(encoding="utf-8")
    assert config["evaluation"]["held_out"]["int8_cost_in_bits"] <= 0.01
    assert f"{config['training']['steps']:,} steps" in card
    for project, facts in config["training"]["corpus"]["projects"].items():
        assert f"| {project} | {facts['version']} | {facts['licence']} |" in card


@pytest.mark.parametrize(
    ("text", "begins"),
    [("if __name__ == ", '"__main__'), ("import numpy ", "as np"), ("class A:\n    def __init__(", "self")],
)
def test_it_knows_what_everybody_writes(served: Model, text: str, begins: str) -> None:
    session = Session(lambda _: served)
    session.open("file", Document.from_text(text), path="src/tool.py", language="python")
    assert session.complete("file", len(text)).completions[0].text.startswith(begins)
