"""The fast path: one network in ONNX Runtime, which steps 1 to N lanes and reads many symbols at once.

State is a value: it is passed in and returned, never kept, so that two documents can never disturb each other
and one `Model` serves them all. Files, hashes and finding a model are left to model.files; sampling to the
engine.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import VOCABULARY

State = npt.NDArray[np.float32]  # [layers, parts, lanes, hidden], C-contiguous
Logits = npt.NDArray[np.float32]
Symbols = npt.NDArray[np.int64]

# `read` goes through long texts in pieces of so many rows (time * lanes): the gates of a piece stay in the
# cache, and memory is bounded, where 16 lanes of 1,000 steps at once would take 130 MB.
_PIECE_ROWS: Final = 128


class Model:
    """A network, loaded and ready. Calls on one model may come from several threads."""

    def __init__(
        self,
        graph: bytes,
        spec: ModelSpec,
        *,
        name: str = "",
        config: dict[str, Any] | None = None,
        size_bytes: int = 0,
        threads: int = 1,
    ) -> None:
        """Load a serialised ONNX graph. Raises `ModelError` where it is none, or not one of `spec`."""
        self.spec = spec
        self.name = name
        self.config = config if config is not None else {}
        self.size_bytes = size_bytes  # of the weights that every step reads
        self.threads = threads
        self._arrays = spec.layers * spec.parts
        try:
            self._session = ort.InferenceSession(graph, _options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"ONNX Runtime {ort.__version__} refuses the graph ({reason}): re-export the model."
            ) from error
        inputs = {value.name: value.shape for value in self._session.get_inputs()}
        outputs = {value.name: value.shape for value in self._session.get_outputs()}
        state = [self._arrays, "lanes", spec.hidden]
        if inputs != {"symbols": ["time", "lanes"], "state": state} or outputs != {
            "logits": ["time", "lanes", VOCABULARY],
            "new_state": state,
        }:
            raise ModelError("the graph's inputs and outputs are not those of its spec: re-export the model.")

    def initial_state(self, lanes: int = 1) -> State:
        """Return the state before the first symbol: zeros.  # [layers, parts, lanes, hidden]"""
        return np.zeros((self.spec.layers, self.spec.parts, lanes, self.spec.hidden), dtype=np.float32)

    def step(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        """Read one symbol in each lane; return the logits of the next [lanes, 256], and the new state."""
        logits, after = self._run(symbols[None, :], state)
        return logits[0], after

    def read(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        """Read `symbols` [time, lanes], time >= 1; return the logits after each [time, lanes, 256], and the state.

        In float32 it is the same as so many steps. In int8 the first layers' inputs and the output layer's get one
        scale for a whole piece rather than one a step, so that the two differ, by less than int8 differs from float32.
        """
        time, lanes = symbols.shape
        piece = max(1, _PIECE_ROWS // lanes)
        if time <= piece:
            return self._run(symbols, state)
        logits = np.empty((time, lanes, VOCABULARY), dtype=np.float32)
        for start in range(0, time, piece):
            logits[start : start + piece], state = self._run(symbols[start : start + piece], state)
        return logits, state

    def _run(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        lanes = symbols.shape[1]
        flat = state.reshape(self._arrays, lanes, self.spec.hidden)
        logits, after = self._session.run(("logits", "new_state"), {"symbols": symbols, "state": flat})
        return logits, after.reshape(self.spec.layers, self.spec.parts, lanes, self.spec.hidden)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # A server idles between keys: threads that spin would take the core from the editor.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # as fast without, and memory goes back after a long read
    options.log_severity_level = 3  # errors; they come as exceptions too
    return options
