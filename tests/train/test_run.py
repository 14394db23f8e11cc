"""`train` from a directory of source files to a model that completes, and every way in which it must refuse."""

import io
import json
import platform
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lsp_charrnn.config import TrainOptions
from lsp_charrnn.engine.session import Session
from lsp_charrnn.errors import CorpusError, ModelError, OutputError, SettingError
from lsp_charrnn.model.files import load_model, load_weights, verify_model
from lsp_charrnn.text.document import Document
from lsp_charrnn.train import loop
from lsp_charrnn.train import plan as plan_module
from lsp_charrnn.train import run as run_module
from lsp_charrnn.train.card import add_evaluation, card
from lsp_charrnn.train.corpus import MANIFEST, SourceFile, hold_out
from lsp_charrnn.train.journal import read_log
from lsp_charrnn.train.progress import Display
from lsp_charrnn.train.run import int8_cost, run, work_dir

SPEC = {"cell": None, "layers": 1, "hidden": 16}
OPTIONS = TrainOptions(steps=8, batch=4, bptt=32, checkpoint_every=4, device="cpu")


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch):
    draw = loop.draw
    monkeypatch.setattr(loop, "draw", lambda *arguments, **options: draw(*arguments, **{**options, "length": 8}))


@pytest.fixture
def project(tmp_path):
    """Twelve modules that differ, and some files that are not worth learning from."""
    root = tmp_path / "project"
    root.mkdir()
    for number in range(12):
        names = [f"value_{number}_{chr(97 + i)}" for i in range(6)]
        lines = [f"def {name}(left, right):\n    return left * {number} + {len(name)} - right\n" for name in names]
        (root / f"module_{number}.py").write_text("\n".join(lines))
    (root / "latin.py").write_bytes("naïve = 1\n".encode("latin-1") * 20)
    (root / "binary.py").write_bytes(b"\0\1\2" * 50)
    (root / "notes.txt").write_text("not source\n")
    (root / ".gitignore").write_text("ignored.py\n")
    (root / "ignored.py").write_text("secret = 1\n")
    return root


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=100, force_terminal=False)


def trained(paths, out, console, **changes):
    options = {"spec_options": SPEC, "options": OPTIONS, "console": console, "command": "lsp-charrnn train p --out o"}
    return run(paths, out, **{**options, **changes})


def untouched(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_a_directory_becomes_a_model_that_completes(tmp_path, project, terminal):
    out = trained([project], tmp_path / "mine", terminal)
    assert out == tmp_path / "mine"
    assert all(check.ok for check in verify_model(out))
    model = load_model(out)
    assert (model.name, model.config["languages"]) == ("mine", ["python"])
    assert (model.spec.cell, model.spec.layers, model.spec.hidden) == ("lstm", 1, 16)
    session = Session(lambda language: model)
    text = b"def value_1_a(left, right):\n    ret"
    session.open("file:///a.py", Document.from_text(text), path="a.py", language="python")
    answer = session.complete("file:///a.py", len(text), count=3)
    assert all(0 < completion.probability <= 1 for completion in answer.completions)
    assert "bits per character on held-out text" in terminal.file.getvalue()
    assert str(work_dir(out)) in terminal.file.getvalue()


def test_checkpoint_log_and_samples_lie_beside_the_model(tmp_path, project, terminal):
    out = trained([project], tmp_path / "mine", terminal)
    directory = tmp_path / "mine.training"
    assert {path.name for path in directory.iterdir()} == {
        "checkpoint.safetensors", "log.jsonl", "loss.png", "samples.txt", "tensorboard",
    }  # fmt: skip
    log = read_log(directory)
    assert [point["step"] for point in log] == list(range(1, 9))
    assert [point["step"] for point in log if point["heldout_bits"] is not None] == [4, 8]
    assert log[-1]["best_bits"] == pytest.approx(load_model(out).config["training"]["heldout_bits"], abs=1e-4)
    assert (directory / "samples.txt").read_text().count("--- step") == 2


def test_the_card_holds_the_facts(tmp_path, project, terminal):
    manifest = {
        "projects": ["foo-bar"],
        "releases": [
            {"name": "Foo.Bar", "version": "1.2", "licence": "MIT", "kind": "sdist", "sha256": "0" * 64, "file": "f"}
        ],
    }
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    project.rename(corpus / "foo-bar")
    (corpus / MANIFEST).write_text(json.dumps(manifest))
    out = trained([corpus], tmp_path / "mine", terminal, name="other-name")
    config, text = load_model(out).config, (out / "README.md").read_text()
    training, measured = config["training"], config["evaluation"]["held_out"]
    assert text == card(config)
    assert config["name"] == "other-name"
    for fact in (
        "# other-name\n",
        "lsp-charrnn train p --out o",
        "| foo-bar | 1.2 | MIT | 12 |",
        f"{training['corpus']['characters']:,} characters",
        "| not UTF-8 | 1 | 200 |",
        "| binary | 1 | 150 |",
        "| ignored by git | 1 |",
        platform.python_version(),
        training["machine"]["cpu"],
        f"steps {OPTIONS.steps}",
        "in 8 steps",
        f"| held out: bits per char int8 | {measured['bits_per_char_int8']:.4g} |",
        "come from projects that it was trained on",
    ):
        assert fact in text, fact
    assert training["machine"]["cores"] >= 1
    assert training["corpus"]["held_out_files"] == measured["files"] >= 1
    assert measured["by"] == "file"
    assert 0 < measured["bits_per_char_float32"] < 10
    assert abs(measured["int8_cost_in_bits"]) < 0.01
    # The loop and ONNX Runtime measure the same documents; the loop perhaps in bf16.
    assert training["heldout_bits"] == pytest.approx(measured["bits_per_char_float32"], abs=0.05)
    assert str(tmp_path) not in text


def test_files_that_cannot_be_read_are_counted(tmp_path, project, terminal, monkeypatch):
    read_bytes = Path.read_bytes

    def refusing(path):
        if path.name == "module_3.py":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    out = trained([project], tmp_path / "mine", terminal)
    monkeypatch.undo()
    dropped = load_model(out).config["training"]["corpus"]["dropped"]
    assert {reason: count["files"] for reason, count in dropped.items()} == {
        "unreadable": 1, "not UTF-8": 1, "binary": 1, "wrong suffix": 2, "ignored by git": 1,
    }  # fmt: skip
    for reason in dropped:
        assert f"dropped: {reason}" in terminal.file.getvalue()


def test_what_exists_is_refused_before_any_work(tmp_path, project, terminal, monkeypatch):
    out = trained([project], tmp_path / "mine", terminal)
    before = untouched(tmp_path)
    monkeypatch.setattr(run_module, "read_corpus", lambda *arguments, **options: pytest.fail("it began to read"))
    with pytest.raises(OutputError, match=r"exists already.*--force"):
        trained([project], out, terminal)
    with pytest.raises(OutputError, match="exists already"):
        trained([project], out, terminal, resume=True)
    (tmp_path / "mine").rename(tmp_path / "moved")
    with pytest.raises(OutputError, match=r"checkpoint of an earlier run: go on with --resume, or .* --force"):
        trained([project], out, terminal)
    (tmp_path / "moved").rename(tmp_path / "mine")
    with pytest.raises(OutputError, match="not a model"):
        trained([project], project, terminal, force=True)
    with pytest.raises(OutputError, match="not a directory that can be written to"):
        trained([project], project / "latin.py" / "mine", terminal)
    assert untouched(tmp_path) == before


def test_force_replaces_the_model(tmp_path, project, terminal):
    out = trained([project], tmp_path / "mine", terminal)
    trained([project], out, terminal, force=True, spec_options={"cell": "gru", "layers": 1, "hidden": 24})
    assert load_model(out).spec.cell == "gru"
    assert len((tmp_path / "mine.training" / "log.jsonl").read_text().splitlines()) == 8  # not the first run's too


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"options": replace(OPTIONS, steps=0)}, SettingError, "--steps is 0"),
        ({"options": replace(OPTIONS, device="abacus")}, SettingError, "unknown device"),
        ({"spec_options": {"cell": "transformer"}}, ModelError, "unknown cell"),
        ({"spec_options": {"hidden": 0}}, ModelError, "hidden is 0"),
        ({"base": "no-such-model"}, ModelError, "there is no model 'no-such-model'"),
        ({"resume": True}, CorpusError, "no checkpoint"),
        ({"suffixes": (".zig",)}, CorpusError, r"looked for \.zig files, kept none"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, project, terminal, changes, error, message):
    before = untouched(tmp_path)
    with pytest.raises(error, match=message) as caught:
        trained([project], tmp_path / "mine", terminal, **changes)
    assert "\n" not in str(caught.value)
    assert untouched(tmp_path) == before
    assert not (tmp_path / "mine.training").exists()


def test_an_empty_corpus_is_refused(tmp_path, terminal):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"looked for \.py .* files, kept none"):
        trained([tmp_path / "empty"], tmp_path / "mine", terminal)
    with pytest.raises(CorpusError, match="neither a file nor a directory"):
        trained([tmp_path / "missing"], tmp_path / "mine", terminal)


def test_one_file_is_trained_on_with_nothing_held_out(tmp_path, project, terminal):
    out = trained([project / "module_1.py"], tmp_path / "mine", terminal)
    assert load_model(out).config["evaluation"] == {}
    assert "Nothing has been measured" in (out / "README.md").read_text()
    assert "nothing was left to hold out" in terminal.file.getvalue()


def test_a_base_gives_weights_and_sizes(tmp_path, project, terminal):
    base = trained([project], tmp_path / "base", terminal, spec_options={"cell": "gru", "layers": 2, "hidden": 8})
    with pytest.raises(SettingError, match=r"--layers is 3, but the base model .* has 2"):
        trained([project], tmp_path / "mine", terminal, base=str(base), spec_options={"layers": 3})
    options = replace(OPTIONS, steps=1, lr=1e-9)
    out = trained([project], tmp_path / "mine", terminal, base=str(base), spec_options={}, options=options)
    weights, spec = load_weights(out)
    base_weights, base_spec = load_weights(base)
    assert spec == base_spec
    assert all(abs(weights[name] - base_weights[name]).max() < 1e-3 for name in weights)  # stored in fp16
    assert load_model(out).config["training"]["base"] == str(base)


def curve(log):
    """What of a log must be the same, whenever and on how busy a machine it was written."""
    clocks = ("minutes", "minutes_left", "characters_per_second")
    return [{name: value for name, value in point.items() if name not in clocks} for point in log]


def interrupt_at(monkeypatch, step, presses=1):
    """Press Ctrl-C when that step is shown."""
    show = Display.__call__

    def pressing(display, progress):
        show(display, progress)
        if progress.step == step:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Display, "__call__", pressing)


def test_ctrl_c_loses_nothing(tmp_path, project, terminal, monkeypatch):
    undisturbed = trained([project], tmp_path / "one", terminal)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        assert trained([project], tmp_path / "two", terminal) is None
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "two").exists()
    assert "this goes on from it: lsp-charrnn train p --out o --resume" in terminal.file.getvalue()
    resumed = trained([project], tmp_path / "two", terminal, resume=True)
    assert (resumed / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()
    assert (resumed / "model.onnx").read_bytes() == (undisturbed / "model.onnx").read_bytes()
    logs = [read_log(tmp_path / f"{name}.training") for name in ("one", "two")]
    assert [curve(log) for log in logs] == [curve(logs[0])] * 2
    samples = [(tmp_path / f"{name}.training" / "samples.txt").read_text() for name in ("one", "two")]
    assert samples[0] == samples[1]


def test_a_second_ctrl_c_stops_at_once_and_the_last_checkpoint_is_there(tmp_path, project, terminal, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6, presses=2)
        assert trained([project], tmp_path / "mine", terminal) is None
    assert "--resume" in terminal.file.getvalue()
    assert trained([project], tmp_path / "mine", terminal, resume=True) is not None


def test_a_file_edited_meanwhile_is_said_and_gone_on_from(tmp_path, project, terminal, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        trained([project], tmp_path / "mine", terminal)
    (project / "module_1.py").write_text("x = 1\n" * 30)
    assert trained([project], tmp_path / "mine", terminal, resume=True) is not None
    assert "The corpus has changed" in terminal.file.getvalue()


def test_a_full_disk_after_training_keeps_the_checkpoint(tmp_path, project, terminal, monkeypatch):
    with monkeypatch.context() as patch:

        def full(*arguments, **options):
            raise OutputError("cannot write: free the space.")

        patch.setattr(run_module, "export_model", full)
        with pytest.raises(OutputError):
            trained([project], tmp_path / "mine", terminal)
    assert "--resume" in terminal.file.getvalue()
    assert trained([project], tmp_path / "mine", terminal, resume=True) is not None


@pytest.mark.parametrize(("at", "limit"), [(0, 100), (6, 1000), (7, 60_000)])
def test_a_disk_that_fills_up_costs_nothing_before_the_last_checkpoint(
    tmp_path, project, terminal, monkeypatch, at, limit
):
    """At its start, while the log is written, and within a checkpoint."""
    undisturbed = trained([project], tmp_path / "one", terminal)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    update = loop._Run.update

    def filling(run, rate):
        update(run, rate)
        if run.step == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))

    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop._Run, "update", filling)
            if at == 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OutputError, match="free some space") as caught:
                trained([project], tmp_path / "two", terminal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "two").exists()
    checkpoint = work_dir(tmp_path / "two") / "checkpoint.safetensors"
    assert checkpoint.exists() == (at > 0)
    resumed = trained([project], tmp_path / "two", terminal, resume=at > 0)
    assert (resumed / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()
    logs = [read_log(work_dir(tmp_path / name)) for name in ("one", "two")]
    assert curve(logs[0]) == curve(logs[1])
    assert not [path for path in checkpoint.parent.iterdir() if "partial" in path.name]


def test_a_run_that_stopped_early_says_so(tmp_path, project, terminal):
    options = replace(OPTIONS, steps=40, lr=1e-9, checkpoint_every=2, patience=2)
    base = trained([project], tmp_path / "base", terminal)
    out = trained([project], tmp_path / "mine", terminal, base=str(base), spec_options={}, options=options)
    training = load_model(out).config["training"]
    assert training["steps"] < 40
    assert "no better for 2 checkpoints" in training["stopped_early"]
    assert f"| ended early | {training['stopped_early']} |" in (out / "README.md").read_text()
    assert f"Stopped early, at step {training['steps']}: " in terminal.file.getvalue()
    assert f"{training['base_bits']:.3f} → " in terminal.file.getvalue()


def test_what_nobody_said_is_chosen_told_and_kept_by_a_resumed_run(tmp_path, project, terminal, monkeypatch):
    free = {"free": ["batch", "lr", "checkpoint_every", "patience", "hidden"]}
    spec = {"layers": 1}
    options = TrainOptions(steps=6, bptt=16, device="cpu")
    monkeypatch.setattr(plan_module, "_HIDDEN", (24, 16))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        trained([project], tmp_path / "mine", terminal, spec_options=spec, options=options, **free)
    assert "Chosen for 6 steps and" in terminal.file.getvalue()
    monkeypatch.setattr(run_module, "make_plan", lambda *arguments, **options: pytest.fail("it chose again"))
    out = trained([project], tmp_path / "mine", terminal, spec_options=spec, options=options, resume=True, **free)
    facts = load_model(out).config
    assert facts["spec"]["hidden"] in (16, 24)
    assert facts["training"]["options"]["checkpoint_every"] != TrainOptions.checkpoint_every
    assert "checkpoint every" not in (out / "README.md").read_text()


def a_file(project, path, size=1000):
    return SourceFile(project, path, b"x" * size, "python")


def test_many_projects_are_split_by_project_and_few_by_file():
    kept, judges, by = hold_out([a_file(f"p{n}", f"{m}.py") for n in range(20) for m in range(5)])
    assert by == "project"
    assert {file.project for file in kept}.isdisjoint({file.project for file in judges})
    assert 0.05 <= len(judges) / 100 <= 0.4
    kept, judges, by = hold_out([a_file(f"p{n}", f"{m}.py") for n in range(2) for m in range(50)])
    assert by == "file"
    assert 0.05 <= len(judges) / 100 <= 0.4
    assert len(kept) + len(judges) == 100


def test_a_large_corpus_holds_out_no_more_than_it_needs():
    files = [a_file("p", f"{n}.py", 200_000) for n in range(300)]
    _, judges, _ = hold_out(files)
    assert 1 <= len(judges) <= 15


def test_int8_is_measured_on_the_texts_alone():
    import numpy as np
    import torch

    from lsp_charrnn.model.spec import ModelSpec
    from lsp_charrnn.text.symbols import header
    from lsp_charrnn.train.loop import heldout_bits_of
    from lsp_charrnn.train.network import CharRnn

    torch.manual_seed(0)
    spec = ModelSpec("coupled", layers=2, hidden=16, embedding=8)
    network = CharRnn(spec)
    heldout = [np.frombuffer(header(f"{n}.py") + b"some text\n" * n, dtype=np.uint8) for n in (1, 40, 7)]
    cost = int8_cost(network.to_weights(), spec, heldout)
    assert (cost["files"], cost["characters"]) == (3, 480)
    assert cost["bits_per_char_float32"] == pytest.approx(heldout_bits_of(network, heldout), abs=2e-4)
    difference = cost["bits_per_char_int8"] - cost["bits_per_char_float32"]
    assert cost["int8_cost_in_bits"] == pytest.approx(difference, abs=2e-4)


def test_figures_measured_later_join_config_and_card(tmp_path, project, terminal):
    out = trained([project], tmp_path / "mine", terminal)
    (out / "README.md").write_text((out / "README.md").read_text() + "\n## Thanks\n\nBy hand.\n")
    add_evaluation(out, {"typing": {"keystrokes_saved": 0.4123, "projects": ["flask", "click"], "keys": 12345}})
    add_evaluation(out, {"typing": {"keystrokes_saved": 0.5, "projects": ["flask", "click"], "keys": 12345}})
    text = (out / "README.md").read_text()
    assert "| typing: keystrokes saved | 0.5 |\n| typing: projects | flask, click |\n| typing: keys | 12,345 |" in text
    assert text.count("## Evaluation\n") == text.count("## Limits\n") == text.count("## Training\n") == 1
    assert "held out: bits per char int8" in text
    assert text.endswith("\n## Thanks\n\nBy hand.\n")
    assert load_model(out).config["evaluation"]["typing"]["keystrokes_saved"] == 0.5  # and the hashes still hold
    files = {"README.md", "config.json", "model.onnx", "step.onnx", "weights.safetensors"}
    assert {path.name for path in out.iterdir()} == files
    with pytest.raises(ModelError):
        add_evaluation(project, {})
