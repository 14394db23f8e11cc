"""How long a training run will still take: from how long its steps and its checkpoints took, each for itself.

A share of the run done says too little: before the first checkpoint nothing of their time is in it, and on a machine
that others use too an hour ago says little of now. What time it is, is told by the caller.
"""

from __future__ import annotations

from typing import Final

from lsp_charrnn.config import DEFAULT_MINUTES, TrainOptions

_HORIZON_SECONDS: Final = 60.0  # that the mean of a step reaches back over at least …
_HORIZON_SHARE: Final = 0.25  # … or this share of the run so far: what lies ahead is long, too
_READING: Final = 0.8  # of a character's training, to judge it by the weights and by their average (about 0.4 each)


class Remaining:
    """Estimates the rest of a run with `options` that reads `judged` held-out characters at each checkpoint."""

    def __init__(self, options: TrainOptions, *, judged: int) -> None:
        self._options, self._judged = options, judged
        self._steps = 0  # of this process
        self._elapsed = 0.0  # seconds, in steps
        self._step: float | None = None  # seconds
        self._checkpoint: float | None = None  # seconds

    def stepped(self, seconds: float) -> None:
        """Note that one step has taken so long, what was drawn and judged after it left out."""
        self._steps += 1
        if self._steps <= 2:  # the first pays for what is set up once; the second replaces it
            self._step = seconds
            return
        assert self._step is not None
        self._elapsed += seconds
        horizon = min(self._elapsed, max(_HORIZON_SECONDS, _HORIZON_SHARE * self._elapsed))
        self._step += (seconds - self._step) * min(1.0, seconds / horizon if horizon else 1.0)

    def paused(self, seconds: float) -> None:
        """Note that a checkpoint has taken so long: judging, the sample, the log, writing."""
        self._checkpoint = seconds if self._checkpoint is None else 0.5 * (self._checkpoint + seconds)

    def minutes(self, step: int, minutes: float) -> float | None:
        """Return the minutes that are left after `step` steps and `minutes`; None: there is nothing to go by yet."""
        options = self._options
        if self._step is None:
            return None
        checkpoint = self._checkpoint
        if checkpoint is None:
            checkpoint = self._judged * _READING * self._step / (options.batch * options.bptt)
        limit = options.minutes
        if limit is None and options.steps is None:
            limit = DEFAULT_MINUTES
        ends = []
        if limit is not None:
            ends.append(max(0.0, limit - minutes) + checkpoint / 60)  # the last comes when the time is over
        if options.steps is not None:
            left = max(0, options.steps - step)
            checkpoints = -(-options.steps // options.checkpoint_every) - step // options.checkpoint_every
            ends.append((left * self._step + max(0, checkpoints) * checkpoint) / 60)
        return min(ends)
