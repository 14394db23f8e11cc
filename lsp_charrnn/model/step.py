"""The fast path: one network in ONNX Runtime, which steps 1 to N lanes and reads many symbols at once.

State is a value: it is passed in and returned, never kept, so that two documents can never disturb each other
and one `Model` serves them all. Files, hashes and finding a model are left to model.files; sampling to the
engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.runtime import ort
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import VOCABULARY

State = npt.NDArray[np.float32]  # [layers, parts, lanes, hidden], C-contiguous
Logits = npt.NDArray[np.float32]
Symbols = npt.NDArray[np.int64]
_Shape = tuple[str | int, ...]

# `read` goes through long texts in pieces of so many rows (time * lanes): the gates of a piece stay in the
# cache, and memory is bounded, where 16 lanes of 1,000 steps at once would take 130 MB.
_PIECE_ROWS: Final = 128

# Buffers for steps in so many lanes or fewer are kept, 17 kB a lane; more lanes than that step seldom.
_KEPT_LANES: Final = 16


class Model:
    """A network, loaded and ready. Calls on one model may come from several threads."""

    def __init__(
        self,
        graph: bytes,
        spec: ModelSpec,
        *,
        step_graph: bytes | None = None,
        name: str = "",
        config: dict[str, Any] | None = None,
        size_bytes: int = 0,
        threads: int = 1,
    ) -> None:
        """Load a serialised ONNX graph that reads, and steps too where there is no `step_graph` for that.

        Raises `ModelError` where one is none, or not one of `spec`.
        """
        self.spec = spec
        self.name = name
        self.config = config if config is not None else {}
        self.size_bytes = size_bytes  # of the weights that every step reads
        self.threads = threads
        self._arrays = spec.layers * spec.parts
        self._session = _load(graph, threads)
        state: _Shape = (self._arrays, "lanes", spec.hidden)
        _check_ends(
            self._session,
            {"symbols": ("time", "lanes"), "first": (1,), "state": state},
            {"logits": ("wanted", "lanes", VOCABULARY), "new_state": state},
        )
        self._stepper = _Stepper(step_graph, spec, threads) if step_graph is not None else None

    def initial_state(self, lanes: int = 1) -> State:
        """Return the state before the first symbol: zeros.  # [layers, parts, lanes, hidden]"""
        return np.zeros((self.spec.layers, self.spec.parts, lanes, self.spec.hidden), dtype=np.float32)

    def step(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        """Read one symbol in each lane; return the logits of the next [lanes, 256], and the new state."""
        if self._stepper is not None:
            return self._stepper.step(symbols, state)
        logits, after = self._run(symbols[None, :], state, 0)
        return logits[0], after

    def read(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        """Read `symbols` [time, lanes], time >= 1; return the logits after each [time, lanes, 256], and the state.

        What a lane gives hangs neither on the other lanes nor on how a text is cut into calls, to the bit in int8.
        In float32 it is the same as so many steps; in int8 the two round in another order, and differ by less than
        int8 differs from float32.
        """
        time, lanes = symbols.shape
        piece = max(1, _PIECE_ROWS // lanes)
        if time <= piece:
            return self._run(symbols, state, 0)
        logits = np.empty((time, lanes, VOCABULARY), dtype=np.float32)
        for start in range(0, time, piece):
            logits[start : start + piece], state = self._run(symbols[start : start + piece], state, 0)
        return logits, state

    def advance(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        """Read `symbols` [time, lanes], time >= 1; return the logits after the last [lanes, 256], and the state.

        It is `read` without the logits before the last, which are not computed.
        """
        time, lanes = symbols.shape
        piece = max(1, _PIECE_ROWS // lanes)
        for start in range(0, time, piece):
            part = symbols[start : start + piece]
            logits, state = self._run(part, state, len(part) - 1)
        return logits[0], state

    def _run(self, symbols: Symbols, state: State, first: int) -> tuple[Logits, State]:
        lanes = symbols.shape[1]
        flat = state.reshape(self._arrays, lanes, self.spec.hidden)
        feeds = {"symbols": symbols, "first": np.array([first]), "state": flat}
        logits, after = self._session.run(("logits", "new_state"), feeds)
        return logits, after.reshape(self.spec.layers, self.spec.parts, lanes, self.spec.hidden)


class _Bound:
    """Buffers for so many lanes, which ONNX Runtime reads and writes directly: that saves a tenth of a step."""

    def __init__(self, session: ort.InferenceSession, spec: ModelSpec, lanes: int) -> None:
        shape = spec.layers, spec.parts, lanes, spec.hidden
        self.symbols = np.zeros(lanes, dtype=np.int64)
        self.state = np.zeros(shape, dtype=np.float32)
        self.logits = np.zeros((lanes, VOCABULARY), dtype=np.float32)
        self.new_state = np.zeros(shape, dtype=np.float32)
        self.binding = session.io_binding()
        self.binding.bind_ortvalue_input("symbols", _shared(self.symbols))
        self.binding.bind_ortvalue_output("logits", _shared(self.logits))
        for at in range(spec.layers * spec.parts):
            where = divmod(at, spec.parts)
            self.binding.bind_ortvalue_input(f"state.{at}", _shared(self.state[where]))
            self.binding.bind_ortvalue_output(f"new_state.{at}", _shared(self.new_state[where]))


class _Stepper:
    """The graph that steps, and the buffers bound to it. Steps in several threads take buffers of their own."""

    def __init__(self, graph: bytes, spec: ModelSpec, threads: int) -> None:
        self._spec = spec
        self._session = _load(graph, threads)
        part: _Shape = ("lanes", spec.hidden)
        arrays = range(spec.layers * spec.parts)
        _check_ends(
            self._session,
            {"symbols": ("lanes",)} | {f"state.{at}": part for at in arrays},
            {"logits": ("lanes", VOCABULARY)} | {f"new_state.{at}": part for at in arrays},
        )
        self._free: dict[int, list[_Bound]] = {}  # by lanes; not in use now

    def step(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        lanes = len(symbols)
        free = self._free.setdefault(lanes, [])
        try:
            bound = free.pop()
        except IndexError:
            bound = _Bound(self._session, self._spec, lanes)
        if state.shape != bound.state.shape:
            raise ValueError(f"a state of shape {state.shape} is none for {lanes} lanes")
        bound.symbols[:] = symbols
        bound.state[:] = state
        self._session.run_with_iobinding(bound.binding)
        result = bound.logits.copy(), bound.new_state.copy()
        if lanes <= _KEPT_LANES:
            free.append(bound)
        return result


def _shared(array: npt.NDArray[Any]) -> ort.OrtValue:
    """Return the array as ONNX Runtime sees it; both share its memory."""
    return ort.OrtValue.ortvalue_from_numpy(array)


def _load(graph: bytes, threads: int) -> ort.InferenceSession:
    try:
        session = ort.InferenceSession(graph, _options(threads), providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"ONNX Runtime {ort.__version__} refuses the graph ({reason}): re-export the model."
        ) from error
    session._model_bytes = None  # kept for a change to other providers, which never comes: as large as the model
    return session


def _check_ends(session: ort.InferenceSession, inputs: Mapping[str, _Shape], outputs: Mapping[str, _Shape]) -> None:
    """Raise `ModelError` unless the graph's inputs and outputs have these names and shapes."""
    found = [
        {value.name: tuple(value.shape) for value in ends} for ends in (session.get_inputs(), session.get_outputs())
    ]
    if found != [inputs, outputs]:
        raise ModelError("the graph's inputs and outputs are not those of its spec: re-export the model.")


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
