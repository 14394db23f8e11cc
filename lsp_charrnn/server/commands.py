"""workspace/executeCommand: an item was accepted, switch off and on, status and statistics, train on a project."""

from __future__ import annotations

import asyncio
import functools
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lsprotocol import types

from lsp_charrnn import __version__
from lsp_charrnn.config import SETTING_NAMES
from lsp_charrnn.errors import UserError
from lsp_charrnn.model.files import find_model
from lsp_charrnn.server.projects import file_of
from lsp_charrnn.server.training import Shown, outcome_of

if TYPE_CHECKING:
    from lsp_charrnn.server.app import Server

ACCEPTED: Final = "lspCharrnn.accepted"
TOGGLE: Final = "lspCharrnn.toggle"
STATUS: Final = "lspCharrnn.status"
TRAIN: Final = "lspCharrnn.train"
CANCEL_TRAINING: Final = "lspCharrnn.cancelTraining"

_TRAIN_TAKES: Final = 'an object of "root" (a URI), "minutes", "suffixes" (such as [".py"]) and "fresh", or nothing'


class CommandError(UserError):
    """A command was called with arguments that it does not take."""


def accepted_command(server: Server, text: str, replaced: bytes) -> types.Command:
    """Return the command that an editor runs after inserting `text`; its only argument is an opaque id."""
    characters = max(0, len(text) - len(replaced.decode("utf-8")))
    return types.Command(
        title="Count as accepted", command=ACCEPTED, arguments=[server.statistics.register(characters)]
    )


@functools.cache
def _versions() -> dict[str, str]:
    """Return what this server is made of. Looked up once: it reads files."""
    return {
        "lsp-charrnn": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("pygls", "onnxruntime", "numpy")},
    }


async def accepted(server: Server, *arguments: Any) -> None:
    """Count a suggestion as accepted. An id that is not known (an old one, or none) is no error: it counts nothing."""
    if arguments and isinstance(arguments[0], str):
        server.statistics.accept(arguments[0])


async def toggle(server: Server, *arguments: Any) -> dict[str, Any]:
    """Switch suggestions off or on again, all of them or those for the language id given; until the server ends."""
    language = arguments[0] if arguments else None
    if len(arguments) > 1 or not (language is None or isinstance(language, str)):
        raise CommandError(f"{TOGGLE} takes a language id, or nothing for all languages.")
    return {"enabled": server.toggle(language), "language": language}


async def status(server: Server, *arguments: Any) -> dict[str, Any]:
    """Return what the server is doing, as JSON; with a document's URI as argument, what it does with that one too.

    `off` says why it is not completed, if it isn't; `refined`, whether the model has read enough for its expectations
    at the cursor to be final; `settled`, whether it has read what is around it; `remembered`, whether the names in it
    have been counted.
    """
    if len(arguments) > 1 or not all(isinstance(argument, str) for argument in arguments):
        raise CommandError(f"{STATUS} takes the URI of a document, or nothing.")
    state, problem = server.state()
    result: dict[str, Any] = {
        "state": state,
        "problem": problem,
        "enabled": server.enabled,
        "models": server.models_in_use(),
        "documents": len(server.documents),
        "positionEncoding": server.documents.encoding.value,
        "settings": {name: getattr(server.settings, field) for name, field in SETTING_NAMES.items()},
        "projects": [] if server.projects is None else server.projects.to_json(),
        "trainings": server.trainings.to_json(),
        "statistics": server.statistics.to_json(),
        "versions": _versions(),
        "pid": os.getpid(),
    }
    if arguments:
        result |= server.document_state(arguments[0])
    return result


async def train(server: Server, *arguments: Any) -> dict[str, Any]:
    """Train a model for a project, and install it if it is better; return how that ended, as JSON.

    Shown as progress, and stopped by its button, by `cancelTraining`, by cancelling the request, and when the client
    goes. What was stopped is gone on with by the next one, unless that is to be `fresh`.
    """
    wanted = _train_arguments(arguments)
    root = _project(server, wanted.get("root"))
    name, loop = server.settings.model, asyncio.get_running_loop()
    # Which model is for the language of the project's text, the training finds out; it starts in another directory.
    base = os.path.abspath(await loop.run_in_executor(None, find_model, name)) if name else "auto"  # noqa: PTH100
    training = server.trainings.start(
        root,
        base,
        minutes=wanted.get("minutes"),
        fresh=wanted.get("fresh", False),
        suffixes=wanted.get("suffixes", ()),
    )
    server.own_trainings.append(training)
    server.protocol.when_cancelled(training.cancel)
    shown = Shown(server.work_done_progress if server.shows_progress else None, training)
    try:
        outcome = await outcome_of(training, shown.tell)
    except asyncio.CancelledError:
        training.cancel()
        raise
    finally:
        shown.end()
        server.own_trainings.remove(training)
    server.look_for_models(now=True)
    kind = types.MessageType.Warning if outcome.problem else types.MessageType.Info
    server.say(outcome.in_words(), kind)
    return outcome.to_json()


async def cancel_training(server: Server, *arguments: Any) -> dict[str, Any]:
    """Stop the training on a project, or all that this client has started; return which."""
    root = arguments[0].get("root") if arguments and isinstance(arguments[0], Mapping) else None
    if len(arguments) > 1 or (arguments and (root is None or set(arguments[0]) != {"root"})):
        raise CommandError(f'{CANCEL_TRAINING} takes an object of "root" (a URI), or nothing.')
    if root is None:
        running = list(server.own_trainings)
    else:
        found = server.trainings.find(_project(server, root))
        running = [] if found is None else [found]
    for training in running:
        training.cancel()
    return {"cancelled": [str(training.root) for training in running]}


def _train_arguments(arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Return what `train` was called with. Raises `CommandError`."""
    if not arguments or arguments == (None,):
        return {}
    wanted = arguments[0]
    if len(arguments) > 1 or not isinstance(wanted, Mapping):
        raise CommandError(f"{TRAIN} takes {_TRAIN_TAKES}.")
    wanted = {key: value for key, value in wanted.items() if value is not None}
    minutes, suffixes = wanted.get("minutes", 1), wanted.get("suffixes", [])
    right = {
        "root": isinstance(wanted.get("root", ""), str),
        "minutes": isinstance(minutes, (int, float)) and not isinstance(minutes, bool) and 0 < minutes < 1e6,
        "suffixes": isinstance(suffixes, list) and all(isinstance(s, str) and s.startswith(".") for s in suffixes),
        "fresh": isinstance(wanted.get("fresh", False), bool),
    }
    for key in wanted:
        if not right.get(key, False):
            raise CommandError(f"{TRAIN} cannot use {key!r} as it is given: it takes {_TRAIN_TAKES}.")
    return wanted


def _project(server: Server, root: str | None) -> Path:
    """Return the directory of the project that is meant: the one named, or the only one. Raises `CommandError`."""
    if root is None:
        roots = server.roots()
        if len(roots) != 1:
            found = f"{len(roots)} projects are open" if roots else "no project is open"
            raise CommandError(f'{found}: say which one to train on, by "root", the URI of its folder.')
        (root,) = roots
    path = file_of(root)
    if not path or not os.path.isabs(path) or not os.path.isdir(path):  # noqa: PTH112, PTH117 (it may be odd)
        raise CommandError(f"{root} is no folder on this machine: give the URI of one that is.")
    return Path(os.path.realpath(path))
