"""`lspCharrnn/digest`: what the server takes a document's text for, so that a client can check it against its own.

It takes `textDocument`, and answers with `version`, `bytes` (in UTF-8) and `sha256` (of these, in hexadecimal), or with
null for a document that isn't open, or whose text is not known. Meant for tests, and for whoever writes a client: one
that sends its edits wrongly gets wrong suggestions, and nothing else tells of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lsp_charrnn.errors import UserError
from lsp_charrnn.server.protocol import arrived_with

if TYPE_CHECKING:
    from lsp_charrnn.server.app import Server

DIGEST: Final = "lspCharrnn/digest"


class DigestError(UserError):
    """A request for a digest is malformed."""


async def digest(server: Server, params: Any) -> dict[str, Any] | None:
    """Answer `lspCharrnn/digest`. Raises `DigestError`."""
    named = params.get("textDocument") if isinstance(params, Mapping) else None
    uri = named.get("uri") if isinstance(named, Mapping) else None
    if not isinstance(uri, str):
        raise DigestError(f'{DIGEST} takes "textDocument" with the "uri" of a document.')
    document = arrived_with.get()
    if document is None or not server.knows(uri):
        return None
    data = document.text.data
    return {"version": document.text.version, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
