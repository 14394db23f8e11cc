"""How long a training run will still take: from how long its steps and its checkpoints took, each for itself.

A share of the run done says too little: before the first checkpoint nothing of their time is in it, and on a machine
that others use too an hour ago says little of now. What time it is, is told by the caller.
"""

from __future__ import annotations

import math
from typing import Final

from lsp_charrnn.config import DEFAULT_MINUTES, TrainOptions

_HORIZON_SECONDS: Final = 120.0  # that the mean of a step reaches back over at least …
_HORIZON_SHARE: Final = 0.5  # … or this share of the run so far: what lies ahead is long, too
_READING: Final = 0.8  # of a character's training, to judge it by the weights and by their average (about 0.4 each)


class Remaining:
    """Estimates the rest of a run with `options` that reads `judged` held-out characters at each checkpoint."""

    def __init__(self, options: TrainOptions, *, judged: int) -> None:
        self._options, self._judged = options, judged
        self._all = 0  # steps of this process
        self._elapsed = 0.0  # seconds, in steps
        # Both fade with time, so that their quotient is what the last steps took in the mean. (A mean that is moved by
        # each step's own time would count slow steps too much.)
        self._seconds, self._steps = 0.0, 0.0
        self._checkpoint: float | None = None  # seconds

    def stepped(self, seconds: float) -> None:
        """Note that one step has taken so long, what was drawn and judged after it left out."""
        self._all += 1
        if self._all == 2:  # the first has paid for what is set up once
            self._seconds = self._steps = 0.0
        self._elapsed += seconds
        faded = math.exp(-seconds / max(_HORIZON_SECONDS, _HORIZON_SHARE * self._elapsed))
        self._seconds = faded * self._seconds + seconds
        self._steps = faded * self._steps + 1

    def paused(self, seconds: float) -> None:
        """Note that a checkpoint has taken so long: judging, the sample, the log, writing."""
        self._checkpoint = seconds if self._checkpoint is None else 0.5 * (self._checkpoint + seconds)

    def minutes(self, step: int, minutes: float) -> float | None:
        """Return the minutes that are left after `step` steps and `minutes`; None: there is nothing to go by yet."""
        options = self._options
        if not self._all:
            return None
        a_step = self._seconds / self._steps
        checkpoint = self._checkpoint
        if checkpoint is None:
            checkpoint = self._judged * _READING * a_step / (options.batch * options.bptt)
        limit = options.minutes
        if limit is None and options.steps is None:
            limit = DEFAULT_MINUTES
        ends = []
        if limit is not None:
            ends.append(max(0.0, limit - minutes) + checkpoint / 60)  # the last comes when the time is over
        if options.steps is not None:
            left = max(0, options.steps - step)
            checkpoints = -(-options.steps // options.checkpoint_every) - step // options.checkpoint_every
            ends.append((left * a_step + max(0, checkpoints) * checkpoint) / 60)
        return min(ends)
