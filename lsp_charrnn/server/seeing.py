"""Seeing inside, live: what surprises the model as diagnostics, and what its neurons do as a request of our own.

Both wait behind everything else on the model thread, and look at its flag between two symbols: completions come first.
What is found is the engine's business, the gates the reference's.

`lspCharrnn/inside` takes `textDocument` and `range`, and optionally `layer`, `neuron` and `signal` (by default the
first ones). It answers with the text as the model reads it, and for each of its symbols what it cost in bits and the
likeliest next ones, all signals of the neuron, and the signal of all neurons of the layer, as bytes in steps of 1/63.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Callable
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
_ROWS: Final = 64  # symbols whose gates are computed between two looks at the flag

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
    until, answer = found
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
        }
        return str(params["textDocument"]["uri"]), types.Range(*places), wanted
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InsideError(
            f'{INSIDE} takes "textDocument", "range", and perhaps "layer", "neuron" and "signal".'
        ) from error


def _seen(
    server: Server, uri: str, start: int, end: int, wanted: dict[str, Any], cancelled: Callable[[], bool]
) -> tuple[int, dict[str, Any]] | None:
    """Return up to where the text was read, and the answer; None if it was cancelled. Model thread only."""
    found = server.session.inside(uri, start, end, cancelled=cancelled)
    if found is None:
        return None
    spec = found.model.spec
    layer, neuron, signal = wanted["layer"], wanted["neuron"], wanted["signal"]
    if not (0 <= layer < spec.layers and 0 <= neuron < spec.hidden and signal in SIGNALS[spec.cell]):
        raise InsideError(
            f"the model has {spec.layers} layers of {spec.hidden} neurons, with the signals "
            f"{', '.join(SIGNALS[spec.cell])}: ask for one of them, counted from 0."
        )
    values = _signals(server.models.weights(found.model), spec, found, layer, cancelled)
    if values is None:
        return None
    number = SIGNALS[spec.cell].index(signal)
    scale = max(1e-6, float(np.abs(values[number]).max(initial=0))) if signal == "c" else 1.0
    shades = np.rint(values[number].T / scale * LEVELS).astype(np.int8)  # [hidden, symbols]
    odds = probabilities(found.logits)
    likeliest = np.argsort(-odds[1:], axis=1, kind="stable")[:, :GUESSES]
    bits = -np.log2(odds[np.arange(len(found.symbols)), found.symbols].clip(min=1e-12))
    return int(found.ends[-1]) if len(found.ends) else start, {
        "model": {"name": found.model.name, **spec.to_json(), "signals": SIGNALS[spec.cell], "gates": sorted(GATES)},
        "symbols": found.symbols.tolist(),
        "bits": np.round(bits, 2).tolist(),
        "guesses": likeliest.tolist(),
        "chances": np.round(np.take_along_axis(odds[1:], likeliest, axis=1), 3).tolist(),
        "neuron": {
            "layer": layer,
            "neuron": neuron,
            "traces": {
                name: np.round(values[index, :, neuron], 3).tolist() for index, name in enumerate(SIGNALS[spec.cell])
            },
        },
        "layer": {
            "layer": layer,
            "signal": signal,
            "scale": scale,
            "levels": LEVELS,
            "activations": base64.b64encode(zlib.compress(shades.tobytes())).decode("ascii"),
        },
    }


def _signals(
    weights: Weights, spec: ModelSpec, found: Inside, layer: int, cancelled: Callable[[], bool]
) -> npt.NDArray[np.float32] | None:
    """Return all signals of a layer  # [signals, symbols, hidden]; None if it was cancelled.

    Hidden and cell are the stream's own. The gates are what the reference makes of the state before each symbol: every
    symbol is a lane of one step.
    """
    names = SIGNALS[spec.cell]
    values = np.empty((len(names), len(found.symbols), spec.hidden), dtype=np.float32)
    for start in range(0, len(found.symbols), _ROWS):
        if cancelled():
            return None
        rows = slice(start, min(start + _ROWS, len(found.symbols)))
        before = found.states[:, :, rows]
        _, after, gates = reference.step_with_gates(weights, spec, found.symbols[rows], before)
        values[:, rows] = reference.signals(spec, after, gates)[:, layer]
    for index, name in enumerate(names):
        if name in ("h", "c"):
            values[index] = found.states[layer, "hc".index(name), 1:]
    return values
