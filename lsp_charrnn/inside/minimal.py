"""The minimal char-RNN: a vanilla recurrent network in numpy, with every gradient written out by hand.

After A. Karpathy's min-char-rnn (2015), to be read as a text: docs/minimal.md walks through it, and a test holds the
page to this file. There are no batches, no layers, no gates and no held-out text here; for those see `train`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.errors import CorpusError

Array = npt.NDArray[np.float64]
Symbols = npt.NDArray[np.int64]
Weights = dict[str, Array]

CLIP: Final = 5.0  # no entry of a gradient is larger than that


# --- the network ---------------------------------------------------------------------------------------------


def initial_weights(alphabet: int, hidden: int, random: np.random.Generator) -> Weights:
    """Return small random matrices and biases of zero."""
    return {
        "input_weight": 0.01 * random.standard_normal((hidden, alphabet)),  # W
        "recurrent_weight": 0.01 * random.standard_normal((hidden, hidden)),  # R
        "bias": np.zeros(hidden),  # b
        "output_weight": 0.01 * random.standard_normal((alphabet, hidden)),  # V
        "output_bias": np.zeros(alphabet),  # d
    }


def forward(weights: Weights, symbols: Symbols, hidden: Array) -> tuple[Array, Array]:
    """Read `symbols` [time] on from the state `hidden` [hidden].

    h_t = tanh(W x_t + R h_(t-1) + b)        p_t = softmax(V h_t + d)

    Returns the state before the first symbol and after each [time + 1, hidden], and what the network expects to come
    after each [time, alphabet].
    """
    states, expected = [hidden], []
    for symbol in symbols:
        # x_t is 1 for the symbol and 0 for all others, so W x_t is a column of W.
        z = weights["input_weight"][:, symbol] + weights["recurrent_weight"] @ states[-1] + weights["bias"]
        states.append(np.tanh(z))
        expected.append(softmax(weights["output_weight"] @ states[-1] + weights["output_bias"]))
    return np.array(states), np.array(expected)


def softmax(logits: Array) -> Array:
    """Return the probabilities that are proportional to exp(logits)."""
    exponentials = np.exp(logits - logits.max())  # the largest is 1: nothing overflows
    probabilities: Array = exponentials / exponentials.sum()
    return probabilities


def loss_of(expected: Array, targets: Symbols) -> float:
    """Return how surprised the network is by what came, in nats: the sum over time of -log p_t(target)."""
    return float(-np.log(expected[np.arange(len(targets)), targets]).sum())


# --- its gradients -------------------------------------------------------------------------------------------


def loss_and_gradients(
    weights: Weights, symbols: Symbols, targets: Symbols, hidden: Array
) -> tuple[float, Weights, Array]:
    """Read `symbols`, compare with `targets`, and go back through time (Werbos 1990).

    Returns the loss, its derivative by every weight, and the state after the last symbol.
    """
    states, expected = forward(weights, symbols, hidden)
    gradients = {name: np.zeros_like(weight) for name, weight in weights.items()}
    from_the_future = np.zeros_like(hidden)  # R' dz_(t+1): what the states to come want of h_t
    for t in reversed(range(len(symbols))):
        # dy_t = p_t - (1 at the target): softmax and logarithm together have the simplest derivative there is.
        dy = expected[t].copy()
        dy[targets[t]] -= 1
        gradients["output_weight"] += np.outer(dy, states[t + 1])
        gradients["output_bias"] += dy
        # h_t serves two: the prediction at t, and the next state.
        dh = weights["output_weight"].T @ dy + from_the_future
        dz = (1 - states[t + 1] ** 2) * dh  # tanh' = 1 - tanh²
        gradients["input_weight"][:, symbols[t]] += dz
        gradients["recurrent_weight"] += np.outer(dz, states[t])
        gradients["bias"] += dz
        from_the_future = weights["recurrent_weight"].T @ dz
    return loss_of(expected, targets), gradients, states[-1]


def clip(gradients: Weights) -> Weights:
    """Return the gradients with every entry between -CLIP and CLIP.

    Each step back multiplies by R' once more, so gradients can grow exponentially (Pascanu, Mikolov & Bengio 2013).
    """
    return {name: np.clip(gradient, -CLIP, CLIP) for name, gradient in gradients.items()}


def gradient_errors(
    weights: Weights,
    symbols: Symbols,
    targets: Symbols,
    hidden: Array,
    random: np.random.Generator,
    *,
    entries: int = 20,
    step: float = 1e-5,
) -> dict[str, float]:
    """Hold the gradients against numbers: nudge single weights, and see how the loss changes.

    dL/dw is about (L(w + step) - L(w - step)) / (2 step). Returns for each array of weights the largest difference
    among some random `entries`, as a share of the array's largest gradient.
    """
    _, gradients, _ = loss_and_gradients(weights, symbols, targets, hidden)
    errors = {}
    for name, weight in weights.items():
        chosen = random.choice(weight.size, min(entries, weight.size), replace=False)
        numeric = []
        for entry in chosen:
            losses = []
            for nudge in (step, -step):
                nudged = weight.copy()
                nudged.flat[entry] += nudge
                _, expected = forward({**weights, name: nudged}, symbols, hidden)
                losses.append(loss_of(expected, targets))
            numeric.append((losses[0] - losses[1]) / (2 * step))
        analytic = gradients[name].flat[chosen]
        largest = np.abs(gradients[name]).max() or 1.0
        errors[name] = float(np.abs(analytic - numeric).max() / largest)
    return errors


# --- learning and writing ------------------------------------------------------------------------------------


def adagrad(weights: Weights, gradients: Weights, squares: Weights, rate: float) -> None:
    """Step against the gradients, in shorter steps where they have been large (Duchi, Hazan & Singer 2011).

    s ← s + g²        w ← w - rate · g / √(s + 1e-8)
    """
    for name, gradient in gradients.items():
        squares[name] += gradient**2
        weights[name] -= rate * gradient / np.sqrt(squares[name] + 1e-8)


def sample(weights: Weights, symbol: int, hidden: Array, length: int, random: np.random.Generator) -> Iterator[int]:
    """Yield symbols that the network writes after `symbol`: each is drawn from what it expects, and read again."""
    for _ in range(length):
        states, expected = forward(weights, np.array([symbol]), hidden)
        hidden = states[-1]
        symbol = int(random.choice(len(expected[0]), p=expected[0]))
        yield symbol


class Reader:
    """Reads a text over and over, `length` characters a step, and learns from each step.

    The gradients end at a step's border; the state is carried on. Raises `CorpusError` for a text that is too short.
    """

    def __init__(self, text: str, *, hidden: int = 100, length: int = 25, rate: float = 0.1, seed: int = 0) -> None:
        if len(text) <= length:
            raise CorpusError(f"the text has {len(text)} characters: a step alone reads {length}, and one more.")
        self.alphabet = sorted(set(text))
        number = {character: symbol for symbol, character in enumerate(self.alphabet)}
        self._symbols = np.array([number[character] for character in text])
        self._length, self._rate = length, rate
        self._random = np.random.default_rng(seed)
        self.weights = initial_weights(len(self.alphabet), hidden, self._random)
        self._squares = {name: np.zeros_like(weight) for name, weight in self.weights.items()}
        self._place, self._hidden = 0, np.zeros(hidden)
        # Before anything is learned, all characters are as likely.
        self.loss = length * math.log(len(self.alphabet))

    @property
    def bits_per_char(self) -> float:
        """The loss, smoothed over about a thousand steps, in bits per character."""
        return self.loss / self._length / math.log(2)

    def step(self) -> None:
        """Read the next characters, and change the weights so that they would have been less of a surprise."""
        if self._place + self._length >= len(self._symbols):
            self._place, self._hidden = 0, np.zeros_like(self._hidden)
        symbols, targets = self._window()
        loss, gradients, self._hidden = loss_and_gradients(self.weights, symbols, targets, self._hidden)
        adagrad(self.weights, clip(gradients), self._squares, self._rate)
        self.loss = 0.999 * self.loss + 0.001 * loss
        self._place += self._length

    def sample(self, length: int) -> str:
        """Return text that the network writes from where it stands."""
        symbol = int(self._symbols[self._place])
        written = sample(self.weights, symbol, self._hidden, length, self._random)
        return "".join(self.alphabet[symbol] for symbol in written)

    def check(self) -> dict[str, float]:
        """Return the errors of the gradients (`gradient_errors`) where the network stands."""
        return gradient_errors(self.weights, *self._window(), self._hidden, self._random)

    def _window(self) -> tuple[Symbols, Symbols]:
        """Return what the next step reads, and what comes after each character."""
        window = self._symbols[self._place : self._place + self._length + 1]
        return window[:-1], window[1:]
