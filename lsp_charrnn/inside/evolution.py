"""How a network comes to write: what it writes at growing numbers of steps, from noise to words.

A. Karpathy showed this on War and Peace (2015). Any text will do; the training is the loop that all models here come
from, with the text cut into pieces, so that many are read side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from lsp_charrnn.config import TrainOptions
from lsp_charrnn.errors import CorpusError
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import header, normalise
from lsp_charrnn.train.batches import Document
from lsp_charrnn.train.export import export_model, refuse_existing
from lsp_charrnn.train.journal import Journal
from lsp_charrnn.train.loop import Progress, train
from lsp_charrnn.train.progress import visible
from lsp_charrnn.train.run import work_dir

SPEC: Final = ModelSpec(cell="lstm", layers=2, hidden=256)  # some minutes on two cores
_PIECE: Final = 8192  # bytes, and what is left of a line
_HELD_OUT: Final = 20  # one piece of so many is not learned from


def evolve(
    text: bytes, name: str, out: Path, *, steps: int, seed: int, force: bool, show: Callable[[Progress], None]
) -> Path:
    """Train on `text`, a document called `name`, and write the model to `out`; return the directory of its samples.

    `show` is told of every step, and of samples at 10, 30, 100, 300 … and every 500. Raises `CorpusError` for a text
    that is too short, `OutputError` where `out` cannot be written.
    """
    refuse_existing(out, force)
    pieces = pieces_of(text, name)
    heldout = pieces[_HELD_OUT - 1 :: _HELD_OUT]
    learned = [piece for number, piece in enumerate(pieces) if (number + 1) % _HELD_OUT]
    if not heldout:
        raise CorpusError(
            f"{name} has {len(text):,} bytes: that is too little to learn from, give a text of {_HELD_OUT * _PIECE:,}."
        )
    options = TrainOptions(steps=steps, batch=32, bptt=64, checkpoint_every=500, seed=seed)
    directory = work_dir(out)
    with Journal(directory, title=f"learning to write {name}") as journal:

        def told(progress: Progress) -> None:
            journal(progress)
            show(progress)

        result = train(SPEC, learned, heldout, options, directory, sample_path=name, show=told)
    export_model(
        result.weights,
        SPEC,
        out,
        name=out.name,
        languages=["plaintext"],
        training={"text": name, "options": asdict(options), **result.facts},
        evaluation={},
        card=f"# {out.name}\n\nWrites like {name}: made by `lsp-charrnn lab evolution {name} --steps {steps}`.\n",
        force=force,
    )
    return directory


def pieces_of(text: bytes, name: str) -> list[Document]:
    """Return the text as documents of whole lines, 8 kB and what is left of the line each."""
    pieces: list[Document] = []
    lines: list[bytes] = []
    size = 0
    for line in [*normalise(text).splitlines(keepends=True), b""]:
        lines.append(line)
        size += len(line)
        if size >= _PIECE or (not line and size):
            pieces.append(np.frombuffer(header(name) + b"".join(lines), dtype=np.uint8))
            lines, size = [], 0
    return pieces


def shown(progress: Progress) -> str:
    """Return a sample with its step and its bits per character, for a terminal."""
    assert progress.sample is not None
    return f"--- step {progress.step:,}: {progress.bits:.2f} bits per character\n{visible(progress.sample)}\n"
