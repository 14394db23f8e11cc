"""What all tests share: the flag that rewrites golden cases, and a small model that loads in no time."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lsp_charrnn.model.spec import ModelSpec

TINY_WORD = "quartz(x)\n"  # no character twice, so that each tells the next
_SIZE = 32  # hidden units, and width of the embedding


def pytest_configure() -> None:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # whichever test imports ONNX Runtime first
    # A shell starts what runs in the background deaf to Ctrl-C, and children inherit that: some tests press it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write what the golden cases show now into their files, and pass",
    )


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--regenerate"))


def tiny_weights(word: str = TINY_WORD) -> tuple[dict[str, npt.NDArray[np.float32]], ModelSpec]:
    """Return the weights of a network that knows `word` by heart, and nothing else.

    Every character of the word has its own hidden unit, which fires when the character was read and is forgotten at
    the next one; the output layer has the next character for each. After any other it expects the line to end.
    """
    spec = ModelSpec(cell="lstm", layers=1, hidden=_SIZE, embedding=_SIZE, skip=True)
    weights = {name: np.zeros(shape, dtype=np.float32) for name, shape in spec.shapes().items()}
    known = word.encode()
    assert len(set(known)) == len(known) <= _SIZE
    i, f, g, o = (slice(gate * _SIZE, (gate + 1) * _SIZE) for gate in range(4))
    weights["layers.0.input_weight"][g] = 4 * np.eye(_SIZE)
    weights["layers.0.bias"][i] = weights["layers.0.bias"][o] = 6
    weights["layers.0.bias"][f] = -6
    for unit, (character, following) in enumerate(pairwise(known)):
        weights["embedding.weight"][character, unit] = 1
        weights["output.weight"][following, unit] = 20
    weights["output.bias"][ord("\n")] = 8
    return weights, spec


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small exported model, `tiny`, for Python: after `q` it suggests the rest of `TINY_WORD`."""
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


def make_tiny(out: Path, word: str = TINY_WORD) -> Path:
    """Export a model that knows `word` by heart, and return its directory."""
    from lsp_charrnn.train.export import export_model

    weights, spec = tiny_weights(word)
    return export_model(
        weights,
        spec,
        out,
        name=out.name,
        languages=["python"],
        training={},
        evaluation={},
        card="# tiny\n\nFor tests.\n",
    )
