"""`corpus build`: releases, directories and work trees in, memory-mapped shards and a report of every drop out.

Three stages. Each unit (a project, a directory, an archive) is read, judged and sketched by a task of its own, which
leaves a *part* in `.build/`: its text, and an index with hashes and MinHash signatures. Then what only the whole can
tell is decided here, from the indices alone: duplicates, shares, who is held out. Then the shards are put together,
each by a task. A part is named after all that it hangs on, so a build that was stopped, or is repeated with other
shares, reads again only what has changed; and nothing hangs on who did which task when: the same text and options
give the same shards, bit for bit. How files are judged is in `corpus`, how work is spread in `cluster`.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from distributed import Client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lsp_charrnn import __version__
from lsp_charrnn.errors import CorpusError, OutputError
from lsp_charrnn.private import make_directory
from lsp_charrnn.text import symbols
from lsp_charrnn.train import archives, corpus, duplicates, secrets, shards
from lsp_charrnn.train.cluster import connected, run_all
from lsp_charrnn.train.corpus import (
    EXACT_DUPLICATE,
    LEAST_TELLING_LINES,
    MAX_PROJECT_SHARE,
    NEAR_DUPLICATE,
    DropReport,
    Unit,
    cap,
    corpus_facts,
    examine,
    fingerprint,
    header_of,
    hold_out,
    refuse_empty,
    telling_lines_of,
    units,
)
from lsp_charrnn.train.fetch import Result, fetch, known_releases, read_list
from lsp_charrnn.train.shards import CORPUS_FILE, FORMAT, OFFSETS, SYMBOLS, Shard, write_shard, write_whole

WORK: Final = ".build"  # parts and plans: may be deleted, and then a later build reads everything again
FETCHED: Final = "fetched"
SHARD_BYTES: Final = 64_000_000  # of symbols: few files, and little memory for the task that makes one

_ADDRESS: Final = re.compile(r"\w+://\S+")  # of a registry's host: nobody else needs it
_TEXT: Final = ".text"
_INDEX: Final = ".index.npz"  # written last: where it is, the part is whole
_PART_FORMAT: Final = 1


@dataclass(frozen=True)
class Rules:
    """What a part hangs on beside its unit's files. `unseen` has the telling lines of what is held out."""

    suffixes: tuple[str, ...]
    unseen: Path
    key: str
    code: str


@dataclass(frozen=True)
class Entry:
    """One file that is kept, and where its text is: from `start` on in the text of part `part`."""

    project: str
    path: str
    language: str
    size: int
    part: int
    start: int


def build(
    sources: Sequence[Path | str],
    out: Path | str,
    *,
    console: Console,
    suffixes: Sequence[str] = (".py",),
    held_out: Sequence[Path | str] = (),
    project_share: float = MAX_PROJECT_SHARE,
    language_share: float = 1.0,
    fetched: Path | str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    command: str = "",
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Build the corpus of `sources` in the directory `out`; return what its `corpus.json` says.

    A source, and what is `held_out`, is a list of releases (TOML), which is fetched to `fetched` (by default a
    directory in `out`) first, or a directory, work tree, archive or file. `scheduler` is a running Dask scheduler's
    address; its workers must see the same files.

    Raises `CorpusError` for sources that cannot be read, or with nothing in them; `OutputError` for `out`;
    `SettingError` for the scheduler.
    """
    out = Path(out).expanduser().absolute()
    work = out / WORK
    _refuse(out, sources, held_out)
    try:
        make_directory(out)  # with the text of whoever's code it is
        make_directory(work)
        for leftover in (*work.glob(".*.partial"), *out.glob(".*.partial")):  # of a run that was killed
            leftover.unlink()
        fetched = Path(fetched).absolute() if fetched is not None else out / FETCHED
        paths, lists = _fetched([*sources], fetched, console)
        unseen_paths, _ = _fetched([*held_out], fetched, console)
        found = list(dict.fromkeys(units(paths)))
        with console.status("reading what is held out …"):
            rules = _rules(tuple(suffixes), unseen_paths, work)
        with connected(scheduler, workers) as client:
            parts = _each(client, make_part, [(unit, rules, work) for unit in found], "projects", console)
            entries, report = choose(work, parts)
            entries = cap(entries, report, project_share=project_share, language_share=language_share)
            refuse_empty(entries, sources, suffixes, report)
            for entry in entries:
                report.keep(entry)
            kept, judges, by = hold_out(entries)
            (out / CORPUS_FILE).unlink(missing_ok=True)  # it would speak of other shards from here on
            plans = {
                kind: _plans(files, kind.replace("_", "-"), work, parts, shard_bytes)
                for kind, files in (("train", kept), ("held_out", judges))
            }
            tasks = [(plan, work, out) for kind in plans for plan in plans[kind]]
            written = iter(_each(client, make_shard, tasks, "shards", console))
    except OSError as error:
        raise OutputError(f"cannot write to {out} ({error}): free some space, or choose another --out.") from error
    made = {kind: [next(written) for _ in plans[kind]] for kind in plans}
    description = {
        "format": FORMAT,
        "made_by": f"lsp-charrnn {__version__}",
        "command": command,
        "rules": {
            "suffixes": list(suffixes),
            "project_share": project_share,
            "language_share": language_share,
            "held_out": sorted({unit.project or unit.path.name for unit in units(unseen_paths)}),
        },
        "lists": lists,
        "shards": {kind: shards.shards_to_json(made[kind]) for kind in made},
        "corpus": corpus_facts(kept, judges, by, report, known_releases(paths)),
    }
    _clean(out, work, parts, {shard.name for kind in made for shard in made[kind]})
    text = json.dumps(description, indent=1) + "\n"
    write_whole(out / CORPUS_FILE, text.encode())
    return description


# --- before ----------------------------------------------------------------------------------------------------------


def _refuse(out: Path, sources: Sequence[Path | str], held_out: Sequence[Path | str]) -> None:
    for given in (*sources, *held_out):
        path = Path(given).expanduser()
        if not path.exists():
            raise CorpusError(f"{path} does not exist: give lists of releases, directories, work trees or archives.")
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise OutputError(f"{out} lies within {path}, and would be read as a part of it: choose another --out.")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: give --out a new or empty directory.")
    parent = next(parent for parent in (out, *out.parents) if parent.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{parent} cannot be written to: choose another --out.")
    if out.exists() and any(out.iterdir()) and not (out / WORK).is_dir() and not shards.is_built(out):
        raise OutputError(f"{out} holds other files: give --out a new or empty directory.")


def _fetched(given: list[Path | str], directory: Path, console: Console) -> tuple[list[Path], list[dict[str, Any]]]:
    """Return the paths to read, each list's own directory in its place, and what came of the lists."""
    paths, lists = [], []
    for source in (Path(entry).expanduser() for entry in given):
        if source.suffix != ".toml" or not source.is_file():
            paths.append(source)
            continue
        releases = read_list(source)
        with _bar(console) as show:
            task = show.add_task(f"fetching {source.name}", total=len(releases))
            results = fetch(source, directory / source.stem, progress=partial(_advance, show, task))
        missing = [result for result in results if result.outcome in ("skipped", "differs")]
        reasons = {}
        for result in missing:
            why = _ADDRESS.sub("…", result.reason)  # what has been said of a release goes with the corpus
            reasons[result.release.name] = f"{result.outcome}: {why}"
            _say(console, f"{result.release.name} {result.release.version}: {result.outcome}: {result.reason}")
        paths.append(directory / source.stem)
        lists.append(
            {
                "name": source.name,
                "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
                "releases": len(releases),
                "not_as_listed": reasons,
            }
        )
    return paths, lists


def _advance(show: Progress, task: Any, _: Result) -> None:
    show.advance(task)


def _rules(suffixes: tuple[str, ...], held_out: Sequence[Path], work: Path) -> Rules:
    lines = np.array(sorted(telling_lines_of(held_out, suffixes)), dtype=np.uint32)
    digest = hashlib.sha256(lines.tobytes()).hexdigest()
    unseen = work / f"unseen-{digest[:16]}.npy"
    write_whole(unseen, _as_file(partial(np.save, arr=lines)))
    code = code_version()
    key = hashlib.sha256(repr((code, suffixes, digest)).encode()).hexdigest()
    return Rules(suffixes, unseen, key, code)


@cache
def code_version() -> str:
    """Return what changes with the code that makes parts: the modules' own text, and the two libraries' versions."""
    digest = hashlib.sha256(f"{_PART_FORMAT} {version('detect-secrets')} {version('datasketch')}".encode())
    for module in (archives, corpus, secrets, duplicates, symbols):
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()


# --- stage one: parts ------------------------------------------------------------------------------------------------


def make_part(unit: Unit, rules: Rules, work: Path) -> str:
    """Read, judge and sketch the files of `unit`; return the name of the part, which may have been there already.

    Raises `CorpusError` where this process would judge otherwise than the one that asks.
    """
    if code_version() != rules.code:
        raise CorpusError("a worker runs another version of lsp-charrnn, or of its libraries: install the same there.")
    listing = fingerprint(unit, rules.suffixes)
    name = hashlib.sha256(repr((rules.key, unit.project or unit.path.name, listing)).encode()).hexdigest()[:32]
    if not _is_whole(work, name):
        _write_part(unit, rules, work, name)
    return name


def _is_whole(work: Path, name: str) -> bool:
    try:
        with np.load(work / (name + _INDEX), allow_pickle=False) as index:
            return (work / (name + _TEXT)).stat().st_size == int(index["sizes"].sum())
    except (OSError, ValueError, KeyError, EOFError):
        return False


def _write_part(unit: Unit, rules: Rules, work: Path, name: str) -> None:
    report = DropReport()
    names: list[tuple[str, str, str]] = []
    sizes: list[int] = []
    hashes: list[bytes] = []
    tells: list[bool] = []
    signatures: list[duplicates.Signature] = []
    number, text = tempfile.mkstemp(prefix=f".{name}.", suffix=".partial", dir=work)
    try:
        with os.fdopen(number, "wb") as file:
            for source, lines in examine([unit], rules.suffixes, _unseen(rules.unseen), report):
                file.write(source.text)
                names.append((source.project, source.path, source.language))
                sizes.append(source.size)
                hashes.append(hashlib.sha256(source.text).digest())
                tells.append(len(lines) >= LEAST_TELLING_LINES)
                signatures.append(duplicates.signature(lines))
            file.flush()
            os.fsync(file.fileno())
        Path(text).replace(work / (name + _TEXT))
    finally:
        Path(text).unlink(missing_ok=True)
    facts = {
        "names": names,
        "dropped_files": report.dropped_files,
        "dropped_bytes": report.dropped_bytes,
        "secret_lines": report.secret_lines,
    }
    index: dict[str, npt.NDArray[Any]] = {
        "sizes": np.array(sizes, dtype=np.int64),  # [files]
        "hashes": np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(sizes), 32),
        "tells": np.array(tells, dtype=np.bool_),  # [files], whether there are lines enough to know a copy by
        "signatures": np.array(signatures, dtype=np.uint32).reshape(len(sizes), duplicates.PERMUTATIONS),
        "facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
    }
    write_whole(work / (name + _INDEX), _as_file(lambda file: np.savez(file, allow_pickle=False, **index)))


@cache
def _unseen(path: Path) -> frozenset[int]:
    return frozenset(np.load(path, allow_pickle=False).tolist())


def _as_file(save: Callable[[io.BytesIO], None]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


# --- stage two: what only the whole can tell -------------------------------------------------------------------------


def choose(work: Path, parts: Sequence[str]) -> tuple[list[Entry], DropReport]:
    """Return the files that are no copies of others, the first of each kind, and what all parts have dropped."""
    entries: list[Entry] = []
    report = DropReport()
    seen: set[bytes] = set()
    tells: list[bool] = []
    signatures: list[npt.NDArray[np.uint32]] = []  # of each part's files that are left
    for number, name in enumerate(parts):
        with np.load(work / (name + _INDEX), allow_pickle=False) as index:
            sizes, hashes, telling = index["sizes"].tolist(), index["hashes"], index["tells"].tolist()
            facts, sketches = json.loads(index["facts"].tobytes()), index["signatures"]
        report.add(DropReport.of(facts["dropped_files"], facts["dropped_bytes"], facts["secret_lines"]))
        rows, start = [], 0
        for row, ((project, path, language), size) in enumerate(zip(facts["names"], sizes, strict=True)):
            digest = hashes[row].tobytes()
            if digest in seen:
                report.drop(EXACT_DUPLICATE, size)
            else:
                seen.add(digest)
                entries.append(Entry(project, path, language, size, number, start))
                tells.append(telling[row])
                rows.append(row)
            start += size
        signatures.append(sketches[rows])
    if not entries:
        return [], report
    told = np.flatnonzero(tells)
    copies = set(told[duplicates.near_duplicates(np.concatenate(signatures)[told])].tolist())
    for index in copies:
        report.drop(NEAR_DUPLICATE, entries[index].size)
    return [entry for index, entry in enumerate(entries) if index not in copies], report


# --- stage three: shards ---------------------------------------------------------------------------------------------


def _plans(files: Sequence[Entry], kind: str, work: Path, parts: Sequence[str], shard_bytes: int) -> list[Path]:
    """Write down which text goes to which shard, in an order that looks random and hangs on names alone."""
    plans = []
    for number, chosen in enumerate(_in_shards(sorted(files, key=_place), shard_bytes)):
        rows = [(parts[entry.part], entry.start, entry.size, header_of(entry).decode("latin-1")) for entry in chosen]
        plan = {"name": f"{kind}-{number:05}", "documents": rows}
        plans.append(work / f"{plan['name']}.plan.json")
        write_whole(plans[-1], json.dumps(plan).encode())
    return plans


def _place(entry: Entry) -> bytes:
    return hashlib.blake2b(f"order {entry.project} {entry.path}".encode("utf-8", "replace"), digest_size=8).digest()


def _in_shards(files: Sequence[Entry], shard_bytes: int) -> Iterator[list[Entry]]:
    chosen: list[Entry] = []
    total = 0
    for entry in files:
        if chosen and total + entry.size > shard_bytes:
            yield chosen
            chosen, total = [], 0
        chosen.append(entry)
        total += entry.size
    if chosen:
        yield chosen


def make_shard(plan_path: Path, work: Path, out: Path) -> Shard:
    """Put the documents of one shard together, and write it."""
    plan = json.loads(plan_path.read_bytes())
    rows = [(part, start, size, head.encode("latin-1")) for part, start, size, head in plan["documents"]]
    offsets = np.cumsum([0, *(len(head) + size for _, _, size, head in rows)], dtype=np.int64)
    data = bytearray(int(offsets[-1]))
    at = offsets.tolist()
    # Part after part, and forwards in each, whatever the order of the documents: disks like that.
    order = sorted(range(len(rows)), key=lambda row: rows[row][:2])
    opened, file = "", io.BytesIO()
    for row in order:
        part, start, size, head = rows[row]
        if part != opened:
            file.close()
            file = (work / (part + _TEXT)).open("rb")
            opened = part
        file.seek(start)
        data[at[row] : at[row] + len(head)] = head
        data[at[row] + len(head) : at[row + 1]] = file.read(size)
    file.close()
    if len(data) != at[-1]:
        raise CorpusError(f"a part in {work} has been cut: delete that directory and build again.")
    return write_shard(out, plan["name"], data, offsets)


# --- meanwhile, and after --------------------------------------------------------------------------------------------


def _each(
    client: Client, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], what: str, console: Console
) -> list[Any]:
    with _bar(console) as show:
        bar = show.add_task(what, total=len(tasks))
        return run_all(client, function, tasks, done=lambda _: show.advance(bar))


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as show:
        yield show
        if not console.is_terminal:
            for task in show.tasks:
                _say(console, f"{task.description}: {task.completed:,.0f} of {task.total:,.0f}")


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _clean(out: Path, work: Path, parts: Sequence[str], names: set[str]) -> None:
    """Remove what earlier builds in `out` have left, and nobody will need."""
    wanted = {name + suffix for name in parts for suffix in (_TEXT, _INDEX)}
    for path in work.iterdir():
        if path.name not in wanted:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in out.iterdir():
        if path.suffix in (SYMBOLS, OFFSETS) and path.stem not in names:
            path.unlink()
