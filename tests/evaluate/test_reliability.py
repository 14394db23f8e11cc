"""Reliability of suggestions: small cases by hand, and samples whose answer is known."""

import builtins
import json
import math
import struct

import numpy as np
import pytest
from rich.console import Console

from lsp_charrnn.errors import OutputError, UserError
from lsp_charrnn.evaluate.reliability import (
    TEMPERATURES,
    fit_platt,
    fit_temperature,
    platt,
    reliability,
    reliability_bins,
    score,
    tempered,
)

COUNT = 40_000


def sample(distort=lambda p: p, count=COUNT, seed=0):
    """Return predictions and truths: what is predicted is `distort` of the probability that it is so."""
    random = np.random.default_rng(seed)
    p = random.uniform(0.02, 0.98, count)
    return distort(p), random.random(count) < p


def groups(*triples):
    """Return predictions and truths of groups of (prediction, how many were right, how many)."""
    predicted = [p for p, _, count in triples for _ in range(count)]
    right = [at < hits for _, hits, count in triples for at in range(count)]
    return predicted, right


def test_the_scores_by_hand():
    # Two bins of two: |0.2 − 1/2| and |0.7 − 1|, equally heavy.
    scores = score([0.1, 0.3, 0.6, 0.8], [0, 1, 1, 1], bins=2)
    assert scores.calibration_error == pytest.approx(0.3)
    assert scores.brier == pytest.approx((0.01 + 0.49 + 0.16 + 0.04) / 4)
    assert scores.log_loss == pytest.approx(-math.log(0.9 * 0.3 * 0.6 * 0.8) / 4)


def test_bins_hold_about_as_many_each_in_order():
    predicted, right = sample(count=1003)
    found = reliability_bins(predicted, right, bins=10)
    assert len(found) == 10
    assert {b.count for b in found} <= {100, 101}
    assert sum(b.count for b in found) == 1003
    assert sum(b.count * b.right for b in found) == pytest.approx(right.sum())
    pairs = [(found[at], found[at + 1]) for at in range(9)]
    assert all(a.high <= b.low for a, b in pairs)
    assert all(b.low <= b.predicted <= b.high for b in found)


def test_equal_predictions_share_a_bin_in_whatever_order_they_come():
    predicted, right = groups((0.2, 1, 3), (0.5, 2, 4), (0.9, 2, 3))
    found = reliability_bins(predicted, right, bins=10)
    assert [(b.low, b.high, b.count) for b in found] == [(0.2, 0.2, 3), (0.5, 0.5, 4), (0.9, 0.9, 3)]
    assert [b.right for b in found] == pytest.approx([1 / 3, 1 / 2, 2 / 3])
    assert reliability_bins(predicted[::-1], right[::-1], bins=10) == found


def test_fewer_suggestions_than_bins_have_one_each():
    assert [b.count for b in reliability_bins([0.3, 0.1, 0.2], [1, 0, 1], bins=10)] == [1, 1, 1]
    assert reliability_bins([0.3, 0.1, 0.2], [1, 0, 1], bins=1)[0].count == 3


def test_the_error_of_a_share_by_hand():
    (found,) = reliability_bins(*groups((0.5, 20, 100)), bins=5)
    assert found.right_error == pytest.approx(0.04)


def test_a_calibrated_sample_needs_no_correction():
    found = reliability(*sample())
    assert found.temperature == pytest.approx(1.0, abs=0.03)
    assert found.slope == pytest.approx(1.0, abs=0.04)
    assert found.offset == pytest.approx(0.0, abs=0.04)
    assert found.scores.calibration_error < 0.01


@pytest.mark.parametrize("exponent", [0.4, 1.7, 3.0])
def test_the_temperature_undoes_an_exponent(exponent):
    """Predicted p^(1/t) where p is true: overconfident for t above 1."""
    found = reliability(*sample(lambda p: p ** (1 / exponent)))
    assert found.temperature == pytest.approx(exponent, rel=0.04)
    assert found.scores.calibration_error > 0.05
    assert found.tempered_scores.calibration_error < 0.015
    assert found.tempered_scores.log_loss < found.scores.log_loss


def test_platt_undoes_a_line_on_the_log_odds():
    found = reliability(*sample(lambda p: platt(p, 2.0, 0.6)))
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.offset == pytest.approx(-0.3, abs=0.04)
    assert found.platt_scores.calibration_error < 0.01
    assert found.platt_scores.log_loss < found.tempered_scores.log_loss < found.scores.log_loss


def test_the_temperature_of_one_group_by_hand():
    """All say 1/2, and a quarter is right: (1/2)² = 1/4."""
    assert fit_temperature(*groups((0.5, 25, 100))) == pytest.approx(2.0, abs=1e-6)


def test_platt_of_two_groups_by_hand():
    """Two parameters fit two shares exactly."""
    slope, offset = fit_platt(*groups((0.8, 60, 100), (0.3, 20, 100)))
    assert platt([0.8, 0.3], slope, offset) == pytest.approx([0.6, 0.2], abs=1e-6)


def test_halves_are_scored_by_what_fits_the_other():
    """Three of four are right in one half and one of four in the other, and all say 1/2."""
    predicted, right = groups((0.5, 75, 100), (0.5, 25, 100))
    found = reliability(predicted, right, halves=[0] * 100 + [1] * 100)
    assert found.temperature == pytest.approx(1.0)
    assert found.temperatures == pytest.approx((-math.log2(0.75), 2.0), abs=1e-6)
    assert found.scores.log_loss == pytest.approx(math.log(2))
    # The one half is said to be right with 1/4, the other with 3/4.
    assert found.tempered_scores.log_loss == pytest.approx(-0.75 * math.log(0.25) - 0.25 * math.log(0.75))
    assert found.platt_scores.log_loss == pytest.approx(found.tempered_scores.log_loss)
    assert found.tempered_scores.calibration_error == pytest.approx(0.5)
    assert "out of sample: on each half by what fits the other (p^0.415 and p^2)" in found.table().caption
    alike = reliability(predicted, right)
    assert (alike.temperature, alike.temperatures) == (found.temperature, ())
    assert "that they were fitted to" in alike.table().caption


def test_a_correction_that_holds_helps_out_of_sample_too():
    predicted, right = sample(lambda p: p ** (1 / 1.7))
    found = reliability(predicted, right, halves=np.arange(COUNT) % 2)
    assert found.temperatures == pytest.approx((1.7, 1.7), rel=0.05)
    assert found.tempered_scores.calibration_error < 0.02 < found.scores.calibration_error
    assert found.tempered_scores.log_loss < found.scores.log_loss


@pytest.mark.parametrize("halves", [[0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 2]])
def test_what_are_no_halves_is_refused(halves):
    with pytest.raises(ValueError, match="0 or 1 of each of 3"):
        reliability([0.2, 0.5, 0.9], [0, 1, 1], halves=halves)


def test_no_other_correction_fits_better():
    predicted, right = sample(lambda p: platt(p, 1.5, 0.4) ** 0.7, count=500)
    found = reliability(predicted, right)
    for change in (0.99, 1.01):
        assert score(tempered(predicted, found.temperature * change), right).log_loss > found.tempered_scores.log_loss
        near = platt(predicted, found.slope * change, found.offset)
        assert score(near, right).log_loss > found.platt_scores.log_loss
        near = platt(predicted, found.slope, found.offset + change - 1)
        assert score(near, right).log_loss > found.platt_scores.log_loss


@pytest.mark.parametrize(("right", "temperature"), [(1, TEMPERATURES[0]), (0, TEMPERATURES[1])])
def test_where_all_or_none_is_right_the_fits_stay_finite(right, temperature):
    found = reliability([0.2, 0.5, 0.9], [right] * 3)
    assert found.temperature == pytest.approx(temperature)
    assert math.isfinite(found.slope)
    assert math.isfinite(found.offset)
    assert found.platt_scores.log_loss < 0.001


def test_where_a_threshold_parts_right_from_wrong_the_fit_stays_finite():
    found = reliability([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], [0, 0, 0, 1, 1, 1])
    assert math.isfinite(found.slope)
    assert found.slope > 1
    assert found.platt_scores.log_loss < 0.001


def test_certain_predictions_that_were_wrong_cost_much_and_not_everything():
    found = reliability([0.0, 1.0, 1.0, 0.5], [1, 0, 1, 0])
    assert found.scores.log_loss == pytest.approx((2 * math.log(1e6) + math.log(2)) / 4, rel=1e-4)
    assert all(map(math.isfinite, (found.temperature, found.slope, found.offset)))
    assert math.isfinite(found.tempered_scores.log_loss)


@pytest.mark.parametrize(
    ("predicted", "right", "message"),
    [
        ([], [], "two lists"),
        ([0.5], [1, 0], "two lists"),
        ([1.5], [1], "between 0 and 1"),
        ([math.nan], [1], "between 0 and 1"),
        ([0.5], [0.5], "between 0 and 1"),
    ],
)
def test_what_is_no_prediction_is_refused(predicted, right, message):
    with pytest.raises(ValueError, match=message):
        reliability(predicted, right)


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="1 or more"):
        reliability([0.5], [1], bins=0)


def test_the_report_shows_every_bin():
    found = reliability(*sample(count=1000), bins=5)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["count"] == 1000
    assert data["temperature"] == found.temperature
    assert data["scores"]["brier"] == found.scores.brier
    assert [b["count"] for b in data["bins"]] == [200] * 5
    console = Console(width=100, record=True, quiet=True)
    assert found.table().row_count == 6
    console.print(found.table())


def test_the_picture_is_a_small_png_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "images" / "reliability.png"
    reliability(*sample(lambda p: p**0.5)).picture(path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (600, 600)
    assert len(data) < 80_000
    assert list(path.parent.iterdir()) == [path]


def test_a_picture_that_cannot_be_drawn_is_one_sentence(tmp_path, monkeypatch):
    found = reliability([0.5], [1])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="name another place"):
        found.picture(tmp_path / "file" / "a.png")
    real = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(UserError, match="pip install matplotlib"):
        found.picture(tmp_path / "a.png")
