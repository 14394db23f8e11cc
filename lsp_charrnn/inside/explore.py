"""The explorer: one self-contained page that shows a text through the eyes of a network.

The page holds the text, what the model expected after each character, what each character cost in bits, and the
activations of neurons, in steps of 1/63. Two layers of 512 neurons have 6,144 numbers a character, far more than a page
can hold for a whole file. So all neurons are kept for a *close-up* of some hundred characters, and some neurons for the
whole text: those that the table of neurons names, then those that change most slowly, for these can be read by eye.
What was left out is said in the page. How it looks is `page/`'s business; what neurons track, `neurons`'.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.inside.activations import Weights, read_activations, surprise
from lsp_charrnn.model.neurons import Label
from lsp_charrnn.model.reference import GATES, SIGNALS
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import normalise

CHARACTERS: Final = 20_000  # of all texts of a page
PAGE_BYTES: Final = 4_800_000  # a page's size at most, with some room below 5 MB
LEVELS: Final = 63  # from 0 to 1; finer steps nobody sees, and a deflated byte costs more
GUESSES: Final = 5  # likeliest next symbols that are kept
LABELLED: Final = "What they track, and how well, on files that they were not found on"

_CLOSE_UP_SHARE: Final = 0.35  # of what a page may hold
_DEFLATED: Final = 0.65  # a byte of activations, deflated: some less, to choose the width of the close-up by
_LAG: Final = 8  # characters after which a slow neuron is still much the same

Bytes = npt.NDArray[np.int8]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Text:
    """A text to be shown; `head` is what the network reads before it."""

    name: str
    text: bytes
    head: bytes
    line: int | None = None  # counted from 0: what is to be seen closely; by default what lies in the middle


@dataclass(frozen=True, eq=False)
class _View:
    """What is shown of one text: characters, one after another."""

    text: Text
    first_line: int
    characters: int  # of the whole text
    shown: str
    bits: npt.NDArray[np.float64]  # [characters], a character of several bytes costs what they cost together
    guesses: npt.NDArray[np.uint8]  # [characters, GUESSES]
    chances: npt.NDArray[np.uint8]  # [characters, GUESSES], of 255
    planes: Bytes  # [signals, layers, hidden, characters]
    scales: npt.NDArray[np.float32]  # [layers, hidden], the largest size of the cell; 1 where it has none
    close_up: tuple[int, int] = (0, 0)  # characters
    kept: list[tuple[int, int]] = field(default_factory=list)  # (layer, neuron), those kept for all characters


def page(
    weights: Weights,
    spec: ModelSpec,
    texts: Sequence[Text],
    *,
    model: str,
    labels: Sequence[Label] = (),
    labelled: str = LABELLED,
    characters: int = CHARACTERS,
    limit: int = PAGE_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Return the page for `texts`: at most `characters` of them, in at most `limit` bytes.

    `labels` are shown under the heading `labelled`. `progress` is called with (characters read, characters to be read).
    """
    spans = list(_spans(texts, characters))
    total, done = sum(stop for _, stop in spans), 0
    views = []
    for text, (start, stop) in zip(texts, spans, strict=True):
        views.append(_view(weights, spec, text, start, stop))
        done += stop
        if progress is not None:
            progress(done, total)
    data = {**_data(spec, views, model, labels, limit), "labelled": labelled}
    title = ", ".join(text.name for text in texts)
    return assemble(title, data)


def assemble(title: str, data: dict[str, Any]) -> str:
    """Return the page that shows `data`: script, style and data in one HTML file, which loads nothing."""
    parts = resources.files(__package__) / "page"
    html, style, script = ((parts / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js"))
    # Within a script a `<` may end it. As an escape of JSON it is the same text.
    found = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    pieces = {"TITLE": _escaped(title), "STYLE": style, "SCRIPT": script, "DATA": found}
    for name, piece in pieces.items():
        before, after = html.split(f"%{name}%")
        html = before + piece + after
    return html


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%", "&#37;")


# --- reading ------------------------------------------------------------------------------------------------


def _spans(texts: Sequence[Text], characters: int) -> Iterator[tuple[int, int]]:
    """Yield which bytes of each text are shown; what one text does not need, those behind it may have."""
    left = characters
    for number, text in enumerate(texts):
        share = left // (len(texts) - number)
        data = normalise(text.text)
        start = 0
        if text.line is not None and len(data) > share:
            lines = data.split(b"\n")
            at = sum(len(line) + 1 for line in lines[: text.line])
            start = min(max(0, at - share // 2), len(data) - share)
            start = data.rfind(b"\n", 0, start) + 1
        stop = min(len(data), start + share)
        while stop < len(data) and data[stop] & 0xC0 == 0x80:  # a cut never leaves half a character
            stop -= 1
        yield start, stop
        left -= stop - start


def _view(weights: Weights, spec: ModelSpec, text: Text, start: int, stop: int) -> _View:
    data = normalise(text.text)
    names = SIGNALS[spec.cell]
    symbols = np.frombuffer(data[start:stop], dtype=np.uint8)
    # Each character is shown after its last byte was read.
    begins = np.flatnonzero((symbols & 0xC0) != 0x80)
    last = np.append(begins[1:], len(symbols)) - 1 if len(begins) else begins
    count = len(last)
    planes = np.empty((len(names), spec.layers, spec.hidden, count), dtype=np.int8)
    cells = np.zeros((spec.layers, spec.hidden, count if "c" in names else 0), dtype=np.float32)
    bits = np.empty(len(symbols))
    guesses = np.empty((count, GUESSES), dtype=np.uint8)
    chances = np.empty((count, GUESSES), dtype=np.uint8)
    for piece in read_activations(weights, spec, text.head, data[:stop], first=start):
        begin = piece.start - start
        end = begin + len(piece.expected)
        bits[begin:end] = surprise(piece.expected, data[piece.start : piece.start + len(piece.expected)])
        low, high = np.searchsorted(last, (begin, end))
        rows = last[low:high] - begin
        likeliest = np.argsort(-piece.following[rows], axis=1, kind="stable")[:, :GUESSES]
        guesses[low:high] = likeliest
        chances[low:high] = np.rint(255 * np.take_along_axis(piece.following[rows], likeliest, axis=1))
        for number, name in enumerate(names):
            values = piece.signals[number][:, rows].transpose(0, 2, 1)  # [layers, hidden, characters]
            if name == "c":
                cells[:, :, low:high] = values
            else:
                planes[number, :, :, low:high] = np.rint(values * LEVELS)
    scales = np.ones((spec.layers, spec.hidden), dtype=np.float32)
    if "c" in names and count:
        scales = np.maximum(np.abs(cells).max(axis=2), np.float32(1e-6))
        planes[names.index("c")] = np.rint(cells / scales[:, :, None] * LEVELS)
    return _View(
        text,
        data.count(b"\n", 0, start),
        len(data.decode("utf-8", errors="replace")),
        data[start:stop].decode("utf-8", errors="replace"),
        np.add.reduceat(bits, begins) if count else bits,
        guesses,
        chances,
        planes,
        scales,
    )


# --- choosing what fits -------------------------------------------------------------------------------------


def _data(spec: ModelSpec, views: Sequence[_View], model: str, labels: Sequence[Label], limit: int) -> dict[str, Any]:
    """Return what the page shows, as JSON data of at most about `limit` bytes."""
    documents = [_document(view) for view in views]
    left = limit - len(assemble("", {"documents": documents}).encode("utf-8"))
    every = spec.layers * spec.hidden * len(SIGNALS[spec.cell])  # bytes a character
    total = sum(len(view.shown) for view in views)
    whole = total * every * 4 / 3 < left  # all neurons for all characters
    order = _order(views, labels)
    if not whole:
        for view, document in zip(views, documents, strict=True):
            width = int(_CLOSE_UP_SHARE * left / len(views) / (every * _DEFLATED * 4 / 3))
            low, high = _around(view, width)
            document["closeUp"] = {"start": low, "end": high, "planes": _close_up(view, spec, low, high)}
        left -= sum(len(plane) + 8 for document in documents for plane in document["closeUp"]["planes"].values())
    for layer, neuron in order:
        packed = [_packed(view.planes[:, layer, neuron]) for view in views]
        left -= sum(len(one) + 16 for one in packed)
        if left < 0 and not whole:
            break
        for document, one in zip(documents, packed, strict=True):
            document["neurons"][f"{layer}.{neuron}"] = one
    return {
        "model": {"name": model, **spec.to_json(), "signals": SIGNALS[spec.cell], "gates": sorted(GATES)},
        "levels": LEVELS,
        "labels": [vars(label) for label in labels],
        "documents": documents,
    }


def _document(view: _View) -> dict[str, Any]:
    return {
        "name": view.text.name,
        "characters": view.characters,
        "firstLine": view.first_line,
        "text": view.shown,
        "crlf": b"\r" in view.text.text,
        "surprise": _packed(np.rint(view.bits * 100).clip(max=65535).astype("<u2")),
        "guesses": _packed(view.guesses),
        "chances": _packed(view.chances),
        "scales": _packed(view.scales.astype("<f4")),
        "neurons": {},
        "closeUp": None,
    }


def _order(views: Sequence[_View], labels: Sequence[Label]) -> list[tuple[int, int]]:
    """Return all neurons, those first that are to be kept before others."""
    named = [(label.layer, label.neuron) for label in labels]
    slow: npt.NDArray[np.float64] = sum(
        (_slowness(view.planes[0]) * len(view.shown) for view in views), np.zeros(views[0].planes.shape[1:3])
    )
    ranked = [divmod(int(index), slow.shape[1]) for index in np.argsort(-slow, axis=None, kind="stable")]
    return list(dict.fromkeys([*named, *ranked]))


def _slowness(hidden: Bytes) -> npt.NDArray[np.float64]:
    """Return how much each neuron is after `_LAG` characters what it was  # [layers, hidden]: a correlation."""
    slow = np.zeros(hidden.shape[:2])
    if hidden.shape[2] <= _LAG:
        return slow
    for layer, of_layer in enumerate(hidden):
        values = of_layer.astype(np.float32)
        values -= values.mean(axis=1, keepdims=True)
        spread = (values**2).mean(axis=1)
        products = (values[:, _LAG:] * values[:, :-_LAG]).mean(axis=1)
        # One that hardly moves is slow, too, and shows nothing.
        slow[layer] = products / (spread + (LEVELS / 20) ** 2)
    return slow


def _around(view: _View, width: int) -> tuple[int, int]:
    """Return the first and the last character of the close-up: whole lines, as far as they fit."""
    text = view.shown
    if view.text.line is None:
        at = len(text) // 2
    else:
        lines = text.split("\n")
        at = sum(len(line) + 1 for line in lines[: max(0, view.text.line - view.first_line)])
    low = text.rfind("\n", 0, min(at, max(0, len(text) - width))) + 1
    high = min(len(text), low + width)
    end = text.rfind("\n", low, high) + 1
    return low, end if end > low + width // 2 else high


def _close_up(view: _View, spec: ModelSpec, low: int, high: int) -> dict[str, str]:
    """Return the activations of all neurons over some characters: of each layer and signal  # [hidden, characters]."""
    return {
        f"{layer}.{name}": _packed(view.planes[number, layer, :, low:high])
        for layer in range(spec.layers)
        for number, name in enumerate(SIGNALS[spec.cell])
    }


def _packed(array: npt.NDArray[Any]) -> str:
    """Return the bytes of an array, deflated, in base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode("ascii")
