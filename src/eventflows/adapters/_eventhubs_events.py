"""Events as the client's AMQP layer has read them, before the client has made anything of them.

For each event the client makes its `EventData`, with an empty message inside that it throws away, and copies what was
read into a second one: a quarter of all that receiving costs. Nobody looks at these but who asks for `native`, for
headers or for a key. So the AMQP messages are handed over as they are, in the client's own batches, and the `EventData`
of one is made when it is wanted. The private names used are why this is done only where the client's version is known
and nobody traces it; any other is read its own way, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

KNOWN: Final = ("5.15.",)
"""What versions of azure-eventhub that are known begin with."""
Event = Any
"""An `azure.eventhub.EventData`, or the AMQP message that one is made of."""
OFFSET: Final = b"x-opt-offset"


class Last:
    """The last event that was handed over; the client asks for its offset when it has to open a link again.

    Args:
        message: It.
    """

    __slots__ = ("message",)

    def __init__(self, message: Event) -> None:
        self.message = message

    @property
    def offset(self) -> str | None:
        """Where it is in its partition."""
        offset: Any = self.message.message_annotations[OFFSET]
        return offset.decode("utf-8") if isinstance(offset, bytes) else offset


def leave_unmade(client: Any) -> None:  # noqa: ANN401 - the client
    """Have a client, before it reads, hand over AMQP messages in place of its `EventData`."""
    from azure.core.settings import settings
    from azure.eventhub import __version__

    if not __version__.startswith(KNOWN):
        return
    create = client._create_consumer

    def created(*which: object, **how: object) -> Any:  # noqa: ANN401 - the client's reader of a partition
        reader = create(*which, **how)
        if settings.tracing_implementation() is None:  # or else it looks into each of them
            _hand_over(reader)
        return reader

    client._create_consumer = created


def _hand_over(reader: Any) -> None:  # noqa: ANN401 - the client's reader of a partition
    read = reader._message_buffer.popleft

    def following() -> Event:
        message = read()
        reader._last_received_event = Last(message)
        return message

    reader._next_message_in_buffer = following


def made(event: Event) -> Event:
    """Give the `EventData` of an event."""
    from azure.eventhub import EventData

    return event if isinstance(event, EventData) else EventData._from_message(event)


def sections(events: Sequence[Event]) -> tuple[list[Any], list[Any]]:
    """Give what the service noted on each, and the properties of each; None: it has none."""
    if hasattr(events[0], "message_annotations"):
        return [one.message_annotations for one in events], [one.properties for one in events]
    raw = [one.raw_amqp_message for one in events]  # the events' own properties look there, too, one by one
    return [one.annotations for one in raw], [one.properties for one in raw]
