"""Drive a real Neovim with the client in editors/nvim and a real server; print and assert what it does.

    python editors/try/neovim.py NVIM [SERVER ...]        e.g. /opt/nvim12/nvim .venv/bin/lsp-charrnn serve

On 0.12 it types, dumps the screen with the ghost text, takes it, takes it late (after typing what matches
and what does not), takes it behind an emoji, and times key -> ghost text. On older versions it
tries the completion fallback by <C-x><C-o>. Exit code 0: every assertion held. Needs pynvim. NVIM comes from
get-nvim.sh.
"""

from __future__ import annotations

import atexit
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvim

PLUGIN = Path(__file__).resolve().parents[1] / "nvim"
SOURCE = """import json
import os
from pathlib import Path


class Store:
    def __init__(self, path):
        self.path = path
        self.items = {}

    def load(self):
        with open(self.path) as file:
            self.items = json.load(file)

"""
# Beginnings that any model of Python goes on from; the first that brings ghost text is used.
STARTS = (
    "if __name__ == ",
    "    def __init__(se",
    "        self.items[na",
    "        with op",
    "        raise Val",
    "import o",
)
KEYS = 30  # how many keys are timed

# What Neovim shows as ghost text, by its own marks: the first line's, then the lines below it.
GHOST = """(function()
  local space = vim.api.nvim_create_namespace('nvim.lsp.inline_completion')
  local mark = vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true })[1]
  if not mark then return '' end
  local lines = { mark[4].virt_text[1][1] }
  for _, line in ipairs(mark[4].virt_lines or {}) do lines[#lines + 1] = line[1][1] end
  return table.concat(lines, '\\n')
end)()"""
SCREEN = """vim.cmd('redraw')
local rows = {}
for row = 1, vim.o.lines do
  rows[row] = ''
  for column = 1, vim.o.columns do rows[row] = rows[row] .. vim.fn.screenstring(row, column) end
  rows[row] = rows[row]:gsub('%s+$', '')
end
return rows"""
# 0.10 has no vim.lsp.enable; the same table starts the server there.
INIT_010 = """local config = dofile(vim.api.nvim_get_runtime_file('lsp/lsp_charrnn.lua', false)[1])
vim.api.nvim_create_autocmd('FileType', { pattern = config.filetypes, callback = function(event)
  local root = vim.fs.root(event.buf, config.root_markers)
  vim.lsp.start(vim.tbl_extend('force', config, { name = 'lsp_charrnn', root_dir = root }))
end })"""
# A busy machine must not change what is suggested, as it does by the default budget of 50 ms.
SETTINGS = "vim.lsp.config('lsp_charrnn', { init_options = { decode = { budgetMs = 500 } } })"
# Inline completion attaches in a schedule after LspAttach: keys typed before that ask nothing.
WATCH = """vim.g.ready, vim.g.answers = 0, 0
vim.api.nvim_create_autocmd('LspAttach', { callback = function()
  vim.schedule(function() vim.schedule(function() vim.g.ready = 1 end) end)
end })
vim.api.nvim_create_autocmd('LspRequest', { callback = function(event)
  local request = event.data.request
  if request.type == 'complete' and request.method == 'textDocument/inlineCompletion' then
    vim.g.answers = vim.g.answers + 1
  end
end })"""


def init_lua(inline: bool, enables: bool) -> str:
    """Return what the README puts into init.lua: its first block; the part behind the empty line on 0.12."""
    block = (PLUGIN / "README.md").read_text().split("```lua\n")[1].split("```")[0]
    block = block.replace("/path/to/lsp-charrnn/editors/nvim", str(PLUGIN))
    for_all, for_012 = block.split("\n\n")
    enable = "vim.lsp.enable('lsp_charrnn')"
    for_all = for_all.replace(enable, f"{SETTINGS}\n{enable}" if enables else INIT_010)
    return for_all + "\n" + (for_012 if inline else "")


class Editor:
    """A headless Neovim with this repository's client, in a directory of its own."""

    def __init__(self, executable: str, server: list[str]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="neovim-try-"))
        project = self.home / "project"
        (project / ".git").mkdir(parents=True)
        self.file = project / "store.py"
        self.file.write_text(SOURCE)
        os.environ["HOME"] = str(self.home)
        os.environ |= {f"XDG_{kind}_HOME": str(self.home / kind) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        self.nvim: Any = pynvim.attach("child", argv=[executable, "--embed", "--headless", "--clean"])
        # An error's hit-enter prompt blocks every call for ever.
        guard = threading.Timer(240, os.kill, (self.nvim.funcs.getpid(), 15))
        guard.daemon = True
        guard.start()
        atexit.register(lambda: print((self.home / "messages").read_text(), file=sys.stderr))
        self.nvim.command(f"set lines=24 columns=100 noswapfile verbosefile={self.home}/messages")
        self.nvim.vars["lsp_charrnn_cmd"] = server
        self.nvim.exec_lua(WATCH)
        self.inline = bool(self.nvim.funcs.has("nvim-0.12"))
        self.nvim.exec_lua(init_lua(self.inline, bool(self.nvim.funcs.has("nvim-0.11"))))
        started = time.monotonic()
        self.nvim.command(f"edit {self.file}")
        self.until(lambda: self.nvim.vars["ready"] == 1, "the server to attach", 30)
        print(f"{self.version()}: attached after {time.monotonic() - started:.2f} s")

    def version(self) -> str:
        """Return "Neovim" and its version."""
        return str(self.nvim.exec_lua("return 'Neovim ' .. tostring(vim.version())"))

    def screen(self) -> str:
        """Return what the screen shows, less trailing space."""
        return "\n".join(self.nvim.exec_lua(SCREEN)).rstrip("\n")

    def text(self) -> str:
        """Return the buffer's text."""
        return "\n".join(self.nvim.current.buffer[:])

    def ghost(self) -> str:
        """Return the ghost text; '' where there is none."""
        return str(self.nvim.exec_lua("return " + GHOST))

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 5) -> None:
        """Wait for `condition`, or raise `TimeoutError` with the screen."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds} s for {what}\n{self.screen()}")
            time.sleep(0.002)

    def begin(self, before: str, after: str = "") -> None:
        """Make `before` and `after` the whole text, and go into insert mode between them."""
        self.nvim.input("<Esc>")
        self.until(lambda: self.nvim.funcs.mode() == "n", "normal mode")
        self.nvim.current.buffer[:] = (before + after).split("\n")
        self.nvim.current.window.cursor = (before.count("\n") + 1, len(before.rpartition("\n")[2].encode()))
        self.nvim.input("i" if after else "A")
        self.until(lambda: self.nvim.funcs.mode() == "i", "insert mode")

    def type(self, keys: str) -> tuple[str, float]:
        """Type, and wait for the answer: its ghost text ('' where there is none), and the milliseconds."""
        answers, started = self.nvim.vars["answers"], time.perf_counter()
        self.nvim.input(keys.replace("<", "<lt>"))
        while not (ghost := self.ghost()):
            if self.nvim.vars["answers"] > answers and time.perf_counter() - started > 0.25:  # past the debounce
                ghost = self.ghost()
                break
            if time.perf_counter() - started > 10:
                raise TimeoutError(f"no answer after {keys!r}\n{self.screen()}")
            time.sleep(0.001)
        return ghost, (time.perf_counter() - started) * 1e3

    def suggest(self, before: str, after: str = "") -> str:
        """Retype the last character of `before`, so that only a new suggestion can show; return it."""
        self.begin(before[:-1], after)
        ghost, _ = self.type(before[-1])
        return ghost

    def press(self, keys: str) -> None:
        """Type `keys`, in Neovim's notation, and wait until what they schedule is done."""
        self.nvim.input(keys)
        time.sleep(0.1)


def check(name: str, got: str, want: str) -> None:
    """Raise `AssertionError` unless `got` is `want`."""
    if got != want:
        raise AssertionError(f"{name}:\n got {got[-120:]!r}\nwant {want[-120:]!r}")
    print(f"ok: {name}")


def try_inline(editor: Editor) -> None:
    """Try the ghost text that 0.12 has built in."""
    for start in STARTS:
        before = SOURCE + start
        if ghost := editor.suggest(before):
            break
        print(f"nothing shown after {start!r}")
    else:
        raise AssertionError("no ghost text after any of the beginnings")
    print(f"\n{editor.screen()}\n\nghost text after {start!r}: {ghost!r}")
    editor.press("<Tab>")
    check("Tab inserts what was shown", editor.text(), before + ghost)

    again = editor.suggest(before)
    check("the same text brings the same suggestion", again, ghost)
    editor.press(ghost[0].replace("<", "<lt>").replace("\n", "<CR>") + "<Tab>")  # Tab before the next answer
    check("late Tab, what was typed matches", editor.text(), before + ghost)

    editor.suggest(before)
    other = "Q" if ghost[0] != "Q" else "Z"
    editor.press(other + "<Tab>")
    check("late Tab, what was typed doesn't match", editor.text(), before + other)

    editor.suggest(before)
    editor.press("<BS><Tab>")
    check("Tab after a backspace inserts no suggestion", editor.text().rstrip(), before[:-1].rstrip())

    emoji = SOURCE + "name = '\N{WINKING FACE}é'; " + start.lstrip()
    if ghost := editor.suggest(emoji):
        editor.press("<Tab>")
        check("Tab behind an emoji inserts what was shown", editor.text(), emoji + ghost)
    else:
        print("nothing shown behind an emoji")

    try_inside_brackets(editor)
    time_keys(editor)


def try_inside_brackets(editor: Editor) -> None:
    """Try a suggestion within a word, with text to the right of the cursor."""
    for start in ("        print(self.pa", "        print(self.it", "        print(os.path.jo"):
        before = SOURCE + start
        if ghost := editor.suggest(before, ")"):
            break
    else:
        print("nothing shown within a word")
        return
    line = next(line for line in editor.screen().split("\n") if start in line)
    first = ghost.split("\n")[0]
    check("the screen shows what Tab would make of the line", line, start + first + ("" if "\n" in ghost else ")"))
    editor.press("<Tab>")
    check("Tab before a bracket inserts what was shown", editor.text(), before + ghost + ")")
    editor.suggest(before, ")")
    editor.press("<BS><Tab>")
    whole = before + ghost + ")"
    want = whole if editor.text() == whole else before[:-1] + ")"
    check("Tab after a backspace within the word inserts all of it or nothing", editor.text(), want)


def time_keys(editor: Editor) -> None:
    """Type real code, each key with no ghost text before it, and time until its ghost text is there."""
    code = Path(tempfile.__file__).read_text()
    code = code[code.index("def _sanitize_params") :]
    shown: list[float] = []
    at = 200  # leave the model something to go by
    asked = 0
    while len(shown) < KEYS and asked < 4 * KEYS:
        at += 7
        if code[at].isspace():
            continue
        asked += 1
        editor.begin(code[:at])
        ghost, ms = editor.type(code[at])
        if ghost:
            shown.append(ms)
        time.sleep(0.05)
    if not shown:
        raise AssertionError("no key of real code brought ghost text")
    shown.sort()
    p95 = shown[int(0.95 * (len(shown) - 1))]
    print(
        f"ghost text at {len(shown)} of {asked} keys; key -> ghost ms (200 of it Neovim's debounce): "
        f"median {statistics.median(shown):.0f}, p95 {p95:.0f}, from {shown[0]:.0f} to {shown[-1]:.0f}"
    )


def try_menu(editor: Editor) -> None:
    """Try the fallback for clients without inline completion."""
    for start in STARTS:
        before = SOURCE + start
        editor.begin(before)
        editor.nvim.input("<C-x><C-o>")
        try:
            editor.until(lambda: bool(editor.nvim.funcs.pumvisible()), "the completion menu", 3)
        except TimeoutError:
            print(f"no menu after {start!r}")
            continue
        break
    else:
        raise AssertionError("no completion menu after any of the beginnings")
    print(f"\n{editor.screen()}\n")
    editor.press("<C-y>")
    text = editor.text()
    if not text.startswith(before) or text == before:
        raise AssertionError(f"the menu's item was not added to the text: {text[-120:]!r}")
    print(f"ok: the menu's first item went on with {text[len(before) :]!r}")


def main() -> None:
    """Run the trial that fits the Neovim given."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    editor = Editor(sys.argv[1], sys.argv[2:] or ["lsp-charrnn", "serve"])
    if editor.inline:
        try_inline(editor)
    else:
        try_menu(editor)
    editor.nvim.close()
    print("every assertion held")


if __name__ == "__main__":
    main()
