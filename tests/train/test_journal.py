"""What a run leaves to look at has no gap, no line twice, and appears whole or not at all."""

import json
import os
from dataclasses import replace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lsp_charrnn.errors import OutputError
from lsp_charrnn.train import journal as journal_module
from lsp_charrnn.train.journal import Journal, figure_of, read_log, samples
from lsp_charrnn.train.loop import Progress


def a_progress(step, **changes):
    facts = {
        "step": step,
        "fraction": step / 100,
        "minutes": step / 10,
        "epochs": step / 50,
        "bits": 5 - step / 50,
        "characters_per_second": 1000.0,
        "learning_rate": 1e-3,
        "characters": 100 * step,
        "heldout_bits": 4.5,
        "averaged_bits": 4.25,
        "best_bits": 4.25,
        "kept": True,
        "at_checkpoint": step % 10 == 0,
        "sample": f"text {step}\n\tü\x1b" if step % 10 == 0 else None,
    }
    return Progress(**{**facts, **changes})


def written(directory, steps, **options):
    with Journal(directory, title="training it", **options) as journal:
        for step in steps:
            journal(a_progress(step))
    return directory


def events(directory):
    """Return the steps of each scalar, and of the samples, that TensorBoard shows."""
    found = EventAccumulator(str(directory / "tensorboard")).Reload()
    return {tag: [event.step for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]} | {
        tag: [event.step for event in found.Tensors(tag)] for tag in found.Tags()["tensors"]
    }


def test_the_log_holds_what_was_measured_where_it_was(tmp_path):
    written(tmp_path, range(1, 21))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [point["step"] for point in log] == list(range(1, 21))
    assert [point["step"] for point in log if point["heldout_bits"] is not None] == [10, 20]
    assert log[9]["sample"] == "text 10\n    ü·"
    assert (log[0]["characters"], log[0]["bits"], log[0]["sample"]) == (100, 4.98, None)


def test_what_is_not_kept_is_not_written(tmp_path):
    with Journal(tmp_path, title="t") as journal:
        journal(a_progress(3, kept=False))
    assert read_log(tmp_path) == []


def test_samples_stand_under_their_steps(tmp_path):
    written(tmp_path, range(1, 21))
    assert (tmp_path / "samples.txt").read_text() == (
        "--- step 10, 4.800 bits per character ---\ntext 10\n    ü·\n\n"
        "--- step 20, 4.600 bits per character ---\ntext 20\n    ü·\n\n"
    )
    assert samples([]) == ""


@pytest.mark.parametrize("torn", [b"", b'{"step": 17, "bi', b"\0\0\0\0"])
def test_a_resumed_run_goes_on_behind_its_checkpoint_everywhere(tmp_path, torn):
    undisturbed = written(tmp_path / "one", range(1, 21))
    killed = written(tmp_path / "two", range(1, 17))
    with (killed / "log.jsonl").open("ab") as file:
        file.write(torn)
    written(killed, range(11, 21), resumed_at=10)
    for name in ("log.jsonl", "samples.txt"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()
    assert events(killed) == events(undisturbed)
    assert len(list((killed / "tensorboard").iterdir())) == 1
    assert {path.name for path in killed.iterdir()} == {"log.jsonl", "samples.txt", "loss.png", "tensorboard"}


def test_tensorboard_shows_the_curves_and_the_samples(tmp_path):
    shown = events(written(tmp_path, range(1, 21)))
    every, judged = list(range(1, 21)), [10, 20]
    assert shown == {
        "bits per character/training": every,
        "bits per character/held out": judged,
        "bits per character/held out, averaged weights": judged,
        "learning rate": every,
        "characters per second": every,
        "sample/text_summary": judged,
    }


def test_a_run_that_begins_leaves_nothing_of_the_one_before(tmp_path):
    written(tmp_path, range(1, 21))
    written(tmp_path, [1])
    assert [point["step"] for point in read_log(tmp_path)] == [1]
    assert not (tmp_path / "loss.png").exists()
    assert (tmp_path / "samples.txt").read_text() == ""
    assert set(events(tmp_path)["learning rate"]) == {1}


def test_a_resumed_run_without_a_log_begins_one(tmp_path):
    written(tmp_path, [11, 12], resumed_at=10)
    assert [point["step"] for point in read_log(tmp_path)] == [11, 12]


def test_the_picture_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    written(tmp_path, range(1, 11))
    before = (tmp_path / "loss.png").read_bytes()
    assert before.startswith(b"\x89PNG")
    assert before.endswith(b"IEND\xaeB`\x82")

    class Torn:
        def savefig(self, path, **options):
            path.write_bytes(b"\x89PNG")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module, "figure_of", lambda *arguments: Torn())
    with pytest.raises(OutputError, match=r"No space left on device.*free some space, then go on with --resume"):
        written(tmp_path, range(11, 21), resumed_at=10)
    assert (tmp_path / "loss.png").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_the_picture_shows_all_curves_on_a_logarithmic_axis(tmp_path):
    points = read_log(written(tmp_path, range(1, 21)))
    axes = figure_of(points, "training it").axes[0]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "training", "held out", "held out, averaged weights",
    ]  # fmt: skip
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("characters read", "bits per character")
    assert axes.get_title() == "training it"
    assert [text.get_text() for text in axes.texts] == ["best 4.250"]
    unjudged = [{**point, "heldout_bits": None, "averaged_bits": None, "best_bits": None} for point in points]
    assert len(figure_of(unjudged, "t").axes[0].get_legend().get_texts()) == 1


def test_a_place_that_cannot_be_written_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --out"):
        Journal(tmp_path / "file" / "run", title="t")


def test_a_full_disk_is_said_so(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    with Journal(tmp_path, title="t") as journal:
        journal(a_progress(1))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device"):
            journal(a_progress(2))


def test_a_disk_that_fills_up_at_the_end_is_said_so_and_hides_no_other_error(tmp_path, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"), Journal(tmp_path, title="t") as journal:
        monkeypatch.setattr(journal._events, "close", full)
    journal = Journal(tmp_path, title="t")
    monkeypatch.setattr(journal._events, "close", full)
    with pytest.raises(ZeroDivisionError), journal:
        raise ZeroDivisionError


def test_bits_that_were_never_measured_are_none(tmp_path):
    with Journal(tmp_path, title="t") as journal:
        journal(replace(a_progress(10), bits=float("nan"), heldout_bits=None, averaged_bits=None, best_bits=None))
    assert read_log(tmp_path)[0]["bits"] is None
