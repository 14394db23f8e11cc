"""The explorer's page holds what the reference computes, fits into its limit, and says what it left out."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

import numpy as np
import pytest
from networks import random_network

from lsp_charrnn.inside.activations import read_all, surprise
from lsp_charrnn.inside.explore import GUESSES, LEVELS, Text, page
from lsp_charrnn.model.neurons import Label
from lsp_charrnn.model.reference import SIGNALS
from lsp_charrnn.model.spec import CELLS, Cell
from lsp_charrnn.text.symbols import header, normalise

HEAD = header("a.py")
SOURCE = "def f(x):\n    return x + 1  # ü 🙂\n"


def shown(
    *texts: str | bytes, cell: Cell = "lstm", line: int | None = None, **options: Any
) -> tuple[dict[str, Any], str]:
    """Return the data in the page of some texts, and the page."""
    weights, spec = random_network(cell)
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    html = page(
        weights, spec, [Text(f"{n}.py", text, HEAD, line) for n, text in enumerate(encoded)], model="m", **options
    )
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1]), html


def unpacked(text: str, kind: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=kind)


@pytest.mark.parametrize("cell", CELLS)
def test_what_a_page_holds_is_what_the_reference_computes(cell: Cell) -> None:
    data, _ = shown(SOURCE, cell=cell)
    (document,) = data["documents"]
    weights, spec = random_network(cell)
    text = SOURCE.encode()
    whole = read_all(weights, spec, HEAD, text)
    last = [len(SOURCE[: n + 1].encode()) - 1 for n in range(len(SOURCE))]  # a character's last byte
    assert (document["text"], document["characters"], document["closeUp"]) == (SOURCE, len(SOURCE), None)
    assert len(document["neurons"]) == spec.layers * spec.hidden
    scales = unpacked(document["scales"], "<f4").reshape(spec.layers, spec.hidden)
    for key, packed in document["neurons"].items():
        layer, neuron = map(int, key.split("."))
        rows = unpacked(packed, "i1").reshape(len(SIGNALS[cell]), -1)
        for name, row, signal in zip(SIGNALS[cell], rows, whole.signals, strict=True):
            scale = scales[layer, neuron] if name == "c" else 1
            np.testing.assert_allclose(row / LEVELS * scale, signal[layer, last, neuron], atol=scale * 0.51 / LEVELS)
    costs = np.add.reduceat(surprise(whole.expected, text), [0, *(end + 1 for end in last[:-1])])
    np.testing.assert_allclose(unpacked(document["surprise"], "<u2") / 100, costs, atol=0.01)
    chances = unpacked(document["chances"], "u1").reshape(-1, GUESSES)
    guesses = unpacked(document["guesses"], "u1").reshape(-1, GUESSES)
    np.testing.assert_allclose(chances[:, 0] / 255, whole.following[last].max(axis=1), atol=0.003)
    assert (guesses[:, 0] == whole.following[last].argmax(axis=1)).all()


def test_an_empty_file_has_a_page() -> None:
    data, _ = shown("")
    assert data["documents"][0]["text"] == ""


def test_line_ends_are_read_as_the_model_reads_them() -> None:
    data, _ = shown("a\r\nb\rc\n")
    assert data["documents"][0]["text"] == "a\nb\nc\n"
    assert data["documents"][0]["crlf"]


def test_a_page_keeps_what_fits_and_all_neurons_closely() -> None:
    text = "".join(f"name_{n} = call({n})\n" for n in range(120))
    labels = [Label(1, 3, "brackets", 0.9)]
    data, whole = shown(text)
    limit = len(whole) - 9000
    data, html = shown(text, limit=limit, labels=labels)
    (document,) = data["documents"]
    assert len(html) <= limit + 200  # the label
    assert 0 < len(document["neurons"]) < 12
    assert next(iter(document["neurons"])) == "1.3"
    close_up = document["closeUp"]
    assert document["text"][close_up["start"] - 1] == document["text"][close_up["end"] - 1] == "\n"  # whole lines
    planes = {name: unpacked(packed, "i1").reshape(6, -1) for name, packed in close_up["planes"].items()}
    rows = unpacked(document["neurons"]["1.3"], "i1").reshape(6, -1)
    for name, row in zip(SIGNALS["lstm"], rows, strict=True):
        np.testing.assert_array_equal(planes[f"1.{name}"][3], row[close_up["start"] : close_up["end"]])


def test_of_a_long_file_a_part_is_shown_around_the_line_that_is_asked_for() -> None:
    text = "".join(f"x{n}\n" for n in range(500))
    (document,) = shown(text, characters=200)[0]["documents"]
    assert (document["characters"], document["text"]) == (len(text), text[:200])
    (document,) = shown(text, characters=200, line=300)[0]["documents"]
    assert "\nx300\n" in document["text"]
    assert document["text"].startswith(f"x{document['firstLine']}\n")


def test_texts_share_the_room() -> None:
    first, second = shown("a\n", "b\n" * 200, characters=102)[0]["documents"]
    assert (len(first["text"]), len(second["text"])) == (2, 100)


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>\n", "%DATA% %SCRIPT%\n", "<!--\n", "\x00\x0c\u2028\n"]
)
def test_no_text_breaks_the_page(text: str) -> None:
    data, html = shown(text)
    assert data["documents"][0]["text"] == normalise(text.encode()).decode()
    assert html.count("</script>") == 2


def test_the_page_loads_nothing() -> None:
    _, html = shown(SOURCE)
    assert "http" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in html
