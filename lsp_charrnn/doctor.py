"""What this machine, this installation and one model are good for: measured, with what is wrong and how to mend it.

A step has two bounds: the time in which one core reads the model's weights from its cache, for every step reads them
all, and the time in which it multiplies each of them once a lane. `examine` measures what a core can do and what a step
takes, and returns a `Report`; `render` prints it. Nothing is changed, and no command line is read here.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.files import Check, find_model, list_models, load_model, verify_model
from lsp_charrnn.model.runtime import ort
from lsp_charrnn.model.step import Model

LANES: Final = (1, 8, 16)
_PACKAGES: Final = ("lsp-charrnn", "onnxruntime", "numpy", "pygls", "lsprotocol")
_SLOW_STEP: Final = 1000.0  # microseconds at 8 lanes; a suggestion of 40 characters then misses the 50 ms budget

# What the kernel calls them, and what people do. int8 is fast where one of the last five is there.
_FEATURES: Final = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "asimd": "NEON",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX int8",
    "asimddp": "dot product",
    "i8mm": "int8 matrices",
}


@dataclass(frozen=True)
class Problem:
    """What is wrong, and how to mend it."""

    wrong: str
    mend: str


@dataclass(frozen=True)
class StepTime:
    """The median time of a step in `lanes` lanes."""

    lanes: int
    microseconds: float


@dataclass
class Report:
    """All that was found. What could not be measured is 0 or empty, and `problems` says why."""

    versions: dict[str, str] = field(default_factory=dict)
    system: str = ""
    cpu: str = ""
    features: tuple[str, ...] = ()
    cores: int = 0  # that this process may use
    load: float = 0.0  # processes that wanted a core, on average over the last minute
    threads: int = 0  # on which the model computes
    model: str = ""
    path: str = ""
    checks: list[Check] = field(default_factory=list)
    size_bytes: int = 0  # of the weights that every step reads
    bandwidths: dict[str, float] = field(default_factory=dict)  # GB/s, by the way of reading
    products: float = 0.0  # billions of int8 multiplications a second, on one core
    steps: list[StepTime] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def bandwidth(self) -> float:
        """GB/s at which one core reads as much as the weights, by the fastest way tried."""
        return max(self.bandwidths.values(), default=0.0)

    @property
    def bound_microseconds(self) -> float:
        """The time in which the weights can be read once: no step is faster."""
        return self.size_bytes / self.bandwidth / 1e3 if self.bandwidth else 0.0

    @property
    def product_microseconds(self) -> float:
        """The time in which each weight can be multiplied once: no step takes less for each of its lanes."""
        return self.size_bytes / self.products / 1e3 if self.products else 0.0

    def bound(self, lanes: int) -> float:
        """Microseconds that no step in `lanes` lanes beats: of reading and multiplying what takes longer."""
        return max(self.bound_microseconds, lanes * self.product_microseconds)

    @property
    def lane_microseconds(self) -> float:
        """What each further lane adds: products and gates, where the weights have been read anyway."""
        if len(self.steps) < 2:
            return 0.0
        few, many = self.steps[-2:]
        return (many.microseconds - few.microseconds) / (many.lanes - few.lanes)


def examine(model_name: str = "", *, seconds: float = 1.0) -> Report:
    """Measure the machine and the model with this name or path; by default, the first that is found.

    `seconds` is how long each step time is measured. Never raises for what is wrong with a model: the report says it.
    """
    report = Report()
    _look_around(report)
    model = _look_at_model(report, model_name)
    if model is None:
        return report
    report.threads = model.threads
    report.size_bytes = model.size_bytes
    report.bandwidths = measure_bandwidths(model.size_bytes, seconds / 4)
    report.products = measure_products(seconds / 4)
    report.steps = [StepTime(lanes, measure_step(model, lanes, seconds)) for lanes in LANES]
    if report.load > report.cores + 0.5:
        report.problems.append(
            Problem(
                f"the machine is busy ({report.load:.1f} processes want its {report.cores} cores): times are too long",
                "end what else is running and try again",
            )
        )
    slow = next(step for step in report.steps if step.lanes == 8)
    if slow.microseconds > _SLOW_STEP:
        report.problems.append(
            Problem(
                f"a step in 8 lanes takes {slow.microseconds / 1000:.1f} ms, too long for suggestions as you type",
                "take a smaller model (train --hidden 256), or set decode.lanes to 2",
            )
        )
    return report


def measure_bandwidths(size: int, seconds: float = 0.25) -> dict[str, float]:
    """Return at how many GB/s one core reads `size` bytes again and again, by each of several ways.

    They are the fastest readers at hand without native code of our own, each on one thread. None is told the answer
    early: the sought byte does not occur, and a maximum needs every value. The fastest is nearest the hardware.
    """
    words = max(1, size // 8)
    # Random, for pages of zeros would all be one page, which the first-level cache holds.
    data = np.random.default_rng(0).integers(1, 127, words * 8, dtype=np.uint8)
    text = data.tobytes()
    ways: dict[str, Callable[[], object]] = {
        "bytes.find": lambda: text.find(b"\0"),
        "numpy max, uint8": data.max,
        "numpy max, float32": data.view(np.float32).max,
        "numpy or, uint64": lambda: np.bitwise_or.reduce(data.view(np.uint64)),
    }
    return {name: data.nbytes / _median_seconds(read, seconds) / 1e9 for name, read in ways.items()}


def measure_products(seconds: float = 0.25) -> float:
    """Return how many billions of int8 numbers a second one core multiplies and adds up, in a large product.

    ONNX Runtime computes it, so that it is done as in a step, but with as many rows as make all else small.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(_product_graph(), options, providers=["CPUExecutionProvider"])
    rows, inner, columns = 512, 512, 1024
    random = np.random.default_rng(0)
    feeds = {
        "a": random.integers(0, 256, (rows, inner), dtype=np.uint8),
        "b": random.integers(-127, 128, (inner, columns), dtype=np.int8),
    }
    return rows * inner * columns / _median_seconds(lambda: session.run(None, feeds), seconds) / 1e9


def _product_graph() -> bytes:
    """Return the ONNX model y = a b, uint8 times int8, written by hand: serving has no onnx package."""

    def message(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    def integer(number: int, value: int) -> bytes:
        return bytes([number << 3, value])

    def tensor(name: bytes, kind: int) -> bytes:  # ValueInfoProto: name, type.tensor_type.elem_type
        return message(1, name) + message(2, message(1, integer(1, kind)))

    node = message(1, b"a") + message(1, b"b") + message(2, b"y") + message(4, b"MatMulInteger")
    ends = message(11, tensor(b"a", 2)) + message(11, tensor(b"b", 3)) + message(12, tensor(b"y", 6))
    graph = message(1, node) + message(2, b"product") + ends
    return integer(1, 8) + message(7, graph) + message(8, integer(2, 17))  # ir_version, graph, opset_import


def measure_step(model: Model, lanes: int, seconds: float = 1.0) -> float:
    """Return the median time in microseconds that the model takes to read one symbol in each of `lanes` lanes."""
    symbols = np.full(lanes, ord("e"), dtype=np.int64)
    state = model.initial_state(lanes)

    def step() -> None:
        nonlocal state
        _, state = model.step(symbols, state)

    return _median_seconds(step, seconds) * 1e6


def render(report: Report, console: Console) -> None:
    """Print the report."""
    console.print(f"[bold]{report.cpu}[/], {report.cores} cores, {report.system}")
    console.print(f"  int8 helped by: {', '.join(report.features) or 'nothing known'}")
    console.print("  " + ", ".join(f"{name} {version}" for name, version in report.versions.items()))
    if report.model:
        console.print(f"\n[bold]model {report.model}[/] ({report.path})", highlight=False)
    for check in report.checks:
        console.print(f"  {'[green]ok[/]   ' if check.ok else '[red]wrong[/]'} {check.name}: ", end="")
        console.print(check.message, markup=False, highlight=False)
    if report.steps:
        table = Table(title="\none step", title_justify="left", title_style="bold")
        for heading in ("lanes", "µs", "µs a lane", "against reading the weights", "against the bound"):
            table.add_column(heading, justify="right")
        for step in report.steps:
            times = step.microseconds / report.bound_microseconds
            against = step.microseconds / report.bound(step.lanes)
            each = step.microseconds / step.lanes
            row = str(step.lanes), f"{step.microseconds:.0f}", f"{each:.0f}", f"{times:.1f} ×", f"{against:.1f} ×"
            table.add_row(*row)
        console.print(table)
        fastest = max(report.bandwidths, key=report.bandwidths.__getitem__)
        console.print(
            f"  reading: {report.size_bytes / 1e6:.2f} MB of weights at {report.bandwidth:.0f} GB/s "
            f"({fastest}, one core) = {report.bound_microseconds:.0f} µs"
        )
        if report.products:
            console.print(
                f"  multiplying: {report.size_bytes / 1e6:.2f} million int8 products a lane at {report.products:.0f} "
                f"billion a second = {report.product_microseconds:.0f} µs a lane"
            )
        console.print("  bound: the longer of the two")
        console.print(f"  threads: {report.threads}; each further lane adds {report.lane_microseconds:.0f} µs")
    if not report.problems:
        console.print("\n[green]Nothing is wrong.[/]")
    for problem in report.problems:
        console.print("\n[red]wrong[/] ", end="")
        console.print(problem.wrong, markup=False, highlight=False)
        console.print("[yellow]mend[/]  ", end="")
        console.print(problem.mend, markup=False, highlight=False)


def _look_around(report: Report) -> None:
    report.system = f"{platform.system()} {platform.machine()}"
    report.versions["python"] = platform.python_version()
    for package in _PACKAGES:
        try:
            report.versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            report.problems.append(Problem(f"{package} is not installed", f"pip install {package}"))
    report.cpu, report.features = _cpu()
    report.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    report.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has none


def _look_at_model(report: Report, name: str) -> Model | None:
    """Verify and load the model, and put what is wrong with it into the report."""
    try:
        if not name:
            usable = [info for info in list_models() if not info.problem]
            if not usable:
                raise ModelError("no model was found: give the path of one, or train one with `lsp-charrnn train`.")
            path = usable[0].path
        else:
            path = find_model(name)
    except ModelError as error:
        report.problems.append(_problem(str(error)))
        return None
    report.model, report.path = path.name, str(path)
    report.checks = verify_model(path)
    failures = [check for check in report.checks if not check.ok]
    report.problems += [_problem(check.message) for check in failures]
    return None if failures else load_model(path)


def _problem(message: str) -> Problem:
    """Split the one sentence of a `UserError` at its last colon: behind it stands the fix."""
    wrong, _, mend = message.rstrip(".").rpartition(": ")
    return Problem(wrong or mend, mend if wrong else "see the message")


def _cpu() -> tuple[str, tuple[str, ...]]:
    """Return the processor's name, and which of `_FEATURES` it has."""
    name, flags = "", set[str]()
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = name or value
        elif key in ("flags", "Features"):
            flags |= set(value.split())
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        name = asked.stdout.strip()
        if platform.machine() == "arm64":
            flags |= {"asimd", "asimddp"}  # every Apple silicon has them
    return name or platform.processor() or platform.machine(), tuple(
        shown for flag, shown in _FEATURES.items() if flag in flags
    )


def _median_seconds(run: Callable[[], object], seconds: float) -> float:
    for _ in range(5):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
