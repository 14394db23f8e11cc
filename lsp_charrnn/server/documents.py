"""The open documents of one client: text, language and path by URI, changed as the client says.

pygls keeps its own copy of every text, splits it with `str.splitlines` (wrong at a form feed or U+2028) and spends
milliseconds on each key in a large file; it is bypassed (see `protocol`) and this store is the only one. Texts are
immutable `Document` values, so whoever holds one (a request, the model thread) is not disturbed by later edits.
Reading ahead and completing are left to the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from lsprotocol import types

from lsp_charrnn.errors import DocumentNotOpenError
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.positions import PositionEncoding, offset_at, position_at


@dataclass(frozen=True)
class OpenDocument:
    """One version of an open document."""

    uri: str
    language: str  # the client's language id
    path: str  # relative to the workspace, with forward slashes: the header that the model reads
    text: Document
    secret: bool = False  # keys and passwords: its text is not even kept


class Documents:
    """What the client has open, in the position encoding that was agreed on."""

    def __init__(self, encoding: PositionEncoding = PositionEncoding.UTF16) -> None:
        self.encoding = encoding
        self._open: dict[str, OpenDocument] = {}

    def __iter__(self) -> Iterator[OpenDocument]:
        return iter(list(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)

    def find(self, uri: str) -> OpenDocument | None:
        """Return the newest version of a document, or None if it isn't open."""
        return self._open.get(uri)

    def get(self, uri: str) -> OpenDocument:
        """Return the newest version of a document. Raises `DocumentNotOpenError`."""
        document = self._open.get(uri)
        if document is None:
            raise not_open(uri)
        return document

    def open(self, item: types.TextDocumentItem, path: str, *, secret: bool = False) -> OpenDocument:
        """Add a document; one that is open already is replaced."""
        text = Document.from_text("" if secret else item.text, version=item.version)
        document = OpenDocument(item.uri, item.language_id, path, text, secret)
        self._open[item.uri] = document
        return document

    def change(
        self, uri: str, version: int, changes: Sequence[types.TextDocumentContentChangeEvent]
    ) -> tuple[OpenDocument, list[Edit]]:
        """Apply the changes of one notification; return the new version and the edits that led to it.

        Each change, and each edit, is relative to the text that the one before it left. Raises `DocumentNotOpenError`.
        """
        before = self.get(uri)
        if before.secret:
            return before, []
        text, edits = apply_changes(before.text, changes, self.encoding)
        document = replace(before, text=replace(text, version=version))
        self._open[uri] = document
        return document, edits

    def move(self, uri: str, path: str) -> OpenDocument:
        """Take note that a document's path is another, since the workspace is; return it. Raises as `get` does."""
        document = self._open[uri] = replace(self.get(uri), path=path)
        return document

    def close(self, uri: str) -> OpenDocument | None:
        """Forget a document; return what it was, or None if it wasn't open."""
        return self._open.pop(uri, None)

    def offset(self, document: OpenDocument, position: types.Position) -> int:
        """Return the byte at a position; one past the end of a line or of the text is moved to that end."""
        return offset_at(document.text, position.line, position.character, self.encoding)

    def range(self, document: OpenDocument, start: int, end: int) -> types.Range:
        """Return the range between two byte offsets."""
        return types.Range(
            types.Position(*position_at(document.text, start, self.encoding)),
            types.Position(*position_at(document.text, end, self.encoding)),
        )


def not_open(uri: str) -> DocumentNotOpenError:
    """Return the error for a request about a document that isn't open."""
    return DocumentNotOpenError(f"{uri} is not open: send textDocument/didOpen before asking about it.")


def apply_changes(
    text: Document, changes: Sequence[types.TextDocumentContentChangeEvent], encoding: PositionEncoding
) -> tuple[Document, list[Edit]]:
    """Apply changes, each relative to the text that the one before it left; return the text, and they as bytes."""
    edits = []
    for change in changes:
        edit = _edit(text, change, encoding)
        text = text.replace(edit)
        edits.append(edit)
    return text, edits


def _edit(text: Document, change: types.TextDocumentContentChangeEvent, encoding: PositionEncoding) -> Edit:
    new = change.text.encode("utf-8", errors="replace")  # lone surrogates become "?"
    if not isinstance(change, types.TextDocumentContentChangePartial):
        # Most of it is there already, if a client sends all of its text at each key: what stays shares its chunks.
        return Edit(0, text.size, new).trimmed(text)
    first, last = change.range.start, change.range.end
    start = offset_at(text, first.line, first.character, encoding)
    end = offset_at(text, last.line, last.character, encoding)
    return Edit(min(start, end), max(start, end), new)


def relative_path(uri: str, roots: Iterable[str]) -> str:
    """Return a document's path within the innermost of the workspace's `roots` (URIs), else its file name.

    URIs are compared, not file system paths, so that this holds for the client's platform whatever ours is.
    """
    path = uri_path(uri)
    inside = [root for root in map(uri_path, roots) if path.startswith(root.rstrip("/") + "/")]
    if inside:
        return path[len(max(inside, key=len).rstrip("/")) + 1 :]
    return path.rstrip("/").rpartition("/")[2] or uri


def uri_path(uri: str) -> str:
    """Return the path in a URI, decoded, with forward slashes."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # "file://[": no URI, but a document may be called so
        return unquote(uri).replace("\\", "/")
    # Without a scheme (an editor that sends a plain path) or with one letter as scheme (C:\) it is all path.
    whole = uri if len(parts.scheme) < 2 else f"/{parts.netloc}{parts.path}" if parts.netloc else parts.path
    return unquote(whole).replace("\\", "/")


def is_uri(text: str) -> bool:
    """Say whether a text can be read as a URI at all."""
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True
