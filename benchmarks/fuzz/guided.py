"""python -m benchmarks.fuzz.guided positions|edits|framing [--seconds N] [--corpus DIR]: coverage-guided, by atheris.

What it finds interesting goes to a directory of its own under build/fuzz, and an input that breaks something, too, as
`crash-…`: put it into tests/fuzz/corpus, where the suite runs it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

ROOT: Final = Path(__file__).resolve().parents[2]
WATCHED: Final = ["lsp_charrnn.text", "lsp_charrnn.server", "benchmarks.fuzz"]  # whose branches count


def main(
    target: Annotated[str, typer.Argument(help="positions, edits or framing.")],
    seconds: Annotated[int, typer.Option(help="How long.", min=1)] = 60,
    corpus: Annotated[Path, typer.Option(help="Kept inputs to begin with.", resolve_path=True)] = ROOT
    / "tests/fuzz/corpus",
    found: Annotated[Path, typer.Option(help="Where what it finds goes.", resolve_path=True)] = ROOT / "build/fuzz",
) -> None:
    """Look for bytes that break a function, led by the branches that they reach."""
    try:
        import atheris
    except ImportError:
        print("atheris is not installed: run `make fuzz-guided`, or pip install -e '.[fuzz]'.", file=sys.stderr)
        sys.exit(2)
    with atheris.instrument_imports(include=WATCHED):
        from benchmarks.fuzz.targets import TARGETS
    if target not in TARGETS:
        print(f"there is no target {target!r}: choose one of {', '.join(TARGETS)}.", file=sys.stderr)
        sys.exit(2)
    own = found / target
    own.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", "-max_len=512", f"-artifact_prefix={own}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(own), str(corpus / target)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    typer.run(main)
