"""The page of VS Code's explorer in a real headless Chromium, with what a server says: `make test-pages`.

What VS Code has to do with it is tried in VS Code itself: `make test-editors-vscode`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).parent.parent / "server"))
from wire import URI, Wire

from lsp_charrnn.config import Settings
from lsp_charrnn.model.neurons import Label
from lsp_charrnn.server.app import Server
from lsp_charrnn.server.models import Models
from lsp_charrnn.server.worker import Worker

pytest_plugins = ("chromium",)  # one browser for all of them

ROOT = Path(__file__).parents[2]
MEDIA = ROOT / "editors" / "vscode" / "media"
PICTURES = ROOT / "build" / "pages"
SOURCE = '''import json


class Store:
    """Keeps items in a file: ü, 🙂."""

    def __init__(self, path):
        self.path = path  # where they are
        self.items = {}

    def load(self):
        with open(self.path) as file:
            self.items = json.load('''
CURSOR = {"line": SOURCE.count("\n"), "character": len(SOURCE.rpartition("\n")[2])}
LABELS = [Label(1, 5, "bracket depth", 0.81, "c"), Label(0, 9, "inside string", 0.74)]
# What VS Code sets, as far as the page uses it: its themes Dark Modern and Light Modern.
THEMES = {
    "dark": {
        "--vscode-editor-background": "#1f1f1f", "--vscode-foreground": "#cccccc",
        "--vscode-descriptionForeground": "#9d9d9d", "--vscode-input-background": "#313131",
        "--vscode-input-foreground": "#cccccc", "--vscode-button-background": "#0078d4",
        "--vscode-button-foreground": "#ffffff", "--vscode-editorLineNumber-foreground": "#6e7681",
        "--vscode-editorCursor-foreground": "#aeafad",
    },
    "light": {
        "--vscode-editor-background": "#ffffff", "--vscode-foreground": "#3b3b3b",
        "--vscode-descriptionForeground": "#3b3b3b", "--vscode-input-background": "#ffffff",
        "--vscode-input-foreground": "#3b3b3b", "--vscode-button-background": "#005fb8",
        "--vscode-button-foreground": "#ffffff", "--vscode-editorLineNumber-foreground": "#6e7681",
        "--vscode-editorCursor-foreground": "#005fb8",
    },
}  # fmt: skip


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


async def inside(text: str, wish: dict[str, Any]) -> dict[str, Any]:
    """Return what a server says of `text`, or what is wrong with the wish."""
    worker = Worker()
    server = Server(worker, Models(), defaults=Settings())
    wire = Wire(server)
    server.protocol.set_writer(wire)
    try:
        await wire.ask("initialize", {"processId": None, "rootUri": "file:///project", "capabilities": {}})
        wire.notify("initialized", {})
        wire.open(text)
        lines = text.split("\n")
        whole = {"start": {"line": 0, "character": 0}, "end": {"line": len(lines) - 1, "character": len(lines[-1])}}
        message = wire.request("lspCharrnn/inside", {"textDocument": {"uri": URI}, "range": whole, **wish})
        wire.receive(message)
        answer = await asyncio.wait_for(wire.expect(message["id"]), 300)
        return answer["result"] if "result" in answer else {"problem": answer["error"]["message"]}
    finally:
        server.close()
        assert worker.close()


class Panel:
    """The page, and the extension that it talks to."""

    def __init__(self, browser: Browser, tmp_path: Path, text: str, theme: str = "dark") -> None:
        html = (MEDIA / "panel.html").read_text(encoding="utf-8").replace("NONCE", "n0nce")
        file = tmp_path / "panel.html"
        file.write_text(html.replace("SCRIPT", (MEDIA / "panel.js").read_text(encoding="utf-8")), encoding="utf-8")
        self.text = text
        self.answer: dict[str, Any] = {}
        self.wrong: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": 640, "height": 900})
        self.page.set_default_timeout(600_000)
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: request.url.startswith("file:") or self.wrong.append(request.url))
        self.page.add_init_script(
            """window.wishes = []; window.kept = undefined;
            window.acquireVsCodeApi = () => ({
              postMessage: (wish) => window.wishes.push(wish),
              getState: () => window.kept,
              setState: (state) => { window.kept = state; },
            });"""
        )
        self.page.goto(file.as_uri())
        colours = THEMES[theme] | {"color": "var(--vscode-foreground)", "background": "var(--vscode-editor-background)"}
        self.page.evaluate(
            "all => Object.entries(all).forEach(([n, v]) => document.documentElement.style.setProperty(n, v))",
            colours | {"font": "13px system-ui"},
        )
        self.answered()

    def answered(self, **status: Any) -> None:
        """Answer what the page has asked for, until it asks for nothing any more."""
        while wishes := self.page.evaluate("wishes.splice(0)"):
            with ThreadPoolExecutor(1) as thread:  # playwright has a loop of its own
                self.answer = thread.submit(asyncio.run, inside(self.text, wishes[-1])).result()
            self.seen(self.answer, **status)

    def seen(self, answer: dict[str, Any] | None, cursor: dict[str, int] = CURSOR, **status: Any) -> None:
        """Tell the page what was seen."""
        now = {"models": [], "projects": [], "refined": True, "settled": True, "remembered": True, **status}
        seen = {"status": now, "inside": answer, "path": "src/a.py", "language": "python", "cursor": cursor}
        self.page.evaluate("seen => window.postMessage(seen, '*')", seen)
        self.page.wait_for_timeout(100)

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.answered()

    @property
    def shown(self) -> str:
        cells = self.page.locator("#text [data-at]").all_text_contents()
        return "".join("\n" if cell == "↵" else cell for cell in cells)

    @property
    def colours(self) -> list[str]:
        return list(
            self.page.locator("#text [data-at]").evaluate_all("cells => cells.map(c => c.style.backgroundColor)")
        )

    @property
    def chosen(self) -> tuple[int, int, str]:
        pressed = self.page.locator("button[aria-pressed=true]").first.inner_text()
        return int(self.page.locator("#layer").input_value()), int(self.page.locator("#neuron").input_value()), pressed

    def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")


@pytest.fixture(autouse=True)
def _labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models, "labels", lambda self, model: LABELS)


def test_the_panel_shows_what_the_server_says(browser: Browser, tmp_path: Path) -> None:
    panel = Panel(browser, tmp_path, SOURCE)
    assert panel.chosen == (1, 5, "c")  # the first that means something
    assert panel.shown == SOURCE
    guesses = np.frombuffer(base64.b64decode(panel.answer["guesses"]), dtype=np.uint8).reshape(-1, 5)
    chances = floats(panel.answer["chances"]).reshape(-1, 5)
    shares = panel.page.locator("#expected .share").all_text_contents()
    assert [float(share.rstrip(" %")) for share in shares] == pytest.approx(list(100 * chances[-1]), abs=0.06)
    symbols = panel.page.locator("#expected code").all_text_contents()
    names = {0x0A: "↵", 0x20: "␣", 0x09: "⇥"}
    assert symbols == [names.get(byte, chr(byte) if byte < 0x7F else f"{byte:x}") for byte in guesses[-1]]

    at = SOURCE.index("🙂")
    byte = len(SOURCE[: at + 1].encode()) - 1
    panel.page.locator(f'[data-at="{at}"]').hover()
    told = str(panel.page.locator("#told").text_content()).replace("−", "-")
    assert told.startswith("🙂  line 5, column 34: ")
    bits = floats(panel.answer["bits"])[byte - 3 : byte + 1].sum()
    assert float(re.findall(r"([\d.]+) bits", told)[0]) == pytest.approx(bits, abs=0.006)
    for name, values in panel.answer["neuron"]["traces"].items():
        found = re.search(rf"  {name} (-?[\d.]+)", told)
        assert found is not None
        assert float(found[1]) == pytest.approx(floats(values)[byte], abs=0.006)
    panel.picture("panel-dark")
    assert panel.wrong == []
    panel.page.close()


def test_what_is_chosen_recolours(browser: Browser, tmp_path: Path) -> None:
    panel = Panel(browser, tmp_path, SOURCE, "light")
    seen = [panel.colours]
    for key, chosen in (
        ("ArrowRight", (1, 6, "c")), ("]", (1, 6, "i")), ("l", (0, 6, "i")), ("n", (1, 5, "c")), ("n", (0, 9, "h")),
        ("s", (0, 9, "surprise")),
    ):  # fmt: skip
        panel.press(key)
        assert panel.chosen == chosen
        assert panel.colours != seen[-1]
        seen.append(panel.colours)
    assert seen[4] == seen[0]
    panel.picture("panel-surprise-light")
    panel.press("s")
    panel.page.locator("#neuron").fill("77")
    panel.page.locator("#neuron").press("Enter")
    panel.answered()
    assert panel.chosen == (0, 77, "h")
    panel.page.locator("#list").select_option(label="bracket depth 0.81 (2 · 5)")
    panel.answered()
    assert panel.colours == seen[0]
    panel.page.locator("#by-f").click()
    panel.answered()
    assert panel.chosen == (1, 5, "f")
    panel.picture("panel-light")
    assert json.loads(panel.page.evaluate("JSON.stringify(kept)")) == {
        "wish": {"layer": 1, "neuron": 5, "signal": "f"},
        "surprise": False,
    }
    assert panel.wrong == []
    panel.page.close()


def test_the_cursor_moves_and_documents_change(browser: Browser, tmp_path: Path) -> None:
    panel = Panel(browser, tmp_path, SOURCE)
    expected = panel.page.locator("#expected")
    last = expected.inner_text()
    panel.seen(panel.answer, {"line": 0, "character": 0})
    assert expected.inner_text() != last
    assert panel.page.locator(".before").count() == 0
    panel.seen(panel.answer, {"line": 3, "character": 5})
    assert str(panel.page.locator(".before").text_content()) == "s"
    panel.seen(panel.answer, {"line": 90, "character": 0})
    assert "out of sight" in expected.inner_text()
    panel.seen(None)  # overtaken by an edit: what was seen stays until the next answer
    assert panel.shown == SOURCE
    panel.seen(None, off="disabledLanguages has python")
    assert panel.page.locator("#text").count() == 0
    assert "off: disabledLanguages has python" in panel.page.locator("body").inner_text()
    panel.seen({"problem": "the model has 1 layers"})
    assert panel.page.evaluate("wishes.splice(0)") == [{"layer": 0, "neuron": 0, "signal": "h"}]
    panel.seen({"problem": "the model has 1 layers"})
    assert "1 layers" in panel.page.locator(".problem").inner_text()
    assert panel.page.evaluate("wishes.length") == 0
    panel.page.evaluate("window.postMessage({ empty: 'Open a file' }, '*')")
    panel.page.wait_for_timeout(100)
    assert panel.page.locator("body").inner_text() == "Open a file"
    assert panel.wrong == []
    panel.page.close()


def test_an_empty_document(browser: Browser, tmp_path: Path) -> None:
    panel = Panel(browser, tmp_path, "")
    panel.seen(panel.answer, {"line": 0, "character": 0})
    assert panel.shown == ""
    assert panel.page.locator("#expected tr").count() == 5
    panel.press("ArrowRight")
    assert panel.wrong == []
    panel.page.close()
