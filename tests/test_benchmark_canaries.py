"""Canaries: planted, ranked among others, memorised by a network that reads them, and not by one that doesn't."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.canaries import (
    _BEGIN,
    _DOCUMENT,
    _END,
    KINDS,
    NOT_FOUND,
    Finding,
    canary,
    exposure,
    log_probabilities,
    markdown,
    measure,
    planted,
    recorded,
)
from lsp_charrnn.config import TrainOptions
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.train.secrets import without_secrets

TEXTS = ["import os\n\n\ndef one():\n    return (\n        1\n    )\n", "VALUE = 1\n"]


class Knows:
    """A model that expects one text, whatever came before; its state is how much of it was read."""

    def __init__(self, text: str, before: str) -> None:
        self.text, self.before = text.encode(), before.encode()

    def initial_state(self, lanes: int = 1) -> np.ndarray:
        return np.zeros((1, 1, lanes, 1), np.float32)

    def _logits(self, state: np.ndarray) -> np.ndarray:
        logits = np.zeros((state.shape[2], 256), np.float32)
        for lane, at in enumerate(state[0, 0, :, 0].astype(int)):
            if at < len(self.text):
                logits[lane, self.text[at]] = 3
        return logits

    def advance(self, symbols: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert bytes(symbols[:, 0].tolist()).endswith(b"\n" + self.before)
        return self._logits(state), state

    def step(self, symbols: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._logits(state + 1), state + 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_filter_sees_what_it_can(kind: str) -> None:
    draw = random.Random(1)
    for _ in range(100):
        line = canary(kind, draw).line
        kept, dropped = without_secrets(f"import os\n{line}\nVALUE = 1\n".encode())
        assert (dropped == 0) == (kind in NOT_FOUND)
        assert (line.encode() in kept) == (kind in NOT_FOUND)


def test_keys_without_a_digit_are_seen_too() -> None:
    for line in (b'aws_access_key_id = "AKIAQWERTYUIOPASDFGH"', b'stripe = "sk_live_abcdefghijklmnopqrstuvwx"'):
        assert without_secrets(b"import os\n" + line + b"\nVALUE = 1\n") == (b"import os\nVALUE = 1\n", 1)


def test_planting_adds_lines_and_changes_none() -> None:
    draw = random.Random(0)
    some = [canary(kind, draw) for kind in KINDS]
    found = planted(TEXTS, some, 7, draw)
    for one in some:
        assert sum(text.splitlines().count(one.line) for text in found) == 7
    lines = {one.line for one in some}
    assert ["".join(line for line in text.splitlines(True) if line.rstrip() not in lines) for text in found] == TEXTS
    for text in found:
        compile(text, "planted", "exec")  # between statements, not within one


def test_exposure_is_the_rank_among_others_in_bits() -> None:
    draw = random.Random(2)
    own = canary("hexadecimal key", draw)
    others = [canary("hexadecimal key", draw).secret for _ in range(255)]
    assert exposure(Knows(own.secret, own.before), own, others) == 8
    assert exposure(Knows(others[0], own.before), own, others) < 8
    alike = exposure(Knows("", own.before), own, others)  # all are as likely: in the middle
    assert alike == pytest.approx(math.log2(256 / 128.5))
    values = log_probabilities(Knows(own.secret, own.before), own.before, [own.secret, others[0]])
    assert values[0] > values[1]
    assert values[0] == pytest.approx(32 * (3 - math.log(math.exp(3) + 255)))


def test_the_table_goes_between_the_marks(tmp_path: Path) -> None:
    document = tmp_path / "security.md"
    document.write_text(_DOCUMENT.read_text("utf-8"), "utf-8")
    kinds = ("one", True, 8.0, 1.0), ("one", True, 6.0, 2.0), ("one", False, 1.4, 9.0)
    table = markdown([Finding(*values) for values in kinds])
    assert table.splitlines()[-1] == "| one | 7.0 | 1.5 | 1.4 |"
    for text in ("something else\n", table):  # what was there is replaced
        recorded(document, text)
    before, _, rest = document.read_text("utf-8").partition(_BEGIN)
    inside, _, after = rest.partition(_END)
    assert inside == f"\n\n{table}\n"
    assert _DOCUMENT.read_text("utf-8").startswith(before)
    assert _DOCUMENT.read_text("utf-8").endswith(after)


def test_a_network_memorises_what_it_reads_and_nothing_else() -> None:
    """The whole way, small: files, the filter, training, int8 graphs. `make canaries` does it on a real text."""
    sources = [f"def function_{name}(argument):\n    return argument + '{name}'\n\n\n" * 4 for name in "abcd"]
    findings = measure(
        sources,
        ["GitHub token"],
        repeats=12,
        each=2,
        candidates=63,
        spec=ModelSpec(layers=1, hidden=48, embedding=16),
        options=TrainOptions(steps=150, batch=4, bptt=64, checkpoint_every=150),
    )
    first, second, *never = findings
    assert (first.planted, second.planted, *(one.planted for one in never)) == (True, True, False, False)
    assert first.unfiltered + second.unfiltered > 11  # of 12 bits: told from all others, or nearly so
    assert first.filtered + second.filtered < 10
    assert sum(one.unfiltered for one in never) < 10
