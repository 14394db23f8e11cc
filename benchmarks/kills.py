"""Whether anything is lost when the server, a training, or the writer of a project's index is killed by SIGKILL.

python -m benchmarks.kills [--kills N] [--only server|training|index] [--seed N] [--steps N] [--model NAME] [--text DIR]

Of fifty kills, at random moments:

- twenty hit the server while somebody types: starting, loading, reading, answering. The client starts it again and
  opens the document with the text that it has, as editors do. It must answer then as one that was never killed, know
  as much of the project, and say nothing in its log.
- fifteen hit a training (`kill_resume` has the moments): resumed, it ends with the same model, to the bit.
- fifteen hit the writer of the index, every other one within the writing. The next start count the same, to the
  bit, and leave a file that is whole, whether there was one before or not.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from benchmarks.editor import Editor, server_with, stretch_at
from benchmarks.workbench import ROOT, ModelName, console, model_directory, run
from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.client import SERVER
from lsp_charrnn.project.cache import cache_file, read
from lsp_charrnn.project.memory import ProjectMemory
from lsp_charrnn.text.document import Edit

KILLS: Final = 50
SHARES: Final = {"server": 0.4, "training": 0.3, "index": 0.3}
TEXT: Final = ROOT / "lsp_charrnn"  # what is typed, trained on and counted
TYPED: Final = 60  # keys, somewhere among which the server is killed
COPIES: Final = 5  # of the text, in the project that is counted: so that there is something to write
LITTLE: Final = 50_000  # bytes of it, in an index that is older
AFTERWARDS: Final = 5  # keys, after which the two servers' answers are compared
STARTING: Final = 0.15  # share of the servers that are killed before anybody types
# So that no answer hangs on how fast the machine is, nor on what had been read: where two lengths are worth the same,
# a hundred-thousandth of a bit decides.
SETTINGS: Final = {"decode.budgetMs": 10_000, "stream.exact": True}
PATIENCE: Final = 300.0  # seconds for a process to come to where it is to be killed


class What(str, Enum):
    """What is killed."""

    SERVER = "server"
    TRAINING = "training"
    INDEX = "index"


@dataclass(frozen=True)
class Outcome:
    """What became of one kill; `lost` names what was, nothing if all was well."""

    moment: str
    lost: tuple[str, ...]


def main(
    kills: Annotated[int, typer.Option(help="How often something is killed.", min=1)] = KILLS,
    only: Annotated[What | None, typer.Option(help="Kill this alone.")] = None,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    steps: Annotated[int, typer.Option(help="Updates of a training.", min=2)] = 40,
    model: ModelName = "",
    text: Annotated[Path, typer.Option(help="A directory of Python.", resolve_path=True)] = TEXT,
) -> None:
    """Kill at random moments, start again, and look for what is missing."""
    directory = model_directory(model)
    os.chdir(ROOT)  # `python -m lsp_charrnn` looks there first
    numbers = {only.value: kills} if only else _shared_out(kills)
    recovered = 0
    for what, number in numbers.items():
        if not number:
            continue
        randomly = random.Random(f"{seed} {what}")

        def tell(outcome: Outcome, what: str = what) -> None:
            nonlocal recovered
            recovered += not outcome.lost
            said = f"lost: {', '.join(outcome.lost)}" if outcome.lost else "nothing lost"
            console.print(f"{what:8} killed {outcome.moment}: {said}", highlight=False, markup=False)

        with tempfile.TemporaryDirectory() as place:
            if what == "server":
                asyncio.run(kill_server(number, directory, text, Path(place).resolve(), randomly, tell))
            elif what == "training":
                kill_training(number, text, steps, Path(place).resolve(), randomly, tell)
            else:
                kill_index(number, text, Path(place).resolve(), randomly, tell)
    console.print(f"{recovered} of {kills} recovered{', nothing lost' if recovered == kills else ''}.")
    if recovered < kills:
        sys.exit(1)


def _shared_out(kills: int) -> dict[str, int]:
    numbers = {what: round(kills * share) for what, share in SHARES.items()}
    numbers["server"] += kills - sum(numbers.values())
    return numbers


# --- the server -----------------------------------------------------------------------------------------------


async def kill_server(
    kills: int, model: Path, text: Path, place: Path, randomly: random.Random, tell: Callable[[Outcome], None]
) -> None:
    """Type, kill the server, start it again, and compare it with one that nobody has killed."""
    root = _copied(text, place / "project")
    files = sorted(path for path in root.rglob("*.py") if path.stat().st_size > 2_000)
    async with _server(model, root, place / "undisturbed") as undisturbed:
        for _ in range(kills):
            path = randomly.choice(files)
            tell(await _kill_while_typing(model, root, path, place / "killed", randomly, undisturbed))


async def _kill_while_typing(
    model: Path, root: Path, path: Path, cache: Path, randomly: random.Random, undisturbed: Editor
) -> Outcome:
    data = path.read_bytes()
    name = path.relative_to(root).as_posix()
    stretch = stretch_at(data, randomly.randrange(len(data)), TYPED)
    text, offset = data[: stretch.start] + data[stretch.end :], stretch.start
    if randomly.random() < STARTING:
        await _kill_at_start(cache, randomly.uniform(0, 1))
        return await _compared("while it starts", model, root, cache, text, offset, stretch.keys, name, undisturbed)
    last = randomly.randrange(len(stretch.keys) - AFTERWARDS)  # the key that is the last one for this server
    asks = randomly.random() < 0.7  # and waits for answers before, or types faster than any could come
    with suppress(UserError, OSError):  # all that a server can say that is being killed
        async with _server(model, root, cache) as editor:
            buffer = editor.open_text(text, name)
            killing: asyncio.Task[None] | None = None
            for number, key in enumerate(stretch.keys[: last + 1]):
                if number == last:
                    killing = asyncio.ensure_future(_kill(editor, randomly.uniform(0, 0.05)))
                change = editor.edited(buffer, Edit(offset, offset, key))
                text, offset = text[:offset] + key + text[offset:], offset + len(key)
                if asks or number == last:
                    await editor.complete(buffer, offset, change)
                else:
                    editor.change(change)
            if killing is not None:
                await killing
                await editor.complete(buffer, offset)  # nobody answers
    moment = f"at key {last + 1}{'' if asks else ' of a burst'} in {name}"
    return await _compared(moment, model, root, cache, text, offset, stretch.keys[last + 1 :], name, undisturbed)


async def _compared(
    moment: str,
    model: Path,
    root: Path,
    cache: Path,
    text: bytes,
    offset: int,
    keys: tuple[bytes, ...],
    name: str,
    undisturbed: Editor,
) -> Outcome:
    """Start a server where one was killed, go on typing, and return what it lacks beside one that never was."""
    lost = []
    try:
        async with _server(model, root, cache) as editor:
            again = await _answers(editor, text, offset, keys, name)
            lost += [f"its log says: {line}" for line in editor.log]
        wanted = await _answers(undisturbed, text, offset, keys, name)
    except UserError as error:
        return Outcome(moment, (str(error),))
    if again[0] != wanted[0]:
        lost.append(f"it knows {again[0]:,} bytes of the project, not {wanted[0]:,}")
    if again[1:] != wanted[1:]:
        lost.append(f"it answers {again[1:]!r}, not {wanted[1:]!r}")
    return Outcome(moment, tuple(lost))


async def _answers(
    editor: Editor, text: bytes, offset: int, keys: tuple[bytes, ...], name: str
) -> tuple[int, str, str]:
    """Open a document, and go on typing; return how much of the project is known, and what is suggested before and
    after that, each time once the server has come to rest.
    """
    # Elsewhere first: what has been shown somewhere stays shown there, though more of the project is known by now.
    buffer, _ = await editor.open_and_complete(text, 0, name)
    _, known = await editor.known(buffer)
    await editor.settled(buffer)
    await editor.idle()
    before = await editor.complete(buffer, offset)
    for key in keys[:AFTERWARDS]:
        editor.change(editor.edited(buffer, Edit(offset, offset, key)))
        offset += len(key)
    await editor.settled(buffer)
    await editor.idle()
    after = await editor.complete(buffer, offset)
    editor.close_text(buffer)
    return known, before.text, after.text


@asynccontextmanager
async def _server(model: Path, root: Path, cache: Path) -> AsyncIterator[Editor]:
    async with server_with(model, SETTINGS, cache) as editor:
        editor.enter(root)
        yield editor


async def _kill_at_start(cache: Path, after: float) -> None:
    process = subprocess.Popen(
        [*SERVER, "--cache", str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    await asyncio.sleep(after)
    process.kill()
    process.communicate()


async def _kill(editor: Editor, after: float) -> None:
    await asyncio.sleep(after)
    with suppress(ProcessLookupError):
        os.kill(editor.pid, signal.SIGKILL)


def _copied(text: Path, root: Path) -> Path:
    """Copy the Python of a directory, for what is killed must not be able to harm it."""
    for path in sorted(text.rglob("*.py")):
        target = root / path.relative_to(text)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    if not root.exists():
        raise UserError(f"There is no Python in {text}: name another directory.")
    return root


# --- training -------------------------------------------------------------------------------------------------


def kill_training(
    kills: int, text: Path, steps: int, place: Path, randomly: random.Random, tell: Callable[[Outcome], None]
) -> None:
    """Kill runs of a training, resume them, and compare them with one that nobody has disturbed."""
    # Here, for they need torch, and the others don't.
    from benchmarks.kill_resume import Trainer, differences, kill_and_resume, kills_of, outcome

    trainer = Trainer(text, steps, hidden=192)
    trainer.end(place / "undisturbed", resume=False)
    undisturbed = outcome(place / "undisturbed")
    for number, (name, moment) in enumerate(kills_of(kills, steps, trainer.checkpoint_every, randomly)):
        out = place / f"killed{number}"
        resumed = kill_and_resume(trainer, out, [moment], randomly)
        lost = differences(undisturbed, outcome(out)) if resumed else ["it ended before it was killed"]
        tell(Outcome(name, tuple(lost)))


# --- the index ------------------------------------------------------------------------------------------------

_COUNT: Final = "import sys; from pathlib import Path; from lsp_charrnn.project.memory import ProjectMemory; "
_COUNT_INTO: Final = _COUNT + "ProjectMemory(Path(sys.argv[1]), cache=Path(sys.argv[2])).refresh()"


def kill_index(kills: int, text: Path, place: Path, randomly: random.Random, tell: Callable[[Outcome], None]) -> None:
    """Kill what counts a project and writes its index, and compare what the next one has with what is right."""
    root = place / "project"
    for number in range(COPIES):
        _copied(text, root / f"copy{number}")
    began = time.monotonic()
    if _writer(root, cache_file(root, place / "right")).wait(PATIENCE) != 0:
        raise UserError(f"the project {text} could not be counted: see above.")
    took = time.monotonic() - began
    right = _known(ProjectMemory(root, cache=cache_file(root, place / "right")))
    for number in range(kills):
        path = cache_file(root, place / f"killed{number}")
        old = bool(number % 3)  # what was kept of the project before, when it was another
        if old:
            ProjectMemory(root, cache=path, cap=LITTLE).refresh()
        within = number % 2 == 0
        process = _writer(root, path)
        if within:
            end = time.monotonic() + PATIENCE
            while process.poll() is None and not any(path.parent.glob("*.partial")):
                if time.monotonic() > end:
                    raise UserError("the index was never written: nothing could be killed.")
            time.sleep(randomly.uniform(0, 0.02))
        else:
            time.sleep(randomly.uniform(0, took))
        process.kill()
        process.wait()
        moment = f"{'while it is written' if within else 'at any time'}, {'an old' if old else 'no'} index before"
        tell(Outcome(moment, tuple(_lost_of_index(root, path, right))))


def _writer(root: Path, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _COUNT_INTO, str(root), str(path)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def _known(memory: ProjectMemory) -> Counts:
    """Return all that a memory has counted, whatever is in the index and whatever beside it."""
    memory.refresh()
    return Counts.sum([(table, 1) for table in memory.tables("")])


def _lost_of_index(root: Path, path: Path, right: Counts) -> list[str]:
    """Return what the next start lacks, and what the file that it leaves does."""
    found = _known(ProjectMemory(root, cache=path))
    same = np.array_equal(found.keys, right.keys) and np.array_equal(found.counts, right.counts)
    lost = [] if same else ["the next start has other counts"]
    return lost if read(path, root) is not None else [*lost, "the index is still not whole"]


if __name__ == "__main__":
    run(main)
