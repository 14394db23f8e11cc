"""Runs commands where nothing can be written, or no more than a little; prints what each said, a line of JSON.

python on_a_bad_disk.py read-only|full PLACE < COMMANDS

In `PLACE`, that is. A read-only file system is played by an audit hook, for any user may run this, root too, whom no
permission stops; a full one by the limit of a file's size: then the write itself fails, wherever it is done.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

LEAST = 100  # bytes that still go into a file
_CHANGING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def make_read_only(place: str) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in _CHANGING or (event == "open" and (arguments[2] or 0) & _WRITING)
        if writes and isinstance(arguments[0], (str, os.PathLike)) and os.fspath(arguments[0]).startswith(place):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(arguments[0]))

    sys.addaudithook(hook)


def tried(command: list[str]) -> dict[str, Any]:
    """Run a command of ours in this process."""
    from lsp_charrnn import cli

    sys.argv = ["lsp-charrnn", *command]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        try:
            cli.main()
        except SystemExit as end:
            return {"code": end.code, "said": said.getvalue()}
        except BaseException as error:
            return {"code": repr(error), "said": said.getvalue()}


def main() -> None:
    fault, place = sys.argv[1:]
    commands = json.load(sys.stdin)
    if fault == "read-only":
        make_read_only(place)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LEAST, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    for command in commands:
        print(json.dumps(tried(command)), flush=True)


if __name__ == "__main__":
    main()
