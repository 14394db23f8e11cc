"""The training loop: truncated backpropagation through time with carried state, warm-up and cosine to zero.

It reads packed documents and leaves weights; the corpus, the export, the log and the terminal are left to others.
A run's length is given in steps or in minutes (or both: the first to end ends it); the learning rate follows
whichever is further on, so that a slow machine still ends its cosine in time.

Beside the weights goes their average over about the last twentieth of the steps; held-out text says which of the two
is kept. It also says when to stop early, if that is asked for.

Several processes may train one network (`ranks`): each reads its share of the lanes, all take the same step against the
mean gradient, and rank 0 alone judges, shows, decides and writes.
"""

from __future__ import annotations

import copy
import math
import platform
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np
import torch
from torch.nn import functional

from lsp_charrnn.config import DEFAULT_MINUTES, OPTIMISERS, TrainOptions
from lsp_charrnn.errors import CorpusError, OutputError, SettingError
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.private import make_directory
from lsp_charrnn.text.symbols import FIRST_SPECIAL, START, header, to_symbols
from lsp_charrnn.train.batches import IGNORED, Document, LaneBatches, window_of
from lsp_charrnn.train.checkpoint import (
    load_checkpoint,
    optimiser_tensors,
    random_tensors,
    restore_optimisers,
    restore_random,
    save_checkpoint,
)
from lsp_charrnn.train.corpus import HELD_OUT_CHARACTERS
from lsp_charrnn.train.network import CharRnn, Weights
from lsp_charrnn.train.optimiser import optimisers_of, set_rate
from lsp_charrnn.train.ranks import ALONE, Ranks
from lsp_charrnn.train.remaining import Remaining
from lsp_charrnn.train.shards import MappedDocuments

LN2: Final = math.log(2)


CHECKPOINT_FILE: Final = "checkpoint.safetensors"

_WARMUP_SHARE: Final = 0.1  # of the run
_AVERAGED_SHARE: Final = 20  # the average reaches back over about the last 1/20 of the steps so far
_KEPT_PER_DECADE: Final = 20  # steps that belong into the log, beside checkpoints: even on a logarithmic axis
_SPEED_SECONDS: Final = 5.0  # over which the speed is measured
_BY_LANES: Final = "lanes"  # how the text is read: by the lanes that one process has, whoever reads them


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever shows it."""

    step: int
    fraction: float  # of the run, 0 to 1
    minutes: float
    epochs: float
    bits: float  # per character, training, smoothed
    characters_per_second: float
    learning_rate: float
    characters: int = 0  # read so far, padding included
    heldout_bits: float | None = None  # of the last measurement
    averaged_bits: float | None = None  # of the averaged weights, measured beside them
    best_bits: float | None = None
    minutes_left: float | None = None  # None: not yet known
    sample: str | None = None  # new text, where one has been drawn just now
    at_checkpoint: bool = False  # held-out text has been read just now, and a checkpoint is about to be written
    kept: bool = False  # a point of the curve: it belongs into the log


@dataclass(frozen=True)
class TrainResult:
    """The best weights on held-out text (the last where there is none), and the run's facts for the model card."""

    weights: Weights
    facts: dict[str, Any]
    finished: bool  # False: interrupted; a checkpoint is there to resume from


def choose_device(name: str) -> torch.device:
    """Return the device `name` stands for. Raises `SettingError` where it is unknown or not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError(f"unknown device '{name}': choose auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("no CUDA device is to be found here: use --device cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@cache
def has_bf16(device: torch.device) -> bool:
    """Say whether `device` multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    mkldnn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    # oneDNN also takes bfloat16 where AVX-512 alone is there, and then emulates it.
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def precision(device: torch.device) -> torch.dtype:
    """Return what products are made in on `device`: bfloat16 where that is faster."""
    return torch.bfloat16 if has_bf16(device) else torch.float32


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a network computes on `device`: in bfloat16 where that is faster."""
    return torch.autocast(device.type, torch.bfloat16) if has_bf16(device) else nullcontext()


def train(
    spec: ModelSpec,
    documents: Sequence[Document],
    heldout: Sequence[Document],
    options: TrainOptions,
    run_dir: Path,
    *,
    resume: bool = False,
    base: Weights | None = None,
    sample_path: str = "sample.py",
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[Progress], None] = lambda progress: None,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train a network of shape `spec` and return its best weights.

    `documents` and `heldout` are packed (START, header, HEADER_END, text). Checkpoints go to `run_dir`, the first
    before any step, so that a run can be resumed from its start on, and a full disk is known by then. `base`
    gives the weights to start from, and `sample_path` the name under which samples are drawn. `show` is told of
    every step, and of a checkpoint's before it is written: a log that `show` writes and that a resumed run cuts back to
    the checkpoint's step has then neither a gap nor a line twice.
    `resume` goes on from the checkpoint there; should the corpus have changed since, it is read from its
    start. Once `stop` says so, the run writes a checkpoint of that very step and returns, unfinished:
    resumed, it ends with the weights that it would have had undisturbed (given --steps, on the CPU: to the bit).

    All of `ranks` call this with the same arguments, and `options.batch` is what they read together. `stop` is asked,
    `show` is told, and held-out text is read on rank 0 alone, whose result is the one to keep. `run_dir` must be the
    same directory for all: each restores itself from the checkpoint there.

    Raises `CorpusError` for an empty corpus or a checkpoint that doesn't fit, `SettingError` for options that
    make no run or one that diverges, `OutputError` where a checkpoint can't be written.
    """
    check_options(options)
    device = ranks.device(choose_device(options.device))
    run = _Run(spec, documents, options, device, base, ranks)
    checkpoint = run_dir / CHECKPOINT_FILE
    if resume:
        ranks.in_turn(lambda: run.restore(checkpoint))
    else:
        try:
            make_directory(run_dir)
        except OSError as error:
            raise OutputError(f"cannot make {run_dir} ({error.strerror}): choose another --out.") from error
    judged = judging(heldout) if ranks.leads else []
    if not resume:
        if base is not None:  # never hand back less than was there
            run.judge(judged)
        run.save(checkpoint)
    began = time.perf_counter() - 60 * run.minutes
    remaining = Remaining(options, judged=sum(map(len, judged)))
    fraction = fraction_of(options, run.step, run.minutes)
    speed, last_time, last_step, first_span = 0.0, time.perf_counter(), run.step, True
    finished = True
    while True:
        over = fraction >= 1 or run.out_of_patience
        fraction, ended, stopping = ranks.shared(fraction, over, not over and stop())
        if ended:
            break
        if stopping:
            run.save(checkpoint)
            finished = False
            break
        rate = _rate(options, run.step, fraction)
        started = time.perf_counter()
        run.update(rate)
        now = time.perf_counter()
        remaining.stepped(now - started)
        span_over = now - last_time > _SPEED_SECONDS
        if span_over or first_span:
            speed = (run.step - last_step) * options.batch * options.bptt / (now - last_time)
        if span_over:
            last_time, last_step, first_span = now, run.step, False
        run.minutes = (now - began) / 60
        (fraction,) = ranks.shared(fraction_of(options, run.step, run.minutes))
        at_checkpoint = run.step % options.checkpoint_every == 0 or fraction >= 1
        if at_checkpoint:
            run.judge(judged)
            run.minutes = (time.perf_counter() - began) / 60
        if ranks.leads:
            sample = None
            if at_checkpoint or _is_sampled(run.step):
                sample = draw(run.network, sample_path, length=320, seed=options.seed)
            left = 0.0 if fraction >= 1 or run.out_of_patience else remaining.minutes(run.step, run.minutes)
            show(run.progress(fraction, speed, rate, left, sample, at_checkpoint))
        if at_checkpoint:
            run.save(checkpoint)
            remaining.paused(time.perf_counter() - now)
    return TrainResult(run.best, run.facts(), finished)


class _Run:
    """All of a run that a checkpoint holds: weights, moments, lanes, place in the data, and the best so far."""

    def __init__(
        self,
        spec: ModelSpec,
        documents: Sequence[Document],
        options: TrainOptions,
        device: torch.device,
        base: Weights | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._options, self._device, self._ranks = options, device, ranks
        self._documents = documents
        self._lanes = ranks.lanes(options.batch)
        self._reading = reading_of(documents, ranks)
        self._batches = _batches(documents, options, ranks)
        torch.manual_seed(options.seed)
        self.network = CharRnn(spec).to(device)
        if base is not None:
            self.network.load_weights(base)
        ranks.make_equal(self.network.parameters())
        self._average = copy.deepcopy(self.network)
        self._optimisers = optimisers_of(self.network, options, precision(device))
        self._state = self.network.initial_state(len(self._lanes))
        # What must be the same for a checkpoint to fit, by the names that a message gives.
        self._signature = {
            "network": spec.to_json(),
            "--batch": options.batch,
            "--bptt": options.bptt,
            "--seed": options.seed,
            "--optimiser": options.optimiser,
        }
        self._corpus = ranks.first(lambda: corpus_signature(documents))
        self.step, self.minutes = 0, 0.0
        self.best = self.network.to_weights()
        self._bits: float | None = None  # smoothed
        self._heldout_bits: float | None = None
        self._averaged_bits: float | None = None
        self._best_bits: float | None = None
        self._best_step, self._best_is_averaged = 0, False
        self._base_bits: float | None = None  # of the weights that the run started from
        self._stalled = 0  # checkpoints since the best

    @property
    def out_of_patience(self) -> bool:
        """Whether held-out text has not become more likely for as many checkpoints as were to be waited for."""
        return 0 < self._options.patience <= self._stalled

    def update(self, rate: float) -> None:
        """Read one window and take one step against the gradient. Raises `SettingError` if the run diverges."""
        set_rate(self._optimisers, rate)
        window = self._batches.next()
        keep = torch.from_numpy(~window.fresh).to(device=self._device, dtype=torch.float32)
        targets = torch.from_numpy(window.targets).to(self._device).flatten()
        counted = int((window.targets != IGNORED).sum())
        with autocast(self._device):
            symbols = torch.from_numpy(window.symbols).to(self._device)
            logits, state = self.network(symbols, self._state * keep[:, None])
            loss = functional.cross_entropy(
                logits.flatten(0, 1).float(), targets, ignore_index=IGNORED, reduction="sum"
            ) / max(1, counted)  # a window may hold nothing but headers
        self._state = state.detach()
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        mean, counted = self._ranks.average(self.network.parameters(), loss, counted)
        bits = mean / LN2
        if not math.isfinite(bits):
            raise self._ranks.once(
                SettingError(f"training diverged at step {self.step + 1}: start again with a smaller --lr.")
            )
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._options.clip)
        for optimiser in self._optimisers:
            optimiser.step()
        self.step += 1
        self._follow()
        if counted:
            weight = max(0.02, 10 / (self.step + 9))  # over about a tenth of the steps, and never over more than 50
            self._bits = bits if self._bits is None else (1 - weight) * self._bits + weight * bits

    def _follow(self) -> None:
        """Move the average towards the weights, by polynomial decay (Shamir & Zhang 2013): no length need be known."""
        share = _AVERAGED_SHARE / (self.step + _AVERAGED_SHARE - 1)  # 1 at the first step
        with torch.no_grad():
            for average, weight in zip(self._average.parameters(), self.network.parameters(), strict=True):
                average.lerp_(weight, share)

    def judge(self, documents: Sequence[Document]) -> None:
        """Measure held-out bits, and keep the weights, or their average, if they are the best so far; on rank 0."""
        if not documents:
            self.best, self._best_step = self.network.to_weights(), self.step
            return
        with autocast(self._device):
            self._heldout_bits = heldout_bits_of(self.network, documents)
            if self.step == 0:  # no average yet
                self._base_bits = self._heldout_bits
            else:
                self._averaged_bits = heldout_bits_of(self._average, documents)
        self._stalled += 1
        for network, bits in ((self.network, self._heldout_bits), (self._average, self._averaged_bits)):
            if bits is not None and (self._best_bits is None or bits < self._best_bits):
                self._best_bits, self.best = bits, network.to_weights()
                self._best_step, self._best_is_averaged = self.step, network is self._average
                self._stalled = 0

    def save(self, path: Path) -> None:
        """Write all of the run to `path`: all ranks give their lanes, and rank 0 writes."""
        state = self._ranks.gathered(self._state, axis=2)
        position = torch.from_numpy(self._batches.position())
        if self._reading != _BY_LANES:  # else it is that of all lanes, and everybody has it
            position = self._ranks.gathered(position, axis=0)
        if not self._ranks.leads:
            return
        # torch's own parameters: where it keeps two biases for one, their sum alone would round differently.
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self._average.state_dict().items()}
        tensors |= {f"best.{name}": torch.from_numpy(value) for name, value in self.best.items()}
        tensors |= optimiser_tensors(self._optimisers)
        tensors |= {"state": state, "position": position}
        tensors |= random_tensors(self._device)
        facts = {
            "signature": self._signature,
            "options": asdict(self._options),
            "corpus": self._corpus,
            "reading": self._reading,
            "launch": self._ranks.launch,
            "step": self.step,
            "minutes": self.minutes,
            "bits": self._bits,
            "base_bits": self._base_bits,
            "heldout_bits": self._heldout_bits,
            "averaged_bits": self._averaged_bits,
            "best_bits": self._best_bits,
            "best_step": self._best_step,
            "best_is_averaged": self._best_is_averaged,
            "stalled": self._stalled,
        }
        save_checkpoint(path, tensors, facts)

    def restore(self, path: Path) -> None:
        """Take all back from `path`; the place in the data and the best figure, only if the corpus is still the same.

        (People go on working on the repository that they train on.) The place also hangs on how the text is parted
        among the ranks: where that has changed it is read from its start. Raises `CorpusError` where it belongs to a
        run with other flags.
        """
        tensors, facts = load_checkpoint(path)
        for name, own in self._signature.items():
            if facts["signature"].get(name) != own:
                raise CorpusError(
                    f"{path} belongs to a run with another {name} ({_shown(facts['signature'].get(name))}, "
                    f"not {_shown(own)}): resume with the same flags."
                )
        self.network.load_state_dict(_named(tensors, "network."))
        self._average.load_state_dict(_named(tensors, "average."))
        self.best = {name: value.numpy() for name, value in _named(tensors, "best.").items()}
        restore_optimisers(self._optimisers, tensors)
        restore_random(self._device, tensors)
        self.step, self.minutes, self._bits = facts["step"], facts["minutes"], facts["bits"]
        self._best_step, self._best_is_averaged = facts["best_step"], facts["best_is_averaged"]
        if facts["corpus"] == self._corpus:
            if same_reading(facts, self._reading):
                own, position = self._lanes, tensors["position"].numpy()
                if self._reading != _BY_LANES:
                    position = np.split(position, self._ranks.size)[self._ranks.rank]
                self._state = tensors["state"][:, :, own.start : own.stop].to(self._device)
                self._batches.seek(position)
            self._heldout_bits, self._averaged_bits = facts["heldout_bits"], facts["averaged_bits"]
            self._best_bits, self._base_bits = facts["best_bits"], facts["base_bits"]
            self._stalled = facts["stalled"]

    def progress(
        self, fraction: float, speed: float, rate: float, left: float | None, sample: str | None, at_checkpoint: bool
    ) -> Progress:
        return Progress(
            step=self.step,
            fraction=min(1.0, fraction),
            minutes=self.minutes,
            epochs=self._batches.epochs,
            bits=self._bits if self._bits is not None else math.nan,
            characters_per_second=speed,
            learning_rate=rate,
            characters=self._characters,
            heldout_bits=self._heldout_bits,
            averaged_bits=self._averaged_bits,
            best_bits=self._best_bits,
            minutes_left=left,
            sample=sample,
            at_checkpoint=at_checkpoint,
            kept=at_checkpoint or sample is not None or _is_on_curve(self.step),
        )

    @property
    def _characters(self) -> int:
        return self.step * self._options.batch * self._options.bptt

    def facts(self) -> dict[str, Any]:
        options = self._options
        early = f"the held-out figure was no better for {self._stalled} checkpoints" if self.out_of_patience else None
        return {
            "steps": self.step,
            "minutes": round(self.minutes, 2),
            "epochs": round(self._batches.epochs, 3),
            "characters_read": self._characters,
            "corpus_characters": sum(map(len, self._documents)),
            "heldout_bits": None if self._best_bits is None else round(self._best_bits, 4),
            "base_bits": None if self._base_bits is None else round(self._base_bits, 4),
            "best_step": self._best_step,
            "averaged": self._best_is_averaged,
            "stopped_early": early,
            "precision": "bf16" if has_bf16(self._device) else "f32",
            "device": self._device.type,
            "processes": self._ranks.size,
            "options": asdict(options),
        }


def _batches(documents: Sequence[Document], options: TrainOptions, ranks: Ranks) -> LaneBatches:
    """Return what this rank reads: lanes of its own shards, or its own of the lanes that one process would have."""
    lanes = ranks.lanes(options.batch)
    if _by_shards(documents, ranks):
        own = documents.share(ranks.rank, ranks.size)
        return LaneBatches(own, lanes=len(lanes), bptt=options.bptt, seed=options.seed)
    return LaneBatches(documents, lanes=options.batch, bptt=options.bptt, seed=options.seed, own=lanes)


def reading_of(documents: Sequence[Document], ranks: Ranks) -> str:
    """Return how `documents` are parted among `ranks`, which a place in them belongs to."""
    return f"shards of {ranks.size} ranks" if _by_shards(documents, ranks) else _BY_LANES


def _by_shards(documents: Sequence[Document], ranks: Ranks) -> TypeGuard[MappedDocuments]:
    return ranks.size > 1 and isinstance(documents, MappedDocuments) and documents.shards >= ranks.size


def same_reading(facts: Mapping[str, Any], reading: str) -> bool:
    """Say whether the checkpoint with these facts stands at a place of `reading`."""
    return bool(facts.get("reading", _BY_LANES) == reading)  # a checkpoint from before there were ranks says nothing


def check_options(options: TrainOptions) -> None:
    """Raise `SettingError` for an option that makes no run."""
    for name in ("steps", "minutes", "batch", "bptt", "lr", "checkpoint_every"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise SettingError(f"--{name.replace('_', '-')} is {value}: it must be more than 0.")
    if options.optimiser not in OPTIMISERS:
        raise SettingError(f"unknown optimiser '{options.optimiser}': choose {' or '.join(OPTIMISERS)}.")
    for name in ("seed", "patience"):
        if getattr(options, name) < 0:
            raise SettingError(f"--{name} is {getattr(options, name)}: it must be 0 or more.")


def fraction_of(options: TrainOptions, step: int, minutes: float) -> float:
    """Return how much of the run is behind it; 1 and more: it is over."""
    limit = options.minutes
    if limit is None and options.steps is None:
        limit = DEFAULT_MINUTES
    by_steps = step / options.steps if options.steps is not None else 0.0
    return max(by_steps, minutes / limit if limit is not None else 0.0)


def _rate(options: TrainOptions, step: int, fraction: float) -> float:
    """Return the learning rate of the step that comes after `step` steps."""
    warm = max((step + 1) / max(1, options.warmup), fraction / _WARMUP_SHARE)
    return options.lr * min(1.0, warm) * 0.5 * (1 + math.cos(math.pi * fraction))


def _is_sampled(step: int) -> bool:
    """Say whether `step` is 10, 30, 100, 300, 1,000 …: noise becomes words long before the first checkpoint."""
    return step >= 10 and str(step).rstrip("0") in ("1", "3")


def _is_on_curve(step: int) -> bool:
    return int(_KEPT_PER_DECADE * math.log10(step)) > int(_KEPT_PER_DECADE * math.log10(max(1, step - 1))) or step == 1


def corpus_signature(documents: Sequence[Document]) -> str:
    """Return what tells one corpus, in its order, from another."""
    checksum = 0
    for document in documents:
        checksum = zlib.crc32(document.tobytes(), zlib.crc32(len(document).to_bytes(8, "little"), checksum))
    return f"{len(documents)} documents, checksum {checksum:08x}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {part}" for name, part in value.items())
    return str(value)


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def judging(heldout: Sequence[Document]) -> list[Document]:
    """Return the held-out documents' beginnings, an equal share of `HELD_OUT_CHARACTERS` each at least."""
    share = max(2_000, HELD_OUT_CHARACTERS // max(1, len(heldout)))
    kept: list[Document] = []
    total = 0
    for document in heldout:
        if total >= HELD_OUT_CHARACTERS:
            break
        kept.append(document[:share])
        total += len(kept[-1])
    return kept


def heldout_bits_of(
    network: CharRnn, documents: Sequence[Document], *, lanes: int = 64, time_steps: int = 256
) -> float:
    """Return the network's bits per character on `documents`, each read from its start with zero state.

    The end of a document is not counted: it may have been cut. Without documents the answer is infinite.
    """
    nats, count = 0.0, 0
    device = network.output.weight.device
    ordered = sorted(documents, key=len)  # lanes of one batch end together
    with torch.no_grad():
        for first in range(0, len(ordered), lanes):
            group = ordered[first : first + lanes]
            state = network.initial_state(len(group))
            for start in range(0, len(group[-1]), time_steps):
                symbols = np.zeros((time_steps, len(group)), dtype=np.int64)
                targets = np.full((time_steps, len(group)), IGNORED, dtype=np.int64)
                for lane, document in enumerate(group):
                    if start < len(document):
                        read, expected = window_of(document, start, time_steps)
                        expected[expected == START] = IGNORED
                        symbols[: len(read), lane], targets[: len(read), lane] = read, expected
                logits, state = network(torch.from_numpy(symbols).to(device), state)
                flat = torch.from_numpy(targets).to(device).flatten()
                nats += float(
                    functional.cross_entropy(logits.flatten(0, 1).float(), flat, ignore_index=IGNORED, reduction="sum")
                )
                count += int((flat != IGNORED).sum())
    return nats / count / LN2 if count else math.inf


def draw(network: CharRnn, path: str, *, length: int, seed: int, temperature: float = 0.7) -> str:
    """Return `length` bytes of new text that the network writes as the document `path`."""
    return bytes(_drawn(network, path, length, seed, temperature)).decode("utf-8", errors="replace")


def _drawn(network: CharRnn, path: str, length: int, seed: int, temperature: float) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    device = network.output.weight.device
    with torch.no_grad():
        symbols = torch.from_numpy(to_symbols(header(path)))[:, None].to(device)
        logits, state = network(symbols, network.initial_state(1))
        for _ in range(length):
            chances = torch.softmax(logits[-1, 0, :FIRST_SPECIAL].float().cpu() / temperature, dim=0)
            symbol = int(torch.multinomial(chances, 1, generator=generator))
            yield symbol
            logits, state = network(torch.tensor([[symbol]], device=device), state)
