"""What networks of the same size learn in the same time, or from the same text: cells, layers, and a transformer.

    python -m benchmarks.networks CORPUS [--parameters N] [--minutes M | --characters N] [--only NAME]... [--json FILE]

CORPUS is a directory that `corpus build` made. Every network has as many parameters as the others within three per
cent, reads the same documents in the same order, is trained by the same optimiser and schedule, and is judged by the
same held-out projects. What it decided is in docs/experiments.md, "Cells and sizes".
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import json
import math
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer
from rich.table import Table

from benchmarks.workbench import JsonPath, console, run
from lsp_charrnn.config import TrainOptions
from lsp_charrnn.errors import SettingError, UserError
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import START, VOCABULARY

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lsp_charrnn.train.batches import Document

CONTEXT: Final = 512  # symbols that the transformer sees at most; it is judged with at least half of them
HEADS: Final = 4  # of its attention, each of an even number of units
TRANSFORMER_LAYERS: Final = 4
TOLERANCE: Final = 0.03  # of the number of parameters
_WARMUP: Final = 0.05  # of the run

# By name: cell, layers, skip. The projected LSTM and the transformer are no `ModelSpec`s, for no model is shipped so.
CELLS: Final[dict[str, tuple[str, int, bool]]] = {
    "LSTM, 2 layers, skip": ("lstm", 2, True),
    "LSTM, 1 layer": ("lstm", 1, True),
    "LSTM, 3 layers, skip": ("lstm", 3, True),
    "GRU, 2 layers, skip": ("gru", 2, True),
    "LSTM, 2 layers": ("lstm", 2, False),
    "LSTM, 3 layers": ("lstm", 3, False),
    "coupled, 2 layers, skip": ("coupled", 2, True),
    "peephole, 2 layers, skip": ("peephole", 2, True),
    "RNN, 2 layers, skip": ("rnn", 2, True),
    "GRU, 1 layer": ("gru", 1, True),
    "GRU, 3 layers, skip": ("gru", 3, True),
    "RNN, 1 layer": ("rnn", 1, True),
    "RNN, 3 layers, skip": ("rnn", 3, True),
}
PROJECTED: Final = "LSTM projected to half, 2 layers, skip"
TRANSFORMER: Final = f"transformer, {TRANSFORMER_LAYERS} layers, context {CONTEXT}"
NAMES: Final = (*CELLS, PROJECTED, TRANSFORMER)


def main(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="A directory that `corpus build` made.")],
    parameters: Annotated[int, typer.Option(help="Of each network.", min=20_000)] = 500_000,
    minutes: Annotated[float, typer.Option(help="Of training, on one core.", min=0.0)] = 4.0,
    characters: Annotated[float, typer.Option(help="Read so much text instead, however long it takes.")] = 0.0,
    lanes: Annotated[
        int, typer.Option(help=f"Of {TrainOptions.bptt} characters each; the transformer has as much text.", min=4)
    ] = 32,
    lr: Annotated[float, typer.Option(help="AdamW's; Muon's is ten times that.", min=0.0)] = 4e-3,
    jobs: Annotated[int, typer.Option(help="Networks trained side by side, on a core each.", min=1)] = 2,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="This network; may be given again.")] = None,
    json_path: JsonPath = None,
    child: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Train networks of equal size on CORPUS and print what each reached on its held-out projects."""
    names = only or list(NAMES)
    for name in names:
        if name not in NAMES:
            raise SettingError(f"unknown network '{name}': choose one of {'; '.join(NAMES)}.")
    if child:
        (name,) = names
        print(json.dumps(trained(name, corpus, parameters, minutes, int(characters), lanes, lr)))
        return

    def start(name: str) -> dict[str, Any]:
        options = {"parameters": parameters, "minutes": minutes, "characters": characters, "lanes": lanes, "lr": lr}
        command = [sys.executable, "-m", "benchmarks.networks", str(corpus.resolve()), "--child", "--only", name]
        command += [f"--{option}={value}" for option, value in options.items()]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            said = done.stdout.strip().splitlines() if done.returncode == 2 else []
            raise UserError("\n".join(said) or f"{name}: the training ended with exit code {done.returncode}.")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        console.print(f"{name}: {found['bits']:.3f} bits after {found['minutes']:.1f} minutes", highlight=False)
        return found

    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(start, names))
    console.print(table_of(results))
    if json_path is not None:
        json_path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def table_of(results: Sequence[dict[str, Any]]) -> Table:
    """Return the results as a table, in the order given."""
    table = Table()
    table.add_column("network")
    for heading in ("units", "parameters", "characters read", "a second", "minutes", "held-out bits"):
        table.add_column(heading, justify="right")
    best = min(result["bits"] for result in results)
    for result in results:
        bits = f"{result['bits']:.3f}"
        table.add_row(
            result["name"],
            str(result["units"]),
            f"{result['parameters']:,}",
            f"{result['characters'] / 1e6:.1f} M",
            f"{result['characters'] / 60 / result['minutes']:,.0f}",
            f"{result['minutes']:.1f}",
            f"[bold]{bits}[/]" if result["bits"] == best else bits,
        )
    return table


# --- one network -----------------------------------------------------------------------------------------------------


def trained(
    name: str, corpus: Path, parameters: int, minutes: float, characters: int, lanes: int, lr: float
) -> dict[str, Any]:
    """Train the network `name` and return what came of it, as JSON data.

    Raises `UserError` where torch or the corpus is missing.
    """
    try:
        import torch
    except ImportError:
        raise UserError("This trains networks, which needs torch: pip install 'lsp-charrnn[train]'.") from None
    from torch.nn import functional

    from lsp_charrnn.train.batches import LaneBatches
    from lsp_charrnn.train.loop import LN2, autocast, heldout_bits_of, judging, precision
    from lsp_charrnn.train.optimiser import set_rate
    from lsp_charrnn.train.shards import open_corpus

    built = open_corpus(corpus)
    judged = judging(built.held_out)
    torch.manual_seed(0)
    units, network = sized(name, parameters)
    cpu = torch.device("cpu")
    reads_windows = name == TRANSFORMER
    window = CONTEXT if reads_windows else TrainOptions.bptt
    lanes = max(1, lanes * TrainOptions.bptt // window)  # as many characters a step for all
    batches = LaneBatches(built.train, lanes=lanes, bptt=window, seed=0)
    optimisers = optimisers_for(network, lr, precision(cpu))
    state: Any = None if reads_windows else network.initial_state(lanes)
    bits, read, began, spent = math.nan, 0, time.perf_counter(), 0.0
    while True:
        spent = (time.perf_counter() - began) / 60
        fraction = read / characters if characters else spent / minutes
        if fraction >= 1:
            break
        rise = min(1.0, fraction / _WARMUP + 1e-3)
        set_rate(optimisers, lr * min(rise, (1 + math.cos(math.pi * fraction)) / 2))
        batch = batches.next()
        with autocast(cpu):
            symbols, targets = torch.from_numpy(batch.symbols), torch.from_numpy(batch.targets)
            if reads_windows:
                logits = network(symbols)
            else:
                keep = torch.from_numpy(~batch.fresh).to(dtype=torch.float32)
                logits, state = network(symbols, state * keep[:, None])
                state = state.detach()
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), TrainOptions.clip)
        for optimiser in optimisers:
            optimiser.step()
        read += batch.symbols.size
        bits = loss.item() / LN2 if math.isnan(bits) else 0.99 * bits + 0.01 * loss.item() / LN2
    with autocast(cpu), torch.no_grad():
        heldout = windowed_bits_of(network, judged) if reads_windows else heldout_bits_of(network, judged)
    return {
        "name": name,
        "units": units,
        "parameters": parameters_of(network),
        "characters": read,
        "minutes": spent,
        "train_bits": bits,
        "bits": heldout,
    }


def network_of(name: str, units: int) -> Any:
    """Return the network `name` with so many units a layer, untrained."""
    from lsp_charrnn.train.network import CharRnn

    if name == TRANSFORMER:
        return transformer_of(units)
    if name == PROJECTED:
        return projected_of(units)
    cell, layers, skip = CELLS[name]
    return CharRnn(ModelSpec(cell=cell, layers=layers, hidden=units, skip=skip))  # type: ignore[arg-type]


def sized(name: str, parameters: int) -> tuple[int, Any]:
    """Return units and the network `name` whose number of parameters is nearest to `parameters`."""
    import torch

    unit = 2 * HEADS if name == TRANSFORMER else 4

    def missed(steps: int) -> int:
        with torch.device("meta"):
            return parameters_of(network_of(name, steps * unit)) - parameters

    low, high = 1, 2048 // unit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if missed(middle) <= 0 else (low, middle)
    steps = min((low, high), key=lambda steps: abs(missed(steps)))
    return steps * unit, network_of(name, steps * unit)


def parameters_of(network: nn.Module) -> int:
    """Return how many numbers training sets, torch's second bias of each layer left out: it adds nothing."""
    return sum(
        value.numel() for name, value in network.named_parameters() if not name.endswith(("bias_hh_l0", "bias_hh"))
    )


def optimisers_for(network: Any, lr: float, dtype: Any) -> list[Any]:
    """Return Muon for the matrices of layers and AdamW for the rest, as `train` has them, for any of the networks."""
    from lsp_charrnn.train.network import CharRnn
    from lsp_charrnn.train.optimiser import muon_beside_adamw, optimisers_of

    options = TrainOptions(lr=lr)
    if isinstance(network, CharRnn):
        return optimisers_of(network, options, dtype)
    by_gates: dict[int, list[Any]] = {}
    for name, weight in network.layers.named_parameters():
        if weight.ndim == 2:
            by_gates.setdefault(4 if name.endswith(("weight_ih_l0", "weight_hh_l0")) else 1, []).append(weight)
    return muon_beside_adamw(network.parameters(), by_gates, options, dtype)


# --- the two that are no ModelSpec -----------------------------------------------------------------------------------


def projected_of(units: int) -> nn.Module:
    """Return two LSTM layers whose outputs are projected to half of their units (Sak et al. 2014, "LSTMP")."""
    import torch
    from torch import nn

    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            embedding, self.outputs = ModelSpec.embedding, units // 2
            self.embedding = nn.Embedding(VOCABULARY, embedding)
            self.layers = nn.ModuleList(
                nn.LSTM(inputs, units, proj_size=self.outputs) for inputs in (embedding, self.outputs)
            )
            self.output = nn.Linear(2 * self.outputs, VOCABULARY)
            nn.init.normal_(self.embedding.weight, std=0.3)
            for layer in self.layers:
                for name, parameter in layer.named_parameters():
                    if parameter.ndim == 2:
                        (nn.init.orthogonal_ if "weight_h" in name else nn.init.xavier_uniform_)(parameter)
                    else:
                        nn.init.zeros_(parameter)
                nn.init.ones_(layer.bias_ih_l0.data[units : 2 * units])  # type: ignore[index]

        def initial_state(self, lanes: int) -> Tensor:
            """Return the state before any symbol: output and cell of each layer beside each other."""
            return torch.zeros(2, 1, lanes, self.outputs + units)

        def forward(self, symbols: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            values, outputs, states = self.embedding(symbols), [], []
            for layer, before in zip(self.layers, state, strict=True):
                hidden, memory = before.split((self.outputs, units), dim=-1)
                values, after = layer(values, (hidden.contiguous(), memory.contiguous()))
                outputs.append(values)
                states.append(torch.cat(after, dim=-1).float())
            return self.output(torch.cat(outputs, dim=-1)), torch.stack(states)

    return Projected()


def transformer_of(units: int) -> nn.Module:
    """Return a decoder as they are built today: norms before, rotary positions, ReLU squared (So et al. 2021)."""
    import torch
    from torch import nn
    from torch.nn import functional

    def rotated(values: Tensor, turn: Tensor) -> Tensor:  # Su et al. 2021, eq. 34; [lanes, heads, time, dimensions]
        left, right = values.chunk(2, dim=-1)
        cos, sin = turn
        return torch.cat((left * cos - right * sin, left * sin + right * cos), dim=-1).to(values.dtype)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.LayerNorm(units)
            self.queries, self.keys, self.values = (nn.Linear(units, units, bias=False) for _ in range(3))
            self.attended = nn.Linear(units, units, bias=False)
            self.between = nn.LayerNorm(units)
            self.wide = nn.Linear(units, 4 * units, bias=False)
            self.narrow = nn.Linear(4 * units, units, bias=False)
            nn.init.zeros_(self.attended.weight)
            nn.init.zeros_(self.narrow.weight)

        def forward(self, read: Tensor, turn: Tensor) -> Tensor:  # [lanes, time, units]
            normed = self.before(read)
            split = (*read.shape[:2], HEADS, units // HEADS)
            query, key, value = (
                of(normed).view(split).transpose(1, 2) for of in (self.queries, self.keys, self.values)
            )
            seen = functional.scaled_dot_product_attention(
                rotated(query, turn), rotated(key, turn), value, is_causal=True
            )
            read = read + self.attended(seen.transpose(1, 2).flatten(2))
            after: Tensor = read + self.narrow(functional.relu(self.wide(self.between(read))).square())
            return after

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, units)
            self.layers = nn.ModuleList(Layer() for _ in range(TRANSFORMER_LAYERS))
            self.last = nn.LayerNorm(units)
            self.output = nn.Linear(units, VOCABULARY)
            nn.init.normal_(self.embedding.weight, std=0.3)
            nn.init.xavier_uniform_(self.output.weight)
            nn.init.zeros_(self.output.bias)

        def forward(self, symbols: Tensor) -> Tensor:
            """Return logits [time, lanes, 256] after `symbols` [time, lanes]; each lane is read on its own."""
            size = units // HEADS // 2
            angles = torch.arange(len(symbols))[:, None] * 10_000.0 ** (-torch.arange(size) / size)
            turn = torch.stack((angles.cos(), angles.sin()))
            values = self.embedding(symbols.T)
            for layer in self.layers:
                values = layer(values, turn)
            logits: Tensor = self.output(self.last(values))
            return logits.transpose(0, 1)

    return Transformer()


def windowed_bits_of(network: Any, documents: Sequence[Document], *, lanes: int = 32) -> float:
    """Return bits per character by a network that sees windows: each symbol but a document's first few hundred is
    expected from at least `CONTEXT` / 2 before it, as `heldout_bits_of` counts them."""
    import torch
    from torch.nn import functional

    from lsp_charrnn.train.batches import IGNORED
    from lsp_charrnn.train.loop import LN2

    nats, count = 0.0, 0
    windows = list(_windows(documents))
    for first in range(0, len(windows), lanes):
        group = windows[first : first + lanes]
        symbols = torch.from_numpy(np.stack([read for read, _ in group], axis=1))
        targets = torch.from_numpy(np.stack([expected for _, expected in group], axis=1)).flatten()
        logits = network(symbols).flatten(0, 1).float()
        nats += float(functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum"))
        count += int((targets != IGNORED).sum())
    return nats / count / LN2 if count else math.inf


def _windows(documents: Sequence[Document]) -> Iterator[tuple[Any, Any]]:
    """Yield what is read and what is expected, [CONTEXT] each, half a window further each time."""
    from lsp_charrnn.train.batches import IGNORED, window_of

    half = CONTEXT // 2
    for document in documents:
        for start in range(0, max(1, len(document) - half), half):
            read = np.zeros(CONTEXT, dtype=np.int64)
            expected = np.full(CONTEXT, IGNORED, dtype=np.int64)
            symbols, targets = window_of(document, start, CONTEXT)
            targets[targets == START] = IGNORED  # the end: it may have been cut
            read[: len(symbols)], expected[: len(symbols)] = symbols, targets
            if start:
                expected[:half] = IGNORED  # counted in the window before
            yield read, expected


if __name__ == "__main__":
    run(main)
