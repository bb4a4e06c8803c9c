"""One receiver of the client: every method runs on the thread that owns it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from eventflows.adapters._azure import OPEN
from eventflows.adapters._owner import close_all
from eventflows.adapters._servicebus_errors import translate
from eventflows.adapters._servicebus_held import lease_of
from eventflows.adapters._servicebus_place import Place, client_of
from eventflows.adapters._servicebus_types import Client, Native, Receiver
from eventflows.errors import BrokerError, ConnectionFailedError, LeaseLostError, OutcomeUnknownError
from eventflows.message import Chunk
from eventflows.policy import Settlement, Verdict

LONGEST_REASON: Final = 4096  # characters of a dead letter's reason, and of its description ("Dead-letter queues")
SLICE: Final = 0.02  # seconds of one call of the client while there is work, and of one read of its socket
AT_ONCE: Final = 1e-9  # seconds, over before the client looks: it gives what it has, and asks for nothing
PLENTY: Final = 10_000  # messages, more than the client ever has at hand
GOODBYE: Final = 0.25
"""Seconds to say goodbye. Closing takes the client up to a second more, in which it waits for a thread of its own that
sleeps; nobody has to wait for that with it."""
IDLE_SLICE: Final = 0.1  # seconds of one call while nothing comes: how late `wake` may be heard


@attrs.define(eq=False)
class Word:
    """A verdict on one message, and the answer to it."""

    native: Native
    settlement: Settlement
    chunk: Chunk
    index: int
    answered: bool = False
    error: BrokerError | None = None


class _Always(threading.Event):
    """An event that stays set."""

    def __init__(self) -> None:
        super().__init__()
        self.set()

    def clear(self) -> None:
        """Leave it set."""


class Link:
    """A receiver of one queue or subscription.

    It lets the service send so many messages as the last `poll` asked for, and no more: what comes after a poll has
    returned is at hand for the next one, and counts in it.

    Args:
        place: What it reads.
        options: With the credentials.
    """

    def __init__(self, place: Place, options: Mapping[str, object]) -> None:
        self._place = place
        self._options = options
        self._client: Client | None = None
        self._receiver: Receiver | None = None
        self._busy = False
        self.lock_seconds = 60.0
        """Length of a lock, as far as seen: the service's default until one is."""

    @property
    def receiver(self) -> Receiver:
        """The client's own."""
        assert self._receiver is not None  # noqa: S101 - opened before anything is asked of it
        return self._receiver

    def open(self, timeout: float) -> None:
        """Connect, show a token, attach."""
        place = self._place
        # Retries are the core's. A short read of the socket lets settling and receiving alternate quickly; the client
        # heeds it where it is given to the receiver (7.15.0).
        client = client_of(place, self._options, retry_total=0, try_timeout=max(timeout, 0.1))
        kind: dict[str, Any] = {"socket_timeout": SLICE, **({"sub_queue": "deadletter"} if place.dead else {})}
        if place.subscription is None:
            receiver = client.get_queue_receiver(place.entity, **kind)
        else:
            receiver = client.get_subscription_receiver(place.entity, place.subscription, **kind)
        self._client, self._receiver = client, receiver
        # Set only within a call of `receive_messages`; a message that comes beside one, as while another is settled,
        # would be sent back, and come again, and be sent back: several times for each message of a busy queue (7.15.0).
        receiver._receive_context = _Always()
        try:
            receiver.__enter__()
        except Exception as error:
            raise translate(error, place.text, OPEN) from error

    def rest(self) -> list[Native]:
        """Give what came since the last poll, without asking for more; nothing, where the link is lost."""
        try:
            return self._at_hand(PLENTY)
        except Exception:  # noqa: BLE001 - the next poll meets it, and says so
            return []

    def _attach_again(self) -> None:
        """Attach anew after the link was lost; what is held is then settled by its lock, while that lasts.

        After an error the client has let its link go, and takes a word on a message only once it has another.
        """
        try:
            self.receiver.__enter__()
        except Exception as error:
            raise translate(error, self._place.text, OPEN) from error

    def poll(self, most: int, deadline: float, woken: threading.Event, *, holding: bool) -> list[Native]:
        """Receive up to `most`; gives what there is as soon as there is some.

        A lost link is attached again once while messages are held: opening anew would cost them their locks.
        """
        try:
            return self._poll(most, deadline, woken)
        except ConnectionFailedError:
            if not holding:
                raise
            self._attach_again()
            return []

    def _poll(self, most: int, deadline: float, woken: threading.Event) -> list[Native]:
        try:
            got = self._at_hand(most)
            while not got:
                left = max(deadline - time.monotonic(), 0.005)
                # While nothing comes one message is asked for, which ends the call as it comes.
                count, wait = (most, min(left, SLICE)) if self._busy else (1, min(left, IDLE_SLICE))
                got = list(self.receiver.receive_messages(count, max_wait_time=wait))
                self._busy = bool(got)
                if woken.is_set() or time.monotonic() >= deadline:
                    break
        except Exception as error:
            raise translate(error, self._place.text, "receive") from error
        if got:
            self.lock_seconds = max(lease_of(got[-1]) - time.monotonic(), 0.5)
        return got

    def _at_hand(self, most: int) -> list[Native]:
        """Give what came since the last poll; nothing is asked of the service."""
        return list(self.receiver.receive_messages(most, max_wait_time=AT_ONCE))

    def settle(self, words: Sequence[Word], deadline: float) -> None:
        """Say each word, until the time is over."""
        for word in words:
            if time.monotonic() >= deadline:
                return
            word.error = self._said(word)
            if isinstance(word.error, ConnectionFailedError):
                try:
                    self._attach_again()
                except BrokerError as error:
                    word.error = error
                else:
                    word.error = self._said(word)
            word.answered = True

    def _said(self, word: Word) -> BrokerError | None:
        try:
            self._say(word)
        except Exception as error:  # noqa: BLE001 - the table knows it
            return translate(error, self._place.text, "settle")
        return None

    def _say(self, word: Word) -> None:
        verdict, said = word.settlement.verdict, word.settlement
        if verdict is Verdict.ACK:
            self.receiver.complete_message(word.native)
        elif verdict is Verdict.DEAD_LETTER:
            self.receiver.dead_letter_message(
                word.native, reason=said.reason[:LONGEST_REASON], error_description=said.detail[:LONGEST_REASON]
            )
        else:
            self.receiver.abandon_message(word.native)

    def renew(self, natives: Sequence[Native], deadline: float) -> list[BrokerError | None]:
        """Renew locks; gives why each was not."""
        answers: list[BrokerError | None] = []
        for native in natives:
            left = deadline - time.monotonic()
            if left <= 0:
                answers.append(OutcomeUnknownError(f"{self._place.text}: no time was left to renew; try again."))
                continue
            try:
                self.receiver.renew_message_lock(native, timeout=left)
                answers.append(None)
            except Exception as error:  # noqa: BLE001 - the table knows it
                answers.append(translate(error, self._place.text, "extend"))
        return answers

    def peek(self, limit: int, first: int, timeout: float) -> Sequence[Native]:
        """Look at messages from a sequence number on."""
        try:
            found: Sequence[Native] = self.receiver.peek_messages(limit, sequence_number=first, timeout=timeout)
        except Exception as error:
            raise translate(error, self._place.text, "peek") from error
        return found

    def hand_back(self, held: Sequence[Native]) -> None:
        """Hand back what is held; where there is no connection to be had, the locks end by themselves."""
        with contextlib.suppress(BrokerError):
            for native in held:
                self._hand_back(native)

    def close(self) -> None:
        """Say goodbye: what the client has at hand and gave to nobody is released by it, at no cost."""
        close_all(self._receiver, self._client)

    def _hand_back(self, native: Native) -> None:
        for again in (True, False):
            try:
                self.receiver.abandon_message(native)
            except Exception as error:
                ours = translate(error, self._place.text, "release")
                if isinstance(ours, LeaseLostError):
                    return
                if not again:
                    raise ours from error
                self._attach_again()
            else:
                return
