"""The toy tasks: what their lines are, that they are learned, and that the neurons found are those that know."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lsp_charrnn import cli
from lsp_charrnn.errors import OutputError
from lsp_charrnn.inside import lab
from lsp_charrnn.inside.findings import correlations, judge, right, traces
from lsp_charrnn.inside.lab import compare, run
from lsp_charrnn.inside.learning import LabOptions, learn, spec_of, targets_of
from lsp_charrnn.inside.toys import TOYS, Toy, padded, write
from lsp_charrnn.model.files import load_model, load_weights
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import HEADER_END, START
from lsp_charrnn.train.batches import IGNORED

LINES = {
    "counter": r"(?P<a>a+)X(?P<b>b+)\n",
    "selective-counter": r"(?P<a>[aX]+)Y(?P<b>b+)\n",
    "state": r"(?P<a>[AB])x+Y(?P<b>[ab])\n",
    "copy": r"(?P<a>[abc]+)X(?P<b>[abc]+)\n",
}
every_toy = pytest.mark.parametrize("toy", TOYS.values(), ids=lambda toy: toy.name)


def wanted(toy: Toy, a: str) -> str:
    return {"counter": "b" * len(a), "selective-counter": "b" * a.count("a"), "state": a.lower(), "copy": a}[toy.name]


@every_toy
def test_every_line_is_what_the_task_says(toy):
    random = np.random.default_rng(0)
    for size in [*toy.trained, *toy.beyond]:
        line = toy.draw(random, size)
        found = re.fullmatch(LINES[toy.name], line.text.decode())
        assert found is not None
        assert found["b"] == wanted(toy, found["a"])
        assert line.answer.decode() == found["b"] + "\n"
        assert line.text.count(toy.size[:1].encode()) >= size or toy.size == "letters"


@every_toy
def test_sizes_to_learn_from_and_sizes_beyond_are_not_the_same(toy):
    assert not set(toy.trained) & set(toy.beyond)


@every_toy
def test_a_document_is_read_as_any_other(toy):
    text = write(toy, np.random.default_rng(1), toy.trained[-1], before=2)
    assert text.symbols[0] == START
    assert text.symbols[text.text - 1] == HEADER_END
    assert text.symbols[text.text :].count(b"\n") == 3
    assert text.symbols[text.line :] == text.last.text
    assert text.symbols[text.answer :] == text.last.answer


def test_what_is_to_be_kept_in_mind():
    random = np.random.default_rng(2)
    line = TOYS["counter"].draw(random, 3)
    (track,) = TOYS["counter"].tracks(line).values()
    np.testing.assert_array_equal(track, [1, 2, 3, 3, 2, 1, 0, np.nan])
    line = TOYS["state"].draw(random, 2)
    (track,) = TOYS["state"].tracks(line).values()
    sign = 1 if line.text.startswith(b"A") else -1
    np.testing.assert_array_equal(track, [sign] * 4 + [np.nan] * 2)
    line = TOYS["copy"].draw(random, 3)
    tracks = TOYS["copy"].tracks(line)
    assert set(tracks) == {"a comes next", "b comes next", "c comes next"}
    together = np.stack(list(tracks.values()))  # [letters, places]
    assert [bytes([b"abc"[n]]) for n in together[:, 3:6].argmax(axis=0)] == [line.text[n : n + 1] for n in (4, 5, 6)]
    assert (together[:, 3:6].sum(axis=0) == 1).all()
    assert np.isnan(together[:, [0, 1, 2, 6, 7]]).all()


def test_headers_and_padding_are_not_learned():
    texts = [write(TOYS["counter"], np.random.default_rng(3), size, before=1) for size in (2, 9)]
    symbols, targets = padded(texts), targets_of(texts)
    for lane, text in enumerate(texts):
        counted = np.flatnonzero(targets[:, lane] != IGNORED)
        assert [counted[0], counted[-1]] == [text.text - 1, len(text.symbols) - 2]
        assert bytes(targets[counted, lane].astype(np.uint8)) == text.symbols[text.text :]
        assert (symbols[len(text.symbols) :, lane] == 0).all()


# --- one network for several tests ---------------------------------------------------------------------------

SMALL = Toy(
    name="counter",
    about="up to five",
    size="a's",
    trained=range(1, 6),
    beyond=range(6, 13),
    hidden=6,
    draw=TOYS["counter"].draw,
    tracks=TOYS["counter"].tracks,
)


@pytest.fixture(scope="module")
def learned():
    """A network that counts to five."""
    spec = spec_of(SMALL)
    return learn(SMALL, spec, LabOptions(steps=600)), spec


def test_a_counter_counts_in_the_range_of_training(learned):
    finding = judge(SMALL, *learned, seed=0)
    assert finding.in_range >= 0.99
    assert finding.exact_to >= 4
    assert set(finding.right) == {*SMALL.trained, *SMALL.beyond}


def test_some_neuron_counts_and_is_missed(learned):
    finding = judge(SMALL, *learned, seed=0)
    assert sorted(neuron.number for neuron in finding.neurons) == list(range(SMALL.hidden))
    assert abs(finding.neurons[0].correlation) > 0.7
    assert min(neuron.without for neuron in finding.neurons) < 0.7
    gates = finding.neurons[0].gates
    assert set(gates) == set("aXb\n")
    assert all(0 <= gates[character][gate] <= 1 for character in gates for gate in "ifo")


def test_right_is_what_the_network_writes_by_itself(learned):
    weights, spec = learned
    random = np.random.default_rng(5)
    texts = [write(SMALL, random, size, before=1) for size in (1, 3, 5, 7, 9, 12)]
    said = right(texts, traces(weights, spec, padded(texts)).logits)
    for text, ok in zip(texts, said, strict=True):
        written = bytearray(text.symbols[: text.answer])
        while len(written) < len(text.symbols) + 20:
            symbols = np.frombuffer(bytes(written), dtype=np.uint8).astype(np.int64)[:, None]
            written.append(int(traces(weights, spec, symbols).logits[-1, 0].argmax()))
            if written.endswith(b"\n"):
                break
        assert (bytes(written) == text.symbols) == ok


def test_a_neuron_held_at_a_value_is_a_constant_to_all_that_read_it(learned):
    weights, spec = learned
    values = np.array([0.3, -0.7], dtype=np.float32)
    symbols = padded([write(SMALL, np.random.default_rng(6), 4, before=1)])
    held = traces(weights, spec, symbols, held=(2, values))
    # The same by a network in which nothing reads the neuron, and the biases have what it would have said.
    hidden = spec.hidden
    recurrent, output = weights["layers.0.recurrent_weight"], weights["output.weight"]
    bare = {
        **weights,
        "layers.0.recurrent_weight": np.where(np.arange(hidden) == 2, 0, recurrent),
        "layers.0.bias": weights["layers.0.bias"] + values[0] * recurrent[:, 2],
        "output.weight": np.where(np.arange(hidden) == 2, 0, output),
        "output.bias": weights["output.bias"] + values[0] * output[:, 2],
    }
    np.testing.assert_allclose(held.logits, traces(bare, spec, symbols).logits, atol=1e-4)


def test_the_same_seed_learns_the_same():
    options = LabOptions(steps=3, seed=7)
    one, other = (learn(SMALL, spec_of(SMALL), options) for _ in range(2))
    assert all((one[name] == other[name]).all() for name in one)


def test_correlations():
    track = np.array([np.nan, 1.0, 2.0, 3.0, 4.0])
    values = np.stack([[9, 1, 2, 3, 4], [9, 4, 3, 2, 1], [5, 5, 5, 5, 5], [0, 1, -1, -1, 1]], axis=1).astype(np.float32)
    np.testing.assert_allclose(correlations(values, track), [1, -1, 0, 0], atol=1e-6)


# --- what is left --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_cells_are_compared_on_the_same_lines(cell):
    (finding,) = compare([SMALL], [cell], options=LabOptions(steps=2))
    assert (finding.task, finding.cell, finding.hidden) == ("counter", cell, 6)
    assert set(next(iter(finding.neurons[0].gates.values()))) == {
        "lstm": set("ifgo"), "gru": set("rzn"), "rnn": set()
    }[cell]  # fmt: skip


def test_a_task_leaves_a_model_that_loads_with_a_picture_and_examples(tmp_path):
    outcome = run(SMALL, tmp_path / "counter", LabOptions(steps=2), force=False)
    weights, spec = load_weights(outcome.model)
    assert spec == ModelSpec("lstm", layers=1, hidden=6, embedding=8, skip=False)
    assert judge(SMALL, weights, spec, seed=0) == outcome.finding  # half precision has been judged
    assert load_model(outcome.model).spec == spec
    assert outcome.picture.read_bytes().startswith(b"\x89PNG")
    assert re.fullmatch(r"(a+Xb+\n){20}", outcome.examples.read_text())
    page = outcome.page.read_text(encoding="utf-8")
    data = json.loads(page.partition('id="data"')[2].partition(">")[2].partition("</script>")[0])
    assert data["documents"][0]["text"] == outcome.examples.read_text()
    assert [label["neuron"] for label in data["labels"]] == [one.number for one in outcome.finding.neurons[:6]]
    assert {label["signal"] for label in data["labels"]} == {"c"}
    with pytest.raises(OutputError, match="--force"):
        run(SMALL, tmp_path / "counter", LabOptions(steps=2), force=False)
    run(SMALL, tmp_path / "counter", LabOptions(steps=2), force=True)


def test_the_command_line_knows_the_same_tasks():
    assert list(cli._TOYS) == list(TOYS)


def test_the_command_leaves_all_four_and_prints_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lsp_charrnn.inside.findings._LINES", 20)
    done = CliRunner().invoke(cli.app, ["lab", "all", "--out", str(tmp_path), "--steps", "1", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["task"] for row in rows] == list(TOYS)
    assert all(Path(row["model"]) == tmp_path / row["task"] for row in rows)


def test_a_place_that_is_taken_is_refused_before_anything_is_learned(tmp_path):
    (tmp_path / "copy").mkdir()
    done = CliRunner().invoke(cli.app, ["lab", "all", "--out", str(tmp_path), "--steps", "1000000"])
    assert isinstance(done.exception, OutputError)


def test_shares_are_never_rounded_to_all_or_nothing():
    assert [lab._percent(share) for share in (0, 0.0001, 0.5, 0.99999, 1)] == [
        "0 %", "0.1 %", "50.0 %", "99.9 %", "100 %"
    ]  # fmt: skip
