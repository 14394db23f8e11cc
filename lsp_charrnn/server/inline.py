"""textDocument/inlineCompletion: ghost text. What is suggested is the engine's to say; here it becomes LSP items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lsprotocol import types

from lsp_charrnn.server.commands import accepted_command

if TYPE_CHECKING:
    from lsp_charrnn.engine.session import Completion
    from lsp_charrnn.server.app import Server
    from lsp_charrnn.server.documents import Documents, OpenDocument

INVOKED: Final = 5  # candidates for whoever asks; unasked comes one

Span = tuple[int, int, str]  # bytes [start, end) of the document, and the text that replaces them


async def inline_completion(server: Server, params: types.InlineCompletionParams) -> types.InlineCompletionList:
    """Answer with one item for `Automatic`, several for `Invoked`; no item where there is nothing to suggest.

    A request that was overtaken by an edit or by a newer request is answered with no item: an error would pop up.
    """
    selected = params.context.selected_completion_info
    automatic = params.context.trigger_kind is types.InlineCompletionTriggerKind.Automatic
    found = await server.complete(params, count=1 if automatic and selected is None else INVOKED)
    if found is None:
        return types.InlineCompletionList(items=[])
    document, offset, answer = found.document, found.offset, found.answer
    spans = [
        span
        for completion in answer.completions
        if (span := anchored(document, completion, offset, at_word=not server.is_neovim)) is not None
    ]
    if selected is not None:
        going_on = (extending(server.documents, document, span, selected) for span in spans)
        spans = [span for span in going_on if span is not None]
    if automatic:
        spans = spans[:1]
    server.statistics.answered(found.milliseconds, shown=bool(spans) and not answer.reused)
    return types.InlineCompletionList(
        items=[
            types.InlineCompletionItem(
                insert_text=server.for_client(text),
                # An item is shown if the text to replace begins its filter text, which by default is the new text:
                # it does up to the cursor, and need not past it.
                filter_text=None if end == offset else document.text.slice(start, end).decode("utf-8"),
                range=server.documents.range(document, start, end),
                command=accepted_command(server, text, document.text.slice(start, end)),
            )
            for start, end, text in spans
        ]
    )


def anchored(document: OpenDocument, completion: Completion, offset: int, *, at_word: bool = True) -> Span | None:
    """Return (start, end, text) with the range begun, `at_word`, at the start of the word before the cursor.

    So an item stays the same item, to the editor, while its word is typed: no flicker, and the selection stays. None
    if the range does not hold the cursor and lie on one line, as LSP wants it.
    """
    start = min(completion.start, word_start(document, offset)) if at_word else completion.start
    first, last = document.text.line_bounds(document.text.line_at(offset))
    if not first <= start <= offset <= completion.end <= last:
        return None
    text = document.text.slice(start, completion.start).decode("utf-8") + completion.text
    return start, completion.end, text


def word_start(document: OpenDocument, offset: int) -> int:
    """Return where the word that ends at `offset` begins; `offset` itself if none does."""
    start = offset
    while start > 0:
        piece = document.text.slice(max(0, start - _LOOKED_AT), start)
        begin = len(piece.rstrip(_WORD))
        start -= len(piece) - begin
        if begin > 0:
            break
    return start


_WORD: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_" + bytes(range(0x80, 0x100))
_LOOKED_AT: Final = 4096  # bytes at a time: hardly a word is longer


def extending(
    documents: Documents, document: OpenDocument, span: Span, selected: types.SelectedCompletionInfo
) -> Span | None:
    """Return the suggestion with the range of the entry that is selected in the popup; None if it doesn't extend that.

    The editor previews that entry, and shows ghost text only where it begins with the entry's text in its place.
    """
    start, end, text = span
    at = documents.offset(document, selected.range.start)
    if document.text.line_at(at) != document.text.line_at(start) or at > end:
        return None
    if at <= start:
        whole = document.text.slice(at, start).decode("utf-8") + text
    else:
        kept = document.text.slice(start, at).decode("utf-8")
        if not text.startswith(kept):
            return None
        whole = text[len(kept) :]
    if not whole.startswith(selected.text) or len(whole) == len(selected.text):
        return None
    return at, end, whole
