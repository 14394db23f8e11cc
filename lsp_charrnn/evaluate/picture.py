"""The look that pictures of measurements share, and how they are kept: as PNGs, which `output` writes.

matplotlib comes with the extra `train` alone, so it is imported when something is drawn. What is drawn is the business
of whoever measured it.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.output import check_place, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS: Final = "#0b6e4f"
OTHERS: Final = "#b3541e"  # what ours is compared with, or corrected by
ASIDE: Final = "#555555"  # aims, and what is said in small print
FAINT: Final = "#dddddd"  # what lies behind


def check_drawing(path: Path) -> None:
    """Raise now rather than when all has been measured: `UserError` without matplotlib, `OutputError` of `path`."""
    _figure_class()
    check_place(path)


def blank(width: float, height: float, title: str, *, dpi: int = 120) -> tuple[Figure, Axes]:
    """Return an empty picture of so many inches, and what to draw in. Raises `UserError` without matplotlib."""
    figure = _figure_class()(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")
    axes = figure.add_subplot(facecolor="white")
    axes.set_title(title, loc="left", fontsize=12)
    axes.grid(which="major", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write a picture as a PNG. Raises `OutputError`."""
    png = BytesIO()
    figure.savefig(png, format="png", facecolor="white", metadata={"Software": None})
    write_whole(path, png.getvalue())


def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "The picture is drawn by matplotlib: pip install matplotlib (the extra `train` has it)."
        ) from None
    return Figure
