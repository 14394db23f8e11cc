"""textDocument/completion: the same suggestions in the popup list, for clients without inline completion."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lsprotocol import types

from lsp_charrnn.server.commands import accepted_command
from lsp_charrnn.server.inline import anchored

if TYPE_CHECKING:
    from lsp_charrnn.server.app import Server

SUGGESTIONS: Final = 3
# Where a word begins editors ask by themselves; these are the other places at which code goes on.
TRIGGERS: Final = (".", "(", "[", "{", ",", "=", ":", " ", "/", "@")
_LABEL: Final = 80  # characters; a popup shows no more


async def completion(server: Server, params: types.CompletionParams) -> types.CompletionList | None:
    """Answer with a few items, to be asked again at the next key; nothing to a client that shows ghost text."""
    if server.client_inline:
        return None
    found = await server.complete(params, count=SUGGESTIONS)
    if found is None:
        return types.CompletionList(is_incomplete=True, items=[])
    document, offset, answer = found.document, found.offset, found.answer
    items: list[types.CompletionItem] = []
    for suggestion in answer.completions:
        span = anchored(document, suggestion, offset)
        if span is None:
            continue
        start, end, text = span
        lines = re.split(r"\r\n|\r|\n", text)
        several = len(lines) > 1
        items.append(
            types.CompletionItem(
                label=_label(lines),
                kind=types.CompletionItemKind.Snippet if several else types.CompletionItemKind.Text,
                detail=f"lsp-charrnn {100 * suggestion.probability:.0f} %",
                documentation=_documentation(server, "\n".join(lines), document.language),
                sort_text=f"{len(items):02d}",  # digits stand before letters, the likeliest first
                # The popup keeps an item while what is typed matches this; leading line ends are never typed.
                filter_text=text.lstrip("\r\n") or text,
                insert_text_format=types.InsertTextFormat.PlainText,
                insert_text_mode=types.InsertTextMode.AsIs if server.client_takes_as_is else None,
                text_edit=types.TextEdit(server.documents.range(document, start, end), text),
                command=accepted_command(server, text, document.text.slice(start, end)),
            )
        )
    server.statistics.answered(found.milliseconds, shown=bool(items) and not answer.reused)
    return types.CompletionList(is_incomplete=True, items=items)


def _label(lines: list[str]) -> str:
    """Return the first line that has something on it, marked if it is not the first."""
    first = next((line for line in lines if line.strip()), "")
    label = first.strip() if lines[0].strip() else "↵ " + first.strip()
    return label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"


def _documentation(server: Server, text: str, language: str) -> types.MarkupContent | str:
    if types.MarkupKind.Markdown not in server.client_markup:
        return text
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return types.MarkupContent(types.MarkupKind.Markdown, f"{fence}{language}\n{text}\n{fence}")
