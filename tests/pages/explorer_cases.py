"""The explorer's page in a real headless Chromium: `make test-pages`.

Not among the tests that `make test` finds, for it needs a browser: Debian's, or the one that CHROMIUM names.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).parent.parent / "inside"))
from networks import random_network

from lsp_charrnn.engine.surprise import Token
from lsp_charrnn.inside import lab
from lsp_charrnn.inside.activations import read_all, surprise
from lsp_charrnn.inside.explore import Text, page
from lsp_charrnn.inside.learning import LabOptions
from lsp_charrnn.inside.surprise import Place, Read, surprise_page
from lsp_charrnn.inside.toys import TOYS
from lsp_charrnn.model.files import load_weights
from lsp_charrnn.model.neurons import Label
from lsp_charrnn.model.reference import SIGNALS
from lsp_charrnn.model.spec import CELLS, Cell
from lsp_charrnn.text.symbols import header

pytest_plugins = ("chromium",)  # one browser for all of them

HEAD = header("a.py")
SOURCE = "def largest(items):\n    best = items[0]  # the first 🙂\n    return best\n"
PATIENCE = 600_000  # milliseconds: the machine may be busy


class Explorer:
    """A page that is open, and all that went wrong in it."""

    def __init__(self, browser: Browser, tmp_path: Path, html: str, fragment: str = "", *, dark: bool = False) -> None:
        file = tmp_path / "page.html"
        file.write_text(html, encoding="utf-8")
        self.page: Page = browser.new_page(
            viewport={"width": 1400, "height": 900}, color_scheme="dark" if dark else "light"
        )
        self.page.set_default_timeout(PATIENCE)
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: request.url.startswith("file:") or self.wrong.append(request.url))
        self.page.goto(file.as_uri() + fragment)
        self.page.wait_for_selector("#facts:not(:empty), h1 small")

    def colour(self, at: int) -> str:
        return str(self.page.locator(f'[data-at="{at}"] b').evaluate("cell => cell.style.backgroundColor"))

    def colours(self) -> list[str]:
        return list(self.page.locator("[data-at] b").evaluate_all("cells => cells.map(c => c.style.backgroundColor)"))

    def told(self, at: int) -> dict[str, float]:
        """Return the numbers that hovering shows, by signal."""
        self.page.locator(f'[data-at="{at}"]').hover()
        rows = self.page.locator("#tip tr").evaluate_all(
            "rows => rows.map(r => [r.dataset.signal, r.cells[1].innerText])"
        )
        return {signal: float(text.replace("−", "-")) for signal, text in rows}

    def settled(self) -> str:
        """Return which neuron is shown, when all that was asked for is."""
        self.page.wait_for_timeout(200)
        self.page.wait_for_function("done === turn")
        return str(self.page.evaluate("location.hash"))


def explorer_of(browser: Browser, tmp_path: Path, text: str, fragment: str = "", cell: Cell = "lstm") -> Explorer:
    weights, spec = random_network(cell)
    labels = [Label(1, 2, "brackets", 0.81)]
    html = page(weights, spec, [Text("a.py", text.encode(), HEAD)], model="m", labels=labels)
    return Explorer(browser, tmp_path, html, fragment)


@pytest.mark.parametrize("cell", CELLS)
def test_hovering_shows_what_the_reference_computes(browser: Browser, tmp_path: Path, cell: Cell) -> None:
    weights, spec = random_network(cell)
    explorer = explorer_of(browser, tmp_path, SOURCE, "#1.4.h", cell)
    whole = read_all(weights, spec, HEAD, SOURCE.encode())
    emoji = SOURCE.index("🙂")
    for at, byte in ((0, 0), (25, 25), (emoji, len(SOURCE[: emoji + 1].encode()) - 1)):
        told = explorer.told(at)
        assert list(told) == list(SIGNALS[cell])
        for name, values in zip(SIGNALS[cell], whole.signals, strict=True):
            size = max(1.0, float(np.abs(values[1, :, 4]).max()))
            assert told[name] == pytest.approx(float(values[1, byte, 4]), abs=0.02 * size)
    explorer.page.locator('[data-at="25"]').hover()
    cost = surprise(whole.expected, SOURCE.encode())[25]
    told_cost = re.search(r"([\d.]+) bits", explorer.page.locator("#tip").inner_text())
    assert told_cost is not None
    assert float(told_cost[1]) == pytest.approx(float(cost), abs=0.02)
    assert explorer.wrong == []
    explorer.page.close()


def test_choosing_a_neuron_recolours_and_is_a_link(browser: Browser, tmp_path: Path) -> None:
    explorer = explorer_of(browser, tmp_path, SOURCE)
    assert explorer.settled() == "#1.2.h"  # the label's
    seen = {tuple(explorer.colours())}
    press = explorer.page.keyboard.press
    for key, expected in (
        ("ArrowRight", "#1.3.h"), ("l", "#0.3.h"), ("]", "#0.3.c"), ("s", "#surprise"), ("s", "#0.3.c"),
        ("ArrowLeft", "#0.2.c"), ("o", "#0.2.c"),
    ):  # fmt: skip
        press(key)
        assert explorer.settled() == expected
        seen.add(tuple(explorer.colours()))
    assert len(seen) == 6  # with s pressed twice it is as before, and o means nothing
    press("n")
    assert explorer.settled() not in ("#0.2.c", "#surprise")
    explorer.page.locator("#palette").select_option("green / blue")
    explorer.settled()
    assert tuple(explorer.colours()) not in seen
    explorer.page.evaluate("location.hash = '#0.5.g'")
    explorer.settled()
    assert explorer.page.locator("#neuron").input_value() == "5"
    explorer.page.locator("#list a").last.click()
    assert explorer.settled() != "#0.5.g"
    assert explorer.wrong == []
    explorer.page.close()


def test_the_guesses_stand_under_each_character(browser: Browser, tmp_path: Path) -> None:
    explorer = explorer_of(browser, tmp_path, SOURCE)
    assert explorer.page.locator('[data-at="3"] i').count() == 0
    explorer.page.keyboard.press("g")
    explorer.settled()
    assert explorer.page.locator('[data-at="3"] i').count() == 5
    assert explorer.page.locator('[data-at="3"] i').first.is_visible()
    explorer.page.locator('[data-at="3"]').click()
    assert explorer.wrong == []
    explorer.page.close()


def test_an_empty_file(browser: Browser, tmp_path: Path) -> None:
    explorer = explorer_of(browser, tmp_path, "")
    assert "empty" in explorer.page.locator("#text").inner_text()
    for key in ("ArrowRight", "g", "s", "t", "l", "n"):
        explorer.page.keyboard.press(key)
        explorer.settled()
    assert explorer.wrong == []
    explorer.page.close()


def test_a_large_file_says_what_was_left_out(browser: Browser, tmp_path: Path) -> None:
    weights, spec = random_network()
    text = "".join(f"name_{n % 977} = call({n}, 'ü 🙂')\r\n" for n in range(6500)).encode()
    assert len(text) > 200_000
    html = page(weights, spec, [Text("a.py", text, HEAD)], model="m", characters=8000, limit=400_000)
    explorer = Explorer(browser, tmp_path, html, "#1.0.h")
    facts = explorer.page.locator("#facts").inner_text()
    assert "characters are shown" in facts
    assert "neurons kept for all of it" in facts
    closely = explorer.page.locator("#known").inner_text()
    if closely:  # it was not kept: what lies outside the close-up says nothing
        assert explorer.page.locator('[data-at="0"]').get_attribute("class") == "c unknown"
    explorer.page.keyboard.press("n")
    explorer.settled()
    assert explorer.page.locator("#known").inner_text() == ""
    assert explorer.colour(0) != ""
    assert explorer.wrong == []
    explorer.page.close()


def test_a_file_of_200_kb_as_the_command_shows_it(browser: Browser, tmp_path: Path) -> None:
    """By the shipped model: 20,000 characters in less than 5 MB, and the page says what it left out."""
    source = tmp_path / "large.py"
    lines = "".join(
        f"def call_{n}(first, second='ü'):\n    return first + {n} * second  # {n % 7}\n" for n in range(3000)
    )
    source.write_text(lines, encoding="utf-8")
    assert source.stat().st_size > 200_000
    out = tmp_path / "out.html"
    command = [sys.executable, "-m", "lsp_charrnn", "explore", source, "--model", "python", "-o", out, "--line", "3000"]
    subprocess.run(command, check=True)
    assert out.stat().st_size < 5_000_000
    explorer = Explorer(browser, tmp_path, out.read_text(encoding="utf-8"))
    facts = explorer.page.locator("#facts").inner_text()
    assert f"of {len(lines):,} characters are shown" in facts
    assert "neurons kept for all of it" in facts
    shown = explorer.page.locator("#text").inner_text().replace("\n", "")
    assert "call_1499" in shown
    assert "call_3499" not in shown
    before = explorer.colours()
    explorer.page.keyboard.press("n")
    explorer.settled()
    assert explorer.colours() != before
    assert explorer.wrong == []
    explorer.page.close()


def test_the_page_that_the_lab_leaves(browser: Browser, tmp_path: Path) -> None:
    toy = replace(TOYS["counter"], hidden=6)
    outcome = lab.run(toy, tmp_path / "counter", LabOptions(steps=3), force=False)
    explorer = Explorer(browser, tmp_path, outcome.page.read_text(encoding="utf-8"))
    best = outcome.finding.neurons[0].number
    assert explorer.settled() == f"#0.{best}.c"
    assert explorer.page.locator("#list a").first.inner_text().startswith(f"1 · {best} ")
    weights, spec = load_weights(outcome.model)
    whole = read_all(weights, spec, header("examples.txt"), outcome.examples.read_bytes())
    told = explorer.told(2)
    for name, values in zip(SIGNALS["lstm"], whole.signals, strict=True):
        size = max(1.0, float(np.abs(values[0, :, best]).max()))
        assert told[name] == pytest.approx(float(values[0, 2, best]), abs=0.02 * size)
    before = explorer.colours()
    explorer.page.keyboard.press("ArrowRight")
    assert explorer.settled() == f"#0.{(best + 1) % 6}.c"
    assert explorer.colours() != before
    assert explorer.wrong == []
    explorer.page.close()


def test_several_files(browser: Browser, tmp_path: Path) -> None:
    weights, spec = random_network()
    texts = [Text("a.py", b"first\n", HEAD), Text("b.py", b"second\n", HEAD)]
    explorer = Explorer(browser, tmp_path, page(weights, spec, texts, model="m"), "#0.1.c@1")
    assert "second" in explorer.page.locator("#text").inner_text().replace("\n", "")
    explorer.page.locator("#document").select_option("0")
    assert explorer.settled() == "#0.1.c"
    assert "first" in explorer.page.locator("#text").inner_text().replace("\n", "")
    assert explorer.wrong == []
    explorer.page.close()


def test_the_page_of_surprise(browser: Browser, tmp_path: Path) -> None:
    place = Place("a.py", 2, 3, "<i>", "&amp", 14.0, 12.0, "a <i> b")
    tokens = (Token(3, 4, 1.0, 0.1), Token(5, 8, 14.0, 12.0))
    explorer = Explorer(browser, tmp_path, surprise_page([Read("a.py", b"\xc3\xbc\na <i> b\n", tokens, (place,))], "m"))
    odd = explorer.page.locator("span.odd")
    assert odd.inner_text() == "<i>"
    assert "expected: &amp" in str(odd.get_attribute("title"))
    assert explorer.page.locator("pre").inner_text() == "ü\na <i> b\n"
    assert explorer.wrong == []
    explorer.page.close()
