"""Windows: every document is read whole, once an epoch, from a window's border, and reading can go on anywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.text.symbols import HEADER_END, START, header
from lsp_charrnn.train.batches import IGNORED, LaneBatches, window_of

SYMBOL_OF_PADDING = 0


def a_document(path, text):
    return np.frombuffer(header(path) + text, dtype=np.uint8)


def documents_of(lengths):
    return [a_document(f"{index}/a.py", bytes(i % 97 + 1 for i in range(n))) for index, n in enumerate(lengths)]


corpora = st.lists(st.integers(0, 90), min_size=1, max_size=9).map(documents_of)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 40))  # lanes, bptt


def read_documents(batches, count):
    """Read windows until `count` documents are done; return (symbols, targets) of each, in the order of starting."""
    open_lanes, begun = {}, []
    while len(begun) < count or any(not ended(segment) for segment in begun[:count]):
        window = batches.next()
        assert (window.symbols[1:] != START).all()  # a document starts on a window's border
        assert ((window.symbols[0] == START) == window.fresh).all()
        for lane in range(window.symbols.shape[1]):
            if window.fresh[lane]:
                assert lane not in open_lanes or ended(open_lanes[lane])  # the one before was read to its end
                open_lanes[lane] = ([], [])
                begun.append(open_lanes[lane])
            open_lanes[lane][0].extend(window.symbols[:, lane])
            open_lanes[lane][1].extend(window.targets[:, lane])
    return [(np.array(symbols), np.array(targets)) for symbols, targets in begun[:count]]


def ended(segment):
    return START in segment[1]


@settings(deadline=None, max_examples=60)
@given(corpora, shapes, st.integers(0, 3))
def test_each_document_is_read_whole_exactly_once_an_epoch(documents, shape, seed):
    lanes, bptt = shape
    read = read_documents(LaneBatches(documents, lanes=lanes, bptt=bptt, seed=seed), 2 * len(documents))
    for epoch in (read[: len(documents)], read[len(documents) :]):
        texts = []
        for symbols, targets in epoch:
            end = int(np.flatnonzero(targets == START)[0])  # the last symbol, whose target is the end
            texts.append(bytes(symbols[: end + 1].astype(np.uint8)))
            text = texts[-1].index(HEADER_END) + 1
            assert (targets[: text - 1] == IGNORED).all()  # the header is given, not predicted
            assert (targets[text - 1 : end] == symbols[text : end + 1]).all()
            assert (targets[end + 1 :] == IGNORED).all()
            assert (symbols[end + 1 :] == SYMBOL_OF_PADDING).all()
            assert len(symbols) - (end + 1) < bptt  # no window is padding alone
        assert sorted(texts) == sorted(document.tobytes() for document in documents)


@settings(deadline=None, max_examples=60)
@given(corpora, shapes, st.integers(0, 25))
def test_reading_goes_on_from_any_position_as_if_undisturbed(documents, shape, windows):
    lanes, bptt = shape
    undisturbed = LaneBatches(documents, lanes=lanes, bptt=bptt, seed=5)
    for _ in range(windows):
        undisturbed.next()
    resumed = LaneBatches(documents, lanes=lanes, bptt=bptt, seed=5)
    resumed.seek(undisturbed.position())
    assert resumed.epochs == undisturbed.epochs
    for _ in range(12):
        one, other = undisturbed.next(), resumed.next()
        assert (one.symbols == other.symbols).all()
        assert (one.targets == other.targets).all()
        assert (one.fresh == other.fresh).all()


def test_a_position_is_a_value():
    batches = LaneBatches(documents_of([30, 40]), lanes=2, bptt=8, seed=0)
    position = batches.position()
    before = position.copy()
    batches.next()
    assert (position == before).all()
    batches.seek(position)
    batches.next()
    assert (position == before).all()


def test_epochs_come_in_another_order_and_seeds_too():
    documents = documents_of([1] * 40)

    def order(seed):
        read = read_documents(LaneBatches(documents, lanes=1, bptt=16, seed=seed), 80)
        return [bytes(symbols.astype(np.uint8)) for symbols, _ in read]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0)[:40] != order(0)[40:]


def test_epochs_count_documents_begun():
    batches = LaneBatches(documents_of([100, 100, 100, 100]), lanes=1, bptt=200, seed=0)
    counts = []
    for _ in range(6):
        batches.next()
        counts.append(batches.epochs)
    assert counts == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5]


def test_targets_are_the_next_symbols_and_the_end_is_predicted():
    document = a_document("a", b"xy")  # START a HEADER_END x y
    read, expected = window_of(document, 0, 10)
    assert bytes(read.astype(np.uint8)) == document.tobytes()
    assert list(expected) == [IGNORED, IGNORED, ord("x"), ord("y"), START]
    read, expected = window_of(document, 2, 2)
    assert list(read) == [HEADER_END, ord("x")]
    assert list(expected) == [ord("x"), ord("y")]


def test_nothing_to_read_is_refused():
    with pytest.raises(CorpusError, match="no document to train on"):
        LaneBatches([], lanes=1, bptt=8, seed=0)


@pytest.mark.parametrize(("lengths", "lanes"), [([30, 40], 3), ([30], 2)])
def test_a_position_of_other_lanes_or_documents_is_refused(lengths, lanes):
    batches = LaneBatches(documents_of([30, 40]), lanes=2, bptt=8, seed=0)
    batches.next()
    with pytest.raises(CorpusError, match="another corpus or batch"):
        LaneBatches(documents_of(lengths), lanes=lanes, bptt=8, seed=0).seek(batches.position())
