"""The baseline: the nearest word of the document."""

import asyncio

import pytest

from lsp_charrnn.evaluate.replay import Window
from lsp_charrnn.evaluate.words import DocumentWords

WINDOW = Window("p", "a.py", "python", "", 0, 0)


def suggested(before, typed, after="", **options):
    async def ask():
        words = DocumentWords(**options)
        await words.open(WINDOW, before, after)
        return await words.suggest(typed)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("before", "typed", "suggestion"),
    [
        ("total = 1\ntotals = 2\n", "to", "tals"),  # the nearest one
        ("total = 1\n", "tot", "al"),
        ("total = 1\n", "total", ""),  # nothing left to complete
        ("subtotal = 1\n", "tot", ""),  # a word begins so, not a part of one
        ("total = 1\nto", "", "tal"),
        ("été = 1\n", "ét", "é"),
        ("x1 = 100\n", "1", ""),  # numbers are not words
        ("total = 1\n", "x.", ""),
        ("", "a", ""),
    ],
)
def test_the_nearest_word_is_completed(before, typed, suggestion):
    assert suggested(before, typed) == suggestion


def test_words_below_the_cursor_count_where_they_are_nearer():
    assert suggested("table = 1\n" + "# far\n" * 5, "ta", "\ntarget = 2\n") == "rget"
    assert suggested("table = 1\n", "ta", "\n" + "# far\n" * 5 + "target = 2\n") == "ble"


def test_it_can_wait_for_longer_prefixes():
    assert suggested("total = 1\n", "t", least_prefix=2) == ""
