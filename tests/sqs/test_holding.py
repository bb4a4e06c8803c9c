"""What is held, and what polls may take: without a server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from eventflows.adapters._sqs_held import LONGEST_HOLD, ON_ITS_WAY, Entry, Holding
from eventflows.adapters._sqs_polls import Polls
from eventflows.adapters._sqs_threads import Threads, until
from eventflows.errors import BrokerError, ClosedError
from eventflows.testing import wait_until
from eventflows.testing.conditions import pass_time


def native(name: str, group: str | None = None, receipt: str = "1") -> dict[str, Any]:
    """What a receive gives."""
    attributes = {} if group is None else {"MessageGroupId": group}
    return {"MessageId": name, "ReceiptHandle": f"{name}-{receipt}", "Body": name, "Attributes": attributes}


class Source:
    """A queue that gives what is put into it, one call at a time or many."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []
        self.asked: list[int] = []
        self.back: list[str] = []
        self.most = self._running = 0
        self._changed = threading.Condition()

    def put(self, *natives: dict[str, Any]) -> None:
        """Let messages wait."""
        with self._changed:
            self.waiting += natives
            self._changed.notify_all()

    def call(self, count: int, seconds: int) -> list[dict[str, Any]]:
        """Poll, for a fifth of a second."""
        with self._changed:
            self.asked.append(count)
            self._running += 1
            self.most = max(self.most, self._running)
            self._changed.wait_for(lambda: self.waiting, 0.2)
            taken, self.waiting = self.waiting[:count], self.waiting[count:]
            self._running -= 1
            return taken

    def take_back(self, entries: list[Entry]) -> None:
        """Note what comes back."""
        self.back += [entry.id for entry in entries]


def polls(source: Source, *, most: int = 4, visibility: float = 60.0) -> Polls:
    """Poll a source."""
    return Polls(
        source.call, source.take_back, source.take_back, Holding("sqs://x", "x", False),
        most=most, visibility=visibility, place="sqs://x",
    )  # fmt: skip


def test_lease_never_asks_for_more_than_twelve_hours_in_all() -> None:
    """The service refuses more, it does not shorten it; and it began to count when the message left it."""
    entry = Entry(native("a"), received=1000.0, until=1030.0, fifo=False)
    longest = LONGEST_HOLD - ON_ITS_WAY
    ends = [entry.seconds(60, 1000.0 + held) for held in (0, longest - 60, longest - 30.5, longest + 1)]
    assert ends == [60, 60, 30, -1]


def test_lease_is_rounded_up_to_whole_seconds() -> None:
    """A retry comes no sooner than asked for."""
    assert Entry(native("a"), 0.0, 30.0, False).seconds(1.2, 0.0) == 2


def test_message_that_comes_again_keeps_its_entry_and_gets_the_newest_handle() -> None:
    """It is not handed over a second time, and its twelve hours begin anew."""
    holding = Holding("sqs://x", "x", False)
    [first] = holding.arrived([native("a", receipt="1")], 30)
    first.received -= LONGEST_HOLD
    assert holding.arrived([native("a", receipt="2")], 30) == []
    assert (first.handle, len(holding), first.seconds(60, time.monotonic())) == ("a-2", 1, 60)


def test_message_that_was_dropped_comes_again_as_new() -> None:
    """What is handed back and received again is a delivery of its own."""
    holding = Holding("sqs://x", "x", False)
    [first] = holding.arrived([native("a")], 30)
    holding.drop([first])
    [again] = holding.arrived([native("a", receipt="2")], 30)
    assert (holding.ours(first), holding.ours(again)) == (False, True)


def test_age_is_that_of_the_oldest_message_held() -> None:
    """It grows until that one is settled; with nothing held there is none."""
    holding = Holding("sqs://x", "x", False)
    sent = [int((time.time() - age) * 1000) for age in (100, 10)]
    entries = [native(str(number)) for number in range(2)]
    for one, when in zip(entries, sent, strict=True):
        one["Attributes"]["SentTimestamp"] = str(when)
    held = holding.arrived(entries, 30)
    ages = [holding.oldest_age()]
    holding.drop(held[:1])
    ages.append(holding.oldest_age())
    holding.drop(held[1:])
    assert [None if age is None else age // 10 for age in [*ages, holding.oldest_age()]] == [10, 1, None]


def test_lost_lease_takes_its_group_with_it() -> None:
    """Of a FIFO group nothing may be settled past a message that comes again; other groups go on."""
    holding = Holding("sqs://x", "x", True)
    entries = holding.arrived([native("a", "g"), native("b", "g"), native("c", "h")], 30)
    chunks = holding.chunks(entries)
    assert [one.id for one in holding.lose(entries[0])] == ["b"]
    assert [chunk.lane.lost for chunk in chunks if chunk.lane] == [True, False]
    assert [holding.ours(entry) for entry in entries] == [False, False, True]


def test_group_that_is_done_begins_a_new_claim() -> None:
    """The next message of a group of which nothing is held has a lane of its own."""
    holding = Holding("sqs://x", "x", True)
    [first] = holding.arrived([native("a", "g")], 30)
    [before] = holding.chunks([first])
    holding.drop([first])
    [after] = holding.chunks(holding.arrived([native("b", "g")], 30))
    assert before.lane is not after.lane


def test_polls_never_ask_for_more_than_there_is_room() -> None:
    """Whatever polls are out, together they reserve no more than the limit."""
    source = Source()
    one = polls(source)
    source.put(*[native(str(number)) for number in range(100)])
    taken = 0
    while taken < 25:
        taken += len(one.receive(25 - taken, 1 << 20, 1.0, ()))
    one.close(time.monotonic() + 5)
    assert (taken, len(source.waiting), max(source.asked) <= 10) == (25, 75, True)


def test_polls_are_one_while_the_queue_is_silent() -> None:
    """More begin only when messages come."""
    source = Source()
    one = polls(source)
    for _ in range(5):
        assert one.receive(100, 1 << 20, 0.1, ()) == []
    one.close(time.monotonic() + 5)
    assert source.most == 1


def test_polls_give_back_what_waits_too_long() -> None:
    """What the core has no room for within a quarter of its lease is made visible again."""
    source = Source()
    one = polls(source, visibility=0.4)
    source.put(*[native(str(number)) for number in range(3)])
    wait_until(lambda: one.receive(10, 1, 0.1, ()), what="the first message, alone by its bytes")
    pass_time(0.15)
    one.receive(0, 0, 0.0, ())
    one.close(time.monotonic() + 5)
    assert source.back == ["1", "2"]


def test_polls_give_back_at_once_what_nobody_takes() -> None:
    """When the core takes nothing, as in a drain, what came meanwhile does not wait for a quarter of its lease."""
    source = Source()
    one = polls(source, visibility=3600)
    source.put(*[native(str(number)) for number in range(3)])
    wait_until(lambda: one.receive(10, 1, 0.1, ()), what="the first message, alone by its bytes")

    def is_back() -> bool:
        one.receive(0, 0, 0.0, ())
        return source.back == ["1", "2"]

    wait_until(is_back, 10.0, what="the others handed back")
    one.close(time.monotonic() + 5)


def test_polls_give_back_what_comes_after_the_end() -> None:
    """A message that comes to a poll nobody waits for is visible again before close returns."""
    source = Source()
    one = polls(source)
    assert one.receive(10, 1 << 20, 0.01, ()) == []
    closing = threading.Thread(target=one.close, args=(time.monotonic() + 5,))
    closing.start()
    with pytest.raises(ClosedError):
        one.receive(1, 1, 1.0, ())
    source.put(native("late"))
    closing.join(5)
    assert source.back in (["late"], [])
    assert len(source.back) + len(source.waiting) == 1


def test_polls_receive_no_message_twice_when_several_are_out_at_the_end() -> None:
    """What comes after the end goes back when the last of them is over: each receive more would be an attempt."""

    class Open(Source):
        """One whose polls last until the test ends them, and that gives again what comes back."""

        def __init__(self) -> None:
            super().__init__()
            self.received: list[str] = []
            self.end = threading.Event()

        def call(self, count: int, seconds: int) -> list[dict[str, Any]]:
            """Poll until there is something, or the end."""
            with self._changed:
                self.asked.append(count)
                self._changed.wait_for(lambda: self.waiting or self.end.is_set(), 10)
                taken, self.waiting = self.waiting[:count], self.waiting[count:]
                self.received += [one["MessageId"] for one in taken]
                return taken

        def take_back(self, entries: list[Entry]) -> None:
            """It is visible again."""
            super().take_back(entries)
            if not self.end.is_set():
                self.put(*[entry.native for entry in entries])

        def finish(self) -> None:
            """Let every poll end."""
            with self._changed:
                self.end.set()
                self._changed.notify_all()

    source = Open()
    ours = polls(source)
    source.put(native("first"))
    wait_until(lambda: ours.receive(100, 10**9, 0.1, ()), 5, what="a message, so that more polls begin")
    ours.receive(100, 10**9, 0.0, ())
    wait_until(lambda: len(source.asked) == 5, 5, what="four polls are out")
    closing = threading.Thread(target=ours.close, args=(time.monotonic() + 10,))
    closing.start()
    wait_until(lambda: _closed(ours), 5, what="it is closed")
    source.put(native("late"))
    wait_until(lambda: "late" in source.received, 5, what="a poll receives it")
    source.finish()
    closing.join(10)
    assert (source.received, source.back) == (["first", "late"], ["late"])


def _closed(ours: Polls) -> bool:
    try:
        ours.receive(0, 1, 0.0, ())
    except ClosedError:
        return True
    return False


def test_polls_raise_each_failure_once() -> None:
    """A failed poll is reported to whoever receives, and the next one may succeed."""
    failures = [OSError("injected")]

    def call(count: int, seconds: int) -> list[dict[str, Any]]:
        if failures:
            raise failures.pop()
        return [native("a")]

    one = Polls(
        call, lambda _: None, lambda _: None, Holding("sqs://x", "x", False),
        most=1, visibility=60, place="sqs://x",
    )  # fmt: skip
    with pytest.raises(BrokerError):
        one.receive(1, 1, 2.0, ())
    assert len(one.receive(1, 1, 2.0, ())) == 1
    one.close(time.monotonic() + 5)


def test_eight_threads_receive_at_once() -> None:
    """`receive` may be called from several threads; every message comes once."""
    source = Source()
    one = polls(source)
    source.put(*[native(str(number)) for number in range(400)])
    seen: list[str] = []
    lock = threading.Lock()

    def work() -> None:
        while True:
            taken = one.receive(10, 1 << 20, 0.5, ())
            if not taken:
                return
            with lock:
                seen.extend(entry.id for entry in taken)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    one.close(time.monotonic() + 5)
    assert (len(seen), len(set(seen))) == (400, 400)


def test_lanes_that_are_skipped_are_passed_over() -> None:
    """What waits of them stays, in its place; what is behind them comes."""
    source, holding = Source(), Holding("sqs://x", "x", True)
    ours = Polls(
        source.call, source.take_back, source.take_back, holding, most=1, visibility=60, place="sqs://x",
    )  # fmt: skip
    source.put(native("a", "one"))
    first = wait_until(lambda: ours.receive(1, 1 << 20, 0.5, ()), 5, what="the first of its group")
    [chunk] = holding.chunks(first)
    assert chunk.lane is not None
    source.put(native("b", "one"), native("c", "two"))
    [other] = wait_until(lambda: ours.receive(2, 1 << 20, 0.5, {chunk.lane}), 5, what="what may come")
    [rest] = wait_until(lambda: ours.receive(2, 1 << 20, 0.5, ()), 5, what="what was passed over")
    ours.close(time.monotonic() + 5)
    assert (other.id, rest.id) == ("c", "b")


def test_call_that_had_not_begun_in_time_is_never_made() -> None:
    """Whoever was told that it is not known what became of it says it again; it must not be done later, too."""
    threads, go, made = Threads(1, "test"), threading.Event(), threading.Event()
    calls = [threads.start(lambda: go.wait(20)), threads.start(made.set)]
    assert until(calls, time.monotonic() + 0.1) == [None, None]
    go.set()
    after = threads.start(lambda: "done")
    threads.close()
    assert (after.result(20), made.is_set()) == ("done", False)
