"""The watermark: where a log may be committed to."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventflows.adapters._watermark import LIMIT, RewoundError, Watermark


def test_position_starts_where_the_claim_starts() -> None:
    """Nothing received: the committed position stands."""
    assert Watermark(42).position == 42


def test_position_stops_before_the_first_unfinished_offset() -> None:
    """Offsets 1, 2 and 4 are done, 3 is not: a restart reads 3."""
    mark = Watermark(1)
    mark.track(1, 6)
    for offset in (4, 2, 1):
        mark.resolve(offset, offset + 1)
    assert mark.position == 3


def test_position_jumps_over_what_was_done_early() -> None:
    """Once the stuck head is done, all that waited behind it is passed at once."""
    mark = Watermark(0)
    mark.track(0, 10)
    mark.resolve(1, 10)
    mark.resolve(0, 1)
    assert mark.position == 10


def test_gaps_do_not_stall_the_position() -> None:
    """Offsets that were compacted away are not waited for."""
    mark = Watermark(0)
    mark.track_offsets([3, 4, 9, 12, 13])
    mark.resolve(3, 14)
    assert mark.position == 14


def test_gap_between_two_receives_does_not_stall_the_position() -> None:
    """A marker between two receives is not waited for."""
    mark = Watermark(0)
    mark.track(0, 2)
    mark.track(5, 7)
    mark.resolve(0, 2)
    mark.resolve(5, 6)
    assert mark.position == 6


def test_position_is_one_past_a_message_when_a_gap_follows() -> None:
    """What is committed lies behind a message that is done, not somewhere in a gap."""
    mark = Watermark(0)
    mark.track_offsets([0, 1, 7])
    mark.resolve(0, 2)
    assert mark.position == 2


def test_position_reaches_the_end_when_only_markers_are_left() -> None:
    """With nothing unfinished, what the client read past without a message is passed too, so that lag reads zero."""
    mark = Watermark(0)
    mark.track(0, 2)
    mark.resolve(0, 2)
    mark.pass_over(5)
    assert mark.position == 5


def test_markers_at_the_end_wait_for_what_is_unfinished() -> None:
    """Reading on over markers passes nothing that is held."""
    mark = Watermark(0)
    mark.track(0, 2)
    mark.pass_over(5)
    mark.resolve(0, 1)
    assert mark.position == 1


@pytest.mark.parametrize("offset", [0, 4])
def test_offset_that_was_passed_ends_the_claim(offset: int) -> None:
    """A topic that was made anew counts from 0 again; that is told apart from progress."""
    mark = Watermark(0)
    mark.track(0, 5)
    with pytest.raises(RewoundError) as caught:
        mark.track(offset, offset + 1)
    assert (caught.value.offset, caught.value.after) == (offset, 5)


def test_offsets_that_go_back_among_themselves_track_nothing() -> None:
    """A batch that is out of order is refused whole."""
    mark = Watermark(0)
    with pytest.raises(RewoundError):
        mark.track_offsets([0, 2, 1, 3])
    assert (mark.unresolved, mark.read) == (0, 0)


def test_empty_span_is_refused() -> None:
    """A span without a message is a mistake of the caller."""
    with pytest.raises(ValueError, match="holds no message"):
        Watermark(0).track(3, 3)


def test_resolving_what_was_not_received_is_refused() -> None:
    """What never came cannot be done; the position stays."""
    mark = Watermark(0)
    mark.track(0, 2)
    with pytest.raises(ValueError, match="offset 2 cannot be done"):
        mark.resolve(0, 3)
    assert mark.position == 0


def test_second_resolution_is_reported_offset_by_offset() -> None:
    """Whoever settles twice is told which."""
    mark = Watermark(0)
    mark.track_offsets([0, 1, 5, 6, 7])
    mark.resolve(6, 7)
    mark.resolve(0, 1)
    assert list(mark.resolve(0, 8)) == [0, 6]


def test_first_resolution_reports_nothing() -> None:
    """The usual case."""
    mark = Watermark(0)
    mark.track(0, 3)
    assert not mark.resolve(0, 3)


def test_room_shrinks_behind_a_stuck_head() -> None:
    """What is finished behind an unfinished message takes room until that is done."""
    mark = Watermark(0, limit=4)
    mark.track(0, 4)
    mark.resolve(1, 4)
    assert (mark.room, mark.unresolved) == (0, 1)
    mark.resolve(0, 1)
    assert mark.room == 4


def test_room_is_a_hundred_thousand_messages_by_default() -> None:
    """A stuck message does not stop its partition before that."""
    mark = Watermark(0)
    assert mark.room == LIMIT == 100_000


def test_memory_is_bounded_by_what_waits() -> None:
    """A hundred thousand messages pass through with a thousand waiting at most, each after a gap."""
    mark = Watermark(0)
    tracemalloc.start()
    try:
        for start in range(0, 200_000, 2000):
            mark.track_offsets(range(start, start + 2000, 2))
            mark.resolve(start + 2, start + 1999)
            mark.resolve(start, start + 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (mark.position, peak < 1_000_000) == (199_999, True)


class WatermarkModel(RuleBasedStateMachine):
    """The watermark against a dict of offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.start = 7
        self.mark = Watermark(self.start, limit=50)
        self.done: dict[int, bool] = {}
        self.read = self.start
        self.passed = self.start

    @rule(gap=st.integers(0, 3), steps=st.lists(st.integers(1, 3), min_size=1, max_size=12))
    def receive(self, gap: int, steps: list[int]) -> None:
        """Receive offsets with gaps."""
        offsets = [self.read + gap]
        for step in steps:
            offsets.append(offsets[-1] + step)
        self.mark.track_offsets(offsets)
        self.done.update(dict.fromkeys(offsets, False))
        self.read = offsets[-1] + 1

    @rule(count=st.integers(1, 6000))
    def receive_many(self, count: int) -> None:
        """Receive a stretch; long ones make it forget."""
        self.mark.track(self.read, self.read + count)
        self.done.update(dict.fromkeys(range(self.read, self.read + count), False))
        self.read += count

    @precondition(lambda self: self.read > self.start)
    @rule(data=st.data(), length=st.integers(1, 9))
    def finish(self, data: st.DataObject, length: int) -> None:
        """Finish a stretch, in any order, again or for the first time."""
        first = data.draw(st.integers(max(self.start, self.read - 40), self.read - 1))
        self._resolve(first, min(first + length, self.read))

    @rule()
    def finish_all(self) -> None:
        """Finish everything."""
        self._resolve(self.start, self.read)

    @rule(by=st.integers(0, 4))
    def read_on(self, by: int) -> None:
        """Read over markers."""
        self.read += by
        self.mark.pass_over(self.read)

    @precondition(lambda self: self.read > self.start)
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        """Receive what was passed."""
        offset = data.draw(st.integers(0, self.read - 1))
        with pytest.raises(RewoundError):
            self.mark.track(offset, offset + 1)

    def _resolve(self, first: int, stop: int) -> None:
        passed = self.mark.position
        among = [offset for offset in range(first, stop) if offset in self.done]
        repeated = [offset for offset in range(first, stop) if self.done.get(offset) or offset < passed]
        assert list(self.mark.resolve(first, stop)) == repeated
        self.done.update(dict.fromkeys(among, True))

    @invariant()
    def agrees(self) -> None:
        """It says what the dict says."""
        offsets = list(self.done)
        head = next((i for i, offset in enumerate(offsets) if not self.done[offset]), None)
        if head is None:
            position = self.read if offsets else self.mark.position
        else:
            position = max(offsets[head - 1] + 1 if head else self.start, self.passed)
        assert self.mark.position == position >= self.passed
        self.passed = position
        assert self.mark.read == self.read
        assert self.mark.unresolved == list(self.done.values()).count(False)
        assert self.mark.waiting == (0 if head is None else len(offsets) - head)
        assert self.mark.room == max(50 - self.mark.waiting, 0)


TestWatermarkModel = WatermarkModel.TestCase
TestWatermarkModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
