"""The network in torch, for training: the same weights and the same mathematics as `model.reference`, and gradients.

lstm, gru and rnn run on torch's fused layers; peephole and coupled, for which torch has none, are unrolled here.
Serving never comes here: the weights leave by `to_weights` and are exported to ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import VOCABULARY

Weights = dict[str, npt.NDArray[np.float32]]


class UnrolledLayer(nn.Module):
    """A layer of the LSTM family that torch lacks: with peepholes, or with coupled gates (f = 1 - i).

    Gers & Schmidhuber 2000 ("Recurrent nets that time and count"), and the CIFG of Greff et al. 2017.
    The input product of all steps is one matrix product; the recurrence alone is a loop.
    """

    def __init__(self, inputs: int, spec: ModelSpec) -> None:
        super().__init__()
        rows = spec.gates * spec.hidden
        self.cell = spec.cell
        self.weight_ih_l0 = nn.Parameter(torch.empty(rows, inputs))
        self.weight_hh_l0 = nn.Parameter(torch.empty(rows, spec.hidden))
        self.bias_ih_l0 = nn.Parameter(torch.empty(rows))
        if spec.cell == "peephole":
            self.peephole = nn.Parameter(torch.empty(3, spec.hidden))  # i, f, o

    def forward(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run `inputs` [time, lanes, inputs] from `state` (h, c), each [1, lanes, hidden]."""
        hidden, memory = state[0][0], state[1][0]
        products = functional.linear(inputs, self.weight_ih_l0, self.bias_ih_l0)  # [time, lanes, gates*hidden]
        outputs = []
        for product in products:
            gates = (product + functional.linear(hidden, self.weight_hh_l0)).float()
            if self.cell == "peephole":
                i, f, g, o = gates.chunk(4, dim=1)
                i = torch.sigmoid(i + self.peephole[0] * memory)
                f = torch.sigmoid(f + self.peephole[1] * memory)
                memory = f * memory + i * torch.tanh(g)
                o = torch.sigmoid(o + self.peephole[2] * memory)
            else:
                i, g, o = gates.chunk(3, dim=1)
                i, o = torch.sigmoid(i), torch.sigmoid(o)
                memory = (1 - i) * memory + i * torch.tanh(g)
            hidden = o * torch.tanh(memory)
            outputs.append(hidden)
        return torch.stack(outputs), (hidden[None], memory[None])


class CharRnn(nn.Module):
    """A character-level recurrent network of the shape that `spec` gives."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(VOCABULARY, spec.embedding)
        layers: list[nn.Module] = []
        for layer in range(spec.layers):
            inputs = spec.embedding if layer == 0 else spec.hidden
            if spec.cell == "lstm":
                layers.append(nn.LSTM(inputs, spec.hidden))
            elif spec.cell == "gru":
                layers.append(nn.GRU(inputs, spec.hidden))
            elif spec.cell == "rnn":
                layers.append(nn.RNN(inputs, spec.hidden))
            else:
                layers.append(UnrolledLayer(inputs, spec))
        self.layers = nn.ModuleList(layers)
        self.output = nn.Linear(spec.output_inputs, VOCABULARY)
        self._initialise()

    def _initialise(self) -> None:
        """Orthogonal recurrence, scaled inputs, forget bias 1 (Jozefowicz et al. 2015)."""
        spec, hidden = self.spec, self.spec.hidden
        with torch.no_grad():
            nn.init.normal_(self.embedding.weight, std=0.3)
            for module in self.layers:
                for name, parameter in module.named_parameters():
                    if name.startswith("weight_hh"):
                        for gate in range(spec.gates):
                            nn.init.orthogonal_(parameter[gate * hidden : (gate + 1) * hidden])
                    elif name.startswith("weight_ih"):
                        nn.init.xavier_uniform_(parameter)
                    else:
                        parameter.zero_()
                    if name == "bias_ih_l0" and spec.cell in ("lstm", "peephole"):
                        parameter[hidden : 2 * hidden] = 1.0
                    if name == "bias_ih_l0" and spec.cell == "coupled":
                        parameter[:hidden] = -1.0  # f = 1 - i: a closed input gate is an open forget gate
            nn.init.xavier_uniform_(self.output.weight)
            self.output.bias.zero_()

    def initial_state(self, lanes: int) -> Tensor:
        """Return the state before any symbol: zeros, [layers, parts, lanes, hidden]."""
        spec = self.spec
        return self.output.weight.new_zeros(spec.layers, spec.parts, lanes, spec.hidden)

    def forward(self, symbols: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read `symbols` [time, lanes] on from `state`; return logits [time, lanes, 256] and the state after them."""
        values = self.embedding(symbols)
        outputs, states = [], []
        for layer, module in enumerate(self.layers):
            if self.spec.parts == 2:
                before = (state[layer, 0:1].contiguous(), state[layer, 1:2].contiguous())
                values, (hidden, memory) = module(values, before)
                states.append(torch.cat((hidden, memory)).float())
            else:
                values, hidden = module(values, state[layer].contiguous())
                states.append(hidden.float())
            outputs.append(values)
        read = torch.cat(outputs, dim=-1) if self.spec.skip else outputs[-1]
        return self.output(read), torch.stack(states)

    def to_weights(self) -> Weights:
        """Return the weights by the names and shapes of `model.spec`, as float32 arrays of their own."""
        tensors: dict[str, Tensor] = {"embedding.weight": self.embedding.weight}
        for layer, module in enumerate(self.layers):
            parameters = dict(module.named_parameters())
            name = f"layers.{layer}"
            tensors[f"{name}.input_weight"] = parameters["weight_ih_l0"]
            tensors[f"{name}.recurrent_weight"] = parameters["weight_hh_l0"]
            recurrent_bias = parameters.get("bias_hh_l0")
            if self.spec.cell == "gru":
                assert recurrent_bias is not None  # nn.GRU has one
                tensors[f"{name}.bias"] = parameters["bias_ih_l0"]
                tensors[f"{name}.recurrent_bias"] = recurrent_bias
            elif recurrent_bias is not None:  # torch keeps two biases where one does
                tensors[f"{name}.bias"] = parameters["bias_ih_l0"] + recurrent_bias
            else:
                tensors[f"{name}.bias"] = parameters["bias_ih_l0"]
            if self.spec.cell == "peephole":
                tensors[f"{name}.peephole"] = parameters["peephole"]
        tensors["output.weight"], tensors["output.bias"] = self.output.weight, self.output.bias
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in tensors.items()}

    def load_weights(self, weights: Mapping[str, npt.NDArray[np.floating]]) -> None:
        """Take the weights of `to_weights`. Raises `ModelError` where a name or a shape doesn't fit the spec."""
        shapes = self.spec.shapes()
        for name, shape in shapes.items():
            if name not in weights or tuple(weights[name].shape) != shape:
                found = "missing" if name not in weights else f"of shape {list(weights[name].shape)}"
                raise ModelError(f"weight '{name}' is {found}, the spec wants {list(shape)}: take another model.")

        def take(target: Tensor, name: str) -> None:
            target.copy_(torch.from_numpy(np.asarray(weights[name], dtype=np.float32)))

        with torch.no_grad():
            take(self.embedding.weight, "embedding.weight")
            for layer, module in enumerate(self.layers):
                parameters = dict(module.named_parameters())
                name = f"layers.{layer}"
                take(parameters["weight_ih_l0"], f"{name}.input_weight")
                take(parameters["weight_hh_l0"], f"{name}.recurrent_weight")
                take(parameters["bias_ih_l0"], f"{name}.bias")
                if self.spec.cell == "gru":
                    take(parameters["bias_hh_l0"], f"{name}.recurrent_bias")
                elif "bias_hh_l0" in parameters:
                    parameters["bias_hh_l0"].zero_()
                if self.spec.cell == "peephole":
                    take(parameters["peephole"], f"{name}.peephole")
            take(self.output.weight, "output.weight")
            take(self.output.bias, "output.bias")
