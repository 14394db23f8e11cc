"""Tokens far less likely than their surroundings are found, with what was expected, by the model and both memories."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_model import ScriptedModel, learned, turns_true_after

from lsp_charrnn.engine.contexts import keys_of_text, surroundings_in
from lsp_charrnn.engine.memory import Block, Counts
from lsp_charrnn.engine.mixer import Mixture, mixed, shipped_mixer
from lsp_charrnn.engine.stream import Cancelled
from lsp_charrnn.engine.surprise import PIECE, Surprise
from lsp_charrnn.text.symbols import header, to_symbols

TEXT = b"total = total + amount\n" * 4 + b"total = total + amounts(1)\n"
NONE = learned("")


def reading(model: ScriptedModel, text: bytes, before: bytes = b"", **memories: tuple[Counts, ...]) -> Surprise:
    state = np.zeros((1, 1, 1, model.spec.hidden), dtype=np.float32)
    logits, state = model.advance(to_symbols(header("a.py") + before)[:, None], state)
    return Surprise(model, shipped_mixer(), text, state=state, logits=logits[0], before=before, **memories)


def test_places_of_a_text_are_mixed_as_lanes_are() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (len(TEXT), 256)).astype(np.float32)
    tables = (Counts.of_texts([TEXT]),), (Counts.of_texts([b"amount = 1\n"]),)
    keys, surroundings = keys_of_text(TEXT), surroundings_in(TEXT)
    together = mixed(shipped_mixer(), tables, keys, surroundings, logits)
    mixture = Mixture(shipped_mixer(), *tables, b"")
    for at, symbol in enumerate(TEXT):
        np.testing.assert_allclose(mixture.expected(logits[at : at + 1])[0], together[at], atol=1e-4)
        mixture.go_on(np.zeros(1, dtype=np.int64), np.array([symbol]))


def test_a_place_does_not_witness_for_itself() -> None:
    logits = np.zeros((len(TEXT), 256), dtype=np.float32)
    counts, keys, surroundings = Counts.of_texts([TEXT]), keys_of_text(TEXT), surroundings_in(TEXT)
    left_out = mixed(shipped_mixer(), ((counts,), ()), keys, surroundings, logits, came=to_symbols(TEXT))
    for at in (0, 5, 40, 100, len(TEXT) - 1):
        own = Counts.of([Block(TEXT[max(0, at - 96) : at], TEXT[at : at + 1], sign=-1)])
        place = slice(at, at + 1)
        by_hand = mixed(shipped_mixer(), ((counts, own), ()), keys[:, place], surroundings[:, place], logits[place])
        np.testing.assert_allclose(left_out[place], by_hand, atol=1e-5)


def test_a_slip_is_found_with_what_was_expected() -> None:
    usual = "for item in items:\n    print(item)\n"
    slip = usual * 6 + usual.replace("(item)", "(times)")
    found = reading(learned(usual * 8), slip.encode())
    found.go_on()
    one, *_ = found.unlikely()  # behind it the model is lost for a while
    assert (one.text, one.instead) == ("times", "item")
    assert slip.encode()[one.token.start : one.token.end] == b"times"
    assert one.token.bits >= one.token.excess > 8


def test_the_document_tells_by_itself_on_both_sides_of_the_place() -> None:
    usual = "self.connection.close()\n"
    for lines in ([usual] * 12 + ["self.connexion.close()\n"], ["self.connexion.close()\n"] + [usual] * 12):
        text = "".join(lines).encode()
        found = reading(learned("\n".join(map(chr, range(32, 127)))), text, document=(Counts.of_texts([text]),))
        found.go_on()
        ranked = sorted(found.tokens(), key=lambda token: -token.excess)
        assert b"connexion" in [text[token.start : token.end] for token in ranked[:2]]


def test_a_name_that_ends_too_early_is_what_is_odd() -> None:
    usual = "call(amounts, 1)\n"
    text = (usual * 6 + "call(amount, 1)\n").encode()
    found = reading(learned(usual * 8), text)
    found.go_on()
    worst = max(found.tokens(), key=lambda token: token.excess)
    assert text[worst.start : worst.end] == b"amount"


def test_tokens_cost_what_their_bytes_do() -> None:
    text = b"a1(b)==c"  # no blanks
    found = reading(learned("a1(b)==d"), text)
    found.go_on()
    tokens = list(found.tokens())
    assert [text[token.start : token.end] for token in tokens] == [b"a1", b"(", b"b", b")", b"==", b"c"]
    assert sum(token.bits for token in tokens) == pytest.approx(found._bits.sum(), abs=0.1)


def test_what_is_usual_is_not_told_and_neither_is_a_text_that_is_odd_throughout() -> None:
    usual = "x = y + 1\n" * 20
    found = reading(learned(usual), usual.encode())
    found.go_on()
    assert found.unlikely() == []
    odd = reading(learned(usual), ("q%zw#" * 60).encode())
    odd.go_on()
    assert odd.unlikely() == []


def test_a_reading_that_was_given_up_goes_on_where_it_was() -> None:
    model = learned("total = total + amount\n")
    whole, parts = reading(model, TEXT), reading(model, TEXT)
    whole.go_on()
    for calls in (0, 1, 2):
        with pytest.raises(Cancelled):
            parts.go_on(turns_true_after(calls))
    assert parts.read == 3 * PIECE
    parts.go_on()
    assert list(parts.tokens()) == list(whole.tokens())
    with pytest.raises(Cancelled):
        whole.unlikely(cancelled=lambda: True, least=0, times=0)


def test_an_empty_text_has_nothing() -> None:
    found = reading(NONE, b"")
    found.go_on()
    assert list(found.tokens()) == found.unlikely() == []
