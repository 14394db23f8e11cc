"""The errors a user can meet. Every message is one sentence that names what is wrong and the fix.

One place (`cli.main` for commands, `server.app` for LSP) turns them into exit code 2 or an LSP error.
Anything that is not a `UserError` is a bug.
"""

from typing import Final

NO_MEMORY: Final = (
    "the system gives this process too little memory, or too few threads: raise its limits (ulimit -v and -u, or the "
    "container's), or end what else is running."
)


class UserError(Exception):
    """Something the user gave or has is wrong; the message names it and the fix."""


class ModelError(UserError):
    """A model directory is missing, damaged, of another format version, or not a model at all."""


class SettingError(UserError):
    """A setting or an option is unknown, of the wrong type, or out of range."""


class TextError(UserError):
    """A file is unreadable or is not UTF-8 text, or a position lies outside it."""


class CorpusError(UserError):
    """Training or evaluation was given nothing it can read."""


class OutputError(UserError):
    """The place to write to exists already, or cannot be written."""


class DocumentNotOpenError(UserError):
    """A request names a document that the client has not opened."""
