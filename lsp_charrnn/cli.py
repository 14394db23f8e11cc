"""The command line: reads the arguments, calls the package that does the work, prints what comes back.

Each command imports what it needs when it runs, so that `serve` starts quickly and needs no torch. A `UserError`
becomes one sentence on stderr and exit code 2; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer
from rich.console import Console

if TYPE_CHECKING:
    from lsp_charrnn.project.memory import ProjectMemory

from lsp_charrnn import __version__
from lsp_charrnn.config import DEFAULT_MINUTES, LAB_STEPS, OPTIMISERS, TrainOptions
from lsp_charrnn.errors import NO_MEMORY, CorpusError, ModelError, SettingError, TextError, UserError

BAD_INPUT = 2
INTERRUPTED = 130
# What the system's refusal of memory is called where it isn't a `MemoryError`: for a thread, and for a library.
LIMITED = ("can't start new thread", "failed to map segment", "Cannot allocate memory")
FULL = {errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}  # a disk that takes no more

app = typer.Typer(
    name="lsp-charrnn",
    help="Code completion by a small character-level LSTM that runs on one core of your own machine.\n\n"
    "Editors start `lsp-charrnn serve`. To see what it would suggest, try `lsp-charrnn complete FILE:LINE`; "
    "to teach it your own code, `lsp-charrnn train`; if something seems wrong, `lsp-charrnn doctor`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
evaluate_app = typer.Typer(
    help="Measure a model on files that it has not seen: bits per character, keystrokes saved.", no_args_is_help=True
)
corpus_app = typer.Typer(help="Get the source text that models are trained and judged on.", no_args_is_help=True)
models_app = typer.Typer(
    help="List the models, show a model's card, verify a model's files, renew an old one, uninstall a project's.",
    invoke_without_command=True,
)
cache_app = typer.Typer(
    help="List or clear what is kept of your projects: their text and its counts, for an immediate start.",
    no_args_is_help=True,
)
lab_app = typer.Typer(
    help="Experiments with small networks: a network by hand, toy tasks, cells side by side, from noise to words.",
    no_args_is_help=True,
)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(corpus_app, name="corpus")
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")
app.add_typer(lab_app, name="lab")

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Name or directory of a model; by default the one for the file's language.")
]
SuffixOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="File name suffix to measure on, such as .go; may be given again. Default: .py."),
]
FilesOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Files to type in. Default: 24."),
]
KeysOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Keys to type in each. Default: 400."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> NoReturn:
    """Run the command line, and turn a `UserError` into one sentence and exit code 2."""
    # A path may be no text, and a terminal may know few characters: neither is a reason to end with a traceback.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except UserError as error:
        err.print(f"[bold red]error:[/] {_escaped(str(error))}")
        sys.exit(BAD_INPUT)
    except BrokenPipeError:  # `| head` has seen enough
        _drop_output()
        sys.exit(0)
    except (MemoryError, ImportError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in LIMITED):
            raise
        err.print(f"[bold red]error:[/] {NO_MEMORY}")
        sys.exit(BAD_INPUT)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop_output()
        where = error.filename or "what is printed"
        err.print(f"[bold red]error:[/] cannot write {_escaped(str(where))} ({error.strerror}): free some space there.")
        sys.exit(BAD_INPUT)
    sys.exit(0)


def _drop_output() -> None:
    """Let what is still to be printed go nowhere, or Python would try once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _missing(error: ModuleNotFoundError) -> SettingError:
    """Return the error for a command that needs what only the extra `train` installs."""
    package = (error.name or "").partition(".")[0]
    return SettingError(
        f"this needs the package '{package}', which is not installed: in the directory of lsp-charrnn, "
        "pip install -e '.[train]'."
    )


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _version(wanted: bool) -> None:
    """Print our version, which a program finds in the first line, and a line for each model that is found."""
    if wanted:
        from lsp_charrnn.model.files import FORMAT, list_models

        print(f"lsp-charrnn {__version__}")
        for info in list_models():
            spec = info.spec
            network = f"{spec.cell} {spec.layers}×{spec.hidden}" if spec is not None else ""
            print(f"model {info.name}: {info.problem or f'{info.version} (format {FORMAT}, {network})'}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the versions of the program and its models."
        ),
    ] = False,
) -> None:
    pass


# --- serving -------------------------------------------------------------------------------------------------


@app.command()
def serve(
    tcp: Annotated[
        Optional[str],  # noqa: UP045 - typer on Python 3.10 wants it so
        typer.Option(metavar="HOST:PORT", help="Listen on a TCP port instead. Without a host: 127.0.0.1."),
    ] = None,
    ws: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="HOST:PORT", help="Listen for WebSockets instead. Without a host: 127.0.0.1."),
    ] = None,
    log_level: Annotated[
        str, typer.Option(help="What goes to stderr: debug, info, warning or error. Only debug shows text of yours.")
    ] = "warning",
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Where the memories of projects are kept. Default: your cache directory."),
    ] = None,
    token_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="With --tcp or --ws: clients must show the token in this file of yours."),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="With --tcp or --ws: let every user of this machine connect.")
    ] = False,
) -> None:
    """Run the language server: what an editor starts. It speaks LSP over stdin and stdout.

    Over TCP and WebSocket a client must show a token: that of --token-file, of the environment's LSP_CHARRNN_TOKEN, or
    one that is made when the server starts, which says in which file it is. Over TCP it is
    `initializationOptions.token`, over WebSocket `Authorization: Bearer TOKEN` or `?token=TOKEN`.
    """
    if tcp is not None and ws is not None:
        raise SettingError("--tcp and --ws exclude each other: give one of them.")
    if tcp is None and ws is None and (no_token or token_file is not None):
        raise SettingError("--token-file and --no-token are for --tcp and --ws: standard input needs no token.")
    from lsp_charrnn.server import app as server
    from lsp_charrnn.server.access import access

    if tcp is not None:
        host, port = _address(tcp, "--tcp")
        who = access(token_file, none=no_token)
        code = server.serve_tcp(host, port, access=who, log_level=log_level, caches=cache)
    elif ws is not None:
        host, port = _address(ws, "--ws")
        who = access(token_file, none=no_token)
        code = server.serve_ws(host, port, access=who, log_level=log_level, caches=cache)
    else:
        code = server.serve_stdio(log_level=log_level, caches=cache)
    raise typer.Exit(code)


def _address(text: str, option: str) -> tuple[str, int]:
    """Read `HOST:PORT` or `PORT`; loopback unless told otherwise."""
    match = re.fullmatch(r"(?:\[?([^\[\]]*?)\]?:)?(\d{1,5})", text)
    if match is None or not 0 <= int(match[2]) <= 65535:
        raise SettingError(f"{option} {text} is no address: write HOST:PORT, for instance 127.0.0.1:2087.")
    return match[1] or "127.0.0.1", int(match[2])


# --- one completion, free text -------------------------------------------------------------------------------


@app.command()
def complete(
    place: Annotated[str, typer.Argument(metavar="FILE[:LINE[:COL]]", help="Where; lines and columns from 1.")],
    model: ModelOption = "",
    count: Annotated[int, typer.Option(min=1, max=5, help="How many suggestions to show at most.")] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Show what would be suggested at a place in a file: at its end, a line's end, or a column."""
    from lsp_charrnn.engine.session import Session
    from lsp_charrnn.text.document import Document
    from lsp_charrnn.train.corpus import language_of

    path, line, column = _place(place)
    document = Document.from_text(_read_text(path))
    offset = _offset(document, path, line, column)
    language = language_of(path.name)
    loaded = _load(model, language, _git_root(path))
    session = Session(lambda _: loaded)
    project = _project_around(path)
    session.open("file", document, path=_path_in_project(path), language=language, project=project)
    answer = session.complete("file", offset, count=max(2, count))
    completions = answer.completions[:count]
    row, start = document.line_at(offset), document.line_bounds(document.line_at(offset))[0]
    if as_json:
        data = {
            "file": str(path),
            "line": row + 1,
            "column": len(document.slice(start, offset).decode("utf-8")) + 1,
            "model": loaded.name,
            "milliseconds": round(answer.elapsed_ms, 2),
            "completions": [{"text": c.text, "probability": c.probability} for c in completions],
        }
        print(json.dumps(data, ensure_ascii=False))
        return
    before = document.slice(start, offset).decode("utf-8")
    if not completions:
        out.print(f"[dim]nothing worth suggesting at {path}:{row + 1}[/]")
    for completion in completions:
        first, *rest = completion.text.splitlines() or [""]
        chance = f"[cyan]{completion.probability:6.1%}[/]  "
        out.print(f"{chance}[dim]{_escaped(before)}[/][bold green]{_escaped(first)}[/]")
        for more in rest:
            out.print(f"         [bold green]{_escaped(more)}[/]")
    out.print(f"[dim]{loaded.name}, {answer.elapsed_ms:.1f} ms with reading the file[/]")


def _project_around(path: Path) -> ProjectMemory | None:
    """Return the memory of the project that a file lies in, its own text left out; None if it lies in none."""
    from lsp_charrnn.project.cache import cache_file
    from lsp_charrnn.project.memory import ProjectMemory

    root = _git_root(path)
    if root is None:
        return None
    memory = ProjectMemory(root, cache=cache_file(root))
    name = _path_in_project(path)
    with err.status(f"reading the project {_escaped(root.name)}"):
        memory.refresh(near=[name])
    memory.follow(name)
    return memory


@app.command()
def sample(
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Text to go on from.")] = "",
    prompt_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A file to go on from, instead."),
    ] = None,
    path: Annotated[str, typer.Option(help="Name of the file that the model believes to write.")] = "sample.py",
    length: Annotated[int, typer.Option(min=0, help="Characters to write.")] = 500,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: the likeliest text; 1: as the model sees it.")] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same text.")] = 0,
    model: ModelOption = "",
) -> None:
    """Let a model write freely, from a prompt or from nothing: a look at what it has learned."""
    from lsp_charrnn.engine.sample import sample as write
    from lsp_charrnn.train.corpus import LANGUAGES

    start = prompt.encode("utf-8", errors="replace")
    if prompt_file is not None:
        start, path = _read_text(prompt_file), prompt_file.name
    loaded = _load(model, LANGUAGES.get(Path(path).suffix.lower(), "python"))
    sys.stdout.write(start.decode("utf-8"))
    for character in write(loaded, start, path=path, length=length, temperature=temperature, seed=seed):
        sys.stdout.write(character)
        if character == "\n":
            sys.stdout.flush()
    sys.stdout.write("\n")


def _place(text: str) -> tuple[Path, int | None, int | None]:
    """Read `FILE[:LINE[:COL]]`; a file whose name ends in `:digits` is found under that name."""
    if Path(text).exists():
        return Path(text), None, None
    match = re.fullmatch(r"(.+?)(?::(-?\d+))?(?::(-?\d+))?", text)
    assert match is not None or not text
    if match is None:
        raise TextError("no file was named: write FILE, FILE:LINE or FILE:LINE:COL.")
    line, column = (int(group) if group is not None else None for group in match.groups()[1:])
    return Path(match[1]), line, column


def _read_text(path: Path) -> bytes:
    """Return a file's bytes. Raises `TextError` where it cannot be read or is not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TextError(f"cannot read {path} ({reason}): name a text file that you may read.") from error
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path} is not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x}): convert it to UTF-8 first."
        ) from error
    return data


def _offset(document: Any, path: Path, line: int | None, column: int | None) -> int:
    """Return the byte offset of a place counted from 1. Raises `TextError` for one that the file doesn't have."""
    if line is None:
        return int(document.size)
    if not 1 <= line <= document.line_count:
        raise TextError(f"{path} has no line {line}: give a line from 1 to {document.line_count}.")
    start, end = document.line_bounds(line - 1)
    text = document.slice(start, end).decode("utf-8")
    if column is None:
        return int(end)
    if not 1 <= column <= len(text) + 1:
        raise TextError(f"line {line} of {path} has no column {column}: give a column from 1 to {len(text) + 1}.")
    return int(start) + len(text[: column - 1].encode("utf-8"))


def _path_in_project(path: Path) -> str:
    """Return the path as the model should see it: within its git work tree, or the file's name alone."""
    root = _git_root(path)
    return path.resolve().name if root is None else path.resolve().relative_to(root).as_posix()


def _git_root(path: Path) -> Path | None:
    return next((parent for parent in path.resolve().parents if (parent / ".git").exists()), None)


def _load(model: str, language: str, project: Path | None = None) -> Any:
    """Load the model of that name, else the one that is installed for the project, else the language's."""
    from lsp_charrnn.model.files import find_model, load_model, model_for_language
    from lsp_charrnn.model.installed import model_of_project

    own = model_of_project(project, language) if project is not None and not model else None
    return load_model(find_model(model) if model else own or model_for_language(language))


# --- seeing inside -------------------------------------------------------------------------------------------


@app.command()
def explore(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Text files to look at.")],
    out_path: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("explore.html"),
    model: ModelOption = "",
    line: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="The line to see closely, with all neurons. Default: in the middle."),
    ] = None,
) -> None:
    """Write a page that shows a file through a model's eyes: every neuron's gates, and what it expected next.

    The page is one file, needs no network, and opens in any browser. It holds 20,000 characters; of a longer file
    those around --line, else its beginning.
    """
    from lsp_charrnn.evaluate.output import check_place, write_whole
    from lsp_charrnn.inside.explore import Text, page
    from lsp_charrnn.model.files import find_model, load_weights, model_for_language, read_config
    from lsp_charrnn.model.neurons import kept
    from lsp_charrnn.text.symbols import header
    from lsp_charrnn.train.corpus import LANGUAGES

    texts = [
        Text(_path_in_project(path), _read_text(path), header(_path_in_project(path)), line and line - 1)
        for path in files
    ]
    language = LANGUAGES.get(files[0].suffix.lower(), "python")
    directory = find_model(model) if model else model_for_language(language)
    check_place(out_path)
    weights, spec = load_weights(directory)
    table = kept(directory)
    with err.status("reading") as status:
        html = page(
            weights,
            spec,
            texts,
            model=read_config(directory)[0]["name"],
            labels=() if table is None else table.labels(),
            progress=lambda done, total: status.update(f"reading: {done:,} of {total:,} characters"),
        )
    data = html.encode("utf-8")
    write_whole(out_path, data)
    out.print(f"wrote {_escaped(str(out_path))} ({len(data) / 1e6:.1f} MB): open it in a browser")


@app.command()
def neurons(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Projects the model has not seen.")],
    model: ModelOption = "",
    suffix: SuffixOption = None,
    characters: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1000, help="Characters to read, a piece of each file. Default: 100,000."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--save", help="Keep the table beside the model's weights, where `explore` finds it.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the neurons that track brackets, indentation, strings, comments, names, parameters, the place in the line.

    They are found on one half of the files and scored on the other, beside a linear probe of all neurons and what
    chance finds.
    """
    from lsp_charrnn.inside.neurons import CHARACTERS, find_neurons, shown

    with err.status("reading") as status:
        table = find_neurons(
            _existing(paths),
            model=model,
            suffixes=suffix or (".py",),
            characters=characters or CHARACTERS,
            keep=keep,
            progress=lambda done, total: status.update(f"reading: {done:,} of {total:,} characters"),
        )
    if as_json:
        print(json.dumps(table.to_json(), ensure_ascii=False))
    else:
        out.print(shown(table))


@app.command()
def surprise(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Text files to look at.")],
    model: ModelOption = "",
    html_path: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--html", metavar="PAGE", help="Write a page that shades every token, too."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the tokens of a file that are far less likely than their surroundings, and what was expected instead.

    By the model, with the memories of the file and of the git work tree around it: a look for slips, not a proof.
    """
    from lsp_charrnn.evaluate.output import check_place, write_whole
    from lsp_charrnn.inside.surprise import read_surprise, surprise_page
    from lsp_charrnn.train.corpus import language_of

    if html_path is not None:
        check_place(html_path)
    reads, name = [], ""
    for path in files:
        text = _read_text(path)
        loaded = _load(model, language_of(path.name), _git_root(path))
        project = _project_around(path)
        inner = _path_in_project(path)
        tables = () if project is None else project.tables(inner)
        with err.status(f"reading {_escaped(str(path))}"):
            reads.append(read_surprise(loaded, str(path), text, path=inner, project=tables))
        name = loaded.name
    places = [place for read in reads for place in read.places]
    if html_path is not None:
        write_whole(html_path, surprise_page(reads, name).encode("utf-8"))
    if as_json:
        print(json.dumps([place.to_json() for place in places], ensure_ascii=False))
        return
    for place in places:
        before, after = place.whole_line[: place.column - 1], place.whole_line[place.column - 1 + len(place.text) :]
        instead = f", expected [green]{_escaped(place.instead)}[/]" if place.instead else ""
        out.print(f"[bold]{_escaped(place.file)}:{place.line}:{place.column}[/] {place.bits:.1f} bits{instead}")
        out.print(f"    {_escaped(before)}[bold red]{_escaped(place.text)}[/]{_escaped(after)}")
    if not places:
        out.print("[dim]nothing is far less likely than its surroundings[/]")


# --- training ------------------------------------------------------------------------------------------------


@app.command()
def train(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…",
            help="Directories, git work trees, archives or files to learn from, or a corpus that `corpus build` made.",
        ),
    ],
    out_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--out", help="Directory to write the model to; its name is the model's. Not needed with --install."
        ),
    ] = None,
    minutes: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help=f"How long to train; with --base, less where the text would be read more than four times. Default: "
            f"{DEFAULT_MINUTES:g}, less for little text, unless --steps is given."
        ),
    ] = None,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="How many updates to make; with --minutes, whichever ends first."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed (and --steps) makes the same model.")] = TrainOptions.seed,
    cell: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="lstm (default), peephole, coupled, gru or rnn."),
    ] = None,
    layers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Layers, one upon the other. Default: 2."),
    ] = None,
    hidden: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Neurons a layer. Default: 128 to 512, by how much text can be read in the time."),
    ] = None,
    batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help=f"Documents read side by side, by all processes. Default: {TrainOptions.batch}, less in a short run."
        ),
    ] = None,
    bptt: Annotated[int, typer.Option(help="Characters through which an error is traced back.")] = TrainOptions.bptt,
    optimiser: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help=f"{' or '.join(OPTIMISERS)}. Default: {TrainOptions.optimiser}, adamw with --base."),
    ] = None,
    lr: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Highest learning rate, AdamW's; Muon's is ten times that. "
            f"Default: {TrainOptions.lr:g}, less with --base."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = TrainOptions.device,
    checkpoint_every: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Updates between two checkpoints. Default: a fortieth of the run, or what judging allows."),
    ] = None,
    patience: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Checkpoints without a better held-out figure that end the run; 0: none do. Default: a quarter of the "
            "run's, if it reads the text more than four times."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the same --out.")] = False,
    base: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="MODEL",
            help="Start from this model's weights instead of from nothing, and say at the end what has been gained. "
            "auto: the model for the language that most of the text is in.",
        ),
    ] = None,
    install: Annotated[
        bool,
        typer.Option(
            "--install",
            help="Make it the model of the project PATH, if it is better than --base (and than the one installed) on "
            "files held out: a server that has PATH open uses it from the next key on.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the model that --out holds.")] = False,
    suffix: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar=".EXT",
            help="Learn from files of this kind; may be given again. Default: the programming languages that most of "
            "the text is in; of these, with --base, those that it knows.",
        ),
    ] = None,
    held_out: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Files that must stay unseen: what shares a third of its lines with them is dropped."),
    ] = None,
    project_share: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.0, max=1.0, help="Largest share of the characters that one project may have. Default: 0.05"),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print progress and outcome as JSON, a line each, and everything else to stderr."),
    ] = False,
) -> None:
    """Train a model on your own code.

    The text is filtered (what git ignores, generated and binary files, duplicates, lines that look like secrets are
    left out and counted), part of it is held out to judge by, and the model that is best on that part is written to
    --out. What you don't say is chosen by how much text there is and how fast this machine trains, and told.

    With --base, bits per character and keystrokes saved on the files held out are reported before and after.
    `lsp-charrnn train . --base python --install` makes a model for the project in this directory; `models list` shows
    what is installed, `models uninstall` removes it.

    Ctrl-C stops after writing a checkpoint (a second one, at once); --resume goes on from the last one, also after a
    crash. OUT.training holds the checkpoint, log.jsonl, loss.png, samples.txt and TensorBoard's events.

    Several processes, on this machine or on many: `torchrun --nproc-per-node 2 --max-restarts 3 -m lsp_charrnn.train`
    takes the same arguments. Started again after a crash, they go on from the last checkpoint by themselves.
    """
    try:
        from lsp_charrnn.train.run import run
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    from lsp_charrnn.model.installed import alone
    from lsp_charrnn.tuning import Lines, Tuning, base_of, project_of

    root = project_of(paths, base) if install else None
    base = base_of(base, paths)
    if root is None and out_dir is None:
        raise SettingError("--out is missing: name the directory to write the model to, or give --base and --install.")
    lines = Lines() if as_json else None
    console = err if as_json else out
    open_options = {
        "optimiser": optimiser,
        "batch": batch,
        "lr": lr,
        "checkpoint_every": checkpoint_every,
        "patience": patience,
    }
    given: dict[str, Any] = {field: value for field, value in open_options.items() if value is not None}
    tuning = Tuning(base, root, out_dir)
    with alone(root) if root is not None else nullcontext():
        finished = run(
            paths,
            tuning.out,
            spec_options={"cell": cell, "layers": layers, "hidden": hidden},
            options=TrainOptions(minutes=minutes, steps=steps, seed=seed, bptt=bptt, device=device, **given),
            free=[field for field, value in {**open_options, "hidden": hidden}.items() if value is None],
            suffixes=tuple(suffix) if suffix else None,
            held_out=held_out or [],
            max_project_share=project_share,
            base=base,
            resume=resume,
            force=force,
            console=console,
            name=tuning.name,
            split=tuning.split,
            told=lines.training if lines is not None else lambda progress: None,
        )
        if not finished:
            raise typer.Exit(INTERRUPTED)
        tuning.finish(finished, console, lines)


@corpus_app.command("fetch")
def corpus_fetch(
    source_list: Annotated[Path, typer.Argument(metavar="LIST", help="A list of releases, like corpora/python.toml.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Directory to put the source text into.")],
) -> None:
    """Download the releases of a list with pip, apt or npm, verify their hashes, and unpack their source text.

    What is there already and verified is not fetched again, so an interrupted run is simply repeated.
    """
    from lsp_charrnn.train.fetch import Result, fetch, results_table

    def say(result: Result) -> None:
        line = f"{result.release.name} {result.release.version}: {result.outcome} {result.reason}"
        err.print(f"[dim]{_escaped(line.rstrip())}[/]")

    results = fetch(source_list, out_dir, progress=say)
    out.print(results_table(results))


@corpus_app.command("build")
def corpus_build(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE…",
            help="Lists of releases, like corpora/python.toml, and directories, git work trees, archives or files.",
        ),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Directory to write the corpus to.")],
    suffix: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar=".EXT", help="Take files of this kind; may be given again. Default: .py"),
    ] = None,
    held_out: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            metavar="SOURCE",
            help="What must stay unseen: files that share a third of their lines with it are dropped. "
            "May be given again.",
        ),
    ] = None,
    project_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest share of the characters that one project may have.")
    ] = 0.05,
    language_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest share of the characters that one language may have.")
    ] = 1.0,
    fetched: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Where the lists' releases are, or go to: DIR/LIST. Default: OUT/fetched."),
    ] = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Processes to work with. Default: one a core."),
    ] = None,
    scheduler: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="ADDRESS",
            help="Work on this Dask scheduler instead, such as tcp://127.0.0.1:8786; its workers need the same files "
            "under the same paths.",
        ),
    ] = None,
) -> None:
    """Make a corpus to train on: fetch, filter, drop duplicates and secrets, balance, split by project, pack.

    The corpus is a directory of memory-mapped shards with a report of every drop (`corpus show`). It is the same,
    bit for bit, whatever the number of workers. A build that was stopped goes on where it was if the command is given
    again; `.build` in the directory is for that alone, and may be deleted.
    """
    import shlex

    try:
        from lsp_charrnn.train.build import build
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        description = build(
            sources,
            out_dir,
            suffixes=tuple(suffix or [".py"]),
            held_out=held_out or [],
            project_share=project_share,
            language_share=language_share,
            fetched=fetched,
            workers=workers,
            scheduler=scheduler,
            command=shlex.join(["lsp-charrnn", *sys.argv[1:]]),
            console=out,
        )
    except KeyboardInterrupt:
        err.print("Stopped; the same command goes on from here.")
        raise typer.Exit(INTERRUPTED) from None
    _show_corpus(out_dir, description)


@corpus_app.command("show")
def corpus_show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A corpus that `corpus build` has made.")],
    projects: Annotated[bool, typer.Option("--projects", help="Also what was kept of each project.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what a corpus holds, and what was dropped and why."""
    from lsp_charrnn.train.corpus import DropReport
    from lsp_charrnn.train.shards import read_description

    description = read_description(directory)
    if as_json:
        print(json.dumps(description, ensure_ascii=False))
        return
    if projects:
        out.print(DropReport.of_facts(description["corpus"]).project_table())
    _show_corpus(directory, description)


def _show_corpus(directory: Path, description: dict[str, Any]) -> None:
    from lsp_charrnn.train.corpus import DropReport

    facts, shards = description["corpus"], description["shards"]
    out.print(DropReport.of_facts(facts).table())
    shares = ", ".join(f"{name} {size / facts['characters']:.1%}" for name, size in facts["languages"].items())
    out.print(f"Languages, of {facts['characters']:,} characters: {shares}.")
    missing = {name: why for entry in description["lists"] for name, why in entry["not_as_listed"].items()}
    for name, why in missing.items():
        out.print(f"Not as listed: {_escaped(name)}, {_escaped(why)}")
    held_out = f"held out by {facts['held_out_by']}, to judge by: {facts['held_out_characters']:,} characters"
    out.print(
        f"{_escaped(str(directory))}: {len(shards['train'])} + {len(shards['held_out'])} shards; {held_out}. "
        f"Train on it with `lsp-charrnn train {_escaped(str(directory))} --out MODEL`."
    )


# --- judging -------------------------------------------------------------------------------------------------


@evaluate_app.command("bits")
def evaluate_bits(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Projects the model has not seen.")],
    model: ModelOption = "",
    max_chars: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Measure on a fixed sample of so many characters."),
    ] = None,
    suffix: SuffixOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also what PPMd (order 16) and xz need for each file alone.")
    ] = False,
    record: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Write the figures into the model's card, under this name."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure bits per character: how well the model predicts each character from those before it (lower is better).

    The held-out projects of this repository come with `lsp-charrnn corpus fetch corpora/heldout-python.toml`.
    """
    from lsp_charrnn.evaluate.bits import measure_bits
    from lsp_charrnn.model.files import find_model
    from lsp_charrnn.train.card import add_evaluation

    report = measure_bits(
        _existing(paths), model=model, max_chars=max_chars, suffixes=suffix or (".py",), compare=compare
    )
    if record:
        add_evaluation(find_model(model or report.model), {record: report.for_card()})
    _show(report, as_json)


@evaluate_app.command("memory")
def evaluate_memory(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Projects the model has not seen.")],
    model: ModelOption = "",
    max_chars: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Measure on a fixed sample of files that hold about so many characters."),
    ] = None,
    suffix: SuffixOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also what PPMd (order 16) and xz need, given the rest of the project.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure bits per character with the memories: of the model alone, with the document's, with the project's too."""
    from lsp_charrnn.evaluate.memory import measure_memory

    report = measure_memory(
        _existing(paths),
        model=model,
        max_chars=max_chars,
        suffixes=suffix or (".py",),
        compare=compare,
        progress=lambda done, total: err.print(f"[dim]{done:,} of {total:,} characters[/]"),
    )
    _show(report, as_json)


@evaluate_app.command("fit-mixer")
def evaluate_fit_mixer(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Projects that neither was trained on.")],
    out_path: Annotated[Path, typer.Option("--out", "-o", help="Where to write it.")],
    model: ModelOption = "",
    suffix: SuffixOption = None,
) -> None:
    """Fit the gate that mixes the model with the memories (`lsp_charrnn/engine/mixer.safetensors`). Needs torch."""
    from lsp_charrnn.evaluate.memory import fit_mixer

    def progress(what: str, done: int, total: int) -> None:
        if done % 100 == 0 or total:
            err.print(f"[dim]{what}: {done}{f'/{total}' if total else ''}[/]")

    try:
        alone, mixed = fit_mixer(
            _existing(paths), out_path, model=model, suffixes=suffix or (".py",), progress=progress
        )
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    out.print(f"{alone:.3f} bits per character → {mixed:.3f}, on the text it was fitted to; wrote {out_path}")


@evaluate_app.command("typing")
def evaluate_typing(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Projects the model has not seen.")],
    model: ModelOption = "",
    files: FilesOption = None,
    keys: KeysOption = None,
    middle: Annotated[bool, typer.Option("--middle", help="Keep the rest of the file behind the cursor.")] = False,
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME=VALUE", help="A server setting, such as decode.lanes=4; may be given again."),
    ] = None,
    suffix: SuffixOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Measure the model without the memories, too, and they without it.")
    ] = False,
    picture: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Draw what --compare measures into this PNG, too."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure keystrokes saved: type held-out files through the real server and take what it suggests rightly.

    The rest of each file's project lies around it, as in real life.
    """
    import asyncio

    from lsp_charrnn.evaluate.picture import check_drawing
    from lsp_charrnn.evaluate.replay import KEYS, WINDOWS
    from lsp_charrnn.evaluate.typing import measure_typing

    if picture is not None:
        if not compare:
            raise SettingError("--picture draws a comparison, which nobody has asked for: give --compare, too.")
        check_drawing(picture)
    report = asyncio.run(
        measure_typing(
            _existing(paths),
            model=model,
            settings=_settings(setting or []),
            files=files or WINDOWS,
            keys=keys or KEYS,
            place="middle" if middle else "end",
            suffixes=suffix or (".py",),
            compare=compare,
            progress=lambda what, done, total: err.print(f"[dim]{what}: {done}/{total}[/]"),
        )
    )
    _show(report, as_json)
    if picture is not None:
        report.picture(picture)
        err.print(f"[dim]drawn into {_escaped(str(picture))}[/]")


@evaluate_app.command("reliability")
def evaluate_reliability(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Projects the model has not seen.")],
    model: ModelOption = "",
    files: FilesOption = None,
    keys: KeysOption = None,
    suffix: SuffixOption = None,
    picture: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Draw the curve into this PNG, too."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure how far a suggestion's probability can be believed: of those shown with 70 %, are 70 % right?

    Held-out files are typed as by `evaluate typing`, in this process, with the memories of document and project. And
    the corrections that fit best: an exponent, and a line on the log-odds; fitted to the files of one half of the
    projects, and scored on the other.
    """
    from lsp_charrnn.evaluate.picture import check_drawing
    from lsp_charrnn.evaluate.replay import KEYS, WINDOWS
    from lsp_charrnn.evaluate.shown import measure_reliability

    if picture is not None:
        check_drawing(picture)
    report = measure_reliability(
        _existing(paths),
        model=model,
        files=files or WINDOWS,
        keys=keys or KEYS,
        suffixes=suffix or (".py",),
        progress=lambda done, total: err.print(f"[dim]{done}/{total} files[/]"),
    )
    _show(report, as_json)
    if picture is not None:
        report.reliability.picture(picture)
        err.print(f"[dim]drawn into {_escaped(str(picture))}[/]")


@evaluate_app.command("surprise")
def evaluate_surprise(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Python projects the model has not seen.")],
    model: ModelOption = "",
    files: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Files to plant mistakes in. Default: 24."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure how well surprise finds mistakes: wrong names, swapped arguments, wrong operators, a missing not, and
    wrong return values are planted in held-out files, and every token is ranked.

    Beside it: chance, the model alone, the memories alone.
    """
    from lsp_charrnn.evaluate.surprise import FILES, measure_surprise

    report = measure_surprise(
        _existing(paths),
        model=model,
        files=files or FILES,
        progress=lambda done, total: err.print(f"[dim]{done}/{total} files[/]"),
    )
    _show(report, as_json)


def _existing(paths: list[Path]) -> list[Path]:
    for path in paths:
        if not path.exists():
            raise CorpusError(f"{path} does not exist: name directories or files to measure on.")
    return paths


def _settings(assignments: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise SettingError(f"--setting {assignment} has no value: write NAME=VALUE.")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    from lsp_charrnn.config import parse_settings

    _, problems = parse_settings(settings)
    if problems:
        raise SettingError(problems[0])
    return settings


def _show(report: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        out.print(report.table())


# --- what is kept of projects --------------------------------------------------------------------------------


@cache_app.command("list")
def cache_list(as_json: JsonFlag = False) -> None:
    """List the projects whose text is kept, where, and how large it is."""
    from rich.table import Table

    from lsp_charrnn.project.cache import cache_directory, caches

    found = list(caches())
    if as_json:
        rows = [{"file": str(path), "project": root, "bytes": size} for path, root, size in found]
        print(json.dumps(rows, ensure_ascii=False))
        return
    table = Table(title=f"Kept in {cache_directory()}")
    table.add_column("project", overflow="fold")
    table.add_column("MB", justify="right")
    for _, root, size in found:
        table.add_row(_escaped(root), f"{size / 1e6:.1f}")
    out.print(table if found else f"[dim]nothing is kept in {_escaped(str(cache_directory()))}[/]")


@cache_app.command("clear")
def cache_clear(
    project: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="[PROJECT]", help="A project's folder; without one, all are cleared."),
    ] = None,
) -> None:
    """Remove what is kept of a project, or of all. It is made anew when the project is opened again."""
    from lsp_charrnn.project.cache import clear

    out.print(f"removed what was kept of {clear(project)} projects")


# --- the lab -------------------------------------------------------------------------------------------------

# The toy tasks, by the names that `inside.toys` has for them.
_TOYS = {
    "counter": "Learn to write as many b's as a's: aaaXbbb.",
    "selective-counter": "The same with X's between, which don't count: aaXaXaYbbbb.",
    "state": "Learn to remember which letter the line began with: AxxxxYa, BxxxxYb.",
    "copy": "Learn to write three letters again: cabXcab.",
}
_TOYS_HELP = """{about}

A network of one layer is trained on lines of some sizes, and asked for those and for larger ones. Its neurons are
ranked by how well they follow what the task wants kept in mind, and each is held still once, to see what is lost
without it. OUT/{name} gets the model, examples.txt to look at it with, traces.png, and page.html, the explorer's.
"""

SeedOption = Annotated[int, typer.Option(min=0, help="The same seed does the same, on the same machine.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace models that are there.")]


def _add_toys(command: str, names: list[str], about: str) -> None:
    @lab_app.command(command, help=_TOYS_HELP.format(about=about, name=names[0] if len(names) == 1 else "TASK"))
    def toys(
        out_dir: Annotated[Path, typer.Option("--out", metavar="OUT", help="Directory to put the models into.")] = Path(
            "lab"
        ),
        steps: Annotated[int, typer.Option(min=1, help="Updates.")] = LAB_STEPS,
        seed: SeedOption = 0,
        force: ForceFlag = False,
        as_json: JsonFlag = False,
    ) -> None:
        try:
            from lsp_charrnn.inside import lab
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        from lsp_charrnn.inside.learning import LabOptions
        from lsp_charrnn.inside.toys import TOYS
        from lsp_charrnn.train.export import refuse_existing

        for name in names:  # before the first is learned, not after
            refuse_existing(out_dir / name, force)
        options = LabOptions(steps=steps, seed=seed)
        outcomes = []
        with err.status("") as status:
            for name in names:
                toy = TOYS[name]
                outcomes.append(lab.run(toy, out_dir / name, options, force=force, show=status.update))
        if as_json:
            print(json.dumps([outcome.to_json() for outcome in outcomes], ensure_ascii=False))
            return
        out.print(lab.summary(outcome.finding for outcome in outcomes))
        for outcome in outcomes:
            out.print(lab.neurons(outcome.finding))
            out.print(lab.gates(outcome.finding))
            files = f"{lab.EXAMPLES_FILE}, {lab.PICTURE_FILE}, {lab.PAGE_FILE}"
            out.print(f"[dim]{_escaped(str(outcome.model))}: the model, {files}[/]")


for _name, _about in _TOYS.items():
    _add_toys(_name, [_name], _about)
_add_toys("all", list(_TOYS), "Do all four toy tasks: counter, selective-counter, state, copy.")


@lab_app.command("cells")
def lab_cells(
    steps: Annotated[int, typer.Option(min=1, help="Updates of each network.")] = LAB_STEPS,
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Let LSTM, peephole LSTM, coupled LSTM, GRU and simple RNN learn the toy tasks, with the same sizes and lines."""
    try:
        from lsp_charrnn.inside import lab
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    from lsp_charrnn.inside.learning import LabOptions

    with err.status("") as status:
        findings = lab.compare(options=LabOptions(steps=steps, seed=seed), show=status.update)
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings], ensure_ascii=False))
    else:
        out.print(lab.summary(findings))


@lab_app.command("evolution")
def lab_evolution(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any text of 200 kB or more.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Directory to write the model to.")] = Path("evolution"),
    steps: Annotated[int, typer.Option(min=1, help="Updates.")] = 2000,
    seed: SeedOption = 0,
    force: ForceFlag = False,
) -> None:
    """Show what a network writes after 10, 30, 100, 300 … steps on a text: noise, then words, then sentences.

    OUT.training keeps the samples (samples.txt) and the curve. `make evolution` does it on the King James Bible.
    """
    text = _read_text(file)
    try:
        from lsp_charrnn.inside import evolution
    except ModuleNotFoundError as error:
        raise _missing(error) from error

    with err.status("reading") as status:

        def show(progress: Any) -> None:
            status.update(f"step {progress.step:,} of {steps:,}: {progress.bits:.2f} bits per character")
            if progress.sample is not None:
                print(evolution.shown(progress), flush=True)

        try:
            directory = evolution.evolve(text, file.name, out_dir, steps=steps, seed=seed, force=force, show=show)
        except KeyboardInterrupt:
            err.print("Stopped.")
            raise typer.Exit(INTERRUPTED) from None
    out.print(f"[dim]{_escaped(str(out_dir))}: the model; {_escaped(str(directory))}: samples.txt, loss.png[/]")


@lab_app.command("minimal")
def lab_minimal(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any text.")],
    hidden: Annotated[int, typer.Option(min=1, help="Neurons.")] = 100,
    length: Annotated[int, typer.Option(min=1, help="Characters through which an error is traced back.")] = 25,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 0.1,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Updates. Default: until Ctrl-C."),
    ] = None,
    seed: SeedOption = 0,
    check: Annotated[
        bool,
        typer.Option("--check", help="After --steps (default: 100) hold the gradients against numbers, and leave."),
    ] = False,
) -> None:
    """Train the minimal char-RNN on a text, and show what it writes: numpy, with every gradient by hand.

    docs/minimal.md walks through it. Ctrl-C ends it.
    """
    from itertools import count

    from lsp_charrnn.inside.minimal import Reader

    text = _read_text(file).decode("utf-8")
    reader = Reader(text, hidden=hidden, length=length, rate=rate, seed=seed)
    out.print(f"{len(text):,} characters, {len(reader.alphabet)} different ones")
    last = steps if steps is not None or not check else 100
    done = 0
    try:
        with err.status("") as status:
            for step in count(1) if last is None else range(1, last + 1):
                reader.step()
                done = step
                where = f"step {step:,}: {reader.bits_per_char:.2f} bits per character"
                if step % 100 == 0:
                    status.update(where)
                if not check and (step % 10_000 == 0 or (step >= 100 and str(step).rstrip("0") in ("1", "3"))):
                    out.print(f"--- {where}\n{_escaped(_printable(reader.sample(200)))}\n")
    except KeyboardInterrupt:
        err.print()
    if check:
        for name, error in reader.check().items():
            out.print(f"{name}: by hand and by numbers differ by {error:.1e} of the largest gradient")
    else:
        out.print(f"{done:,} steps: {reader.bits_per_char:.2f} bits per character")


def _printable(text: str) -> str:
    """Return text that a terminal can be given: a file may hold anything."""
    return "".join(character if character.isprintable() or character == "\n" else "·" for character in text)


# --- looking after models ------------------------------------------------------------------------------------


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the models, show a model's card, verify a model's files, renew an old one, uninstall a project's."""
    if context.invoked_subcommand is None:
        models_list()


@models_app.command("list")
def models_list(as_json: JsonFlag = False) -> None:
    """List the models that are found, the first of a name being the one that is used; and those of your projects."""
    from rich.table import Table

    from lsp_charrnn.model.files import MODELS_VARIABLE, list_models, search_path
    from lsp_charrnn.model.installed import list_installed

    found, installed = list_models(), list_installed()
    if as_json:
        rows = [
            {"name": m.name, "path": str(m.path), "languages": list(m.languages), "problem": m.problem, "project": root}
            for m, root in [*((m, None) for m in found), *((one.model, one.root) for one in installed)]
        ]
        print(json.dumps(rows, ensure_ascii=False))
        return
    if not found:
        places = ", ".join(str(place) for place in search_path())
        out.print(f"No model found in {_escaped(places)}; train one, or set {MODELS_VARIABLE}.")
    for title, infos in (("", found), ("\nInstalled for projects", [one.model for one in installed])):
        if not infos:
            continue
        table = Table(box=None, header_style="bold", pad_edge=False, title=title or None, title_justify="left")
        for heading in ("name", "languages", "network", "directory", *(["project"] if title else [])):
            table.add_column(heading, overflow="fold")
        for number, info in enumerate(infos):
            spec = info.spec
            network = (
                f"{spec.cell} {spec.layers}×{spec.hidden}" if spec is not None else f"[red]{_escaped(info.problem)}[/]"
            )
            of = [_escaped(installed[number].root)] if title else []
            table.add_row(
                _escaped(info.name), _escaped(", ".join(info.languages)), network, _escaped(str(info.path)), *of
            )
        out.print(table)


@models_app.command("show")
def models_show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or directory of a model.")],
) -> None:
    """Show a model's card: what it learned from, how well it does, what it is bad at."""
    from rich.markdown import Markdown

    from lsp_charrnn.model.files import find_model, read_config

    directory = find_model(model)
    read_config(directory)  # a directory that is no model has no card
    card = directory / "README.md"
    if not card.is_file():
        raise TextError(f"the model {directory} has no card (README.md): export it again.")
    if sys.stdout.isatty():
        out.print(Markdown(_printable(_read_text(card).decode("utf-8"))))
    else:
        print(_read_text(card).decode("utf-8"), end="")


@models_app.command("verify")
def models_verify(
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[MODEL]", help="Name or directory of a model; by default all that are found."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a model's files: format, hashes, shapes, and that the graph loads. Exit code 2 if one is damaged."""
    from lsp_charrnn.model.files import find_model, list_models, verify_model
    from lsp_charrnn.model.installed import list_installed

    everything = [info.path for info in (*list_models(), *(one.model for one in list_installed()))]
    directories = [find_model(model)] if model is not None else everything
    checks = {str(directory): verify_model(directory) for directory in directories}
    if as_json:
        rows = {
            path: [{"name": c.name, "ok": c.ok, "message": c.message} for c in found] for path, found in checks.items()
        }
        print(json.dumps(rows, ensure_ascii=False))
    else:
        for path, found in checks.items():
            out.print(f"[bold]{_escaped(path)}[/]")
            for check in found:
                mark = "[green]ok [/]" if check.ok else "[red]BAD[/]"
                out.print(f"  {mark} {_escaped(check.name)}: {_escaped(check.message)}")
    if not all(check.ok for found in checks.values() for check in found):
        raise typer.Exit(BAD_INPUT)


@models_app.command("renew")
def models_renew(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or directory of a model.")],
) -> None:
    """Write a model's graphs anew from its weights: for one that an older version of lsp-charrnn has made."""
    from lsp_charrnn.model.files import find_model

    try:
        from lsp_charrnn.train.export import renew_model
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    out.print(f"renewed {_escaped(str(renew_model(find_model(model))))}")


@models_app.command("uninstall")
def models_uninstall(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The project's directory, there or not.")],
) -> None:
    """Remove the model that `train --install` has made for a project, and what its training has left."""
    from lsp_charrnn.model.installed import uninstall

    if not uninstall(project):
        raise ModelError(f"no model is installed for {project}: `lsp-charrnn models list` shows the projects with one.")
    out.print(f"removed the model of {_escaped(str(project))}")


@app.command()
def doctor(model: ModelOption = "") -> None:
    """Say what this machine and this installation can do, what is wrong, and how to mend it."""
    from lsp_charrnn import doctor as doctors

    report = doctors.examine(model)
    doctors.render(report, out)
    if report.problems:
        raise typer.Exit(1)
