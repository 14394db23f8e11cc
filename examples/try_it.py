"""Type a few lines into inventory.py through the real server, and show the ghost text after each key: `make try`.

This is what an editor does: start `lsp-charrnn serve`, open the file, send each key as a change, ask, draw.
It is also the shortest complete client of the server, about forty lines of protocol.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

from lsprotocol import types as lsp
from pygls.lsp.client import LanguageClient
from rich.console import Console
from rich.text import Text

FILE = Path(__file__).with_name("inventory.py")
TYPED = """    def load(self) -> None:
        if not self.path.exists():
            return
        data = json.loads(self.path.read_text(encoding="utf-8"))
        for item in data:
            self.add(item["name"], item["quantity"])
"""
console = Console(highlight=False)
WIDTH = max(48, console.width * 5 // 8)  # of the line with its ghost text


class Editor:
    """A document that is typed into, as the server sees it."""

    def __init__(self, client: LanguageClient, uri: str, text: str) -> None:
        self.client, self.uri, self.version = client, uri, 1
        self.line, self.column = text.count("\n"), len(text.rpartition("\n")[2])
        item = lsp.TextDocumentItem(uri, "python", self.version, text)
        client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))

    def type(self, text: str) -> None:
        """Insert `text` at the cursor."""
        self.version += 1
        here = lsp.Position(self.line, self.column)
        change = lsp.TextDocumentContentChangePartial(lsp.Range(here, here), text)
        document = lsp.VersionedTextDocumentIdentifier(self.version, self.uri)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(document, [change]))
        _, newline, after = text.rpartition("\n")
        self.line += text.count("\n")
        self.column = len(after) if newline else self.column + len(text)

    async def ask(self, kind: lsp.InlineCompletionTriggerKind) -> list[str]:
        """Return the suggestions at the cursor."""
        params = lsp.InlineCompletionParams(
            lsp.InlineCompletionContext(kind),
            lsp.TextDocumentIdentifier(self.uri),
            lsp.Position(self.line, self.column),
        )
        answer = await self.client.text_document_inline_completion_async(params)
        items = answer.items if isinstance(answer, lsp.InlineCompletionList) else answer or []
        return [self._ghost_text(item) for item in items]

    def _ghost_text(self, item: lsp.InlineCompletionItem) -> str:
        """Return what is drawn at the cursor: an item may begin with the word that is there already."""
        text = item.insert_text if isinstance(item.insert_text, str) else item.insert_text.value
        return text[self.column - item.range.start.character :] if item.range is not None else text


async def main() -> None:
    """Start the server, type, show."""
    client = LanguageClient("try-it", "1")
    began = time.perf_counter()
    await client.start_io(sys.executable, "-m", "lsp_charrnn", "serve")
    client.feature(lsp.WINDOW_SHOW_MESSAGE)(lambda params: console.print(f"[yellow]{params.message}[/]"))
    await client.initialize_async(
        lsp.InitializeParams(
            capabilities=lsp.ClientCapabilities(
                general=lsp.GeneralClientCapabilities(position_encodings=[lsp.PositionEncodingKind.Utf32]),
                text_document=lsp.TextDocumentClientCapabilities(
                    inline_completion=lsp.InlineCompletionClientCapabilities()
                ),
            ),
            workspace_folders=[lsp.WorkspaceFolder(FILE.parent.as_uri(), "examples")],
        )
    )
    client.initialized(lsp.InitializedParams())
    editor = Editor(client, FILE.as_uri(), FILE.read_text(encoding="utf-8"))
    first = await editor.ask(lsp.InlineCompletionTriggerKind.Automatic)
    console.print(f"Server started, model loaded, {FILE.name} read: {time.perf_counter() - began:.2f} s\n")
    heading = "key    ms   what the editor shows".ljust(WIDTH + 2) + "other candidates"
    console.print(f"[dim]{heading}[/]", no_wrap=True)

    at, keys, taken, times = 0, 0, 0, []
    shown = first[0] if first else ""
    while at < len(TYPED):
        # An editor indents by itself, and a suggestion that is right is taken with Tab.
        take = len(shown) >= 2 and TYPED.startswith(shown, at)
        typed = shown if take else TYPED[at]
        if not take and (typed == "\n" or at == 0):
            rest = TYPED[at + len(typed) :]
            typed += rest[: len(rest) - len(rest.lstrip(" "))]
        at += len(typed)
        keys += 1
        taken += take
        editor.type(typed)
        asked = time.perf_counter()
        suggestions = await editor.ask(lsp.InlineCompletionTriggerKind.Automatic)
        times.append((time.perf_counter() - asked) * 1000)
        shown = suggestions[0] if suggestions else ""
        others = await editor.ask(lsp.InlineCompletionTriggerKind.Invoked)
        show("Tab" if take else typed.strip() or "↵", times[-1], TYPED[:at], shown, [o for o in others if o != shown])
        await asyncio.sleep(0.03 if console.is_terminal else 0)  # slow enough to be watched

    plain = len("".join(line.lstrip(" ") + "\n" for line in TYPED.splitlines()))
    console.print(
        f"\n{plain} keys' worth of text in {keys} keys, {taken} of them Tab: [bold]{1 - keys / plain:.0%} saved[/]."
    )
    console.print(f"Key → answer: median {statistics.median(times):.1f} ms, slowest {max(times):.0f} ms, on one core.")
    console.print("\nNext:")
    console.print("  in your editor    editors/nvim/README.md, editors/vscode/README.md")
    console.print("  in any file       .venv/bin/lsp-charrnn complete FILE:LINE")
    console.print(
        "  on your own code  .venv/bin/pip install -e '.\\[train]'; .venv/bin/lsp-charrnn train PATH --out my-model"
    )
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()


def show(key: str, milliseconds: float, text: str, ghost: str, others: list[str]) -> None:
    """Print one line: the key, the latency, the cursor's line with its ghost text, the alternatives."""
    line = Text(f"{key:>3} {milliseconds:5.1f}   ", style="dim")
    line.append(text.rpartition("\n")[2].lstrip(" ")[-WIDTH // 2 :], style="bold")
    line.append(ghost.replace("\n", "⏎"), style="green")
    line.truncate(WIDTH, overflow="ellipsis", pad=True)
    line.append("  " + "  ".join(other.strip().replace("\n", "⏎") for other in others[:3]), style="dim")
    console.print(line, overflow="ellipsis", no_wrap=True)


if __name__ == "__main__":
    asyncio.run(main())
