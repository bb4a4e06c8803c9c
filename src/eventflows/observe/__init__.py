"""What happened: the `Observer`, and how the core tells several of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from eventflows.message import Chunk, Delivery, Lane
from eventflows.policy import Verdict

_log: Final = logging.getLogger("eventflows")


class Observer:
    """Learns what happens in a flow; subclass it and write the methods you want.

    All arguments are keywords. Methods are called from the flow's own threads, so they return
    soon; what they raise is logged once and changes nothing. An event that nobody wrote a method
    for costs nothing. No event carries a body in text; take it from the delivery if you must.
    """

    def received(self, *, flow: str, chunk: Chunk) -> None:
        """Messages were taken."""

    def started(self, *, flow: str, delivery: Delivery) -> None:
        """`apply` is about to be called."""

    def finished(self, *, flow: str, delivery: Delivery, seconds: float, error: BaseException | None) -> None:
        """`apply` returned, or failed with `error`."""

    def published(self, *, flow: str, destination: str, count: int) -> None:
        """The destination confirmed so many messages."""

    def settled(self, *, flow: str, verdict: Verdict, count: int) -> None:
        """So many deliveries got their last word."""

    def retried(self, *, flow: str, delivery: Delivery, attempt: int, delay: float, error: BaseException) -> None:
        """An attempt failed; the next comes in `delay` seconds."""

    def dead_lettered(
        self,
        *,
        flow: str,
        delivery: Delivery,
        reason: str,
        attempts: int,
        error: BaseException | None,
        to: str,
    ) -> None:
        """A message was put where a person can look, or dropped (`to` is "drop")."""

    def discarded(self, *, flow: str, delivery: Delivery, count: int, reason: str) -> None:
        """So many outputs of a delivery were not published, because it is not ours any more."""

    def lease_lost(self, *, flow: str, deliveries: Sequence[Delivery]) -> None:
        """The broker took deliveries back, as was found out at one time; they come again."""

    def lane_lost(self, *, flow: str, lane: Lane) -> None:
        """A claim ended; what was held of it comes again, elsewhere perhaps."""

    def gap(self, *, flow: str, lane: Lane, first: str, last: str) -> None:
        """Messages from `first` to `last` are gone from the source; they were never seen."""

    def reconnecting(self, *, flow: str, place: str, error: BaseException, delay: float) -> None:
        """A source or destination failed; it is tried again in `delay` seconds."""

    def halted(self, *, flow: str, position: str | None, reason: str) -> None:
        """The flow stops, because a message could not be handled and has no place to go."""


class Observers:
    """Several observers as one.

    Args:
        flow: Given to every method.
        observers: Told in this order.
    """

    def __init__(self, flow: str, observers: Sequence[Observer]) -> None:
        self._flow = flow
        self._told: dict[str, list[Callable[..., None]]] = {}
        self._complained: set[object] = set()
        for name in (name for name in vars(Observer) if not name.startswith("_")):
            methods = [
                getattr(observer, name)
                for observer in observers
                if getattr(type(observer), name, None) not in (None, getattr(Observer, name))
            ]
            if methods:
                self._told[name] = methods

    def listens(self, event: str) -> bool:
        """Say whether anybody wants this event, so that nobody builds it in vain."""
        return event in self._told

    def tell(self, event: str, **what: Any) -> None:  # noqa: ANN401 - as the methods of Observer say
        """Tell everybody who wants it; an observer that raises changes nothing."""
        for method in self._told.get(event, ()):
            try:
                method(flow=self._flow, **what)
            except Exception as error:  # noqa: BLE001 - an observer must not change what is observed
                if method not in self._complained:
                    self._complained.add(method)
                    _log.warning(
                        "flow %s: an observer's %s() raised %s; further ones of it are not logged.",
                        self._flow,
                        event,
                        type(error).__name__,
                    )
