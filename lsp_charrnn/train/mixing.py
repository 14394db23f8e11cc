r"""Fits the gate that mixes the model with the memories (`engine.mixer`), and measures what the mixture costs in bits.

Every byte of a file is predicted from the model, from the counts of the file before it, and from those of all other
files of its project. What the experts gave to the byte that came, and what the gate would have seen, is computed for
the whole file at once; the gate is then fitted to that by gradient descent on the bits. The files must be ones that
the model was not trained on: on others it is surer than it should be.

torch is imported when fitting begins, and needed for nothing else here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.engine.contexts import KINDS, SYMBOL, Keys, keys_of_text, surroundings_in
from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.engine.mixer import (
    EXPERTS,
    FEATURES,
    MEMORIES,
    OF_CONTEXT,
    OF_MODEL,
    Mixer,
    entropy_of,
    features,
    probabilities,
)
from lsp_charrnn.errors import CorpusError
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.symbols import header, to_symbols
from lsp_charrnn.train.corpus import SourceFile

Floats = npt.NDArray[np.float32]

HIDDEN: Final = 16  # units of the gate; 64 are no better (docs/experiments.md, "Mixing")
STEPS: Final = 3000
BATCH: Final = 4096
LEARNING_RATE: Final = 3e-3
_PIECE: Final = 256  # symbols read in one call


@dataclass(frozen=True, eq=False)
class Places:
    """Places of a text, what the gate sees there, and what each expert gave to the byte that came."""

    seen: Floats  # [places, FEATURES]
    given: Floats  # [places, EXPERTS], probabilities
    experts: npt.NDArray[np.bool_]  # [places, EXPERTS], which there are

    def __len__(self) -> int:
        return len(self.seen)


def places_of(model: Model, file: SourceFile, project: Counts, *, most: int | None = None) -> Places:
    """Return the places of the first `most` bytes of `file`; `project` counts all of its project, it too."""
    text = file.text if most is None else file.text[:most]
    given = np.empty((len(text), EXPERTS), dtype=np.float32)
    given[:, 0], entropy, peak = _model_on(model, file.path, text)
    contexts = keys_of_text(text)
    symbols = np.frombuffer(text, dtype=np.uint8).astype(np.uint64)
    document = [_so_far(of_order, symbols) for of_order in contexts]
    others = _less(project, Counts.of_texts([file.text]))
    numbers = np.concatenate((np.stack(document, axis=1), _in_table(others, contexts, symbols)), axis=1)
    totals, distinct, largest, own = numbers.astype(np.float32)  # [CONTEXTS, places] each
    given[:, 1:] = (own / np.maximum(totals, 1)).T
    experts = np.ones_like(given, dtype=np.bool_)
    experts[:, 1:] = (totals > 0).T
    return Places(features(surroundings_in(text), entropy, peak, totals, distinct, largest), given, experts)


def places_of_projects(
    model: Model, files: Sequence[SourceFile], *, chosen: Sequence[SourceFile] | None = None, most: int | None = None
) -> Iterator[tuple[SourceFile, Places]]:
    """Yield the places of the `chosen` of `files`, or of all, each with the others of its project as its project."""
    names = dict.fromkeys(file.project for file in (files if chosen is None else chosen))
    for name in names:
        project = Counts.of_texts(file.text for file in files if file.project == name)
        for file in files if chosen is None else chosen:
            if file.project == name:
                yield file, places_of(model, file, project, most=most)


def bits(mixer: Mixer, places: Places, *, document: bool = True, project: bool = True) -> npt.NDArray[np.float64]:
    """Return what each byte costs  # [places]; without a memory, as if there were none."""
    seen, experts = places.seen, places.experts
    if not (document and project):
        seen, experts = _forgotten(seen, experts, document=document, project=project)
    p = np.einsum("pe,pe->p", mixer.weights(seen, experts), places.given, dtype=np.float64)
    return np.asarray(-np.log2(p.clip(min=1e-12)))


def fit(
    places: Sequence[Places], *, steps: int = STEPS, seed: int = 0, progress: Callable[[int, float], None] | None = None
) -> Mixer:
    """Fit a gate to `places`; `progress` is called with (steps done, bits a byte).

    In a quarter of the places it sees no project, and in some no document either, so that one gate serves with and
    without them. Raises `CorpusError` where there is nothing to fit it to.
    """
    import torch

    if not sum(map(len, places)):
        raise CorpusError("There is nothing to fit the mixer to: name a directory that holds source files.")
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    seen = np.concatenate([part.seen for part in places])
    given = np.concatenate([part.given for part in places])
    experts = np.concatenate([part.experts for part in places])
    mean, scale = seen.mean(axis=0), 1 / (seen.std(axis=0) + 1e-2)
    hidden = torch.nn.Linear(FEATURES, HIDDEN)
    output = torch.nn.Linear(HIDDEN, EXPERTS, bias=False)
    direct = torch.nn.Linear(FEATURES, EXPERTS)
    torch.nn.init.zeros_(direct.weight)
    weights = [*hidden.parameters(), *output.parameters(), *direct.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for step in range(steps):
        batch = rng.integers(0, len(seen), BATCH)
        there, what = experts[batch], seen[batch].copy()
        cuts = np.array([0, BATCH // 4, BATCH // 4 + BATCH // 16, BATCH // 4 + BATCH // 8])
        for low, high, document, project in ((0, 1, True, False), (1, 2, False, True), (2, 3, False, False)):
            part = slice(cuts[low], cuts[high])
            what[part], there[part] = _forgotten(what[part], there[part], document=document, project=project)
        x = torch.from_numpy((what - mean) * scale)
        scores = output(torch.relu(hidden(x))) + direct(x)
        shares = torch.log_softmax(scores.masked_fill(torch.from_numpy(~there), -1e9), dim=1)
        loss = -torch.logsumexp(shares + torch.log(torch.from_numpy(given[batch]) + 1e-9), dim=1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, loss.item() / math.log(2))
    # What the features are made alike by goes into the weights.
    into_hidden, into_output = hidden.weight.detach().numpy().T, direct.weight.detach().numpy().T
    into_hidden, into_output = into_hidden * scale[:, None], into_output * scale[:, None]
    return Mixer(
        into_hidden,
        hidden.bias.detach().numpy() - mean @ into_hidden,
        output.weight.detach().numpy().T.copy(),
        into_output,
        direct.bias.detach().numpy() - mean @ into_output,
    )


def _forgotten(
    seen: Floats, experts: npt.NDArray[np.bool_], *, document: bool, project: bool
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return what the gate sees, and which experts there are, without the document's memory, or the project's."""
    seen, experts = seen.copy(), experts.copy()
    # A context that was never seen has zeros throughout.
    of_contexts = seen[:, OF_MODEL:].reshape(len(seen), OF_CONTEXT, MEMORIES, KINDS)
    of_memories = experts[:, 1:].reshape(len(seen), MEMORIES, KINDS)
    for memory, kept in enumerate((document, project)):
        if not kept:
            of_contexts[:, :, memory] = 0
            of_memories[:, memory] = False
    return seen, experts


def _model_on(model: Model, path: str, text: bytes) -> tuple[Floats, Floats, Floats]:
    """Return what the model gave to each byte of `text`, the entropy in bits, and its largest probability."""
    head = header(path)
    symbols = to_symbols(head + text)
    state = model.initial_state()
    given, entropy, peak = (np.empty(len(symbols) - 1, dtype=np.float32) for _ in range(3))
    for start in range(0, len(symbols) - 1, _PIECE):
        logits, state = model.read(symbols[start : min(start + _PIECE, len(symbols) - 1), None], state)
        p = probabilities(logits[:, 0])
        piece = slice(start, start + len(p))
        given[piece] = p[np.arange(len(p)), symbols[start + 1 : start + 1 + len(p)]]
        entropy[piece], peak[piece] = entropy_of(p), p.max(axis=1)
    behind = slice(len(head) - 1, None)
    return given[behind], entropy[behind], peak[behind]


def _so_far(contexts: Keys, symbols: Keys) -> npt.NDArray[np.int64]:
    """Return for each byte of a text what came before it in the same context of one order  # [4, places]

    in all, of different bytes, of the commonest, and of this very byte.
    """
    places = np.arange(len(symbols))
    order = contexts.argsort(kind="stable")
    ordered = contexts[order]
    begins = np.diff(ordered, prepend=~ordered[:1]) != 0
    first = np.flatnonzero(begins)
    group = np.cumsum(begins) - 1
    totals = places - first[group]
    pairs = ordered | symbols[order]
    by_pair = pairs.argsort(kind="stable")
    again = np.diff(pairs[by_pair], prepend=~pairs[by_pair[:1]]) == 0
    own = np.empty(len(symbols), dtype=np.int64)
    own[by_pair] = places - np.maximum.accumulate(np.where(again, 0, places))
    fresh = np.cumsum(own == 0)
    distinct = fresh - (own == 0)
    distinct -= distinct[first][group]
    # The largest so far, over a staircase that keeps the groups apart.
    step = len(symbols) + 1
    highest = np.maximum.accumulate(own + 1 + group * step) - group * step
    largest = np.where(begins, 0, np.concatenate((highest[:0], np.zeros(1, dtype=np.int64), highest[:-1])))
    numbers = np.empty((4, len(symbols)), dtype=np.int64)
    numbers[:, order] = np.stack((totals, distinct, largest, own))
    return numbers


def _less(counts: Counts, part: Counts) -> Counts:
    """Return `counts` without `part`, which must be in it; what is left of a key may be 0."""
    numbers = counts.counts.copy()
    numbers[counts.keys.searchsorted(part.keys)] -= part.counts
    return Counts(counts.keys, numbers)


def _in_table(table: Counts, contexts: Keys, symbols: Keys) -> npt.NDArray[np.int64]:
    """Return what `table` holds of each context and byte  # [4, orders, places]: as `_so_far` does."""
    summed = np.concatenate(([0], np.cumsum(table.counts, dtype=np.int64)))
    there = np.concatenate(([0], np.cumsum(table.counts > 0, dtype=np.int64)))
    counts = np.append(table.counts, 0)  # for a range may begin at the end
    numbers = np.zeros((4, *contexts.shape), dtype=np.int64)
    for index, of_order in enumerate(contexts):
        first = table.keys.searchsorted(of_order)
        last = table.keys.searchsorted(of_order | SYMBOL, side="right")
        numbers[0, index] = summed[last] - summed[first]
        numbers[1, index] = there[last] - there[first]
        found = np.flatnonzero(last > first)
        if len(found):
            ranges = np.stack((first[found], last[found]), axis=1).ravel()
            numbers[2, index, found] = np.maximum.reduceat(counts, ranges)[::2]
        key = of_order | symbols
        place = table.keys.searchsorted(key)
        same = np.append(table.keys, np.uint64(0))[place] == key
        numbers[3, index] = np.where(same, counts[place], 0)
    return numbers
