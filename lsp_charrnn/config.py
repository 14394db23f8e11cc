"""Settings of the server and of training: flat dataclasses with their defaults, read once at the edge.

What applies them is elsewhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from lsp_charrnn.errors import SettingError


@dataclass(frozen=True)
class Settings:
    """What a user can set, by the names of `SETTING_NAMES`."""

    model: str = ""  # name or path of a model; empty: chosen by the document's language
    memory_document: bool = True  # expect what the open document has held in the same context
    memory_project: bool = True  # and what the other files of its project have
    memory_project_megabytes: float = 5.0  # of a project's text that are counted, nearest and newest first
    decode_lanes: int = 8  # eight samples cost about what one and a third do
    decode_budget_ms: float = 50.0  # what is ready by then is the answer
    decode_max_chars: int = 160  # longest suggestion, in bytes
    decode_temperature: float = 0.6  # of the sampled lanes; the first lane is always greedy
    decode_cost: float = 0.3  # keys that a wrong suggestion costs its reader: 0 shows most, 1 is calm
    stream_exact: bool = False  # read every text from its start, symbol by symbol: slow, and equal to float rounding
    disabled_languages: tuple[str, ...] = ()
    disabled_globs: tuple[str, ...] = ()  # as in .gitignore, against the path within the workspace
    diagnostics_surprise: bool = False  # hints at tokens that are far less likely than their surroundings


# Languages (by the clients' ids) that are completed even where no model was trained for them: by the memories of the
# document and its project, and whichever model there is. Prose and data are not: there a model of code says little.
PROGRAMMING_LANGUAGES: Final = frozenset(
    {
        *(
            "c",
            "cpp",
            "csharp",
            "cuda-cpp",
            "d",
            "dart",
            "elixir",
            "erlang",
            "fsharp",
            "go",
            "groovy",
            "haskell",
            "java",
        ),
        *("javascript", "javascriptreact", "julia", "kotlin", "lua", "nim", "objective-c", "objective-cpp", "ocaml"),
        *(
            "perl",
            "php",
            "powershell",
            "python",
            "r",
            "ruby",
            "rust",
            "scala",
            "shell",
            "shellscript",
            "sh",
            "solidity",
        ),
        *("sql", "swift", "typescript", "typescriptreact", "verilog", "vhdl", "zig"),
    }
)

# What some clients call a language that LSP knows by another id.
_LANGUAGE_IDS: Final = {"sh": "shellscript", "shell": "shellscript", "bash": "shellscript", "zsh": "shellscript"}


def language_id(language: str) -> str:
    """Return the id that LSP has for `language`, by which models are found."""
    return _LANGUAGE_IDS.get(language, language)


DEFAULT_MINUTES: Final = 30.0  # of training, where neither minutes nor steps are given


OPTIMISERS: Final = ("muon", "adamw")


@dataclass(frozen=True)
class TrainOptions:
    """How to train. The defaults suit two CPU cores and an hour or two."""

    minutes: float | None = None
    steps: int | None = None  # neither: DEFAULT_MINUTES
    seed: int = 0
    batch: int = 64  # lanes: enough to keep the matrix products busy, few enough for many updates
    bptt: int = 128  # characters through which gradients flow; the state is carried further
    optimiser: str = "muon"  # for the layers' matrices: muon, or adamw as for all else
    lr: float = 4e-3  # AdamW's, and Muon's in proportion
    weight_decay: float = 0.01
    warmup: int = 200  # steps, but never more than a tenth of the run
    clip: float = 1.0  # of the gradient's norm
    checkpoint_every: int = 250  # steps; each also measures held-out bits
    patience: int = 0  # checkpoints without a better held-out figure that end the run; 0: none do
    device: str = "auto"  # auto, cpu or cuda


LAB_STEPS: Final = 2000  # updates of a network that learns a toy task


# The client's names. Dotted names may come nested: {"decode": {"lanes": 4}} is {"decode.lanes": 4}.
SETTING_NAMES: Final[dict[str, str]] = {
    "model": "model",
    "memory.document": "memory_document",
    "memory.project": "memory_project",
    "memory.projectMegabytes": "memory_project_megabytes",
    "decode.lanes": "decode_lanes",
    "decode.budgetMs": "decode_budget_ms",
    "decode.maxChars": "decode_max_chars",
    "decode.temperature": "decode_temperature",
    "decode.cost": "decode_cost",
    "stream.exact": "stream_exact",
    "disabledLanguages": "disabled_languages",
    "disabledGlobs": "disabled_globs",
    "diagnostics.surprise": "diagnostics_surprise",
}

_RANGES: Final[dict[str, tuple[float, float]]] = {
    "memory.projectMegabytes": (0.1, 100),
    "decode.lanes": (1, 64),
    "decode.budgetMs": (1, 10_000),
    "decode.maxChars": (1, 2_000),
    "decode.temperature": (0, 5),
    "decode.cost": (0, 100),
}


def parse_settings(data: object, base: Settings | None = None) -> tuple[Settings, list[str]]:
    """Read a client's settings over `base`; return the settings, and a sentence for each entry that was refused.

    A bad entry keeps the value that `base` has; it never raises, for a bad setting must never kill the server.
    `null` for an entry (or for everything) means "not set".
    """
    settings = base if base is not None else Settings()
    if data is None:
        return settings, []
    if not isinstance(data, Mapping):
        return settings, [
            f"the settings must be an object of names and values, not {_kind(data)}: kept the ones before."
        ]
    problems: list[str] = []
    changes: dict[str, Any] = {}
    for name, value in _flatten(data):
        if name not in SETTING_NAMES:
            near = difflib.get_close_matches(name, SETTING_NAMES, n=1, cutoff=0.0)
            problems.append(f"unknown setting '{name}': did you mean '{near[0]}'?")
        elif value is not None:
            try:
                changes[SETTING_NAMES[name]] = _checked(name, value)
            except SettingError as error:
                problems.append(str(error))
    return replace(settings, **changes), problems


def _flatten(data: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in SETTING_NAMES:
            yield from _flatten(value, name + ".")
        else:
            yield name, value


def _checked(name: str, value: Any) -> Any:
    """Return `value` as the type that the setting's default has, or raise `SettingError`."""
    field = SETTING_NAMES[name]
    default = next(f.default for f in fields(Settings) if f.name == field)
    keeps = f"kept {_shown(default)}, the default"
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise SettingError(f"setting '{name}' must be true or false, not {_kind(value)}: {keeps}.")
        return value
    if isinstance(default, str):
        if not isinstance(value, str):
            raise SettingError(f"setting '{name}' must be a text, not {_kind(value)}: {keeps}.")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise SettingError(f"setting '{name}' must be a list of texts, not {_kind(value)}: {keeps}.")
        return tuple(value)
    whole = isinstance(default, int)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or (whole and value != int(value)):
        wanted = "a whole number" if whole else "a number"
        raise SettingError(f"setting '{name}' must be {wanted}, not {_kind(value)}: {keeps}.")
    low, high = _RANGES[name]
    if not low <= value <= high:
        raise SettingError(f"setting '{name}' must be from {low:g} to {high:g}, not {value:g}: {keeps}.")
    return int(value) if whole else float(value)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return repr(value) if isinstance(value, (int, float)) else f"the text {value!r}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "an empty list"
    return f"{value:g}" if isinstance(value, (int, float)) else repr(value)
