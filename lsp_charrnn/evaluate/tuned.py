"""What training on a project has gained: bits and keystrokes saved on its held-out files, before and after.

Both models are read as they are served (int8), on the same files. Bits are the model's alone. Keys are typed by the
rules of `replay`, in this process, with the memories of document and project: what a user gains who has these anyway.
Windows are typed with one model and then the other, until the time is up, so that a slow machine compares fewer, but
the same. The training is `train`'s, and what is done with the better one, the caller's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table

from lsp_charrnn.config import Settings
from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.bits import BitsReport, bits_of
from lsp_charrnn.evaluate.heldout import take_in_turn
from lsp_charrnn.evaluate.inprocess import PATIENT, InProcess
from lsp_charrnn.evaluate.replay import Replay, Window, draw_windows, replay
from lsp_charrnn.evaluate.typing import TypingRow
from lsp_charrnn.model.step import Model
from lsp_charrnn.train.corpus import SourceFile

CHARACTERS: Final = 1_000_000  # of held-out text that are read, at most: some ten seconds a model
WINDOWS: Final = 12  # one a file
KEYS: Final = (400, 200, 100, 50, 25)  # to type in each: as many as let most be typed in all
SECONDS: Final = 60.0  # of typing; a window that was begun is ended
LEAST_GAIN: Final = 0.001  # of the bits: the same weights, stored and made int8 once more, differ by less

Told = Callable[[float], None]  # the share of the work that is done


@dataclass(frozen=True)
class TunedReport:
    """What two models make of the same held-out files; and a third, where another one was in use."""

    before: BitsReport
    after: BitsReport
    typed: tuple[TypingRow, TypingRow] | None  # before and after; None where no file is long enough
    in_use: BitsReport | None = None  # the project's own model until now

    @property
    def is_better(self) -> bool:
        """Whether the new model needs fewer bits than the one before, and than the one in use."""
        return self.beats(self.before) and (self.in_use is None or self.beats(self.in_use))

    def beats(self, rival: BitsReport) -> bool:
        """Say whether the new model needs fewer bits than another one, by more than rounding."""
        return self.after.bits_per_char < (1 - LEAST_GAIN) * rival.bits_per_char

    @property
    def bits_change(self) -> float:
        """How many bits more (fewer, if negative) a character needs, as a share of those before."""
        return self.after.bits_per_char / self.before.bits_per_char - 1

    @property
    def points(self) -> float | None:
        """Percentage points of keystrokes that are saved more; None where nothing was typed."""
        return None if self.typed is None else 100 * (self.typed[1].saved - self.typed[0].saved)

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON data."""
        facts: dict[str, Any] = {
            "files": len(self.after.files),
            "characters": self.after.characters,
            "before": self.before.model,
            "bits_per_char_before": self.before.bits_per_char,
            "bits_per_char_after": self.after.bits_per_char,
            "bits_change": self.bits_change,
        }
        if self.in_use is not None:
            facts["bits_per_char_in_use"] = self.in_use.bits_per_char
        if self.typed is not None:
            before, after = self.typed
            facts |= {
                "keystrokes_saved_before": before.saved,
                "keystrokes_saved_after": after.saved,
                "keys": after.keys_without,
                "typed_files": len(after.replays),
            }
        return facts

    def sentence(self) -> str:
        """Return what was gained, in words."""
        more = "fewer" if self.bits_change <= 0 else "more"
        sentence = f"{100 * abs(self.bits_change):.1f} % {more} bits on {_files(len(self.after.files))} it had not seen"
        if self.points is not None:
            sentence += f", {self.points:+.1f} points of keystrokes saved"
        return sentence

    def table(self) -> Table:
        """Return one row for each measure."""
        typed = ""
        if self.typed is not None:
            after = self.typed[1]
            typed = f"; {after.keys_without:,} keys typed in {_files(len(after.replays))}, with both memories"
        table = Table(
            title=f"On {_files(len(self.after.files))} held out",
            caption=f"{self.after.characters:,} characters{typed}",
        )
        table.add_column("")
        for name in ("before", "after", "change"):
            table.add_column(name, justify="right")
        bits = f"{self.before.bits_per_char:.3f}", f"{self.after.bits_per_char:.3f}"
        table.add_row("bits per character", *bits, f"{100 * self.bits_change:+.1f} %")
        if self.in_use is not None:
            change = self.after.bits_per_char / self.in_use.bits_per_char - 1
            row = f"{self.in_use.bits_per_char:.3f}", bits[1], f"{100 * change:+.1f} %"
            table.add_row("the same, of the model in use", *row)
        if self.typed is not None:
            saved = (f"{100 * row.saved:.1f} %" for row in self.typed)
            table.add_row("keystrokes saved", *saved, f"{self.points:+.1f} points")
        return table


def compare(
    before: Model,
    after: Model,
    kept: Sequence[SourceFile],
    judges: Sequence[SourceFile],
    *,
    in_use: Model | None = None,
    settings: Settings = PATIENT,
    seconds: float = SECONDS,
    told: Told = lambda share: None,
) -> TunedReport:
    """Measure `before` and `after`, and the bits of `in_use`, on `judges`; `kept` are the other files around these.

    Of very much held-out text a part is read, the same one always. Raises `CorpusError` if there is none.
    """
    judges = _sample(judges)
    models = [before, after, *([in_use] if in_use is not None else [])]
    bits: list[BitsReport] = []
    for model in models:

        def read(done: int, total: int) -> None:
            told(0.5 * (len(bits) + done / total) / len(models))

        bits.append(bits_of(model, judges, name=model.name, progress=read))
    windows = _windows(judges)
    typed = None
    if windows:
        engine = InProcess(before, _around(windows, kept, judges), settings)
        typed = asyncio.run(_type(engine, (before, after), windows, seconds, lambda share: told(0.5 + share / 2)))
    return TunedReport(bits[0], bits[1], typed, bits[2] if in_use is not None else None)


def _sample(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return all files, or so many that `CHARACTERS` are in them, the projects in turn."""
    sample: list[SourceFile] = []
    characters = 0
    for file in take_in_turn(files):
        if sample and characters + file.size > CHARACTERS:
            break
        sample.append(file)
        characters += file.size
    return sample


def _windows(judges: Sequence[SourceFile]) -> list[Window]:
    """Return the windows that hold most keys together; none where no file is long enough."""
    best: list[Window] = []
    most = 0
    for keys in KEYS:
        try:
            windows = draw_windows(judges, count=WINDOWS, keys=keys)
        except CorpusError:
            continue
        if len(windows) * keys > most:
            best, most = windows, len(windows) * keys
    return best


def _around(windows: Sequence[Window], kept: Sequence[SourceFile], judges: Sequence[SourceFile]) -> list[SourceFile]:
    """Return what the memories of the windows' projects hold: as much of each as the server counts."""
    room = {window.project: PATIENT.memory_project_megabytes * 1e6 for window in windows}
    around = []
    for file in (*judges, *kept):
        if file.size <= room.get(file.project, 0):
            room[file.project] -= file.size
            around.append(file)
    return around


async def _type(
    engine: InProcess, models: tuple[Model, Model], windows: Sequence[Window], seconds: float, told: Told
) -> tuple[TypingRow, TypingRow]:
    began = time.monotonic()
    replays: tuple[list[Replay], list[Replay]] = ([], [])
    for number, window in enumerate(windows):
        if number and time.monotonic() - began > seconds:
            break
        told(number / len(windows))
        for engine.model, of_model in zip(models, replays, strict=True):
            of_model.append(await replay(window, engine))
    rows = [TypingRow(engine.name, "all", tuple(of_model)) for of_model in replays]
    return rows[0], rows[1]


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"
