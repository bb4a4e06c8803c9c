"""C01 to C12 and C58: what is published arrives, whole and in order, or says why not."""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventflows.errors import BrokerError, InvalidMessageError, TooLargeError
from eventflows.message import Message
from eventflows.protocols import PublishResult
from eventflows.testing.cases import Cases, Taken, bodies, numbered
from eventflows.testing.conditions import wait_until

ODD_HEADERS = {
    "x-plain": "1", "X-Case": "Kept", "a.b/c:d e": "colon, slash, space", "ünïcode": "naïve 😀 値",
    "empty": "", "lines": "one\ntwo\ttabbed", "quoted": "'\"\\%41&=;",
}  # fmt: skip
OWN_FAULT = (TooLargeError, InvalidMessageError)


def _errors(results: Sequence[PublishResult]) -> list[type[BrokerError] | None]:
    return [None if one.error is None else type(one.error) for one in results]


class Contents(Cases):
    """C01 to C07: a message survives as it is."""

    def arrives(self, message: Message) -> Message:
        """Publish one message and give what arrives."""
        self.publish(message)
        return self.take(self.opened(), 1)[0].delivery.message

    def test_c01_body_headers_key_id_and_content_type_survive(self) -> None:
        """A message arrives with the body, headers, key, id and content type that it was published with."""
        sent = Message(b"body", headers={"a": "1", "b": "2"}, key="k", id="id-1", content_type="application/json")
        got = self.arrives(sent)
        assert (got.body, dict(got.headers), got.key, got.id, got.content_type) == (
            sent.body, dict(sent.headers), sent.key, sent.id, sent.content_type,
        )  # fmt: skip

    def test_c01_a_message_without_any_of_them_has_none(self) -> None:
        """A message published with a body only arrives without key, headers of the user's and content type."""
        got = self.arrives(Message(b"body"))
        headers = [name for name in got.headers if not name.startswith("ef-")]
        assert (got.body, headers, got.content_type) == (b"body", [], None)

    def test_c02_an_empty_body_survives(self) -> None:
        """An empty body arrives empty."""
        assert self.arrives(Message(b"")).body == b""

    def test_c03_arbitrary_bytes_survive(self) -> None:
        """Bytes that are not UTF-8 arrive as they are."""
        body = bytes(range(256)) + b"\xff\xfe\xc3\x28\x00"
        assert self.arrives(Message(body)).body == body

    def test_c04_control_characters_survive(self) -> None:
        """Valid UTF-8 with control characters arrives as it is."""
        body = "".join(map(chr, range(32))).encode() + "\x7f\x85\u2028\ufffe\uffff".encode()
        assert self.arrives(Message(body)).body == body

    @pytest.mark.parametrize("body", [b' {"a": 1.0,\r\n "b": [ ] , "a": 2}\n', b"true", b"12345678", b'"text"'])
    def test_c05_a_body_that_looks_like_json_is_untouched(self, body: bytes) -> None:
        """A body that looks like JSON is neither parsed nor formatted."""
        assert self.arrives(Message(body)).body == body

    def test_c06_odd_header_names_and_values_survive(self) -> None:
        """Headers of any text arrive as they are."""
        got = self.arrives(Message(b"body", headers=ODD_HEADERS))
        assert {name: got.headers.get(name) for name in ODD_HEADERS} == ODD_HEADERS

    @pytest.mark.parametrize("headers", [{"n": 1}, {1: "n"}, {"n": b"bytes"}, {"n": None}], ids=repr)
    def test_c06_a_header_that_is_not_text_is_refused(self, headers: dict[str, str]) -> None:
        """A header whose name or value is not text is the message's own fault, known before any call."""
        publisher = self.opened_publisher()
        faults = self.broker.faults(self.topic)
        if hasattr(faults, "freeze"):
            self.fault("freeze")("publish")
            self._exit.callback(self.fault("thaw"), "publish")
        [result] = publisher.publish([Message(b"body", headers=headers)], timeout=self.broker.slack)
        assert isinstance(result.error, InvalidMessageError), f"expected a refusal, got {result!r}"

    @pytest.mark.parametrize("shape", ["count", "size"])
    def test_c07_headers_beyond_the_limit_are_packed_or_refused(self, shape: str) -> None:
        """Headers beyond the broker's limit all arrive, or the message is refused: they are never cut."""
        count = (self.can.max_headers or 200) + 1
        headers = {f"h{i}": f"v{i}" for i in range(count)} if shape == "count" else {"long": "x" * 300_000}
        [result] = self.opened_publisher().publish([Message(b"body", headers=headers)])
        subscriber = self.opened()
        if result.error is not None:
            assert isinstance(result.error, OWN_FAULT), f"expected a typed refusal, got {result.error!r}"
            self.nothing(subscriber)
            return
        got = self.take(subscriber, 1)[0].delivery.message.headers
        assert {name: got.get(name) for name in headers} == headers


class Batches(Cases):
    """C08 to C12 and C58: many at once."""

    def test_c08_a_body_at_the_limit_is_accepted(self) -> None:
        """A body as large as the broker takes arrives whole; without a limit, one of 8 MiB does."""
        body = os.urandom(1024) * ((self.broker.body_limit or 8 << 20) // 1024)
        self.publish(body)
        [got] = self.take(self.opened(), 1)
        assert (len(got.body or b""), got.body == body) == (len(body), True)

    def test_c08_one_byte_over_the_limit_sends_nothing(self) -> None:
        """A body over the limit is refused as too large, and nothing of it is sent."""
        if self.broker.body_limit is None:
            self.skip("claims no limit of the body, so none can be passed")
        [result] = self.opened_publisher().publish([Message(b"\xff" * (self.broker.body_limit + 1))])
        assert isinstance(result.error, TooLargeError), f"expected TooLargeError, got {result!r}"
        self.nothing(self.opened())

    def ordered(self, batch: list[Message]) -> None:
        """Publish one batch of one key, and check what arrives and, where keys have order, in which order."""
        results = self.opened_publisher().publish(batch, timeout=self.broker.patience)
        assert _errors(results) == [None] * len(batch)
        sent = [message.body for message in batch]
        got = bodies(self._all(len(batch)))
        if self.can.ordering == "none":
            assert sorted(got) == sorted(sent)  # type: ignore[type-var]
        else:
            assert got == sent

    def _all(self, count: int) -> list[Taken]:
        subscriber = self.opened()
        taken: list[Taken] = []
        while len(taken) < count:  # acknowledged in between: a FIFO group hands out no more before that
            more = self.take(subscriber, 1) + self.receive(subscriber, min(count - len(taken) - 1, 1000), 0.1)
            self.acked(subscriber, more)
            taken += more
        return taken

    def test_c09_a_batch_of_too_many_is_split(self) -> None:
        """A batch of more messages than one call takes arrives whole, in order."""
        self.ordered(numbered(2 * min(self.can.max_publish or 500, 500) + 1, key="one"))

    def test_c09_a_batch_of_too_many_bytes_is_split(self) -> None:
        """A batch of more bytes than one call takes arrives whole, in order."""
        size = min(self.broker.body_limit or 1 << 20, 1 << 20) * 6 // 10
        self.ordered([Message(b"%d" % number + bytes(size), key="one") for number in range(5)])

    def test_c10_one_bad_message_fails_alone(self) -> None:
        """One message that cannot be published has its error; the others arrive, results in input order."""
        bad = Message(b"bad", headers={"n": 1})  # type: ignore[dict-item]
        results = self.opened_publisher().publish([Message(b"0"), bad, Message(b"2"), bad, Message(b"4")])
        assert _errors(results) == [None, InvalidMessageError, None, InvalidMessageError, None]
        assert sorted(bodies(self.take(self.opened(), 3))) == [b"0", b"2", b"4"]  # type: ignore[type-var]

    def test_c10_an_unknown_option_is_the_fault_of_its_message(self) -> None:
        """A message with an option that the broker does not have fails alone."""
        bad = Message(b"bad", options={"no-such-option": 1})
        assert _errors(self.opened_publisher().publish([bad, Message(b"1")])) == [InvalidMessageError, None]

    def test_c10_an_empty_batch_has_no_results(self) -> None:
        """Publishing nothing gives no results and does no harm."""
        assert self.opened_publisher().publish([]) == []

    def test_c11_sixteen_threads_publish_at_once(self) -> None:
        """What sixteen threads publish through one publisher all arrives."""
        publisher = self.opened_publisher()
        share = self.broker.volume // 16

        def work(thread: int) -> list[PublishResult]:
            batches = [numbered(min(25, share - at), start=thread * share + at) for at in range(0, share, 25)]
            return [result for batch in batches for result in publisher.publish(batch)]

        with ThreadPoolExecutor(16) as threads:
            results = [result for some in threads.map(work, range(16)) for result in some]
        assert _errors(results) == [None] * len(results)
        seen: set[bytes | None] = set()
        subscriber = self.opened()
        while len(seen) < len(results) and (more := self.receive(subscriber, 1000, self.broker.patience)):
            seen |= set(bodies(more))
            self.acked(subscriber, more)
        assert len(seen) == len(results)

    def test_c12_close_flushes_what_was_sent(self) -> None:
        """What was given to `send` and confirmed is there after `close`, though nobody waited for it."""
        publisher = self.opened_publisher()
        pending = [publisher.send(numbered(20, start=at)) for at in range(0, 100, 20)]
        publisher.close(timeout=self.broker.patience)
        results = [result for one in pending for result in one.results(self.broker.patience)]
        assert _errors(results) == [None] * 100
        assert len(set(bodies(self._all(100)))) == 100

    def test_c58_a_publisher_used_before_a_fork_works_in_the_child(self) -> None:
        """A child process publishes through the publisher that its parent had in use."""
        publisher = self.opened_publisher()
        assert _errors(publisher.publish([Message(b"parent")])) == [None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the case itself
            child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                status = int(_errors(publisher.publish([Message(b"child")], timeout=5)) != [None])
            os._exit(status)
        try:
            ended = wait_until(lambda: _ended(child), self.broker.patience, what="the forked child's publish")
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        assert ended == [0], "the child could not publish"
        wanted = [b"child", b"parent"] if self.can.durable else [b"parent"]  # memory is each process's own
        assert sorted(bodies(self.take(self.opened(), len(wanted)))) == wanted  # type: ignore[type-var]

    def test_c58_eight_threads_share_one_publisher(self) -> None:
        """Eight threads that publish one message each, at once, through one publisher get their own results."""
        publisher = self.opened_publisher()
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda n: publisher.publish([Message(b"%d" % n)]), range(8)))
        assert [_errors(one) for one in results] == [[None]] * 8
        assert len(set(bodies(self.take(self.opened(), 8)))) == 8


def _ended(child: int) -> list[int]:
    pid, status = os.waitpid(child, os.WNOHANG)
    return [os.waitstatus_to_exitcode(status)] if pid else []
