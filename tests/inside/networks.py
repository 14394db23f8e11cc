"""Small networks with random weights, for what looks into networks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lsp_charrnn.model.spec import Cell, ModelSpec


def random_network(cell: Cell = "lstm", hidden: int = 6) -> tuple[dict[str, npt.NDArray[np.float32]], ModelSpec]:
    """Return weights that drive every gate through its range, and their spec: two layers."""
    spec = ModelSpec(cell=cell, layers=2, hidden=hidden, embedding=4)
    random = np.random.default_rng(0)
    return {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in spec.shapes().items()}, spec
