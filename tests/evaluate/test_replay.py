"""The rules of replayed typing, on cases small enough to count by hand."""

import asyncio

import pytest

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.replay import Window, draw_windows, key_costs, next_word, replay, window_of
from lsp_charrnn.train.corpus import SourceFile


class Scripted:
    """Suggests by the text before the cursor, from a table; and while one types along, the rest of it."""

    name = "scripted"

    def __init__(self, suggestions):
        self.suggestions = suggestions
        self.asked = []

    async def open(self, window, before, after):
        self.before, self.after, self.shown = before, after, ""

    async def suggest(self, typed):
        self.before += typed
        self.asked.append(typed)
        self.shown = self.shown[len(typed) :] if self.shown.startswith(typed) else ""
        for end, suggestion in self.suggestions.items():
            if self.before.endswith(end):
                self.shown = suggestion
        return self.shown

    async def close(self):
        self.before = self.after = ""


def type_it(text, suggestions, *, accept="all", start=0, end=None, place="end"):
    window = Window("p", "a.py", "python", text, start, len(text) if end is None else end)
    suggester = Scripted(suggestions)
    return asyncio.run(replay(window, suggester, accept=accept, place=place)), suggester


def test_without_suggestions_every_character_is_a_key():
    result, suggester = type_it("x = 1\n", {})
    assert (result.keys_without, result.keys_with) == (6, 6)
    assert (result.shown, result.distinct, result.taken) == (0, 0, 0)
    assert suggester.asked == list("x = 1\n")
    assert len(result.latencies) == 6


def test_a_right_suggestion_is_taken_with_one_key():
    # i, then "mport os" for one key, then the line end: 3 keys for 10.
    result, suggester = type_it("import os\n", {"i": "mport os"})
    assert (result.keys_without, result.keys_with) == (10, 3)
    assert suggester.asked == ["i", "mport os", "\n"]
    assert (result.shown, result.distinct, result.taken) == (1, 1, 1)


def test_a_wrong_suggestion_saves_nothing_and_stays_one_while_typed_along():
    # "mport sys" is shown after i, m, p, o, r, t and the blank; the author types on.
    result, _ = type_it("import os\n", {"i": "mport sys"})
    assert (result.keys_without, result.keys_with) == (10, 10)
    assert (result.shown, result.distinct, result.taken) == (7, 1, 0)


def test_each_distinct_suggestion_is_judged_once_when_it_is_first_shown():
    text = "import os\nimport re\n"
    window, said = Window("p", "a.py", "python", text, 0, len(text)), []
    suggester = Scripted({"i": "mport os", "\nimport r": "e", "e": "xit"})
    asyncio.run(replay(window, suggester, judged=said.append))
    # "mport os" is right, then wrong until "r", where "e" is right though it saves no key; then "xit".
    assert said == [True, False, True, False]


def test_a_suggestion_that_saves_no_key_is_not_taken():
    result, _ = type_it("ab\n", {"a": "b"})
    assert (result.keys_with, result.taken, result.distinct) == (3, 0, 1)


def test_a_suggestion_longer_than_what_the_author_wrote_is_wrong():
    assert type_it("import os", {"i": "mport os.path"})[0].keys_with == 9


def test_indentation_is_free_for_both():
    # Without: "if x:" 5, line end 1, "y()" 3, line end 1, "z" 1 = 11.
    text = "if x:\n    y()\nz"
    result, suggester = type_it(text, {})
    assert (result.keys_without, result.keys_with) == (11, 11)
    assert "\n    " in suggester.asked
    # With: i, then "f x:\n    y()" for one key, line end, z.
    result, _ = type_it(text, {"i": "f x:\n    y()"})
    assert (result.keys_without, result.keys_with) == (11, 4)


def test_a_suggestion_of_one_key_and_indentation_is_not_worth_a_key():
    # All that "\n    " would save is the line end's one key.
    assert type_it("if x:\n    y\n", {"if x:": "\n    "})[0].taken == 0


def test_indentation_follows_a_suggestion_that_ends_with_a_line_end():
    result, suggester = type_it("if x:\n    y\n", {"i": "f x:\n"})
    assert suggester.asked == ["i", "f x:\n    ", "y", "\n"]
    assert (result.keys_without, result.keys_with) == (8, 4)


def test_next_words_are_taken_until_one_is_wrong():
    # After "r": "eturn" (1), " " and "t" are typed (2): "otal" (1), then "(" typed, "xs" is not "ys".
    text = "return total(ys)\n"
    shown = {"r": "eturn total(xs)"}
    whole, _ = type_it(text, shown)
    assert whole.keys_with == len(text)
    result, suggester = type_it(text, shown, accept="words")
    assert suggester.asked == ["r", "eturn", " ", "total", "(", "y", "s", ")", "\n"]
    assert (result.keys_with, result.distinct, result.taken) == (9, 1, 1)


def test_the_whole_is_taken_before_its_next_word():
    assert type_it("import os\n", {"i": "mport os"}, accept="words")[0].keys_with == 3


def test_after_a_wrong_beginning_no_word_is_taken():
    assert type_it("import os\n", {"i": "nput os"}, accept="words")[0].keys_with == 10


def test_a_character_of_many_bytes_is_one_key():
    result, _ = type_it('s = "ñ😀é"\n', {'s = "': "ñ😀é"})
    assert (result.keys_without, result.keys_with) == (10, 8)


def test_in_the_middle_the_rest_follows_the_cursor_and_a_suggestion_must_end_before_it():
    text = "a = 1\nbb = 2\ncc = 3\n"
    ends_in_time = type_it(text, {"\nb": "b = 2"}, start=6, end=12, place="middle")
    assert (ends_in_time[0].keys_without, ends_in_time[0].keys_with) == (6, 2)
    goes_on = {"\nb": "b = 2\ncc = 3\n"}
    assert type_it(text, goes_on, start=6, end=12, place="middle")[0].keys_with == 6
    # At the end of a file the author goes on to write it, and the window ends where they have got to.
    at_end, suggester = type_it(text, goes_on, start=6, end=12)
    assert (at_end.keys_without, at_end.keys_with) == (14, 2)
    assert suggester.asked == ["b", "b = 2\ncc = 3\n"]


def test_the_document_holds_what_the_place_says():
    text = "a = 1\nbb = 2\ncc = 3\n"
    opened = []

    class Watching(Scripted):
        async def open(self, window, before, after):
            opened.append((before, after))
            await super().open(window, before, after)

    window = Window("p", "a.py", "python", text, 6, 12)
    for place in ("end", "middle"):
        asyncio.run(replay(window, Watching({}), place=place))
    assert opened == [("a = 1\n", ""), ("a = 1\n", "\ncc = 3\n")]


def test_key_costs():
    assert key_costs("a\n  b\n\n\tc d") == [0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("total(x)", "total"),
        ("(self, x)", "("),
        (", name)", ", "),
        (" = self.x", " "),
        ("= self.x", "= "),
        ("self._x1 = y", "self"),
        ("):\n    pass", "):\n    "),
        ("\n    pass", "\n    "),
        (")", ")"),
        ("été)", "été"),
        ("", ""),
    ],
)
def test_words_are_cut_as_vs_code_cuts_them(text, word):
    assert next_word(text) == word


def a_file(path, lines, project="p"):
    text = "".join(f"    name_{i} = {i}\n" for i in range(lines))
    return SourceFile(project, path, text.encode(), "python")


def test_windows_are_whole_lines_with_enough_keys_and_always_the_same():
    files = [a_file(f"{name}.py", lines, project) for project in "pq" for name, lines in (("a", 90), ("b", 60))]
    windows = draw_windows(files, count=3, keys=100)
    assert windows == draw_windows(files[::-1], count=3, keys=100)
    assert [window.project for window in windows] == ["p", "q", "p"]
    for window in windows:
        costs = key_costs(window.text)
        assert window.text[: window.start].endswith(("\n    ", "    "))
        assert window.text[window.end] == "\n"
        assert 100 <= costs[window.end] - costs[window.start] < 115


def test_a_window_starts_at_the_line_asked_for():
    window = window_of(a_file("a.py", 50), 40, line=20)
    assert window.line == 20
    assert window.text[window.start :].startswith("name_19 = 19\n")
    assert window_of(a_file("a.py", 50), 40, line=50) is None


@pytest.mark.parametrize(
    ("text", "keys", "typed"),
    [
        ("abc\ndef\n", 2, "abc"),
        ("abc\ndef\n", 3, "abc"),  # up to the line end, which is the next key
        ("abc\ndef\n", 4, "abc"),  # it would be the last: one key less
        ("abc\ndef\n", 5, "abc\ndef"),
        ("abc\n    def\n", 4, "abc"),  # without the indentation that comes with it
        ("abc\n\n  \n  def\n", 6, "abc"),  # nor with blank lines before it
        ("abc\n\n  \n  def\n", 7, "abc\n\n  \n  def"),
        ("abc\ndef\n", 8, "abc\ndef"),  # there is no more
        ("abc\ndef", 7, "abc\ndef"),
        ("abc  \ndef", 5, "abc  "),
        ("abc\ndef", 8, None),
        ("\n\nabc\n", 2, None),  # nothing but line ends
    ],
)
def test_a_window_never_ends_with_a_line_end(text, keys, typed):
    window = window_of(SourceFile("p", "a.py", text.encode(), "python"), keys, line=1)
    assert (window and text[window.start : window.end]) == typed


def test_what_is_typed_in_the_middle_ends_where_its_line_does():
    text = "a = 1\nbb = 2\ncc = 3\n"
    for keys in range(1, len(text) + 1):
        window = window_of(SourceFile("p", "a.py", text.encode(), "python"), keys, line=1)
        assert text[window.end] == "\n"
        assert asyncio.run(replay(window, Scripted({}), place="middle")).keys_without == window.end


def test_files_too_short_to_type_are_one_sentence():
    with pytest.raises(CorpusError, match="long enough"):
        draw_windows([a_file("a.py", 2)], keys=400)
