"""From noise to words: a text in pieces, its samples, and the model that is left."""

from __future__ import annotations

import pytest

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.inside import evolution
from lsp_charrnn.model.files import load_weights
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import HEADER_END, header

TEXT = b"".join(b"%d In the beginning was the word, and the word was a byte.\r\n" % verse for verse in range(4000))


def test_a_text_is_cut_into_whole_lines_and_nothing_is_lost():
    pieces = [piece.tobytes() for piece in evolution.pieces_of(TEXT + b"the end", "verses.txt")]
    start = header("verses.txt")
    assert all(piece.startswith(start) for piece in pieces)
    texts = [piece[len(start) :] for piece in pieces]
    assert b"".join(texts) == TEXT.replace(b"\r\n", b"\n") + b"the end"
    assert all(text.endswith(b"\n") and 8192 <= len(text) < 8192 + 80 for text in texts[:-1])
    assert all(piece.count(HEADER_END) == 1 for piece in pieces)


@pytest.mark.parametrize("text", [b"", b"short\n", b"x" * 9000])
def test_a_text_that_is_too_short_is_refused(tmp_path, text):
    with pytest.raises(CorpusError, match="too little"):
        evolution.evolve(text, "x.txt", tmp_path / "x", steps=1, seed=0, force=False, show=lambda progress: None)
    assert not list(tmp_path.iterdir())


def test_samples_come_at_growing_numbers_of_steps_and_a_model_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(evolution, "SPEC", ModelSpec(layers=1, hidden=8, embedding=4))
    shown = []
    directory = evolution.evolve(
        TEXT, "verses.txt", tmp_path / "verses", steps=31, seed=0, force=False,
        show=lambda progress: shown.append(progress) if progress.sample is not None else None,
    )  # fmt: skip
    assert [progress.step for progress in shown] == [10, 30, 31]
    assert evolution.shown(shown[0]).startswith("--- step 10: ")
    assert (directory / "samples.txt").read_text("utf-8").count("--- step ") == 3
    assert (directory / "loss.png").is_file()
    assert load_weights(tmp_path / "verses")[1] == evolution.SPEC
