"""One link: credit, deliveries in pieces, attached or refused.

Source: OASIS AMQP 1.0, part 2.6 (links).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from amqp.codec import Described
from amqp.frames import Performative, error

if TYPE_CHECKING:
    from amqp.connection import Session

CREDIT: Final = 1000
MAX_MESSAGE: Final = 262_144  # of the Standard tier


class Endpoint(Protocol):
    """What a link is attached to."""

    def attached(self, link: Link) -> None:
        """The client knows that it is."""

    def transfer(self, link: Link, payload: bytes, form: int) -> Described | None:
        """Take a message; gives its outcome, None to leave it without an answer."""

    def credited(self, link: Link) -> None:
        """The client wants messages."""

    def settle(self, link: Link, tag: bytes, state: Described) -> Described | None:
        """Hear what becomes of a delivery; gives the answer, None to give none."""

    def detached(self, link: Link) -> None:
        """It is gone."""


class Link:
    """One link, seen from here: `sends` when the client receives.

    Args:
        session: Its session.
        asked: The client's `attach`.
    """

    def __init__(self, session: Session, asked: Performative) -> None:
        self.session = session
        self.asked = asked
        self.name = str(asked.name)
        self.handle = int(asked.handle)
        self.sends = bool(asked.role)
        self.endpoint: Endpoint | None = None
        self.credit = 0
        self.refused = False
        self.alive = True
        self.cut = False
        """Whether its connection ended, and neither side had closed it."""
        self._count = 0 if self.sends else int(asked.initial_delivery_count or 0)
        self._pieces = bytearray()
        self._first: Performative | None = None

    @property
    def address(self) -> str:
        """Where the client wants to read from or write to."""
        place = self.asked.source if self.sends else self.asked.target
        return str(place.value[0]) if isinstance(place, Described) and place.value else ""

    @property
    def filters(self) -> dict[str, Any]:
        """The filters of the source, by name."""
        place = self.asked.source
        fields = place.value if isinstance(place, Described) else []
        return dict(fields[7] or {}) if len(fields) > 7 else {}

    @property
    def properties(self) -> dict[str, Any]:
        """The client's properties of the link, by name."""
        return dict(self.asked.properties or {})

    @property
    def settles_first(self) -> bool:
        """Whether what we send is settled already (receive and delete)."""
        return bool(self.asked.snd_settle_mode == 1)

    # From us.

    def accept(
        self,
        endpoint: Endpoint,
        *,
        source: object = None,
        properties: dict[Any, Any] | None = None,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        """Attach it.

        Args:
            endpoint: What to.
            source: In place of the source asked for.
            properties: Of the link, told to the client.
            max_message: Bytes of the largest message.
        """
        self.endpoint = endpoint
        said = self._echo(max_message_size=max_message, properties=properties)
        said.source = self.asked.source if source is None else source
        said.target = self.asked.target
        self.session.send(said)
        endpoint.attached(self)
        if not self.sends:
            self.grant()

    def _echo(self, **more: object) -> Performative:
        said = Performative("attach", name=self.name, handle=self.handle, role=not self.sends, **more)
        said.snd_settle_mode, said.rcv_settle_mode = self.asked.snd_settle_mode, self.asked.rcv_settle_mode
        said.initial_delivery_count = 0 if self.sends else None
        said.role = not self.asked.role
        return said

    def refuse(self, condition: str, text: str) -> None:
        """Refuse it, as the service does: attached to nothing, then detached with the error."""
        self.refused = True
        self.session.send(self._echo())
        self.session.send(Performative("detach", handle=self.handle, closed=True, error=error(condition, text)))

    def detach(self, condition: str, text: str = "") -> None:
        """Detach it, with an error."""
        self.gone()
        self.refused = True  # the client's own detach is the answer to ours
        self.session.send(Performative("detach", handle=self.handle, closed=True, error=error(condition, text)))

    def gone(self, *, cut: bool = False) -> None:
        """Let go of what it was attached to."""
        if self.alive:
            self.alive, self.cut = False, cut
            self.session.forget(self)
            if self.endpoint is not None:
                self.endpoint.detached(self)

    def send(self, payload: bytes, *, tag: bytes = b"", settled: bool = True, form: int = 0) -> None:
        """Send one message; takes one credit."""
        self.credit -= 1
        self._count += 1
        self.session.deliver(self, payload, tag=tag, settled=settled, form=form)

    def grant(self) -> None:
        """Let the client send."""
        self.credit = CREDIT
        self.session.flow(handle=self.handle, delivery_count=self._count % 2**32, link_credit=CREDIT, drain=False)

    # From the client.

    def flowed(self, said: Performative) -> None:
        """Hear the client's credit."""
        if not self.sends or self.endpoint is None or not self.alive:
            return
        if said.link_credit is not None:
            self.credit = int(said.delivery_count or 0) + int(said.link_credit) - self._count
            self.endpoint.credited(self)
        if said.drain:
            self._count += max(self.credit, 0)
            self.credit = 0
        if said.drain or said.echo:
            self.session.flow(
                handle=self.handle, delivery_count=self._count, link_credit=self.credit, drain=bool(said.drain)
            )

    def arrived(self, said: Performative, payload: bytes) -> None:
        """Take a piece of a message, and the message with its last piece."""
        if self._first is None:
            self._first = said
        self._pieces += payload
        if said.more:
            return
        first, whole = self._first, bytes(self._pieces)
        self._first, self._pieces = None, bytearray()
        if said.aborted or self.endpoint is None or not self.alive:
            return
        self._count += 1
        self.credit -= 1
        self.session.connection.broker.faults.unless_frozen(
            getattr(self.endpoint, "writes_to", None), lambda: self._take(first, whole)
        )

    def _take(self, first: Performative, whole: bytes) -> None:
        if self.endpoint is None:
            return
        outcome = self.endpoint.transfer(self, whole, int(first.message_format or 0))
        if not self.alive:
            return
        faults = self.session.connection.broker.faults
        if outcome is not None and not first.settled and not faults.muted(getattr(self.endpoint, "writes_to", None)):
            faults.later(lambda: self.session.settle(int(first.delivery_id), outcome, sent=False))
        if self.credit < CREDIT // 2:
            self.grant()
