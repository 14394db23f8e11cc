"""The clients say what the server knows: settings, defaults, ranges, languages, command.

What the editors do with it is left to `neovim_cases.py` and tests/editors/vscode.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lsp_charrnn.config import PROGRAMMING_LANGUAGES, SETTING_NAMES, Settings, parse_settings
from lsp_charrnn.server.commands import ACCEPTED, CANCEL_TRAINING, STATUS, TOGGLE, TRAIN

ROOT = Path(__file__).resolve().parents[2]
VSCODE = ROOT / "editors" / "vscode"
NVIM = ROOT / "editors" / "nvim"
LUA = sorted(NVIM.rglob("*.lua"))
PACKAGE = json.loads((VSCODE / "package.json").read_text(encoding="utf-8"))
PROPERTIES: dict[str, dict[str, Any]] = PACKAGE["contributes"]["configuration"]["properties"]
JSON_TYPES = {bool: "boolean", str: "string", int: "integer", float: "number", tuple: "array"}
SHELLSCRIPT = {"sh", "shell"}  # what other clients call it
SERVER_COMMANDS = {ACCEPTED, TOGGLE, STATUS, TRAIN, CANCEL_TRAINING}
SMALLEST_STEP = {"integer": 1, "number": 0.001}


def test_vscode_offers_every_setting_and_no_other() -> None:
    assert set(PROPERTIES) == {f"lspCharrnn.{name}" for name in SETTING_NAMES} | {"lspCharrnn.command"}


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_vscode_setting_has_the_servers_type_default_and_range(name: str) -> None:
    shown = PROPERTIES[f"lspCharrnn.{name}"]
    default = asdict(Settings())[SETTING_NAMES[name]]
    assert shown["type"] == JSON_TYPES[type(default)]
    assert shown["default"] == (list(default) if isinstance(default, tuple) else default)
    assert parse_settings({name: shown["default"]}) == (Settings(), [])
    assert shown["markdownDescription"]
    for bound, outwards in (("minimum", -1), ("maximum", 1)):
        if shown["type"] in SMALLEST_STEP:
            at = shown[bound]
            assert parse_settings({name: at})[1] == []
            assert parse_settings({name: at + outwards * SMALLEST_STEP[shown["type"]]})[1] != []


def test_no_folder_can_name_what_vscode_runs() -> None:
    assert PROPERTIES["lspCharrnn.command"]["scope"] == "machine"
    assert PROPERTIES["lspCharrnn.command"]["default"] == []  # it is looked for: test/discovery.test.ts
    untrusted = PACKAGE["capabilities"]["untrustedWorkspaces"]
    assert untrusted["supported"] == "limited"
    assert {"lspCharrnn.command", "lspCharrnn.model"} <= set(untrusted["restrictedConfigurations"])


def test_vscode_offers_the_commands_that_it_has() -> None:
    """By their names in package.json, in the code, in the walkthrough's links and in the menu."""
    offered = [command["command"] for command in PACKAGE["contributes"]["commands"]]
    sources = {path.name: path.read_text(encoding="utf-8") for path in (VSCODE / "src").glob("*.ts")}
    registered = re.findall(r"on\('(\w+)'", sources["extension.ts"])
    assert offered == [f"lspCharrnn.{name}" for name in registered]
    links = re.findall(r"command:(lspCharrnn\.\w+)", json.dumps(PACKAGE["contributes"]["walkthroughs"]))
    menu = re.findall(r"command: '(\w+)'", sources["status.ts"])
    assert links
    assert menu
    assert {*links, *(f"lspCharrnn.{name}" for name in menu)} <= set(offered)
    assert not set(offered) & SERVER_COMMANDS  # the client registers these itself


def test_the_vscode_client_is_thin() -> None:
    lines = [line.strip() for path in (VSCODE / "src").glob("*.ts") for line in path.read_text("utf-8").splitlines()]
    assert len([line for line in lines if line and not line.startswith(("//", "/*", "*"))]) < 600


def test_vscode_binds_keys_only_where_a_suggestion_is_shown_and_never_tab() -> None:
    for binding in PACKAGE["contributes"]["keybindings"]:
        assert "inlineSuggestionVisible" in binding["when"]
        assert "tab" not in binding["key"]


def test_vscodes_pages_load_nothing() -> None:
    for step in PACKAGE["contributes"]["walkthroughs"][0]["steps"]:
        assert (VSCODE / step["media"]["markdown"]).is_file()
    page = (VSCODE / "media" / "panel.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1] == "default-src 'none'; style-src 'nonce-NONCE'; script-src 'nonce-NONCE'"
    script = (VSCODE / "media" / "panel.js").read_text(encoding="utf-8")
    assert page.count("SCRIPT") == 1  # where the extension puts it
    assert "</script" not in script
    assert not re.search(r"^import |://|\bon\w+=|\bstyle=|innerHTML|fetch\(", page + script, re.MULTILINE)


def test_vscode_has_the_version_of_the_server() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert PACKAGE["version"] == version[1]


def test_the_lock_file_fits_and_names_no_host() -> None:
    text = (VSCODE / "package-lock.json").read_text(encoding="utf-8")
    packages: dict[str, dict[str, Any]] = json.loads(text)["packages"]
    top = packages.pop("")
    assert {key: top[key] for key in ("version", "dependencies", "devDependencies")} == {
        key: PACKAGE[key] for key in ("version", "dependencies", "devDependencies")
    }
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert package["integrity"].startswith("sha512-"), name
        package.pop("funding", None)  # where its authors ask for money
        assert "://" not in json.dumps(package), name


def test_vscode_serves_the_servers_languages() -> None:
    """The client takes them from the activation events."""
    assert PACKAGE["activationEvents"] == [f"onLanguage:{language}" for language in sorted(PROGRAMMING_LANGUAGES)]


def test_neovim_serves_the_servers_languages_by_the_same_command() -> None:
    table = (NVIM / "lsp" / "lsp_charrnn.lua").read_text(encoding="utf-8")
    ids = dict(re.findall(r"(\w+) = '([^']+)'", _braced("language_ids = ", table)))
    filetypes = re.findall(r"'([^']+)'", _braced("filetypes = ", table))
    assert filetypes == sorted(set(filetypes))
    assert set(ids) <= set(filetypes)
    assert {ids.get(name, name) for name in filetypes} == PROGRAMMING_LANGUAGES - SHELLSCRIPT
    command = re.findall(r"'([^']+)'", _braced("cmd = vim.g.lsp_charrnn_cmd or ", table))
    assert command == ["lsp-charrnn", "serve"]


def _braced(before: str, text: str) -> str:
    found = re.search(re.escape(before) + r"\{(.*?)\}", text, re.DOTALL)
    assert found is not None, before
    return found[1]


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.name)
def test_lua_blocks_and_brackets_close(path: Path) -> None:
    """As much as can be seen without Lua; where Neovim is installed, the next test has it parse the files."""
    code = re.sub(r"--.*", "", re.sub(r"'(?:\\.|[^'\\\n])*'", "''", path.read_text(encoding="utf-8")))
    closes = {")": "(", "]": "[", "}": "{", "end": "function if do"}
    stack: list[str] = []
    for token in re.findall(r"[()\[\]{}]|\b(?:function|if|do|end)\b", code):
        if token in closes:
            assert stack, f"{path.name}: {token!r} closes nothing"
            assert stack.pop() in closes[token], f"{path.name}: {token!r} closes something else"
        else:
            stack.append(token)
    assert stack == []


def test_lua_loads_in_neovim_where_there_is_one() -> None:
    nvim = shutil.which("nvim")
    for path in LUA:
        script = f"assert(loadfile([[{path}]]))"
        if path.parent.name == "lsp":
            script = (
                f"local t, ids = assert(loadfile([[{path}]]))(), {{}} for _, name in ipairs(t.filetypes) do"
                " table.insert(ids, t.get_language_id(0, name)) end"
                " print(vim.json.encode({ ids = ids, init_options = t.init_options }))"
            )
        if nvim is None:
            last = path.read_text(encoding="utf-8").rstrip().splitlines()[-1]
            assert last in {"}", "return M"} or path.parent.name == "plugin"
            continue
        ran = subprocess.run(
            [nvim, "--headless", "--clean", "-c", f"lua {script}", "-c", "qa!"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if path.parent.name == "lsp":
            table = json.loads(ran.stderr + ran.stdout)  # print goes to stderr
            assert table["init_options"] == {}
            assert set(table["ids"]) == PROGRAMMING_LANGUAGES - SHELLSCRIPT
        else:
            assert ran.stderr == ""


def test_the_neovim_client_stays_thin() -> None:
    """Under 600 lines of Lua, blank ones and comments apart."""
    code = [line for path in LUA for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert sum(not line.lstrip().startswith("--") for line in code) < 600


def test_the_neovim_help_has_every_action_and_option() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in LUA)
    manual = (NVIM / "doc" / "lsp-charrnn.txt").read_text(encoding="utf-8")
    actions = re.findall(r"^  (\w+) = '", _braced("M.defaults = ", text), re.MULTILINE)
    assert actions
    for action in actions:
        assert f"*lsp_charrnn.{action}()*" in manual
    for option in set(re.findall(r"vim\.g\.(lsp_charrnn_\w+)", text)):
        assert f"*vim.g.{option}*" in manual
    for command in re.findall(r"^function commands\.(\w+)", text, re.MULTILINE):
        assert f":CharRnn {command}" in manual
