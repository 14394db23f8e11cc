"""Imports go one way, downwards; one package knows LSP, one torch. The source is parsed, so lazy imports count."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "lsp_charrnn"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}

# What each part may import of the others. A part is a package or a module at the top.
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "private": set(),
    "text": {"config", "private", "errors"},
    "model": {"text", "config", "private", "errors"},
    "engine": {"model", "text", "config", "private", "errors"},
    "project": {"engine", "model", "text", "config", "private", "errors"},
    "server": {"project", "engine", "model", "text", "config", "private", "errors"},
    "train": {"engine", "model", "text", "config", "private", "errors"},
    "evaluate": {"train", "project", "engine", "model", "text", "config", "private", "errors"},
    "doctor": {"server", "train", "evaluate", "project", "engine", "model", "text", "config", "private", "errors"},
    "tuning": {"train", "evaluate", "project", "engine", "model", "text", "config", "private", "errors"},
    "inside": {"evaluate", "train", "project", "engine", "model", "text", "config", "private", "errors"},
    "cli": {
        "inside",
        "doctor",
        "tuning",
        "server",
        "train",
        "evaluate",
        "project",
        "engine",
        "model",
        "text",
        "config",
        "private",
        "errors",
    },
    "__main__": {"cli"},
    "": set(),
}
# Libraries that only some parts may import.
KEPT_APART = {
    "pygls": {"server", "evaluate.client"},  # the client that replays typing speaks LSP too, from the other side
    "lsprotocol": {"server", "evaluate.client"},
    "torch": {"train", "inside.learning"},
    "onnx": {"train"},
    "onnxruntime": {"model.runtime"},  # which switches its telemetry off
    "tensorboard": {"train"},
    "matplotlib": {"train", "evaluate", "inside.picture"},
    "typer": {"cli"},
    "dask": {"train.cluster"},
    "distributed": {"train.cluster", "train.build"},
    "datasketch": {"train.duplicates"},
}
DYNAMIC = ("import_module", "importlib.import_module", "__import__")
# What starting the server must not cost.
HEAVY = [
    "torch",
    "onnx",
    "matplotlib",
    "detect_secrets",
    "dask",
    "distributed",
    "datasketch",
    "lsp_charrnn.train",
    "lsp_charrnn.evaluate",
    "lsp_charrnn.inside",
]


def inside(module: str) -> str:
    """`lsp_charrnn.text.document` is `text.document` here, the package itself is the empty text."""
    return module.removeprefix(PACKAGE).removeprefix(".")


def part_of(module: str) -> str:
    """`python -m` begins with a `__main__`, wherever it lies: it stands above the command line, and none imports it."""
    names = inside(module).split(".")
    return "__main__" if names[-1] == "__main__" else names[0]


def imports_of(module: str) -> Iterator[str]:
    """Yield all that a module imports, wherever in it, by absolute name."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(name for name in (base, node.module) if name)
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield name if name in MODULES else source
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "import_module",
            "importlib.import_module",
            "__import__",
        ):
            assert isinstance(node.args[0], ast.Constant), f"{module} imports something that no reader can tell"
            yield str(node.args[0].value)


def test_every_part_has_its_place() -> None:
    assert {part_of(module) for module in MODULES} <= set(ALLOWED)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    here = part_of(module)
    for name in imports_of(module):
        if name.split(".")[0] == PACKAGE and part_of(name) != here:
            assert part_of(name) in ALLOWED[here] | {""}, f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_in_their_part(module: str) -> None:
    for name in imports_of(module):
        allowed = KEPT_APART.get(name.split(".")[0])
        if allowed is not None:
            assert part_of(module) in allowed or inside(module) in allowed, f"{module} imports {name}"


def test_the_parser_sees_what_it_must() -> None:
    seen = {module: set(imports_of(module)) for module in MODULES}
    assert "lsp_charrnn.engine.stream" in seen["lsp_charrnn.engine.decode"]
    assert any("lsp_charrnn.train" in name for name in seen["lsp_charrnn.cli"])  # within a function
    assert any(name.split(".")[0] == "torch" for module in seen for name in seen[module])


def test_evaluation_takes_from_training_what_needs_no_torch() -> None:
    taken = {
        name.removeprefix(f"{PACKAGE}.train.").split(".")[0]
        for module in MODULES
        if part_of(module) == "evaluate"
        for name in imports_of(module)
        if name.startswith(f"{PACKAGE}.train.")
    }
    assert taken <= {"corpus", "fetch", "mixing"}  # which imports torch to fit, in a function


def modules_after(code: str) -> set[str]:
    """Return which of `HEAVY` a fresh interpreter has imported after running `code`."""
    code += f"\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["engine.session", "server.app", "cli", "doctor"])
def test_starting_costs_no_torch(module: str) -> None:
    assert modules_after(f"import {PACKAGE}.{module}") == set()


def test_the_check_of_what_is_imported_sees_it() -> None:
    assert modules_after(f"import {PACKAGE}.train") == {"lsp_charrnn.train"}
