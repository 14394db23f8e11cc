"""The model card: README.md of a model directory, written from config.json alone, so that no figure is typed in.

Figures that are measured after training are added by `add_evaluation`. Measuring is left to others.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lsp_charrnn.errors import OutputError
from lsp_charrnn.model.files import CARD_FILE, CONFIG_FILE, read_config
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.private import create

_PROJECTS_LISTED: Final = 200
_EVALUATION: Final = re.compile(r"^## Evaluation\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def card(config: Mapping[str, Any]) -> str:
    """Return the card of the model that `config` describes (config.json's data; `files` is not needed)."""
    spec = ModelSpec.from_json(config["spec"])
    training = config["training"]
    parameters = sum(math.prod(shape) for shape in spec.shapes().values())
    languages = ", ".join(config["languages"]) or "text"
    sections = [
        f"# {config['name']}\n\n"
        f"A character-level recurrent network that completes {languages}, trained by lsp-charrnn. It reads UTF-8 "
        f"bytes, one at a time, and predicts the next: {spec.layers} layers of {spec.hidden} {spec.cell} cells, "
        f"{parameters:,} parameters. `model.onnx` and `step.onnx` (int8) serve; `weights.safetensors` (fp16) is for "
        "training on.\n",
        _corpus(training["corpus"]),
        _training(training),
        evaluation_section(config["evaluation"]),
        _limits(config),
    ]
    return "\n".join(sections)


def evaluation_section(evaluation: Mapping[str, Any]) -> str:
    """Return the card's section of measured figures."""
    rows = [(name, shown) for name, shown in _flat(evaluation)]
    table = _table(("figure", "value"), rows) if rows else "Nothing has been measured.\n"
    return f"## Evaluation\n\n{table}"


def add_evaluation(model_dir: str | os.PathLike[str], facts: Mapping[str, Any]) -> None:
    """Add `facts` (JSON data) to a model's `evaluation`, in config.json and in the card; the same name is replaced.

    Each of the two files is replaced whole or not at all, config.json first; the rest of the card stays as it is.
    Raises `ModelError` where `model_dir` is not a model, `OutputError` where it can't be written.
    """
    directory = Path(model_dir)
    config, _ = read_config(directory)
    config["evaluation"] = {**config.get("evaluation", {}), **facts}
    section = evaluation_section(config["evaluation"])
    path = directory / CARD_FILE
    try:
        text = path.read_text("utf-8") if path.exists() else f"# {config['name']}\n"
        if _EVALUATION.search(text):
            text = _EVALUATION.sub(lambda found: section + ("\n" if found.end() < len(text) else ""), text, count=1)
        else:
            text = f"{text.rstrip()}\n\n{section}"
        _replace(directory / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        _replace(path, text)
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot rewrite the card in {directory} ({error}): make it writable, UTF-8 text.") from error


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a run that was killed
        with create(partial) as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _corpus(corpus: Mapping[str, Any]) -> str:
    projects = corpus["projects"]
    largest = sorted(projects, key=lambda name: (-projects[name]["characters"], name))
    rows = []
    for name in largest[:_PROJECTS_LISTED]:
        facts = projects[name]
        licence = facts.get("licence", "not listed")
        used = {0: "training", facts["files"]: "held out"}.get(facts["held_out_files"], "both, by file")
        version = facts.get("version", "")
        rows.append((name, version, licence, f"{facts['files']:,}", f"{facts['characters']:,}", used))
    more = len(projects) - len(rows)
    dropped = [(reason, f"{count['files']:,}", f"{count['bytes']:,}") for reason, count in corpus["dropped"].items()]
    languages = ", ".join(f"{name} {count:,}" for name, count in corpus["languages"].items())
    return "\n".join(
        [
            "## Corpus\n",
            f"{_counted(corpus['files'], 'file')} of {_counted(len(projects), 'project')}, "
            f"{corpus['characters']:,} characters ({languages}); "
            f"{_counted(corpus['held_out_files'], 'file')} of it, {corpus['held_out_characters']:,} characters, "
            f"held out{' by ' + corpus['held_out_by'] if corpus['held_out_files'] else ''}.\n",
            _table(("project", "version", "licence", "files", "characters", "used for"), rows),
            *([f"… and {_counted(more, 'smaller project')}.\n"] if more else []),
            f"Left out: {_counted(sum(count['files'] for count in corpus['dropped'].values()), 'file')}, and "
            f"{_counted(corpus['secret_lines'], 'line')} that looked like a secret.\n",
            *([_table(("left out because", "files", "bytes"), dropped)] if dropped else []),
        ]
    )


def _training(training: Mapping[str, Any]) -> str:
    machine, versions, options = training["machine"], training["versions"], training["options"]
    cores, threads = _counted(machine["cores"], "core"), _counted(machine["threads"], "thread")
    where = f"{machine['cpu']}, {cores}, {threads} used, {machine['system']}"
    if machine.get("accelerator"):
        where += f"; {machine['accelerator']}"
    rows = [
        ("time", f"{_time(training['minutes'])}, finished on {training['finished']}"),
        ("machine", where),
        ("read", f"{training['characters_read']:,} characters in {training['steps']:,} steps, "
                 f"{training['epochs']:.2f} epochs"),
        *([("ended early", training["stopped_early"])] if training.get("stopped_early") else []),
        *([("weights", _kept(training))] if "best_step" in training else []),
        ("precision", f"{training['precision']} on {training['device']}"),
        ("started from", training["base"] or "nothing"),
        ("options", ", ".join(f"{name} {value}" for name, value in options.items() if value is not None)),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]  # fmt: skip
    return f"## Training\n\n```\n{training['command']}\n```\n\n{_table(('', ''), rows)}"


def _kept(training: Mapping[str, Any]) -> str:
    what = "averaged over about the last twentieth of the steps" if training["averaged"] else "as they were"
    return f"{what}, at step {training['best_step']:,}"


def _limits(config: Mapping[str, Any]) -> str:
    corpus = config["training"]["corpus"]
    known = ", ".join(corpus["languages"]) or "its corpus"
    lines = [
        "It predicts what is likely after the text so far, not what is right: a suggestion may be wrong, or unsafe.",
        f"It has read {known} and nothing else{_besides(config['training'])}.",
        "It can repeat passages of its corpus; the licences of the projects above apply to those.",
        "Lines that looked like secrets were left out of its corpus; no detector finds all of them.",
    ]
    if not corpus["held_out_files"]:
        lines.append("Nothing was held out, so how well it predicts unseen text is not known.")
    elif corpus["held_out_by"] == "file":
        lines.append("The held-out files come from projects that it was trained on: on others it will do worse.")
    return "## Limits\n\n" + "".join(f"- {line}\n" for line in lines)


def _besides(training: Mapping[str, Any]) -> str:
    return f", but for what {training['base']} had read" if training["base"] else ""


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested JSON data as rows; a name's underscores are read as spaces."""
    for key, value in data.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, float):
            yield name, f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        elif isinstance(value, int) and not isinstance(value, bool):
            yield name, f"{value:,}"
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(str(item) for item in value)
        elif value is not None:
            yield name, str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"

    return line(head) + line(["---"] * len(head)) + "".join(map(line, rows))


def _time(minutes: float) -> str:
    return f"{minutes:,.1f} minutes" if minutes >= 1 else f"{60 * minutes:.0f} seconds"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
