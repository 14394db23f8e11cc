"""How a training run looks from outside: a live display in a terminal, one plain line a checkpoint anywhere else.

It only shows what `loop` reports. What stays on disk is written by `journal`.
"""

from __future__ import annotations

import math
from types import TracebackType

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lsp_charrnn.train.loop import Progress

_SAMPLE_LINES = 10  # of text, where the terminal is high enough
_OTHER_LINES = 8  # around it


class Display:
    """Shows a run while the `with` block lasts; called with each `Progress`."""

    def __init__(self, console: Console, *, title: str) -> None:
        self.stopping = False  # Ctrl-C was pressed: what has been asked for is on its way
        self._console = console
        self._title = title
        self._progress: Progress | None = None
        self._sample, self._sample_step = "", 0
        live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(self, console=console, refresh_per_second=4) if live else None

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Show `progress`: in a terminal at the next refresh, else now if a checkpoint has been written."""
        if progress.sample is not None:
            self._sample, self._sample_step = visible(progress.sample), progress.step
        self._progress = progress
        if self._live is None and progress.at_checkpoint:
            self._console.print(plain_line(progress), highlight=False, markup=False, soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        progress = self._progress
        if progress is None:
            yield Text(f"{self._title}: starting …")
            return
        yield self._bar(progress)
        yield _figures(progress)
        lines = max(1, min(_SAMPLE_LINES, options.size.height - _OTHER_LINES))
        yield self._panel(lines)
        # A short last line: the terminal writes its ^C behind it, and must not wrap.
        hint = "Ctrl-C writes a checkpoint and stops; --resume goes on from it."
        if self.stopping:
            hint = "Stopping after this step … (Ctrl-C again: at once)"
        yield Text(hint if progress.fraction < 1 else "", style="dim")

    def _bar(self, progress: Progress) -> RenderableType:
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True, justify="right")
        bar = ProgressBar(total=1.0, completed=progress.fraction)
        row.add_row(self._title, bar, f"{100 * progress.fraction:3.0f} %  {time_left(progress)}")
        return row

    def _panel(self, lines: int) -> RenderableType:
        shown = self._sample.split("\n")[:lines]
        shown += [""] * (lines - len(shown))  # always as high: nothing jumps
        title = f"sample at step {self._sample_step:,}" if self._sample_step else "the first sample comes at step 10"
        text = Text("\n".join(shown), no_wrap=True, overflow="ellipsis")
        return Group(Panel(text, title=title, title_align="left", box=box.ROUNDED, border_style="dim"))


def _figures(progress: Progress) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    for _ in range(4):
        table.add_column(no_wrap=True)
    table.add_row(
        "bits per character",
        f"training {_bits(progress.bits)}",
        f"held out {_bits(progress.heldout_bits)}",
        f"best {_bits(progress.best_bits)}",
    )
    table.add_row(
        f"step {progress.step:,}",
        f"epoch {progress.epochs:.2f}",
        f"{progress.characters_per_second:,.0f} characters/s",
        f"{_span(progress.minutes)} so far",
    )
    return table


def plain_line(progress: Progress) -> str:
    """Return where a run stands, in one line."""
    return (
        f"step {progress.step:,}, {100 * progress.fraction:.0f} %, {time_left(progress)}: "
        f"bits per character {_bits(progress.bits)} training, {_bits(progress.heldout_bits)} held out "
        f"(best {_bits(progress.best_bits)}); {progress.characters_per_second:,.0f} characters/s"
    )


def time_left(progress: Progress) -> str:
    """Return how long the run will still take (`remaining` estimates it)."""
    if progress.minutes_left is None:
        return "… left"
    return f"{_span(progress.minutes_left)} left" if progress.minutes_left > 0 else "done"


def visible(sample: str) -> str:
    """Return text that a terminal can be given: what is not printable (escape sequences too) becomes a dot.

    A network that has learned nothing yet writes noise, and noise may hold anything.
    """
    return "".join(char if char.isprintable() or char == "\n" else "·" for char in sample.expandtabs(4))


def _bits(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _span(minutes: float) -> str:
    seconds = round(60 * minutes)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
