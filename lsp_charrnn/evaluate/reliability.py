"""How far the probability of a suggestion can be believed: of those said to be right with 70 %, are 70 % right?

Given pairs of (predicted probability that the whole suggestion is right, whether it was): reliability by bins, the
usual scores, and the two corrections that fit best, an exponent and a line on the log-odds. A suggestion's probability
is a product over its characters, so an exponent on it is one on each of them. Where the pairs are in two halves, each
is scored by the corrections that were fitted to the other, which is what a correction is worth on code that it has not
seen; else on the pairs that they were fitted to. Where pairs come from is left to others (`shown`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich import box
from rich.table import Table

from lsp_charrnn.evaluate.picture import ASIDE, FAINT, OTHERS, OURS, blank, save

BINS = 10
TEMPERATURES = (0.01, 100.0)  # between them the best one is looked for
_CERTAIN = 1e-6
# Pulls the line towards changing nothing, so weakly that it decides only where the pairs don't.
_RIDGE = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Suggestions of about the same predicted probability."""

    low: float  # least and greatest prediction in it
    high: float
    count: int
    predicted: float  # mean prediction
    right: float  # share that was right

    @property
    def right_error(self) -> float:
        """Standard error of `right`."""
        return math.sqrt(self.right * (1.0 - self.right) / self.count)


@dataclass(frozen=True)
class Scores:
    """How good predictions are; the lower the better."""

    calibration_error: float  # expected: mean distance of prediction and share over the bins, by their counts
    brier: float  # mean squared error
    log_loss: float  # in nats


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities against what came true, and the corrections that fit best.

    `temperature` is the exponent of `tempered`: above 1 the predictions are overconfident, below 1 too modest.
    `slope` and `offset` are those of `platt`. They are fitted to all pairs. `tempered_scores` and `platt_scores` are
    those of corrections fitted to the other half of the pairs, with the exponents `temperatures` of either half, if
    there are any; of the corrections above if there are none.
    """

    count: int
    predicted: float  # mean prediction
    right: float  # share that was right
    bins: tuple[Bin, ...]
    scores: Scores
    temperature: float
    temperatures: tuple[float, ...]
    tempered_scores: Scores
    slope: float
    offset: float
    platt_scores: Scores

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON data."""
        return {"measured": "reliability of suggestions"} | asdict(self)

    def table(self) -> Table:
        """Return one row a bin, and the scores beneath."""
        scored = "Corrections are scored on the suggestions that they were fitted to."
        if self.temperatures:
            exponents = " and ".join(f"p^{temperature:.3g}" for temperature in self.temperatures)
            scored = f"Corrections are scored out of sample: on each half by what fits the other ({exponents})."
        lines = [
            f"{name}: calibration error {100 * of.calibration_error:.1f} %, Brier {of.brier:.4f}, "
            f"log loss {of.log_loss:.4f}"
            for name, of in (
                ("as predicted", self.scores),
                (f"p^{self.temperature:.3g}", self.tempered_scores),
                (f"{self.slope:.3g}·logit(p) {self.offset:+.3g}", self.platt_scores),
            )
        ]
        table = Table(
            title=f"Reliability of {self.count:,} suggestions",
            caption="\n".join([*lines, scored]),
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            min_width=84,  # of the caption
        )
        table.add_column("predictions")
        for name in ("suggestions", "predicted", "right"):
            table.add_column(name, justify="right")
        for b in self.bins:
            table.add_row(
                f"{100 * b.low:.1f} to {100 * b.high:.1f} %",
                f"{b.count:,}",
                f"{100 * b.predicted:.1f} %",
                f"{100 * b.right:.1f} ± {100 * b.right_error:.1f} %",
            )
        table.add_section()
        error = math.sqrt(self.right * (1.0 - self.right) / self.count)
        all_right = f"{100 * self.right:.1f} ± {100 * error:.1f} %"
        table.add_row("all", f"{self.count:,}", f"{100 * self.predicted:.1f} %", all_right)
        return table

    def picture(self, path: Path) -> None:
        """Draw predictions against what came true, as a PNG at `path`, which appears whole or not at all.

        Raises `UserError` if matplotlib is not installed, `OutputError` if `path` can't be written.
        """
        figure, axes = blank(5, 5, "How far a suggestion's probability can be believed")
        axes.title.set_fontsize(11)
        axes.plot([0, 1], [0, 1], ":", color=ASIDE, linewidth=0.8, label="believable as it is")
        grid = np.linspace(0.0, 1.0, 201)
        curve = tempered(grid, self.temperature)
        axes.plot(grid, curve, "--", color=OTHERS, linewidth=1, label=f"$p^{{{self.temperature:.2f}}}$")
        axes.errorbar(
            [b.predicted for b in self.bins],
            [b.right for b in self.bins],
            yerr=[b.right_error for b in self.bins],
            fmt="o-",
            color=OURS,
            markersize=4,
            capsize=2,
            label=f"{self.count:,} suggestions, ± standard error",
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel("predicted to be right")
        axes.set_ylabel("were right")
        axes.legend(loc="best", fontsize=8, framealpha=1, edgecolor=FAINT)
        save(figure, path)


def reliability(
    predicted: ArrayLike, right: ArrayLike, *, halves: ArrayLike | None = None, bins: int = BINS
) -> Reliability:
    """Return how far predicted probabilities (of n suggestions) agree with what was right (of the same n, 0 or 1).

    `halves` says of the same n in which half each is, 0 or 1, so that corrections are scored out of sample. No
    probability is taken to be within 1e-6 of 0 or 1, where one surprise would outweigh all else. Raises `ValueError` if
    there is no pair, these are not probabilities and as many truths, or not two halves of them.
    """
    p, truth = _pairs(predicted, right)
    p = _clipped(p)
    temperature = fit_temperature(p, truth)
    slope, offset = fit_platt(p, truth)
    temperatures: tuple[float, ...] = ()
    corrected = tempered(p, temperature), platt(p, slope, offset)
    if halves is not None:
        temperatures, corrected = _crossed(p, truth, np.asarray(halves))
    return Reliability(
        count=len(p),
        predicted=float(p.mean()),
        right=float(truth.mean()),
        bins=reliability_bins(p, truth, bins=bins),
        scores=score(p, truth, bins=bins),
        temperature=temperature,
        temperatures=temperatures,
        tempered_scores=score(corrected[0], truth, bins=bins),
        slope=slope,
        offset=offset,
        platt_scores=score(corrected[1], truth, bins=bins),
    )


def _crossed(p: Floats, truth: Floats, halves: NDArray[Any]) -> tuple[tuple[float, ...], tuple[Floats, Floats]]:
    """Return the exponents that fit the halves 0 and 1, and the predictions of each by the corrections of the other."""
    if halves.shape != p.shape or set(halves.tolist()) != {0, 1}:
        raise ValueError(f"halves {halves.shape} must say 0 or 1 of each of {len(p)} predictions, and both of some")
    exponents = tuple(fit_temperature(p[halves == half], truth[halves == half]) for half in (0, 1))
    lines = [fit_platt(p[halves == half], truth[halves == half]) for half in (0, 1)]
    by_exponent, by_line = np.empty_like(p), np.empty_like(p)
    for half in (0, 1):
        these = halves == half
        by_exponent[these] = tempered(p[these], exponents[1 - half])
        by_line[these] = platt(p[these], *lines[1 - half])
    return exponents, (by_exponent, by_line)


def reliability_bins(predicted: ArrayLike, right: ArrayLike, *, bins: int = BINS) -> tuple[Bin, ...]:
    """Return at most `bins` bins with about as many suggestions each, in the order of their predictions.

    Equal predictions share a bin, whatever order they came in; so there may be fewer, or uneven ones.
    """
    p, truth = _pairs(predicted, right)
    if bins < 1:
        raise ValueError(f"{bins} bins hold nothing: ask for 1 or more")
    order = np.argsort(p, kind="stable")
    p, truth = p[order], truth[order]
    cuts = np.arange(1, bins) * len(p) // bins
    starts = np.unique(np.append(np.searchsorted(p, p[cuts], side="left"), 0))
    return tuple(
        Bin(float(these[0]), float(these[-1]), len(these), float(these.mean()), float(true.mean()))
        for these, true in zip(np.split(p, starts[1:]), np.split(truth, starts[1:]), strict=True)
    )


def score(predicted: ArrayLike, right: ArrayLike, *, bins: int = BINS) -> Scores:
    """Return the scores of predictions."""
    p, truth = _pairs(predicted, right)
    distances = [b.count * abs(b.predicted - b.right) for b in reliability_bins(p, truth, bins=bins)]
    return Scores(sum(distances) / len(p), float(np.square(p - truth).mean()), _log_loss(p, truth))


def tempered(predicted: ArrayLike, temperature: float) -> Floats:
    """Return p^temperature."""
    return np.power(_clipped(np.asarray(predicted, dtype=np.float64)), temperature)


def platt(predicted: ArrayLike, slope: float, offset: float) -> Floats:
    """Return the probabilities whose log-odds are slope · logit(p) + offset (Platt 1999)."""
    return _sigmoid(slope * _logit(_clipped(np.asarray(predicted, dtype=np.float64))) + offset)


def fit_temperature(predicted: ArrayLike, right: ArrayLike) -> float:
    """Return the exponent with the least log loss; one of `TEMPERATURES` where all or none was right."""
    p, truth = _pairs(predicted, right)
    nats = -np.log(_clipped(p))
    hits, misses = float(nats[truth == 1].sum()), nats[truth == 0]

    def slope(temperature: float) -> float:
        """The loss is convex in the exponent; this is its derivative."""
        with np.errstate(over="ignore"):  # 1/inf is the 0 that is meant
            return hits - float((misses / np.expm1(temperature * misses)).sum())

    return _zero_of(slope, *TEMPERATURES)


def fit_platt(predicted: ArrayLike, right: ArrayLike) -> tuple[float, float]:
    """Return slope and offset with the least log loss, by Newton's method with the step halved where it overshoots.

    They stay finite where a threshold parts right from wrong (Lin, Lin and Weng 2007 for the method).
    """
    p, truth = _pairs(predicted, right)
    x = np.stack([_logit(_clipped(p)), np.ones(len(p))], axis=1)  # [suggestions, 2]
    unchanged = np.array([1.0, 0.0])

    def loss(line: Floats) -> float:
        # log(1 + e^z) − y·z, which does not overflow
        z = x @ line
        return float((np.logaddexp(0.0, z) - truth * z).mean() + 0.5 * _RIDGE * np.square(line - unchanged).sum())

    line, least = unchanged, loss(unchanged)
    for _ in range(200):
        now = _sigmoid(x @ line)
        gradient = x.T @ (now - truth) / len(p) + _RIDGE * (line - unchanged)
        curvature = (x.T * (now * (1.0 - now))) @ x / len(p) + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (found := loss(line - size * step)) > least and size > 1e-10:
            size /= 2
        if least - found < 1e-15:
            break
        line, least = line - size * step, found
    return float(line[0]), float(line[1])


def _pairs(predicted: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats]:
    p, truth = np.asarray(predicted, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if p.ndim != 1 or p.shape != truth.shape or not len(p):
        raise ValueError(f"predictions {p.shape} and truths {truth.shape} must be two lists as long as each other")
    if not (((p >= 0) & (p <= 1)).all() and np.isin(truth, (0.0, 1.0)).all()):
        raise ValueError("predictions must lie between 0 and 1, and truths be 0 or 1")
    return p, truth


def _clipped(p: Floats) -> Floats:
    return np.clip(p, _CERTAIN, 1.0 - _CERTAIN)


def _log_loss(p: Floats, truth: Floats) -> float:
    """In nats; finite, since corrections may bring a probability to 0 or 1 in floats."""
    p = np.clip(p, 1e-15, 1.0 - 1e-15)
    return float(-np.where(truth == 1, np.log(p), np.log1p(-p)).mean())


def _logit(p: Floats) -> Floats:
    return np.log(p) - np.log1p(-p)


def _sigmoid(z: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def _zero_of(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return where a rising function is zero, to 1e-9 of it; the nearer end where that lies outside."""
    while high / low > 1.0 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return math.sqrt(low * high)
