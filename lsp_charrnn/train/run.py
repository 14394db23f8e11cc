"""What `lsp-charrnn train` does: read a corpus, hold part of it out, train, and write a model directory.

The steps themselves live beside this module (corpus, plan, loop, journal, export, card, progress); here they are put in
order, what must be refused is refused before the work begins, and Ctrl-C is turned into a checkpoint.
"""

from __future__ import annotations

import os
import platform
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lsp_charrnn import __version__
from lsp_charrnn.config import TrainOptions
from lsp_charrnn.errors import OutputError, SettingError
from lsp_charrnn.model.files import find_model, load_weights, read_config
from lsp_charrnn.model.score import bits_of_documents
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.symbols import HEADER_END
from lsp_charrnn.train.batches import Document
from lsp_charrnn.train.card import card
from lsp_charrnn.train.checkpoint import load_checkpoint
from lsp_charrnn.train.corpus import (
    MAX_PROJECT_SHARE,
    PROGRAM_SUFFIXES,
    DropReport,
    SourceFile,
    corpus_facts,
    hold_out,
    main_languages,
    pack,
    read_corpus,
    suffixes_of,
)
from lsp_charrnn.train.export import build_onnx, export_model, refuse_existing
from lsp_charrnn.train.fetch import known_releases
from lsp_charrnn.train.journal import Journal
from lsp_charrnn.train.loop import (
    CHECKPOINT_FILE,
    Progress,
    TrainResult,
    check_options,
    choose_device,
    corpus_signature,
    judging,
    reading_of,
    same_reading,
    train,
)
from lsp_charrnn.train.network import Weights
from lsp_charrnn.train.plan import Plan, kept_plan, make_plan, measured_speed
from lsp_charrnn.train.progress import Display
from lsp_charrnn.train.ranks import Ranks, ranks_of
from lsp_charrnn.train.shards import is_built, open_corpus


def run(
    paths: Sequence[Path | str],
    out: Path | str,
    *,
    spec_options: Mapping[str, Any],
    options: TrainOptions,
    free: Collection[str] = (),
    console: Console,
    name: str | None = None,
    languages: Sequence[str] | None = None,
    suffixes: Sequence[str] | None = None,
    held_out: Sequence[Path | str] = (),
    max_project_share: float | None = None,
    base: str | None = None,
    resume: bool = False,
    force: bool = False,
    command: str | None = None,
    split: Callable[[Sequence[SourceFile], Sequence[SourceFile]], None] = lambda kept, judges: None,
    told: Callable[[Progress], None] = lambda progress: None,
) -> Path | None:
    """Train on what lies under `paths` and write the model directory `out`; return it, or None if interrupted.

    A single path may be a corpus that `corpus build` has made: it is mapped, not loaded, and has been filtered and
    split already. Without `suffixes`, the programming languages are read that most of the text is in (of these, with
    `base`, those that it knows), and no project is more than `MAX_PROJECT_SHARE` of the text.
    `spec_options` may give cell, layers and hidden; None is the default, or what `base` (a model's name or path) has.
    `free` names what may be chosen by corpus and machine (`plan.OPEN_OPTIONS`, "hidden"), whatever `options` says.
    `name` is `out`'s own by default, `languages` those of the corpus, the most frequent first, and `command`, for the
    card, this process's command line. Checkpoint, log, samples and pictures go to `work_dir(out)` and stay there.
    Where torchrun has started several processes (`ranks_of`) they train together, and rank 0 reads, says and writes;
    started again after a crash they resume by themselves.
    `split` is called with the files to train on and those held out, before the training (not for a built corpus, whose
    files are not at hand), and may raise what stops it; `told`, with each step's `Progress`.

    Raises `SettingError`, `ModelError`, `CorpusError` and `OutputError`, before any work where that can be known then.
    """
    out = Path(out).expanduser().resolve()
    directory = work_dir(out)
    ranks = ranks_of(os.environ)
    if not ranks.leads:
        console = Console(quiet=True)
    command = command or shlex.join(ranks.command(sys.argv[1:]))
    ranks.join(options.device)

    def start() -> tuple[ModelSpec, Weights | None, bool]:
        check_options(options)
        if "batch" not in free:
            ranks.lanes(options.batch)
        choose_device(options.device)
        spec, base_weights = _starting_point(spec_options, base)
        goes_on = resume or _was_killed(directory / CHECKPOINT_FILE, ranks)
        _refuse(out, resume=goes_on, force=force)
        return spec, base_weights, goes_on

    spec, base_weights, resume = ranks.first(start)
    device = ranks.device(choose_device(options.device))

    if ranks.first(lambda: any(is_built(path) for path in paths)):
        chosen = suffixes is not None or max_project_share is not None or bool(held_out)
        documents, heldout, corpus, suffix = ranks.in_turn(lambda: _read_built(paths, chosen, console, ranks))
    else:  # rank 0 sends what it has read: the files may change meanwhile, and lie on no other machine
        suffixes = suffixes or ranks.first(lambda: _main_suffixes(paths, base))
        share = MAX_PROJECT_SHARE if max_project_share is None else max_project_share
        documents, heldout, corpus = ranks.first(
            lambda: _read_sources(paths, suffixes, held_out, share, console, split)
        )
        suffix = suffixes[0]
    threads = _use_all_cores()

    def choose() -> tuple[Plan, int | None]:
        before = load_checkpoint(directory / CHECKPOINT_FILE)[1] if resume else None
        if before is not None:
            _say_what_changed(console, before, documents, ranks)
            given = {field: value for field, value in spec_options.items() if value is not None}
            plan = kept_plan(before, given, options, free)
        else:
            judged = sum(map(len, judging(heldout)))
            plan = _plan(spec, options, free, documents, judged, device, console, ranks, tuning=base is not None)
        ranks.lanes(plan.options.batch)
        return plan, None if before is None else before["step"]

    plan, resumed_at = ranks.first(choose)
    spec, options = plan.spec, plan.options
    try:
        title = f"training {name or out.name}"
        display = Display(console, title=title)
        if not resume:  # what an earlier run left must not be gone on from if this one is killed at once
            ranks.first(lambda: _forget(directory / CHECKPOINT_FILE))
        with (
            Journal(directory, title=title, resumed_at=resumed_at) if ranks.leads else nullcontext() as journal,
            display,
            _stop_on_interrupt(display) as stop,
        ):

            def show(progress: Progress) -> None:
                if journal is not None:
                    journal(progress)
                display(progress)
                told(progress)

            result = train(
                spec,
                documents,
                heldout,
                options,
                directory,
                resume=resume,
                base=base_weights,
                sample_path=f"sample{suffix}",
                stop=stop,
                show=show,
                ranks=ranks,
            )
        ranks.part()
        if not result.finished:
            _say_how_to_resume(console, directory, command)
            return None
        if not ranks.leads:
            return out
        with console.status("measuring what int8 costs, and writing the model …"):
            facts = training_facts(result, corpus, device, command=command, base=base)
            evaluation = int8_cost(result.weights, spec, heldout, threads=threads) if heldout else {}
            write_model(
                result.weights,
                spec,
                out,
                name=name or out.name,
                languages=languages or list(corpus["languages"]),
                training=facts,
                evaluation={"held_out": {"by": corpus["held_out_by"], **evaluation}} if evaluation else {},
                force=force,
            )
    except KeyboardInterrupt:  # the second one, or one while measuring
        _say_how_to_resume(console, directory, command)
        return None
    except OutputError:  # the disk is full, perhaps after hours
        _say_how_to_resume(console, directory, command)
        raise
    _say_what_came_of_it(console, out, directory, result.facts, evaluation)
    return out


def write_model(
    weights: Weights,
    spec: ModelSpec,
    out: Path,
    *,
    name: str,
    languages: Sequence[str],
    training: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    force: bool = False,
) -> Path:
    """Export weights with the card that these facts make: `training_facts`, and `int8_cost` under "held_out"."""
    config = {"name": name, "languages": languages, "spec": spec.to_json(), "training": training}
    return export_model(
        weights,
        spec,
        out,
        name=name,
        languages=languages,
        training=training,
        evaluation=evaluation,
        card=card({**config, "evaluation": evaluation}),
        force=force,
    )


def work_dir(out: Path) -> Path:
    """Return where the training that makes `out` keeps its checkpoint, its log and its samples."""
    return out.with_name(out.name + ".training")


def int8_cost(weights: Weights, spec: ModelSpec, heldout: Sequence[Document], *, threads: int = 1) -> dict[str, Any]:
    """Return bits per character on held-out documents as trained and as served, and what int8 costs.

    It reads the documents' beginnings that the run was judged by (`loop.judging`).
    """
    documents = []
    for document in judging(heldout):
        symbols = document.tobytes()
        text = symbols.index(HEADER_END) + 1
        documents.append((symbols[:text], symbols[text:]))
    characters = sum(len(text) for _, text in documents)
    bits = []
    for quantise in (False, True):
        model = Model(build_onnx(weights, spec, quantise=quantise), spec, threads=threads)
        bits.append(sum(bits_of_documents(model, documents)) / characters)
    return {
        "files": len(documents),
        "characters": characters,
        "bits_per_char_float32": round(bits[0], 4),
        "bits_per_char_int8": round(bits[1], 4),
        "int8_cost_in_bits": round(bits[1] - bits[0], 4),
    }


def training_facts(
    result: TrainResult, corpus: Mapping[str, Any], device: torch.device, *, command: str, base: str | None
) -> dict[str, Any]:
    """Return what a card says of the training: command, time, machine, versions, corpus, and the loop's own facts."""
    return {
        "command": command,
        "finished": datetime.now(timezone.utc).date().isoformat(),
        "base": base,
        **result.facts,
        "machine": {
            "cpu": _cpu_name(),
            "cores": _cores(),
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
            "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
        "versions": {
            "lsp-charrnn": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "corpus": dict(corpus),
    }


# --- before ----------------------------------------------------------------------------------------------------------


def _starting_point(spec_options: Mapping[str, Any], base: str | None) -> tuple[ModelSpec, Weights | None]:
    """Return the network's shape, and the weights of `base` if there is one."""
    wanted = {name: value for name, value in spec_options.items() if value is not None}
    if base is None:
        return ModelSpec(**wanted), None
    weights, spec = load_weights(find_model(base))
    for name, value in wanted.items():
        if getattr(spec, name) != value:
            raise SettingError(
                f"--{name} is {value}, but the base model {base} has {getattr(spec, name)}: leave --{name} out, "
                "or train without --base."
            )
    return spec, weights


def _refuse(out: Path, *, resume: bool, force: bool) -> None:
    """Raise what can be known before hours of work: nowhere to write to, nothing to resume, something to lose."""
    refuse_existing(out, force)
    parent = next(parent for parent in out.parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{parent} is not a directory that can be written to: choose another --out.")
    checkpoint = work_dir(out) / CHECKPOINT_FILE
    if resume:
        load_checkpoint(checkpoint)
    elif checkpoint.exists() and not force:
        raise OutputError(
            f"{checkpoint.parent} holds the checkpoint of an earlier run: go on with --resume, or start again with "
            "--force."
        )


def _was_killed(checkpoint: Path, ranks: Ranks) -> bool:
    """Say whether `checkpoint` is of this very training, which torchrun has started again since."""
    if ranks.launch is None or ranks.restarts == 0 or not checkpoint.exists():
        return False
    return bool(load_checkpoint(checkpoint)[1].get("launch") == ranks.launch)


def _say_what_changed(console: Console, before: Mapping[str, Any], documents: Sequence[Document], ranks: Ranks) -> None:
    """Say why a run that goes on from the checkpoint with the facts `before` reads its text from the start."""
    if before["corpus"] != corpus_signature(documents):
        _say(console, "The corpus has changed since the checkpoint: the training goes on, reading it from its start.")
    elif not same_reading(before, reading_of(documents, ranks)):
        _say(
            console,
            "Another number of processes shared the corpus before the checkpoint: the training goes on, reading it "
            "from its start.",
        )


def _main_suffixes(paths: Sequence[Path | str], base: str | None) -> tuple[str, ...]:
    """Return the kinds of files to read where none are named."""
    languages = main_languages(paths)
    if base is not None:
        known = read_config(find_model(base))[0]["languages"]
        languages = [language for language in languages if language in known] or languages
    return suffixes_of(languages) or PROGRAM_SUFFIXES  # where there are none, reading says what was looked for


def _read_sources(
    paths: Sequence[Path | str],
    suffixes: Sequence[str],
    held_out: Sequence[Path | str],
    max_project_share: float,
    console: Console,
    split: Callable[[Sequence[SourceFile], Sequence[SourceFile]], None],
) -> tuple[Sequence[Document], Sequence[Document], Mapping[str, Any]]:
    """Return what to train on, what to judge by, and the facts about both; `split` is called with both."""
    files, report = _read(paths, suffixes, held_out, max_project_share, console)
    kept, judges, by = hold_out(files)
    split(kept, judges)
    return pack(kept), pack(judges), corpus_facts(kept, judges, by, report, known_releases(paths))


def _read(
    paths: Sequence[Path | str],
    suffixes: Sequence[str],
    held_out: Sequence[Path | str],
    max_project_share: float,
    console: Console,
) -> tuple[list[SourceFile], DropReport]:
    files = size = 0
    with console.status("reading …") as status:

        def count(file: SourceFile) -> None:
            nonlocal files, size
            files, size = files + 1, size + len(file.text)
            if files % 20 == 0:
                status.update(f"reading … {files:,} files, {size / 1e6:,.1f} MB of text")

        found, report = read_corpus(
            paths, suffixes=suffixes, held_out=held_out, max_project_share=max_project_share, progress=count
        )
    console.print(report.table())
    return found, report


def _read_built(
    paths: Sequence[Path | str], chosen: bool, console: Console, ranks: Ranks
) -> tuple[Sequence[Document], Sequence[Document], Mapping[str, Any], str]:
    """Return what to train on, what to judge by, the facts about both, and a suffix for the name of samples."""
    if len(paths) != 1:
        raise SettingError("a built corpus is trained on alone: give one, or build one of all the paths.")
    if chosen:
        raise SettingError(
            f"what {paths[0]} holds was chosen when it was built: leave --suffix, --held-out and --project-share out, "
            "or build it again with them."
        )
    with console.status("verifying the corpus …"):
        built = open_corpus(paths[0], rank=ranks.rank, size=ranks.size)
    console.print(DropReport.of_facts(built.facts).table())
    return built.train, built.held_out, built.facts, built.suffixes[0]


def _plan(
    spec: ModelSpec,
    options: TrainOptions,
    free: Collection[str],
    documents: Sequence[Document],
    judged: int,
    device: torch.device,
    console: Console,
    ranks: Ranks,
    *,
    tuning: bool,
) -> Plan:
    """Choose what is free, and say what was chosen. Each of `ranks` is taken to be as fast as this one."""

    def speed(tried: ModelSpec, trained: TrainOptions) -> float:
        own = replace(trained, batch=max(1, trained.batch // ranks.size))
        return ranks.size * measured_speed(tried, own, device)

    with console.status("choosing the network and how to train it …"):
        plan = make_plan(
            spec,
            options,
            free,
            characters=sum(map(len, documents)),
            judged=judged,
            tuning=tuning,
            speed=speed,
        )
    if plan.sentence:
        _say(console, plan.sentence)
    return plan


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {path.parent} ({error.strerror}): choose another --out.") from error


def _use_all_cores() -> int:
    """Let torch use every core that this process may run on, unless OMP_NUM_THREADS says otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_cores())
    return torch.get_num_threads()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what a container or taskset leaves us
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# --- meanwhile, and after -------------------------------------------------------------------------------------------


@contextmanager
def _stop_on_interrupt(display: Display) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C has been pressed; a second one interrupts at once, as ever."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield lambda: False
        return

    def ask(number: int, frame: object) -> None:
        display.stopping = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: display.stopping
    finally:
        signal.signal(signal.SIGINT, before)


def _say_how_to_resume(console: Console, directory: Path, command: str) -> None:
    if not (directory / CHECKPOINT_FILE).is_file():
        return
    again = command if "--resume" in shlex.split(command) else f"{command} --resume"
    _say(console, f"Not finished; the checkpoint is in {directory}, and this goes on from it: {again}")


def _say_what_came_of_it(
    console: Console, out: Path, directory: Path, facts: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> None:
    measured = "nothing was left to hold out, so its quality is not measured"
    if evaluation:
        start = f"{facts['base_bits']:.3f} → " if facts["base_bits"] is not None else ""
        measured = (
            f"{start}{evaluation['bits_per_char_int8']:.3f} bits per character on held-out text "
            f"(int8 costs {evaluation['int8_cost_in_bits']:+.4f}); it is "
            f"{'the averaged weights' if facts['averaged'] else 'the weights'} of step {facts['best_step']:,} "
            f"of {facts['steps']:,}"
        )
    if facts["stopped_early"]:
        _say(console, f"Stopped early, at step {facts['steps']:,}: {facts['stopped_early']}.")
    _say(console, f"Wrote {out}: {measured}.")
    _say(
        console,
        f"Its checkpoint, log, loss.png, samples and TensorBoard's events are in {directory}; delete that if you won't "
        "train it further.",
    )


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
