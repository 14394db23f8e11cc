"""A real Neovim without a terminal, driven by pynvim: keys in, and what an attached UI is told to draw out.

`Editor` starts Neovim with the plugin in `editors/nvim`, a real server and a project in a directory of its own. What
is tried with it stands in `neovim_cases.py`.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pynvim

ROOT: Final = Path(__file__).resolve().parents[2]
PLUGIN: Final = ROOT / "editors" / "nvim"
PATIENCE: Final = float(os.environ.get("PATIENCE", "120"))  # seconds for anything: far more than it takes
WIDTH, HEIGHT = 120, 70  # room for what is drawn below the last line, and for messages
GHOST: Final = "ComplHint"  # the highlight group of ghost text

# Which text was asked about, and which has been answered, by the buffer's changedtick.
_WATCH: Final = """local asked = {}
vim.g.answered = -1
vim.api.nvim_create_autocmd('LspRequest', { callback = function(event)
  local request, id = event.data.request, event.data.client_id .. ':' .. event.data.request_id
  if request.method ~= 'textDocument/inlineCompletion' then return end
  if request.type == 'pending' then asked[id] = vim.api.nvim_buf_get_changedtick(event.buf) end
  if request.type == 'complete' then
    local tick = asked[id]
    vim.schedule(function() vim.g.answered = tick end)
  end
end })
vim.g.said = {}
vim.notify = function(sentence) vim.g.said = vim.list_extend(vim.g.said, { sentence }) end
-- By its own colour it can be told from what else has the colour that it is linked to.
vim.api.nvim_set_hl(0, 'ComplHint', { fg = '#123456' })"""


class Grid:
    """The screen, as `redraw` events draw it."""

    def __init__(self) -> None:
        self.cursor = (0, 0)
        self.flushed = 0.0  # when the screen was last whole, by `time.perf_counter`
        self.frames: list[str] = []  # the ghost text whenever it was
        self._groups: dict[int, set[str]] = {}
        self._clear()

    def _clear(self) -> None:
        self._cells: list[list[tuple[str, int]]] = [[(" ", 0)] * WIDTH for _ in range(HEIGHT)]

    def redraw(self, events: Sequence[Any]) -> None:
        """Take what one notification says."""
        for name, *calls in events:
            for arguments in calls:
                if name == "grid_line":
                    self._line(*arguments[1:4])
                elif name == "grid_clear":
                    self._clear()
                elif name == "grid_scroll":
                    self._scroll(*arguments[1:6])
                elif name == "grid_cursor_goto":
                    self.cursor = (arguments[1], arguments[2])
                elif name == "hl_attr_define":
                    self._groups[arguments[0]] = {str(info.get("hi_name")) for info in arguments[3]}
                elif name == "flush":
                    self.flushed = time.perf_counter()
                    self.frames.append(self.ghost())

    def _line(self, row: int, column: int, cells: Sequence[Any]) -> None:
        group = 0
        for cell in cells:
            group = cell[1] if len(cell) > 1 else group
            for _ in range(cell[2] if len(cell) > 2 else 1):
                self._cells[row][column] = (cell[0], group)
                column += 1

    def _scroll(self, top: int, bottom: int, left: int, right: int, by: int) -> None:
        rows = range(top, bottom - by) if by > 0 else range(bottom - 1, top - by - 1, -1)
        for row in rows:
            self._cells[row][left:right] = self._cells[row + by][left:right]

    def row(self, number: int) -> str:
        """Return what stands in a row, less trailing space."""
        return "".join(text for text, _ in self._cells[number]).rstrip()

    def rows(self) -> list[str]:
        """Return what the screen shows."""
        return [self.row(number) for number in range(HEIGHT)]

    def ghost(self) -> str:
        """Return the ghost text from the cursor's row on; '' where there is none."""
        lines = [
            "".join(text for text, group in row if GHOST in self._groups.get(group, ()))
            for row in self._cells[self.cursor[0] :]
        ]
        while lines and not lines[-1]:
            lines.pop()
        return "\n".join(lines)


class Editor:
    """A Neovim with this repository's plugin, in a directory of its own."""

    def __init__(
        self,
        executable: Path,
        server: Sequence[str],
        *,
        settings: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        before: str = "",
    ) -> None:
        """Start it; `variables` are the plugin's `vim.g`, `before` is Lua that runs before the plugin."""
        self.home = Path(tempfile.mkdtemp(prefix="lsp-charrnn-neovim-"))
        self.project = self.home / "project"
        (self.project / ".git").mkdir(parents=True)
        homes = {f"XDG_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        os.environ |= {"HOME": str(self.home), **homes}
        self.nvim: Any = pynvim.attach("child", argv=[str(executable), "--embed", "--headless", "--clean"])
        self.grid = Grid()
        self._pid = int(self.nvim.funcs.getpid())
        # An error's hit-enter prompt blocks every call for ever.
        self._guard = threading.Timer(20 * PATIENCE, os.kill, (self._pid, signal.SIGTERM))
        self._guard.daemon = True
        self._guard.start()
        self._channel = int(self.nvim.channel_id)
        self.nvim.ui_attach(WIDTH, HEIGHT, rgb=True, ext_linegrid=True, ext_hlstate=True)
        # Where messages have no room Neovim asks for Enter, and answers no call until it comes.
        self.nvim.command("set noswapfile shortmess+=aoOtTWIcCF noshowcmd noruler cmdheight=12")
        self.nvim.exec_lua(_WATCH)
        if before:
            self.nvim.exec_lua(before)
        # A busy machine must not change what is suggested, as it does by the default budget of 50 ms.
        self.nvim.vars["lsp_charrnn_settings"] = {"decode": {"budgetMs": 10000}, **(settings or {})}
        self.nvim.vars["lsp_charrnn_cmd"] = list(server)
        for name, value in (variables or {}).items():
            self.nvim.vars[f"lsp_charrnn_{name}"] = value
        self.nvim.command(f"set runtimepath+={PLUGIN}")
        self.nvim.command("runtime plugin/lsp_charrnn.lua")
        if self.has("nvim-0.11"):
            self.nvim.exec_lua("vim.lsp.enable('lsp_charrnn')")

    def close(self) -> None:
        """End it, and remove what it has written."""
        self._guard.cancel()
        with suppress(OSError, EOFError):
            self.nvim.command("qall!")
        with suppress(OSError, EOFError):
            self.nvim.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def has(self, feature: str) -> bool:
        """Ask Neovim whether it has a feature."""
        return bool(self.nvim.funcs.has(feature))

    def lua(self, code: str, *arguments: Any) -> Any:
        """Run Lua; return what it returns."""
        return self.nvim.exec_lua(code, *arguments)

    # --- waiting ------------------------------------------------------------------------------------------------

    def look(self) -> Grid:
        """Take in all that has been drawn so far."""
        self.nvim.exec_lua("vim.rpcnotify(..., 'mark')", self._channel)
        while True:
            _, name, arguments = self.nvim.next_message()
            if name == "mark":
                return self.grid
            if name == "redraw":
                self.grid.redraw(arguments)

    def until(
        self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE, *, pause: float = 0.005
    ) -> None:
        """Wait for a condition, looking every `pause` seconds. Raises `TimeoutError` with the screen."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds:.0f} s for {what}\n" + "\n".join(self.look().rows()))
            time.sleep(pause)

    def until_mode(self, mode: str) -> None:
        """Wait until Neovim is in a mode."""
        self.until(lambda: bool(self.nvim.funcs.mode() == mode), f"mode {mode}")

    def ghost(self) -> str:
        """Return the ghost text that is on the screen."""
        return self.look().ghost()

    def tick(self) -> int:
        """Return the number of the text, as the buffer counts changes."""
        return int(self.lua("return vim.api.nvim_buf_get_changedtick(0)"))

    def until_shown(self, ghost: str) -> None:
        """Wait until the screen shows just this ghost text."""
        self.until(lambda: self.ghost() == ghost, f"ghost text {ghost!r}, not {self.grid.ghost()!r}")

    def answer(self, *, pause: float = 0.005) -> str:
        """Wait for the answer about the text as it is; return its ghost text, '' where there is none."""
        tick = self.tick()
        found = ""

        def come() -> bool:
            nonlocal found
            answered = self.nvim.vars["answered"] == tick  # asked before the screen is looked at
            found = self.ghost()
            return bool(found) or answered

        self.until(come, "an answer", pause=pause)
        return found or self.ghost()

    def said(self, part: str, seconds: float = PATIENCE) -> str:
        """Wait until a message holds `part`; return it. What the server shows, 0.10 prints and 0.12 notifies."""
        found: list[str] = []

        def messages() -> list[str]:
            return [*self.nvim.vars["said"], *self.nvim.funcs.execute("messages").split("\n")]

        def come() -> bool:
            found[:] = [message for message in messages() if part in message]
            return bool(found)

        try:
            self.until(come, f"a message with {part!r}", seconds, pause=0.02)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\nand had these: {messages()}") from None
        return found[-1]

    def hush(self) -> None:
        """Forget all messages."""
        self.nvim.vars["said"] = []
        self.nvim.command("messages clear")

    # --- editing ------------------------------------------------------------------------------------------------

    def open(self, name: str, text: bytes, *, attached: bool = True) -> Path:
        """Write a file into the project and open it; wait until the server is attached."""
        path = self.project / name
        path.write_bytes(text)
        self.nvim.command(f"edit! {path}")
        if attached:
            self.until_attached()
        return path

    def until_attached(self) -> None:
        """Wait until the server is attached to the current buffer, and all that is scheduled then is done."""
        code = """local client = vim.lsp.get_clients({ bufnr = 0, name = 'lsp_charrnn' })[1]
        return client and client.initialized or false"""
        self.until(lambda: bool(self.lua(code)), "the server to attach")
        self.lua("vim.g.scheduled = 0 vim.defer_fn(function() vim.g.scheduled = 1 end, 10)")
        self.until(lambda: bool(self.nvim.vars["scheduled"] == 1), "what is scheduled")

    def text(self) -> str:
        """Return the buffer's text."""
        return "\n".join(self.nvim.current.buffer[:])

    def begin(self, before: str, after: str = "") -> None:
        """Make `before` and `after` the whole text, and go into insert mode between them."""
        self.nvim.input("<Esc>")
        self.until_mode("n")
        self.nvim.current.buffer[:] = (before + after).split("\n")
        self.nvim.current.window.cursor = (before.count("\n") + 1, len(before.rpartition("\n")[2].encode()))
        self.nvim.input("A" if not after.partition("\n")[0] else "i")
        self.until_mode("i")
        self.look()

    def keys(self, keys: str) -> None:
        """Type, in Neovim's notation, and wait until it has come to rest."""
        tick = self.lua(
            "vim.g.typed = 0 vim.api.nvim_input(...) vim.defer_fn(function() vim.g.typed = 1 end, 20) return 0", keys
        )
        assert tick == 0
        self.until(lambda: bool(self.nvim.vars["typed"] == 1), "the keys")
        self.look()

    def suggest(self, before: str, after: str = "") -> str:
        """Type the last character of `before`, between the rest of it and `after`; return the ghost text."""
        self.begin(before[:-1], after)
        self.answer()  # else it could come between
        self.nvim.input(before[-1].replace("<", "<lt>"))
        self.until(lambda: self.text() == before + after, "the key")
        return self.answer()

    def first_of(
        self, befores: Sequence[str], wanted: Callable[[str], bool] = bool, after: str = ""
    ) -> tuple[str, str]:
        """Return the first of some beginnings that brings a wanted suggestion, and the suggestion."""
        got = []
        for before in befores:
            ghost = self.suggest(before, after)
            if wanted(ghost):
                return before, ghost
            got.append((before.rpartition("\n")[2], ghost))
        raise AssertionError(f"no such suggestion: {got}")

    def status(self) -> dict[str, Any]:
        """Return the server's status."""
        code = """local client = vim.lsp.get_clients({ name = 'lsp_charrnn' })[1]
        local method, params = 'workspace/executeCommand', { command = 'lspCharrnn.status', arguments = {} }
        return require('lsp_charrnn.own').call(client, 'request_sync', method, params, ..., 0).result"""
        return dict(self.lua(code, round(1000 * PATIENCE)))


def key(character: str) -> str:
    """Return a character in Neovim's notation."""
    return {"<": "<lt>", "\n": "<CR>", " ": "<Space>"}.get(character, character)
