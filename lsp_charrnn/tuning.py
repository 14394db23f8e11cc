"""Around a training that goes on from another model: what is held out, compared, told, and installed for a project.

`train` trains, `evaluate.tuned` compares, `model.installed` keeps what is installed; here they are put in order for
the command line. `Lines` is what a program reads that has started one: JSON, a line each.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from lsp_charrnn.errors import CorpusError, ModelError, SettingError
from lsp_charrnn.evaluate.tuned import TunedReport, compare
from lsp_charrnn.model.files import find_model, load_model, model_for_language
from lsp_charrnn.model.installed import TUNED, install, installed_model, place_of
from lsp_charrnn.model.step import Model
from lsp_charrnn.train.card import add_evaluation
from lsp_charrnn.train.corpus import SourceFile, main_languages
from lsp_charrnn.train.shards import is_built

if TYPE_CHECKING:
    from lsp_charrnn.train.loop import Progress

AUTO: Final = "auto"  # as --base: whichever model the server would take


def project_of(paths: Sequence[Path], base: str | None) -> Path:
    """Return the directory of the project that a model is to be installed for, without links. Raises `SettingError`."""
    if base is None:
        raise SettingError("--install needs --base MODEL, such as --base python: what the new one must be better than.")
    if "WORLD_SIZE" in os.environ:
        raise SettingError("--install is for one process: under torchrun give --out, and leave --install out.")
    if len(paths) != 1:
        raise SettingError("--install makes a model for one project: give one PATH, the directory that editors open.")
    if not paths[0].is_dir() or is_built(paths[0]):
        raise SettingError(f"{paths[0]} is no project's directory: with --install give the one that editors open.")
    return Path(os.path.realpath(paths[0]))


def base_of(base: str | None, paths: Sequence[Path]) -> str | None:
    """Return what to start from: for "auto", the path of the model for the language that most under `paths` is in.

    Raises `CorpusError` where there is nothing under `paths`, `ModelError` where there is no such model.
    """
    if base != AUTO:
        return base
    languages = main_languages(paths)
    if not languages:
        where = ", ".join(map(str, paths))
        raise CorpusError(f"{where} holds no file in a programming language: name what to train on, or another --base.")
    return str(model_for_language(languages[0]))


class Tuning:
    """One training from `base`, and what comes of it: installed for the project at `root`, unless that is None.

    `out` is where the user wants the model; None: where there is room for it among the user's data. The models to
    compare with are loaded now, for the new one may take their place. Raises `ModelError` where there is no base.
    """

    def __init__(self, base: str | None, root: Path | None, out: Path | None) -> None:
        self._named = out is not None
        if out is None:
            assert root is not None, "nobody has said where the model is to go"
            out = place_of(root) / TUNED
        self.root, self.out = root, out
        self._kept: Sequence[SourceFile] = ()
        self._judges: Sequence[SourceFile] = ()
        self._before: Model | None = None
        self._in_use: Model | None = None
        if base is not None:
            directory = find_model(base)
            try:
                self._before = load_model(directory)
            except ModelError:  # the weights alone may be whole, and are enough to start from
                if root is not None:
                    raise
        if root is not None:
            with suppress(ModelError):  # a damaged one is no rival
                installed = installed_model(root)
                self._in_use = None if installed is None else load_model(installed)

    @property
    def name(self) -> str | None:
        """What the model is to be called; None: as its directory."""
        return None if self._named or self.root is None else self.root.name or None

    def split(self, kept: Sequence[SourceFile], judges: Sequence[SourceFile]) -> None:
        """Take note of what is trained on, and what is judged by. Raises `CorpusError` where that must be more."""
        if self.root is not None and not judges:
            raise CorpusError(
                f"nothing of {self.root} can be held out to judge by: give a project of two files at least, or leave "
                "--install out."
            )
        self._kept, self._judges = kept, judges

    def finish(self, model_dir: Path, console: Console, lines: Lines | None) -> None:
        """Compare, report, and install. Raises `ModelError` where the model is not worth that; it stays where it is."""
        report = None
        if self._before is not None and self._judges:
            with console.status("comparing it with the model that it started from …"):
                report = compare(
                    self._before,
                    load_model(model_dir),
                    self._kept,
                    self._judges,
                    in_use=self._in_use,
                    told=lines.judging if lines is not None else lambda share: None,
                )
            add_evaluation(model_dir, {"tuned": report.to_json()})
            console.print(report.table())
        worth_it = self.root is not None and report is not None and report.is_better
        place = install(model_dir, self.root) if self.root is not None and worth_it else None
        if lines is not None:
            lines.done(place or model_dir, place is not None, report)
        if self.root is None or report is None:
            return
        if place is None:
            than = "the one installed" if report.beats(report.before) else "the one before"
            raise ModelError(
                f"the new model is no better than {than} ({report.sentence()}), and was not installed: train longer "
                f"(--minutes) or on more text; it is in {model_dir}."
            )
        if not self._named:
            self._make_room(model_dir)
        console.print(f"Installed for {self.root}: {report.sentence()}.", markup=False, soft_wrap=True)

    def _make_room(self, model_dir: Path) -> None:
        """Remove what has been installed from where it was made, for the next one; the curve and the samples stay."""
        from lsp_charrnn.train.loop import CHECKPOINT_FILE
        from lsp_charrnn.train.run import work_dir

        shutil.rmtree(model_dir, ignore_errors=True)
        with suppress(OSError):
            (work_dir(model_dir) / CHECKPOINT_FILE).unlink()


class Lines:
    """JSON on standard output for the program that has started a training: a line a second, and one at the end.

    It can stop the training by SIGINT even where it has that ignored itself; and when it has gone, the training stops,
    too, after writing a checkpoint.
    """

    def __init__(self) -> None:
        self._told = -math.inf
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # which children inherit
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._write(phase="reading")

    def training(self, progress: Progress) -> None:
        """Tell where the training stands."""
        if progress.at_checkpoint or self._is_due():
            names = ("step", "minutes_left", "bits", "heldout_bits", "best_bits")
            figures = {name: getattr(progress, name) for name in names}
            finite = {name: x if x is None or math.isfinite(x) else None for name, x in figures.items()}
            self._write(phase="training", share=progress.fraction, **finite)

    def judging(self, share: float) -> None:
        """Tell how much of the comparison is done."""
        if self._is_due():
            self._write(phase="judging", share=share)

    def done(self, model: Path, installed: bool, report: TunedReport | None) -> None:
        """Tell what has become of it."""
        facts = {} if report is None else {"report": report.to_json(), "sentence": report.sentence()}
        self._write(phase="done", model=str(model), installed=installed, **facts)

    def _is_due(self) -> bool:
        return time.monotonic() - self._told >= 1

    def _write(self, **facts: Any) -> None:
        self._told = time.monotonic()
        try:
            print(json.dumps(facts), flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            # While it trains, the first interruption leaves Python's own handler for a second one: once is enough.
            stopping = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if facts["phase"] != "training" or not stopping:
                signal.raise_signal(signal.SIGINT)
