"""One session after another, read by one receiver of the client: every method runs on the thread that owns it."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from eventflows.adapters._azure import OPEN
from eventflows.adapters._servicebus_errors import translate
from eventflows.adapters._servicebus_link import SLICE, Link
from eventflows.adapters._servicebus_place import Place, client_of
from eventflows.adapters._servicebus_types import Native
from eventflows.errors import BrokerError, ConnectionFailedError, LeaseLostError

SEEK: Final = 2.0  # seconds for which the service is asked to look out for a session
ATTACH: Final = 10.0  # seconds that connecting may take beside that
FETCH: Final = 16  # messages of its session that a receiver has at hand; nobody else could have them meanwhile


class SessionLink(Link):
    """A receiver of sessions. What it fetches ahead keeps its order: nothing of it is sent back one by one.

    Args:
        place: What it reads.
        options: With the credentials.
    """

    def __init__(self, place: Place, options: Mapping[str, object]) -> None:
        super().__init__(place, options)
        self.until = 0.0
        """The end of the session's lock, in `time.monotonic()` seconds."""

    def seek(self) -> str | None:
        """Lock the next session that is free and has messages; None: there is none yet.

        Raises:
            BrokerError: By its class: what to mend, or that it is worth trying again.
        """
        from azure.servicebus import NEXT_AVAILABLE_SESSION

        place = self._place
        if self._client is None:
            self._client = client_of(place, self._options, retry_total=0, try_timeout=SEEK + ATTACH)
        how: dict[str, Any] = {
            "session_id": NEXT_AVAILABLE_SESSION,
            "max_wait_time": SEEK,
            "prefetch_count": FETCH,
            "socket_timeout": SLICE,
        }
        if place.subscription is None:
            receiver = self._client.get_queue_receiver(place.entity, **how)
        else:
            receiver = self._client.get_subscription_receiver(place.entity, place.subscription, **how)
        began = time.monotonic()
        try:
            receiver.__enter__()
        except Exception as error:
            with contextlib.suppress(Exception):  # it is thrown away
                receiver.close()
            if type(error).__name__ in ("OperationTimeoutError", "SessionCannotBeLockedError") and (
                time.monotonic() - began < SEEK + ATTACH / 2
            ):
                return None
            raise translate(error, place.text, OPEN) from error
        self._receiver = receiver
        self._lock_ends()
        return str(receiver.session.session_id)

    def _lock_ends(self) -> None:
        ends: datetime.datetime = self.receiver.session.locked_until_utc
        self.until = time.monotonic() + (ends - datetime.datetime.now(datetime.UTC)).total_seconds()
        self.lock_seconds = max(self.until - time.monotonic(), 0.5)

    def _attach_again(self) -> NoReturn:
        raise LeaseLostError(f"{self._place.text} has taken the session back: the connection was lost.")

    def fetch(self, wait: float) -> list[Native]:
        """Receive what there is.

        Raises:
            LeaseLostError: The session is no longer ours.
        """
        try:
            return list(self.receiver.receive_messages(FETCH, max_wait_time=wait))
        except Exception as error:
            ours = translate(error, self._place.text, "receive")
            if isinstance(ours, (LeaseLostError, ConnectionFailedError)):
                raise LeaseLostError(str(ours)) from error
            raise ours from error

    def keep(self, timeout: float) -> BrokerError | None:
        """Renew the session's lock; gives why it was not."""
        try:
            self.receiver.session.renew_lock(timeout=max(timeout, 0.1))
        except Exception as error:  # noqa: BLE001 - the table knows it
            return translate(error, self._place.text, "extend")
        self._lock_ends()
        return None

    def leave(self) -> None:
        """Let the session go, with all that is held of it: that costs its messages no attempt."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            with contextlib.suppress(Exception):  # it is thrown away, whatever state it is in
                receiver.close()
