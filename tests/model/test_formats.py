"""Models of every format there has been: tests/data/models holds one of each, written by the program of its time.

All are the `tiny` model of the tests, which knows a word by heart. A format that can't be served any more is told by a
sentence with the command that mends it, and that command does. A new format needs its fixture here:
`make_tiny(Path("tests/data/models/format-N"))`, with the program that writes it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_WORD, tiny_weights

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.session import Session
from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.files import FORMAT, load_model, load_weights, read_config, verify_model
from lsp_charrnn.text.document import Document
from lsp_charrnn.train.export import renew_model

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "models"
FORMATS = range(1, FORMAT + 1)


@pytest.fixture(params=FORMATS, ids="format-{}".format)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the fixture of each format."""
    return shutil.copytree(FIXTURES / f"format-{request.param}", tmp_path / "tiny")


def suggested(path: Path) -> str:
    """Return what the model suggests after the first character of its word."""
    loaded = load_model(path)
    session = Session(lambda _: loaded, Settings(decode_budget_ms=10_000))
    session.open("file", Document.from_text("q"), path="tool.py", language="python")
    return session.complete("file", 1).completions[0].text


def test_there_is_one_of_each() -> None:
    assert sorted(path.name for path in FIXTURES.iterdir()) == [f"format-{number}" for number in FORMATS]
    for number in FORMATS:
        assert read_config(FIXTURES / f"format-{number}")[0]["format"] == number


def test_its_weights_are_read_as_they_were_written(model: Path) -> None:
    weights, spec = load_weights(model)
    written, wanted = tiny_weights()
    assert spec == wanted
    for name, values in written.items():
        np.testing.assert_array_equal(weights[name], values)


def test_it_is_served_or_made_anew_and_served(model: Path) -> None:
    before = read_config(model)[0]
    if before["format"] < FORMAT:
        with pytest.raises(ModelError, match="lsp-charrnn models renew"):
            load_model(model)
        renew_model(model)
    assert all(check.ok for check in verify_model(model))
    assert suggested(model) == TINY_WORD[1:].rstrip("\n")
    after = read_config(model)[0]
    assert after["format"] == FORMAT
    for same in ("name", "languages", "training", "evaluation", "spec", "symbols"):
        assert after[same] == before[same]
    assert after["files"]["weights.safetensors"] == before["files"]["weights.safetensors"]
    assert (model / "README.md").read_text("utf-8") == "# tiny\n\nFor tests.\n"
