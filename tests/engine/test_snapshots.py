"""`Snapshots` says what the obvious list of them says, and claims no more than what each of them has truly read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lsp_charrnn.engine.snapshots import AGREED, EXACT, Snapshot, Snapshots, agree
from lsp_charrnn.text.document import Edit

GAP = 8
COLD = -1  # what a cold start has read before all else

lengths = st.integers(0, 9)
shares = st.floats(0, 1)


@dataclass
class Entry:
    """One snapshot, in words: nothing is shared with those it is linked to."""

    offset: int
    since: int
    linked: bool
    state: int
    used: int = 0


def snapshot_of(entry: Entry) -> Snapshot:
    state = np.full((1, 1, 1, 1), entry.state, dtype=np.float32)
    return Snapshot(entry.offset, state, np.full(256, entry.state, dtype=np.float32), entry.since)


class Lists(RuleBasedStateMachine):
    """The same calls to both. The text is a list of characters, no two alike; `read`, what states have read of them."""

    def __init__(self) -> None:
        super().__init__()
        self.names = count()
        self.text: list[int] = []
        self.read: dict[int, list[int]] = {0: []}
        self.entries = [Entry(0, EXACT, False, 0)]
        self.snapshots = Snapshots(snapshot_of(self.entries[0]))
        self.clock = 0

    @initialize(length=st.integers(0, 60))
    def open(self, length: int) -> None:
        self.text = [next(self.names) for _ in range(length)]

    def chosen(self, share: float) -> int:
        return round(share * (len(self.entries) - 1))

    # --- putting

    def put(self, offset: int, since: int, read: list[int], follows: int | None) -> None:
        new = Entry(offset, since, False, len(self.read))
        self.read[new.state] = read
        assert self.snapshots.put(snapshot_of(new), follows=follows) == sum(e.offset < offset for e in self.entries)
        before = [e for e in self.entries if e.offset < offset][-1]
        replaced = [e for e in self.entries if e.offset == offset]
        behind = [e for e in self.entries if e.offset > offset][:1]
        new.linked = follows == before.offset
        new.since = before.since if new.linked else since
        new.used = replaced[0].used if replaced else 0
        for entry in behind:
            entry.linked = entry.linked and new.linked and not replaced
        self.entries = sorted([e for e in self.entries if e not in replaced] + [new], key=lambda e: e.offset)

    @rule(share=shares, length=st.integers(1, 30))
    def read_on(self, share: float, length: int) -> None:
        """From a snapshot, perhaps past others, perhaps to one that is replaced."""
        base = self.entries[self.chosen(share)]
        offset = base.offset + length
        if offset <= len(self.text):
            read = self.read[base.state] + self.text[base.offset : offset]
            self.put(offset, base.since, read, base.offset)

    @rule(share=shares, length=st.integers(1, 20), to=shares)
    def begin_cold(self, share: float, length: int, to: float) -> None:
        """Anywhere, or where there is one."""
        offset = round(share * len(self.text))
        if to < 0.5:
            offset = self.entries[self.chosen(share)].offset
        if offset > 0:
            begin = max(0, offset - length)
            self.put(offset, begin, [COLD, *self.text[begin:offset]], None)

    # --- linking

    @rule(share=shares)
    def link(self, share: float) -> None:
        """Somebody has read up to it and found the same state: it is what that reading gives, and so is the rest."""
        index = self.chosen(share)
        if index == 0:
            return
        self.snapshots.link(index)
        self.entries[index].linked = True
        for before, entry in zip(self.entries[index - 1 :], self.entries[index:], strict=False):
            if not entry.linked:
                break
            entry.since = before.since
            self.read[entry.state] = self.read[before.state] + self.text[before.offset : entry.offset]

    @rule(share=shares)
    def unlink(self, share: float) -> None:
        index = self.chosen(share)
        self.snapshots.unlink(index)
        self.snapshots.unlink(len(self.entries))  # none there: nothing happens
        self.entries[index].linked = False

    # --- dropping

    def drop(self, gone: list[Entry]) -> None:
        for entry in gone:
            index = self.entries.index(entry)
            for behind in self.entries[index + 1 : index + 2]:
                behind.linked = behind.linked and entry.linked
            del self.entries[index]

    @rule(share=shares, removed=lengths, inserted=lengths)
    def edit(self, share: float, removed: int, inserted: int) -> None:
        start = round(share * len(self.text))
        end = min(start + removed, len(self.text))
        edit = Edit(start, end, b"x" * inserted)
        self.snapshots.edit(edit)
        self.text[start:end] = [next(self.names) for _ in range(inserted)]
        self.drop([e for e in self.entries if start < e.offset <= end])
        moved = inserted - (end - start)
        behind = [e for e in self.entries if e.offset > start]
        for entry in behind:
            entry.offset += moved
            entry.since = entry.since + moved if entry.since >= end else start + inserted
        for entry in behind[:1]:
            entry.linked = False

    @rule(share=shares)
    def drop_past(self, share: float) -> None:
        offset = round(share * len(self.text))
        self.snapshots.drop_past(offset)
        self.entries = [e for e in self.entries if e.offset <= offset]

    @rule(share=shares)
    def touch(self, share: float) -> None:
        index = self.chosen(share)
        self.clock += 1
        self.snapshots.touch(index)
        self.entries[index].used = self.clock

    @rule(dense=st.integers(1, 4), sparse=st.integers(0, 6), cursor=shares)
    def thin(self, dense: int, sparse: int, cursor: float) -> None:
        place = round(cursor * len(self.text))
        before = [e.offset for e in self.entries]
        self.snapshots.thin(dense, sparse, GAP, place)
        kept = set(self.snapshots.offsets.tolist())
        used = sorted((e for e in self.entries if e.used), key=lambda e: e.used)
        forgotten = used[: max(0, len(used) - dense)]
        for entry in forgotten:
            entry.used = 0
        gone = [e for e in self.entries if e.offset not in kept]
        assert not any(e.used or e.offset == 0 for e in gone), "only those asked for long ago"
        others = [e for e in self.entries if e.offset in kept and not e.used and e.offset > 0]
        assert len(others) <= sparse
        if all(e in forgotten for e in gone) and len(others) < sparse:  # there was room
            for left, right in zip(sorted(kept), sorted(kept)[1:], strict=False):
                assert right - left <= GAP or right == before[before.index(left) + 1]
        self.drop(gone)

    # --- what must hold

    @invariant()
    def says_what_the_list_says(self) -> None:
        assert len(self.snapshots) == len(self.entries)
        assert self.snapshots.offsets.tolist() == [e.offset for e in self.entries]
        begins = [index for index, e in enumerate(self.entries) if not e.linked]
        assert self.snapshots.unlinked().tolist() == begins[1:]
        for index, entry in enumerate(self.entries):
            found = self.snapshots[index]
            assert (found.offset, found.since) == (entry.offset, entry.since)
            assert self.snapshots.since(index) == entry.since
            assert found.state.item() == found.logits[0] == entry.state
            assert self.snapshots.run(index) == max(begin for begin in begins if begin <= index)
        offsets = [e.offset for e in self.entries]
        for offset in range(len(self.text) + 2):
            assert self.snapshots.last(offset) == sum(at <= offset for at in offsets) - 1
            assert self.snapshots.find(offset) == (offsets.index(offset) if offset in offsets else None)
            assert self.snapshots.next_offset(offset) == min((at for at in offsets if at > offset), default=None)

    @invariant()
    def claims_no_more_than_was_read(self) -> None:
        for entry in self.entries:
            read = self.read[entry.state]
            if entry.since == EXACT:
                assert read == self.text[: entry.offset]
            else:
                assert 0 <= entry.since <= entry.offset
                text = self.text[entry.since : entry.offset]
                assert read[len(read) - len(text) :] == text

    @invariant()
    def links_what_follows_from_the_one_before(self) -> None:
        for before, entry in zip(self.entries, self.entries[1:], strict=False):
            if entry.linked:
                assert self.read[entry.state] == self.read[before.state] + self.text[before.offset : entry.offset]

    @invariant()
    def keeps_the_origin(self) -> None:
        assert (self.entries[0].offset, self.entries[0].since, self.entries[0].state) == (0, EXACT, 0)


Lists.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=30)
TestLists = Lists.TestCase


def made_of(offsets: list[int]) -> Snapshots:
    snapshots = Snapshots(snapshot_of(Entry(0, EXACT, False, 0)))
    for before, offset in zip([0, *offsets], offsets, strict=False):
        snapshots.put(snapshot_of(Entry(offset, EXACT, False, offset)), follows=before)
    return snapshots


def test_thinning_drops_first_what_leaves_no_gap_and_then_what_is_far() -> None:
    snapshots = made_of([8, 16, 18, 24, 32, 40])
    snapshots.thin(0, 5, GAP, 40)
    assert snapshots.offsets.tolist() == [0, 8, 16, 24, 32, 40]
    snapshots.thin(0, 3, GAP, 40)
    assert snapshots.offsets.tolist() == [0, 24, 32, 40]
    assert [snapshots.since(index) for index in range(4)] == [EXACT] * 4
    snapshots.thin(0, 0, GAP, 40)
    assert snapshots.offsets.tolist() == [0]


def test_what_was_asked_for_last_stays() -> None:
    snapshots = made_of(list(range(1, 30)))
    for index in range(20, 30):
        snapshots.touch(index)
    snapshots.thin(4, 0, GAP, 0)
    assert snapshots.offsets.tolist() == [0, 26, 27, 28, 29]


def test_thinning_leaves_gaps_that_are_no_longer_than_asked() -> None:
    snapshots = made_of(list(range(1, 100)))
    for index in range(100):
        snapshots.touch(index)
    snapshots.thin(3, 100, GAP, 50)
    assert np.diff(snapshots.offsets).max() <= GAP
    assert len(snapshots) <= 2 * 100 / GAP + 3 + 1


@pytest.mark.parametrize("parts", [1, 2])
def test_states_agree_by_the_root_mean_square_of_what_the_gates_let_out(parts: int) -> None:
    one = np.random.default_rng(0).normal(0, 0.1, (2, parts, 1, 50)).astype(np.float32)
    for difference, expected in ((0.9 * AGREED, True), (1.1 * AGREED, False)):
        other = one.copy()
        other[:, -1] = np.arctanh(np.tanh(one[:, -1]) + difference) if parts == 2 else one[:, -1] - difference
        assert agree(one, other) is expected
        assert agree(other, one) is expected
    # One unit of all may differ by more than all of them may.
    other = one.copy()
    other[0, -1, 0, 0] += 5 * AGREED
    assert agree(one, other)


def test_cells_that_only_count_are_no_difference() -> None:
    one = np.full((1, 2, 1, 4), 30, dtype=np.float32)
    other = np.full((1, 2, 1, 4), 40, dtype=np.float32)
    other[:, 0] = 0  # what is let out follows from the next symbol
    assert agree(one, other)
