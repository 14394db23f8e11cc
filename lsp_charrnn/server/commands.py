"""workspace/executeCommand: an item was accepted, switch off and on, status and statistics."""

from __future__ import annotations

import functools
import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from lsprotocol import types

from lsp_charrnn import __version__
from lsp_charrnn.config import SETTING_NAMES
from lsp_charrnn.errors import UserError

if TYPE_CHECKING:
    from lsp_charrnn.server.app import Server

ACCEPTED: Final = "lspCharrnn.accepted"
TOGGLE: Final = "lspCharrnn.toggle"
STATUS: Final = "lspCharrnn.status"


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
        "statistics": server.statistics.to_json(),
        "versions": _versions(),
        "pid": os.getpid(),
    }
    if arguments:
        result |= server.document_state(arguments[0])
    return result
