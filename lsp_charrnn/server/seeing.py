"""Seeing inside, live: what surprises the model as diagnostics, and what its neurons do as a request of our own.

Both wait behind everything else on the model thread, and look at its flag between two symbols: completions come first.
What is found is the engine's business, the gates the reference's.

`lspCharrnn/inside` takes `textDocument` and `range`, and optionally `layer`, `neuron` and `signal` (by default the
first ones). It answers with the text as the model reads it; for each of its symbols what it cost in bits, and all
signals of the neuron; before each and behind the last the likeliest ones; and the neurons that are known to track
something. With `all` it adds the signal of all neurons of the layer, in steps of 1/63. Arrays are bytes or
little-endian float32, in base64: to write thousands of numbers as JSON would keep Python from everything else for
milliseconds.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from lsprotocol import types

from lsp_charrnn.engine.mixer import probabilities
from lsp_charrnn.engine.session import Inside, Oddities
from lsp_charrnn.errors import UserError
from lsp_charrnn.model import reference
from lsp_charrnn.model.reference import GATES, SIGNALS
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.server.structure import position
from lsp_charrnn.server.worker import Priority

if TYPE_CHECKING:
    from lsp_charrnn.server.app import Server

INSIDE: Final = "lspCharrnn/inside"
LEVELS: Final = 63  # as in the explorer's page
GUESSES: Final = 5
# What is done between two looks at the flag, some tenths of a millisecond: of so many symbols what is expected, and the
# gates of so many neurons (at a symbol each).
_ROWS: Final = 16
_GATES: Final = 8192

Weights = dict[str, npt.NDArray[np.float32]]


class InsideError(UserError):
    """A request names a neuron, layer or signal that the model does not have, or is malformed."""


def diagnostics(server: Server, found: Oddities, uri: str) -> list[types.Diagnostic]:
    """Return what is unlikely in a document as hints; none if it is another text by now."""
    document = server.documents.find(uri)
    if document is None or document.text is not found.document:
        return []
    return [
        types.Diagnostic(
            range=server.documents.range(document, odd.start, odd.end),
            message=f"far less likely here than what is around it ({odd.bits:.0f} bits)"
            + (f"; expected: {odd.instead}" if odd.instead else ""),
            severity=types.DiagnosticSeverity.Hint,
            code="surprise",
            source="lsp-charrnn",
        )
        for odd in found.found
    ]


async def inside(server: Server, params: Any) -> dict[str, Any] | None:
    """Answer `lspCharrnn/inside`; None for a document that is not completed, and for what an edit has overtaken.

    Raises `InsideError`, `DocumentNotOpenError` and `ModelError`.
    """
    uri, span, wanted = _arguments(params)
    document = server.documents.get(uri)
    start, end = (server.documents.offset(document, place) for place in (span.start, span.end))
    job = server.on_model(
        Priority.PREFILL,
        "inside",
        uri,
        lambda cancelled: _seen(server, uri, start, end, wanted, cancelled),
    )
    if job is None:
        return None
    try:
        found = await asyncio.wrap_future(job.future)
    except asyncio.CancelledError:
        job.cancel()
        raise
    if found is None or server.documents.find(uri) is not document:
        return None
    until, answer, shades = found
    if shades is not None:  # deflated where nothing waits for it
        data = await asyncio.to_thread(zlib.compress, shades.tobytes(), 1)
        answer["all"]["activations"] = base64.b64encode(data).decode("ascii")
    read = server.documents.range(document, start, until)
    return {
        "version": document.text.version,
        "range": {
            "start": {"line": read.start.line, "character": read.start.character},
            "end": {"line": read.end.line, "character": read.end.character},
        },
        **answer,
    }


def _arguments(params: Any) -> tuple[str, types.Range, dict[str, Any]]:
    """Return URI, range and what else was asked for. Raises `InsideError`."""
    try:
        places = [position(params["range"][end]) for end in ("start", "end")]
        wanted = {
            "layer": int(params.get("layer", 0)),
            "neuron": int(params.get("neuron", 0)),
            "signal": str(params.get("signal", "h")),
            "all": params.get("all", False) is True,
        }
        return str(params["textDocument"]["uri"]), types.Range(*places), wanted
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InsideError(
            f'{INSIDE} takes "textDocument", "range", and perhaps "layer", "neuron", "signal" and "all".'
        ) from error


def _seen(
    server: Server, uri: str, start: int, end: int, wanted: dict[str, Any], cancelled: Callable[[], bool]
) -> tuple[int, dict[str, Any], npt.NDArray[np.int8] | None] | None:
    """Return up to where the text was read, the answer, and the shades of all neurons if they are wanted.

    None if it was cancelled. Model thread only.
    """
    found = server.session.inside(uri, start, end, cancelled=cancelled)
    if found is None:
        return None
    spec, names = found.model.spec, SIGNALS[found.model.spec.cell]
    layer, neuron, signal = wanted["layer"], wanted["neuron"], wanted["signal"]
    if not (0 <= layer < spec.layers and 0 <= neuron < spec.hidden and signal in names):
        raise InsideError(
            f"the model has {spec.layers} layers of {spec.hidden} neurons, with the signals {', '.join(names)}: "
            "ask for one of them, counted from 0."
        )
    weights = server.models.weights(found.model)
    traces = _signals(weights, spec, found, layer, slice(neuron, neuron + 1), names, cancelled)
    every = _signals(weights, spec, found, layer, slice(None), (signal,), cancelled) if wanted["all"] else {}
    expected = _expected(found, cancelled)
    if traces is None or every is None or expected is None:
        return None
    bits, guesses, chances = expected
    answer: dict[str, Any] = {
        "model": {"name": found.model.name, **spec.to_json(), "signals": names, "gates": sorted(GATES)},
        "labels": [vars(label) for label in server.models.labels(found.model)],
        "symbols": _bytes(found.symbols),
        "bits": _floats(bits),
        "guesses": _bytes(guesses),
        "chances": _floats(chances),
        "neuron": {
            "layer": layer,
            "neuron": neuron,
            "traces": {name: _floats(values) for name, values in traces.items()},
        },
    }
    shades = None
    if wanted["all"]:
        values = every[signal]
        scale = max(1e-6, float(np.abs(values).max(initial=0))) if signal == "c" else 1.0
        shades = np.rint(values.T / scale * LEVELS).astype(np.int8)  # [hidden, symbols]
        answer["all"] = {"layer": layer, "signal": signal, "scale": scale, "levels": LEVELS}
    return int(found.ends[-1]) if len(found.ends) else start, answer, shades


def _expected(
    found: Inside, cancelled: Callable[[], bool]
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.int64], npt.NDArray[np.floating[Any]]] | None:
    """Return what each symbol cost in bits; the likeliest before each and behind the last, and their probabilities.

    # [symbols], [symbols + 1, GUESSES], [symbols + 1, GUESSES]; None if it was cancelled
    """
    count = len(found.symbols)
    bits, chances = np.empty(count), np.empty((count + 1, GUESSES))
    guesses = np.empty((count + 1, GUESSES), dtype=np.int64)
    for start in range(0, count + 1, _ROWS):
        if cancelled():
            return None
        part = slice(start, min(start + _ROWS, count + 1))
        odds = probabilities(found.logits[part])
        guesses[part] = np.argsort(-odds, axis=1, kind="stable")[:, :GUESSES]
        chances[part] = np.take_along_axis(odds, guesses[part], axis=1)
        came = found.symbols[part]  # one fewer at the end
        bits[part] = -np.log2(odds[np.arange(len(came)), came].clip(min=1e-12))
    return bits, guesses, chances


def _signals(
    weights: Weights,
    spec: ModelSpec,
    found: Inside,
    layer: int,
    neurons: slice,
    names: Sequence[str],
    cancelled: Callable[[], bool],
) -> dict[str, npt.NDArray[np.float32]] | None:
    """Return signals of some neurons of a layer, each [symbols, neurons]; None if it was cancelled.

    Hidden and cell are the stream's own. The gates are what the reference makes of the state before each symbol: every
    symbol is a lane of one step. (A gate hangs on no more than what the layer reads and its state, so it takes the
    rows of these neurons alone.)
    """
    states = found.states
    values = {name: states[layer, "hc".index(name), 1:, neurons] for name in names if name in ("h", "c")}
    if len(values) == len(names):
        return values
    rows: dict[str, list[reference.Array]] = {name: [] for name in names if name not in values}
    width = len(range(spec.hidden)[neurons])
    piece = max(1, _GATES // width)
    for start in range(0, len(found.symbols), piece):
        if cancelled():
            return None
        part = slice(start, min(start + piece, len(found.symbols)))
        below = weights["embedding.weight"][found.symbols[part]] if layer == 0 else states[layer - 1, 0, 1:][part]
        gates = reference.neurons_gates(weights, spec, layer, neurons, below, states[layer, :, part])
        for name, one in rows.items():
            one.append(gates[name])
    empty = np.empty((0, width), dtype=np.float32)
    values |= {name: np.concatenate([empty, *one]) for name, one in rows.items()}
    return {name: values[name] for name in names}


def _bytes(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode("ascii")


def _floats(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")
