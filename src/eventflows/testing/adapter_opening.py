"""C13 to C18, C24, C47, C48, C55 and C57: opening, closing, refusals and time-outs."""

from __future__ import annotations

import gc
import os
import pathlib
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from eventflows.errors import (
    AuthenticationError,
    BrokerError,
    ClosedError,
    ConfigError,
    ConnectionFailedError,
    LeaseLostError,
    NotFoundError,
)
from eventflows.locate import open_publisher, open_subscriber, resolve
from eventflows.message import Message
from eventflows.policy import Settlement, Verdict
from eventflows.testing.cases import PLENTY, Cases, bodies, numbered
from eventflows.testing.conditions import Background, pass_time, wait_until

OPENINGS = 8


def _files() -> int:
    """Count the open files and sockets of this process; 0 where the system does not say."""
    place = pathlib.Path("/proc/self/fd")
    return len(os.listdir(place)) if place.exists() else 0


class InUse:
    """What was started after this was made; threads that were there before, and end meanwhile, are others'."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def threads(self) -> list[threading.Thread]:
        """Give the threads."""
        return [thread for thread in threading.enumerate() if thread not in self._before]

    def now(self) -> tuple[int, int]:
        """Count threads, and open files and sockets, of which those that nobody refers to are no leak."""
        gc.collect()
        return len(self.threads()), _files()


class Refusals(Cases):
    """C13 to C18: what goes wrong has a name."""

    def test_c13_publishing_after_close_raises(self) -> None:
        """A closed publisher says so."""
        publisher = self.opened_publisher()
        publisher.close()
        with pytest.raises(ClosedError):
            publisher.publish([Message(b"late")])

    def test_c13_sending_after_close_raises(self) -> None:
        """A closed publisher does not take a batch either."""
        publisher = self.opened_publisher()
        publisher.close()
        with pytest.raises(ClosedError):
            publisher.send([Message(b"late")])

    def test_c13_receiving_after_close_raises(self) -> None:
        """A closed subscriber says so."""
        subscriber = self.opened()
        subscriber.close()
        with pytest.raises(ClosedError):
            subscriber.receive(1, max_bytes=PLENTY, timeout=self.broker.short)

    def test_c13_the_second_close_does_nothing(self) -> None:
        """Closing again, or closing what was never opened, does nothing and raises nothing."""
        for adapter in (self.opened_publisher(), self.opened(), self.broker.subscriber(self.topic)):
            adapter.close()
            adapter.close()

    def test_c14_a_missing_source_is_found_out_at_the_first_use(self) -> None:
        """A subscriber of what does not exist can be made; using it raises `NotFoundError` within 30 s."""
        url = self.broker.missing_url("source")
        if url is None:
            self.skip("has no missing source in its harness")
        subscriber = self.keep(open_subscriber(url, **self.broker.source_options))
        self._raises(NotFoundError, subscriber.open, lambda: subscriber.receive(1, max_bytes=PLENTY, timeout=25))

    def test_c14_a_missing_destination_is_found_out_at_the_first_use(self) -> None:
        """A publisher to what does not exist can be made; using it raises `NotFoundError` within 30 s."""
        url = self.broker.missing_url("destination")
        if url is None:
            self.skip("has no missing destination in its harness")
        publisher = self.keep(open_publisher(url, **self.broker.destination_options))
        self._raises(NotFoundError, publisher.open, lambda: _publish_one(publisher.publish))

    def _raises(self, kind: type[BrokerError], *calls: Callable[[], object]) -> BrokerError:
        def use() -> None:
            for call in calls:
                call()

        with pytest.raises(kind) as caught:
            Background(use).result(30.0 + self.broker.slack, f"{kind.__name__} at the first use")
        return caught.value

    def test_c15_bad_credentials_are_refused_without_showing_them(self) -> None:
        """Credentials that the broker refuses raise `AuthenticationError`, not retryable, the secret in no text."""
        bad = self.broker.bad_credentials()
        if bad is None:
            self.skip("has no bad credentials in its harness")
        url, options, secret = bad
        subscriber = self.keep(open_subscriber(url, **options))
        error = self._raises(
            AuthenticationError, subscriber.open, lambda: subscriber.receive(1, max_bytes=PLENTY, timeout=25)
        )
        shown = " ".join(map(str, (error, repr(error), repr(error.__cause__), repr(subscriber))))
        assert (error.retryable, secret in shown) == (False, False)

    def test_c16_an_unreachable_broker_is_a_retryable_failure(self) -> None:
        """A place where nobody listens raises `ConnectionFailedError` in time, the native error as its cause."""
        url = self.broker.unreachable_url()
        if url is None:
            self.skip("has no unreachable place in its harness")
        subscriber = self.keep(open_subscriber(url, **self.broker.source_options))
        error = self._raises(
            ConnectionFailedError,
            lambda: subscriber.open(timeout=5.0),
            lambda: subscriber.receive(1, max_bytes=PLENTY, timeout=5.0),
        )
        assert (error.retryable, error.__cause__ is not None) == (True, True)

    def test_c16_a_failed_receive_is_reported_at_once(self) -> None:
        """A connection that fails during `receive` is raised, not repeated in silence; the next one may succeed."""
        self.publish(b"body")
        subscriber = self.opened()
        self.fault("fail")("receive", ConnectionFailedError("an injected failure"))
        with pytest.raises(ConnectionFailedError) as caught:
            subscriber.receive(1, max_bytes=PLENTY, timeout=self.broker.patience)
        assert caught.value.retryable

    def test_c16_a_failed_publish_is_reported_at_once(self) -> None:
        """A connection that fails during `publish` is reported, not repeated in silence."""
        publisher = self.opened_publisher()
        self.fault("fail")("publish", ConnectionFailedError("an injected failure"))
        with pytest.raises(ConnectionFailedError):
            _publish_one(publisher.publish)
        self.nothing(self.opened())

    def test_c17_every_native_error_maps_as_documented(self) -> None:
        """Each error of the client becomes the class, and the retryability, that the adapter's table says."""
        table = self.broker.error_table()
        if table is None:
            self.skip("has no table of native errors in its harness")
        rows = list(table)
        got = [(type(error), type(ours := self.broker.translate(error)), ours.retryable) for error, _, _ in rows]
        assert got == [(type(error), kind, retryable) for error, kind, retryable in rows]

    def test_c17_a_translated_error_has_its_cause(self) -> None:
        """The native error stays reachable as the cause."""
        rows = list(self.broker.error_table() or ())
        if not rows:
            self.skip("has no table of native errors in its harness")
        assert [self.broker.translate(error).__cause__ is error for error, _, _ in rows] == [True] * len(rows)

    def test_c18_an_unknown_option_is_refused(self) -> None:
        """An option that the adapter does not have, in the URL or as a keyword, raises `ConfigError` at once."""
        url, options = self.broker.source(self.topic)
        mark = "&" if "?" in url else "?"
        with pytest.raises(ConfigError):
            open_subscriber(f"{url}{mark}no-such-option=1", **options)
        with pytest.raises(ConfigError):
            open_subscriber(url, **options, no_such_option=1)
        with pytest.raises(ConfigError):
            open_publisher(self.broker.destination(self.topic)[0], no_such_option=1)

    def test_c18_opening_one_url_never_alters_another(self) -> None:
        """What a URL means does not depend on what was opened before it."""
        url, options = self.broker.source(self.topic)
        before = resolve(url, options, "source")
        other, others = self.broker.source(self.fresh(), None, **(self.broker.short_lease() or {}))
        self.keep(open_subscriber(other, **others)).open(timeout=self.broker.patience)
        assert resolve(url, options, "source")[1:] == before[1:]


def _publish_one(publish: Callable[[Sequence[Message]], Sequence[object]]) -> None:
    """Publish one message and raise its error."""
    for result in publish([Message(b"x")]):
        error = getattr(result, "error", None)
        if error is not None:
            raise error


class Lives(Cases):
    """C24, C47, C48, C55 and C57: opened, closed, interrupted, left without an answer."""

    def test_c24_two_sources_do_not_mix(self) -> None:
        """Each source gives its own messages, and closing one leaves the other running."""
        other = self.fresh()
        self.publish(b"here")
        self.publish(b"there", b"there again", topic=other)
        first, second = self.opened(), self.opened(topic=other)
        got = bodies(self.take(first, 1))
        first.close()
        assert (got, sorted(bodies(self.take(second, 2)))) == (  # type: ignore[type-var]
            [b"here"], [b"there", b"there again"],
        )  # fmt: skip

    def test_c47_the_native_object_is_of_the_documented_type(self) -> None:
        """`Delivery.native` is the client's own object, of the type that the adapter documents."""
        if self.broker.native_type is None:
            self.skip("names no native type in its harness")
        self.publish(b"body")
        [got] = self.take(self.opened(), 1)
        assert isinstance(got.delivery.native, self.broker.native_type)

    @property
    def promptly(self) -> float:
        """Seconds for a call that has something to do, and no reason to take long."""
        return min(5.0, self.broker.patience)

    def test_c48_wake_ends_a_blocked_receive(self) -> None:
        """A `receive` that waits for messages returns early when it is woken, and its owner can close."""
        subscriber = self.opened()

        def own() -> None:
            subscriber.receive(1, max_bytes=PLENTY, timeout=60)
            subscriber.close(timeout=self.promptly)

        owner = Background(own)
        subscriber.wake()
        owner.result(self.promptly + self.broker.slack, "the woken receive, and close")

    def test_c48_wake_counts_before_the_next_receive_too(self) -> None:
        """A wake that comes before `receive` is not forgotten."""
        subscriber = self.opened()
        subscriber.wake()
        self.returns(self.broker.slack, lambda: subscriber.receive(1, max_bytes=PLENTY, timeout=60), "woken receive")

    def test_c48_close_keeps_its_timeout_while_a_receive_is_blocked(self) -> None:
        """`close` returns within its time-out although another thread is in a `receive`."""
        subscriber = self.opened()
        inside = threading.Event()

        def block() -> object:
            inside.set()
            return subscriber.receive(1, max_bytes=PLENTY, timeout=60)

        blocked = Background(block)
        inside.wait(self.promptly)
        self.returns(self.promptly, lambda: subscriber.close(timeout=self.promptly), "close with a receive blocked")
        subscriber.wake()
        wait_until(
            lambda: not blocked.running,
            self.promptly + self.broker.slack,
            what="the receive of a closed subscriber",
        )

    def _silent(self, call: Callable[[], object], operation: str) -> None:
        self.returns(self.broker.short, call, f"{operation} against a silent peer")

    def frozen(self, operation: str, call: Callable[[], object]) -> None:
        """Check that one call keeps its time-out while the broker answers nothing of its kind."""
        self.fault("freeze")(operation)
        self._exit.callback(self.fault("thaw"), operation)
        self.returns(self.broker.short, call, f"{operation} against a broker that does not answer")

    def test_c55_open_keeps_its_timeout(self) -> None:
        """Opening against a peer that accepts and never answers returns in time."""
        url = self.broker.silent_url()
        if url is not None:
            subscriber = self.keep(open_subscriber(url, **self.broker.source_options))
            self._silent(lambda: subscriber.open(timeout=self.broker.short), "open")
            return
        subscriber = self.keep(self.broker.subscriber(self.topic))
        self.frozen("open", lambda: subscriber.open(timeout=self.broker.short))

    def test_c55_publish_keeps_its_timeout(self) -> None:
        """Publishing to a peer that never answers returns in time."""
        url = self.broker.silent_url()
        if url is not None:
            publisher = self.keep(open_publisher(url, **self.broker.destination_options))
            self._silent(lambda: publisher.publish([Message(b"x")], timeout=self.broker.short), "publish")
            return
        publisher = self.opened_publisher()
        self.frozen("publish", lambda: publisher.publish([Message(b"x")], timeout=self.broker.short))

    def test_c55_receive_keeps_its_timeout(self) -> None:
        """Receiving from a broker that stopped to answer returns in time."""
        subscriber = self.opened()
        self.frozen("receive", lambda: subscriber.receive(1, max_bytes=PLENTY, timeout=self.broker.short))

    def test_c55_settle_keeps_its_timeout(self) -> None:
        """Settling at a broker that stopped to answer returns in time."""
        self.publish(b"held")
        subscriber = self.opened()
        held = [Settlement(verdict=Verdict.ACK, spans=[self.take(subscriber, 1)[0].span])]
        self.frozen("settle", lambda: subscriber.settle(held, durable=True, timeout=self.broker.short))

    def test_c55_extend_keeps_its_timeout(self) -> None:
        """Extending a lease at a broker that stopped to answer returns in time."""
        if self.can.lease == "none":
            return  # nothing can be extended, which C41 checks
        self.publish(b"held")
        subscriber = self.opened()
        held = self.take(subscriber, 1)[0].delivery
        self.frozen("extend", lambda: subscriber.extend([held], 10, timeout=self.broker.short))

    def test_c55_close_keeps_its_timeout(self) -> None:
        """Closing, with a message held, at a broker that stopped to answer returns in time."""
        self.publish(b"held")
        subscriber = self.opened()
        self.take(subscriber, 1)
        self.frozen("settle", lambda: subscriber.close(timeout=self.broker.short))

    def test_c57_opening_again_leaks_no_thread_and_no_file(self) -> None:
        """Opening an open subscriber again and again leaves as many threads, files and sockets as once."""
        in_use = InUse()
        subscriber = self.opened()
        self.nothing(subscriber)
        once = in_use.now()
        for _ in range(OPENINGS):
            subscriber.open(timeout=self.broker.patience)
            self.receive(subscriber, 1, 0.01)
        self.nothing(subscriber)
        # One that is open may need some more, or less, from one moment to the next; each opening leaves none.
        self._no_more_than(in_use, *[count + OPENINGS - 1 for count in once])

    def test_c57_closing_leaks_no_thread_and_no_file(self) -> None:
        """A publisher and a subscriber that were used and closed leave no thread, file or socket behind."""
        in_use = InUse()
        self._use_both()
        once = in_use.now()
        for _ in range(OPENINGS):
            self._use_both()
        self._no_more_than(in_use, *once)

    def _use_both(self) -> None:
        publisher, subscriber = self.broker.publisher(self.topic), self.broker.subscriber(self.topic)
        with publisher, subscriber:
            publisher.publish([Message(b"used")])
            self.receive(subscriber, 1, 0.01)

    def _no_more_than(self, in_use: InUse, threads: int, files: int) -> None:
        deadline = time.monotonic() + self.broker.patience
        while True:
            found = in_use.now()
            if found[0] <= threads and found[1] <= files:
                return
            if time.monotonic() > deadline:
                names = [thread.name for thread in in_use.threads()]
                pytest.fail(f"{found[0]} threads and {found[1]} files, of {threads} and {files} allowed: {names}")
            pass_time(0.05)

    def test_c57_opening_again_fences_what_was_held(self) -> None:
        """What was received before an adapter was opened again cannot be settled any more, and comes again."""
        self.publish(*numbered(3))
        subscriber = self.opened()
        held = self.take(subscriber, 3)
        lanes = {id(one.chunk.lane): one.chunk.lane for one in held}.values()
        subscriber.open(timeout=self.broker.patience)
        failures = self.ack(subscriber, held)
        assert [type(one.error) for one in failures] == [LeaseLostError] * 3
        assert [lane.lost for lane in lanes if lane is not None] == [True for lane in lanes if lane is not None]
        assert len(set(bodies(self.take(subscriber, 3)))) == 3
