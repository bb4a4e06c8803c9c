"""What `emulate=` narrows the embedded broker to: capabilities and limits of the real brokers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from eventflows.errors import BrokerError, InvalidMessageError, TooLargeError
from eventflows.message import Message
from eventflows.protocols import Capabilities, Location

MIB: Final = 1024 * 1024

_LOG: Final = Capabilities(
    settle="watermark",
    ordering="lane",
    groups=True,
    replay=True,
    durable=False,
    peek="free",
    max_publish_bytes=MIB,
)
_QUEUE: Final = Capabilities(
    settle="message",
    redeliver=True,
    release="counts",
    delivery_count=True,
    lease="message",
    durable=False,
)


@attrs.frozen(kw_only=True)
class Profile:
    """One broker, as far as the embedded one can play it."""

    name: str
    """The value of `emulate=`."""
    capabilities: Capabilities
    lease: float = 0.0
    """Seconds of a lease where the source does not say; 0: there are none."""
    fixed_lease: bool = False
    """Whether an extension always gives the lease's own length, whatever is asked for."""
    max_deliveries: int | None = None
    """After so many deliveries the broker itself makes a dead letter of a message; None: never."""
    max_name: int | None = None
    """Characters of a key or an id; None: no limit."""
    tombstones: bool = False
    """Whether a body may be None."""

    @property
    def log(self) -> bool:
        """Whether it has partitions, offsets and positions."""
        return self.capabilities.settle == "watermark"

    @property
    def refused(self) -> set[str]:
        """The options of `local://` that have no meaning here."""
        refused = {"retain"} | ({"lease"} if self.log else {"group", "partitions"})
        return refused if self.capabilities.dead_letter else refused | {"dead-letter"}

    def fault(self, message: Message) -> BrokerError | None:
        """Say what the broker would refuse in a message; None: nothing."""
        if not isinstance(message.body, bytes) and not (message.body is None and self.tombstones):
            what = "no tombstone (a body of None)" if message.body is None else f"no {type(message.body).__name__}"
            return InvalidMessageError(f"{self.name} takes {what} as a body; publish bytes instead.")
        if message.options:
            return InvalidMessageError(
                f"local:// with emulate={self.name} has no message option {sorted(message.options)[0]!r}."
            )
        if self.capabilities.needs_key and not message.key:
            return InvalidMessageError(f"{self.name} needs a key for every message here: a FIFO queue has groups.")
        texts = [*message.headers, *message.headers.values()]
        texts += [text for text in (message.key, message.id, message.content_type) if text is not None]
        try:
            size = len(message.body or b"") + sum([len(text.encode("utf-8")) for text in texts])
        except (AttributeError, UnicodeEncodeError):
            return InvalidMessageError(
                "headers, key, id and content type are text that UTF-8 can write; one of them is not."
            )
        limit = self.capabilities.max_publish_bytes
        if limit is not None and size > limit:
            return TooLargeError(
                f"a message of {size} bytes, body, key and headers together; {self.name} takes {limit}."
            )
        longest = max(len(message.key or ""), len(message.id or ""))
        if self.max_name is not None and longest > self.max_name:
            return InvalidMessageError(f"a key or id of {longest} characters; {self.name} takes {self.max_name}.")
        return None


KAFKA: Final = Profile(name="kafka", capabilities=_LOG, tombstones=True)
"""Source: Apache Kafka, broker configuration: message.max.bytes is 1 MiB and a little by default."""

EVENTHUBS: Final = Profile(name="eventhubs", capabilities=_LOG, max_name=128)
"""Source: Azure Event Hubs quotas: 1 MB for one publication, 128 characters of a partition key."""

SQS: Final = Profile(
    name="sqs",
    capabilities=attrs.evolve(
        _QUEUE,
        redeliver_delay=43_200.0,
        lease_limit=43_200.0,
        peek="counts",
        max_receive=10,
        max_publish=10,
        max_publish_bytes=MIB,
    ),
    lease=30.0,
)
"""Source: Amazon SQS quotas: ten messages and 1 MiB in a call, a visibility timeout of 30 s and at most 12 h."""

SQS_FIFO: Final = attrs.evolve(
    SQS, capabilities=attrs.evolve(SQS.capabilities, ordering="lane", needs_key=True), max_name=128
)
"""Source: Amazon SQS developer guide, FIFO queues: a group is blocked while one of its messages is in flight."""

SERVICEBUS: Final = Profile(
    name="servicebus",
    capabilities=attrs.evolve(_QUEUE, dead_letter=True, peek="free", max_publish_bytes=256 * 1024),
    lease=60.0,
    fixed_lease=True,
    max_deliveries=10,
    max_name=128,
)
"""Source: Azure Service Bus quotas, Standard tier: 256 KB, ten deliveries, ids and keys of 128 characters."""

_BY_NAME: Final = {"kafka": KAFKA, "eventhubs": EVENTHUBS, "sqs": SQS, "servicebus": SERVICEBUS}
NAMES: Final = tuple(_BY_NAME)
LOGS: Final = frozenset(name for name, profile in _BY_NAME.items() if profile.log)


def profile_of(location: Location, options: Mapping[str, object]) -> Profile | None:
    """Find what a URL emulates; None: the embedded broker is itself."""
    name = options.get("emulate")
    if name is None:
        return None
    if name == "sqs" and location.authority.endswith(".fifo"):
        return SQS_FIFO
    return _BY_NAME[str(name)]
